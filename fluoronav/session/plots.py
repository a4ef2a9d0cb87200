# SPDX-License-Identifier: Apache-2.0
"""What did the session look like over time? Plots as SVG text, to stand inside a page without other files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fluoronav.session.book import OUTCOMES
from fluoronav.session.session import Session
from registration.geometry import Array

MOST_POINTS = 1500  # a column: more would not be seen on paper and makes the page slow
INK, QUIET, STATED, TRUE = "#1b1f24", "#6b7480", "#1f77b4", "#b5179e"
STATES = {"ACCEPTED": ("registered", "#2e9e6b"), "AMBIGUOUS": ("uncertain", "#e0a100"), "LOST": ("lost", "#d1242f")}
_STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
          "axes.spines.right": False, "axes.edgecolor": QUIET, "axes.labelcolor": INK, "xtick.color": QUIET,
          "ytick.color": QUIET, "text.color": INK, "axes.titlesize": 10, "axes.titleweight": "bold",
          "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8, "axes.grid": True,
          "grid.color": "#e6e9ed", "grid.linewidth": 0.6, "lines.linewidth": 1.1}


def plots(session: Session) -> list[dict[str, str]]:
    """[{"name", "svg", "text"}]: error, confidence, time a frame takes, exposure and dose; `text` says what is seen
    to whoever cannot see it."""
    if session.frame_count == 0:
        return []
    made: list[tuple[str, Callable[[Any, Session], str], float]] = [
        ("error", _error, 2.5), ("confidence", _confidence, 2.2), ("latency", _latency, 1.9),
        ("exposure", _exposure, 3.2)]
    return [{"name": name, **_drawn(name, draw, session, height)} for name, draw, height in made]


def seconds(session: Session) -> Array:
    """Seconds since the first frame."""
    t = session.rows["time_ns"]
    return (t - t[0]) / 1e9


def _drawn(name: str, draw: Callable[[Any, Session], str], session: Session, height_in: float) -> dict[str, str]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.4, height_in), layout="constrained")
        said = draw(figure, session)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg"):]
    # several drawings in one page: names inside each must not meet those of another
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return {"svg": svg, "text": said}


def _error(figure: Any, session: Session) -> str:
    """Stated 95 % bound in the picture's plane as a band, true error over it where it was recorded."""
    t, axes = session.rows, figure.add_subplot()
    accepted = t["outcome"] == OUTCOMES.index("ACCEPTED")
    bound = np.where(accepted, t["projected_mm"], np.nan)
    n, truths = int(np.isfinite(bound).sum()), int(np.isfinite(t["true_projected_mm"]).sum())
    x, band = thinned(seconds(session), bound, np.nanmax)
    axes.fill_between(x, 0, band, color=STATED, alpha=0.22, linewidth=0,
                      label=f"stated: 95 % of errors lie in this band (n = {n:,})")
    axes.plot(x, band, color=STATED, linewidth=0.8)
    if truths:
        x, true = thinned(seconds(session), t["true_projected_mm"], np.nanmax)
        axes.plot(x, true, color=TRUE, label=f"true error (n = {truths:,})")
    # a single wild value must not flatten all others; it is cut off and said
    known = np.concatenate([bound[np.isfinite(bound)], t["true_projected_mm"][np.isfinite(t["true_projected_mm"])]])
    top = 1.15 * float(np.percentile(known, 99.5)) if known.size else 1.0
    axes.set_ylim(0, max(top, 0.1))
    axes.set(title="Error at the target, in the picture's plane", xlabel="time, s", ylabel="mm",
             xlim=_span(session))
    if n or truths:
        axes.legend(loc="upper right", ncols=2)
    else:
        axes.text(0.5, 0.5, "no frame was registered", transform=axes.transAxes, ha="center", color=QUIET)
    over = int((known > top).sum())
    if over:
        axes.text(0.005, 0.95, f"{over} values above {top:.1f} mm", transform=axes.transAxes, va="top", fontsize=8,
                  color=QUIET)
    return f"Stated 95 % bound over time, n = {n:,} registered frames; true error of {truths:,} frames."


def _confidence(figure: Any, session: Session) -> str:
    """Outcome as a band, similarity under it."""
    t, x = session.rows, seconds(session)
    band, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 4))
    edges = np.append(x, 2 * x[-1] - x[-2] if len(x) > 1 else x[-1] + 1)
    for k, name in enumerate(OUTCOMES):
        label, color = STATES[name]
        mask = t["outcome"] == k
        starts, stops = _runs(mask)
        # height as well as color tells the state
        height = {"ACCEPTED": 1.0, "AMBIGUOUS": 0.6, "LOST": 0.3}[name]
        band.broken_barh([(edges[a], edges[b] - edges[a]) for a, b in zip(starts, stops, strict=True)], (0, height),
                         color=color, linewidth=0, label=f"{label}: {int(mask.sum()):,}")
    band.set(ylim=(0, 1), yticks=[])
    band.spines["left"].set_visible(False)
    band.grid(False)
    band.set_title(f"Outcome (n = {len(t):,} frames)")
    band.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)
    similarity = np.where(t["outcome"] == OUTCOMES.index("ACCEPTED"), t["similarity"], np.nan)
    n = int(np.isfinite(similarity).sum())
    axes.set(xlabel="time, s", ylabel=f"similarity\n(no unit, n = {n:,})", xlim=_span(session))
    if n:
        axes.plot(*thinned(x, similarity, np.nanmin), color=INK)
    else:
        axes.text(0.5, 0.5, "no frame was registered", transform=axes.transAxes, ha="center", color=QUIET)
    return "; ".join(f"{STATES[name][0]} {int((t['outcome'] == k).sum()):,}" for k, name in enumerate(OUTCOMES))


def _latency(figure: Any, session: Session) -> str:
    """Milliseconds that the answer to a frame took."""
    values, axes = session.rows["latency_ms"], figure.add_subplot()
    known = values[np.isfinite(values)]
    p50, p95 = (float(np.percentile(known, q)) if known.size else 0.0 for q in (50, 95))
    x, y = thinned(seconds(session), values, np.nanmax)
    axes.plot(x, y, color=INK, linewidth=0.8)
    for value, label, style in ((p50, "median", "-"), (p95, "95 %", "--")):
        axes.axhline(value, color=STATED, linestyle=style, linewidth=1, label=f"{label} {value:.0f} ms")
    axes.set(title=f"Time to answer a frame (n = {known.size:,} frames)", xlabel="time, s", ylabel="ms",
             xlim=_span(session), ylim=(0, max(1.3 * p95, 1.0)))
    axes.legend(loc="upper right", ncols=2)
    return f"Median {p50:.0f} ms, 95 % below {p95:.0f} ms, n = {known.size:,} frames."


def _exposure(figure: Any, session: Session) -> str:
    """Tube voltage and charge a frame; kerma a frame and summed, as the device stated it."""
    t = session.rows
    tube, axes = figure.subplots(2, 1, sharex=True)
    shown, said = _pair(tube, session, ("kvp", "kV", t["kvp"]), ("mas", "mAs a frame", t["mas"]))
    tube.set(title=f"Exposure (n = {shown:,} frames)", xlim=_span(session))
    dose = t["dose_ugy"]
    total = np.where(np.isfinite(dose).any(), np.nancumsum(dose), np.nan)
    shown, more = _pair(axes, session, ("dose", "µGy a frame", dose), ("sum", "µGy summed", total))
    axes.set(title=f"Dose as the device stated it (n = {shown:,} frames)", xlabel="time, s", xlim=_span(session))
    return f"{said} {more}"


def _pair(axes: Any, session: Session, left: tuple[str, str, Array], right: tuple[str, str, Array]) -> tuple[int, str]:
    """Two quantities over time, the second dashed on the right axis; the number of frames that state the first."""
    n, lines, said = int(np.isfinite(left[2]).sum()), [], []
    for place, (_, unit, values) in ((axes, left), (axes.twinx(), right)):
        known = values[np.isfinite(values)]
        if known.size == 0:
            place.set_yticks([])
            continue
        dashed = place is not axes
        lines += place.plot(*thinned(seconds(session), values, np.nanmax), color=TRUE if dashed else INK,
                            linestyle="--" if dashed else "-", label=unit)
        place.set_ylabel(unit)
        place.set_ylim(0, max(1.35 * float(known.max()), 1e-6))
        if dashed:
            place.spines["right"].set_visible(True)
            place.grid(False)
        said.append(f"{unit}: at most {float(known.max()):.3g}.")
    if lines:
        axes.legend(lines, [line.get_label() for line in lines], loc="upper left", ncols=2)
    else:
        axes.text(0.5, 0.5, "the source does not state it", transform=axes.transAxes, ha="center", color=QUIET)
    return n, " ".join(said) or "Not stated."


def thinned(x: Array, y: Array, keep: Callable[..., Any]) -> tuple[Array, Array]:
    """At most MOST_POINTS points: of each block the value that `keep` chooses (the worst, not the mean); a block in
    which nothing is known stays a gap."""
    if len(x) <= MOST_POINTS:
        return x, y
    edges = np.linspace(0, len(x), MOST_POINTS + 1).astype(int)
    out = np.full(MOST_POINTS, np.nan)
    for k in range(MOST_POINTS):
        block = y[edges[k]:edges[k + 1]]
        if np.isfinite(block).any():
            out[k] = keep(block[np.isfinite(block)])
    return x[edges[:-1]], out


def _runs(mask: Array) -> tuple[Array, Array]:
    """Half-open stretches (starts, stops) in which a mask holds."""
    edge = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)


def _span(session: Session) -> tuple[float, float]:
    x = seconds(session)
    return float(x.min()), max(float(x.max()), float(x.min()) + 1e-3)
