# SPDX-License-Identifier: Apache-2.0
"""How did it go, for whoever was not there? One HTML page that stands alone and prints well."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluoronav.files import write_whole
from fluoronav.session.book import OUTCOMES
from fluoronav.session.plots import plots, seconds
from fluoronav.session.session import Session
from fluoronav.session.shown import Shown
from fluoronav.session.summary import summary
from registration.errors import BadInput
from registration.geometry import Array

if TYPE_CHECKING:
    from fluoronav.case import Case
    from fluoronav.session.verify import Verification

MOST_EVENTS = 150  # rows of the table; the rest is counted
STILL_PX = 560
EPOCH_NS = 10**17  # smaller time stamps count from the start of a run
Progress = Callable[[float, str], None]


def write_report(session: Session, folder: str | Path, verification: Verification | None = None, *,
                 case: Case | None = None, progress: Progress | None = None) -> Path:
    """Write report.html into a folder (made where it is not there) and return its path.

    case: for the anatomy on the stills, where the session does not carry it. Raises BadInput where the folder
    cannot be written.
    """
    import jinja2

    told = progress or (lambda share, text: None)
    told(0.1, "figures")
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined).get_template("report.html.j2")
    figures = summary(session)
    told(0.2, "plots")
    drawn = plots(session)
    told(0.5, "stills")
    page = template.render(
        headline=headline(figures, verification), figures=figures, cards=_cards(figures), plots=drawn,
        stills=_stills(session, case), events=_events(session), about=_about(session),
        verification=None if verification is None else verification.to_json(), recovered=session.recovered)
    told(0.9, "writing")
    path = Path(folder) / "report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode())
    except OSError as error:
        raise BadInput(f"report folder {Path(folder).name}", got=error.strerror or str(error),
                       expected="a folder that can be written", remedy="choose another folder") from None
    return path


def headline(figures: Mapping[str, Any], verification: Verification | None) -> str:
    """One sentence that a physician understands."""
    n = figures["frames"]
    if n == 0:
        return "No frame was recorded."
    accepted, error = figures["outcomes"]["ACCEPTED"], figures["projected_error_mm"]
    parts = [f"Registered in {100 * accepted / n:.1f} % of {n:,} frames"]
    if error["n"]:
        parts.append(f"expected error {error['median']:.1f} mm median, {error['max']:.1f} mm at worst")
    parts.append(f"{_count(figures['drops'])} dropped")
    if figures["not_recorded"]:
        parts.append(f"{_count(figures['not_recorded'])} not recorded")
    if verification is not None:
        word = "identical" if verification.mode == "bits" else "within bounds"
        parts.append(f"replay {word}" if verification.identical
                     else f"replay differs in {_count(len(verification.differing))}")
    return "; ".join(parts) + "."


def _count(n: int) -> str:
    return f"{n:,} frame" + ("" if n == 1 else "s")


def _cards(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures to be read first: name, value with its unit, what it counts."""
    n = figures["frames"]
    stated, depth, latency = figures["projected_error_mm"], figures["expected_error_mm"], figures["latency_ms"]
    true, true_3d, dose = figures["target_projected_error_mm"], figures["target_error_mm"], figures["dose_ugy"]
    cards = [
        ("Registered", f"{100 * figures['outcomes']['ACCEPTED'] / n:.1f} %" if n else "-", f"n = {n:,} frames"),
        ("Expected error in the picture", _pair(stated, "median", "max", "mm", "at worst"), _n(stated, "95 % bounds")),
        ("Expected error in space", _pair(depth, "median", "max", "mm", "at worst"), _n(depth, "95 % bounds"))]
    if true["n"]:
        share = figures["within_bound_projected"]["share"]
        cards.append(("True error in the picture", _pair(true, "median", "p95", "mm", "95 %"),
                      _n(true, f"{100 * share:.1f} % within the stated bound" if share is not None else "")))
        share = figures["within_bound_3d"]["share"]
        cards.append(("True error in space", _pair(true_3d, "median", "p95", "mm", "95 %"),
                      _n(true_3d, f"{100 * share:.1f} % within the stated bound" if share is not None else "")))
    cards += [
        ("Time to answer a frame", _pair(latency, "median", "p95", "ms", "95 %", digits=0), _n(latency, "")),
        ("Pace", f"{figures['fps']:.1f} frames/s", f"{figures['seconds']:.1f} s, {figures['drops']:,} dropped"),
        ("Dose as stated", f"{dose['sum']:.1f} µGy" if dose["n"] else "not stated",
         _n(dose, f"{dose['median']:.2f} µGy a frame") if dose["n"] else "by the source")]
    return [{"name": a, "value": b, "note": c} for a, b, c in cards]


def _pair(spread: Mapping[str, Any], first: str, second: str, unit: str, word: str, digits: int = 1) -> str:
    if not spread["n"]:
        return "none stated"
    return f"{spread[first]:.{digits}f} {unit} median, {spread[second]:.{digits}f} {unit} {word}"


def _n(spread: Mapping[str, Any], more: str) -> str:
    return ", ".join(filter(None, (f"n = {spread['n']:,} frames", more)))


# --------------------------------------------------------------------------------------------------
# Stills


def chosen(session: Session) -> list[tuple[str, int]]:
    """(what it is, frame) of the stills: best, median and worst stated bound, the largest true error, a frame that
    was not registered."""
    t = session.rows
    bound = np.where(t["outcome"] == OUTCOMES.index("ACCEPTED"), t["projected_mm"], np.inf)
    order = np.argsort(bound, kind="stable")
    n = int(np.isfinite(bound).sum())
    out: list[tuple[str, int]] = []
    if n:
        out = [("best", int(order[0])), ("median", int(order[n // 2])), ("worst", int(order[n - 1]))]
    if np.isfinite(t["true_projected_mm"]).any():
        largest = int(np.nanargmax(t["true_projected_mm"]))
        if largest not in [k for _, k in out]:
            out.append(("largest true error", largest))
    missed = np.flatnonzero(t["outcome"] != OUTCOMES.index("ACCEPTED"))
    if len(missed):
        out.append(("not registered", int(missed[len(missed) // 2])))
    return out


def _stills(session: Session, case: Case | None) -> list[dict[str, str]]:
    """Stills with their overlay as data URIs, in the order of `chosen`."""
    if case is None:
        try:
            case = session.case()
        except BadInput:
            case = None  # each still says that no anatomy could be drawn
    shown, out = Shown(session, case), []
    at = seconds(session) if session.frame_count else np.empty(0)
    for what, k in chosen(session):
        try:
            step = shown.step(k)
        except BadInput as error:
            out.append({"what": what, "uri": "", "text": f"frame {k} cannot be shown: {error}", "why": ""})
            continue
        row = session.rows[k]
        parts = [f"frame {k + 1:,} of {session.frame_count:,}", f"{at[k]:.1f} s"]
        if np.isfinite(row["projected_mm"]) and step.registration.error is not None:
            parts.append(f"±{row['projected_mm']:.1f} mm stated")
        if np.isfinite(row["true_projected_mm"]):
            parts.append(f"{row['true_projected_mm']:.1f} mm true")
        missing = [b for b in step.badges if "no anatomy" in b]
        registered = step.registration.outcome.value == "ACCEPTED"
        out.append({"what": what, "uri": _uri(step.picture), "text": ", ".join(parts),
                    "why": "; ".join(missing) if registered else step.registration.why})
    return out


def _uri(picture: Array) -> str:
    """A picture as a JPEG data URI of STILL_PX pixels at its longer side, marked as enhanced on its face."""
    import cv2

    scale = STILL_PX / max(picture.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    face = np.ascontiguousarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=how)[:, :, ::-1])
    for grey, width in ((0, 6), (255, 2)):
        cv2.putText(face, "ENHANCED", (12, face.shape[0] - 14), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (grey, grey, grey),
                    width, cv2.LINE_AA)
    done, data = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise BadInput("still", got="a picture that cannot be coded", expected="JPEG", remedy="report this")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


# --------------------------------------------------------------------------------------------------
# Tables


def _events(session: Session) -> dict[str, Any]:
    """The first MOST_EVENTS events as rows, and how many of each kind there were."""
    at = seconds(session) if session.frame_count else np.empty(0)
    rows = [{"time": f"{at[min(e['index'], len(at) - 1)]:.2f}" if len(at) else "-", "frame": f"{e['index'] + 1:,}",
             "kind": e["kind"], "text": e["text"]} for e in session.events[:MOST_EVENTS]]
    counts = Counter(e["kind"] for e in session.events)
    return {"rows": rows, "counts": dict(counts.most_common()), "all": len(session.events),
            "left": max(0, len(session.events) - MOST_EVENTS)}


def _about(session: Session) -> dict[str, Any]:
    """What was recorded, with which program and settings, and the digests by which it is known again."""
    about, n = session.about, session.frame_count
    case = about["case"]
    first_ns = int(session.rows["time_ns"][0]) if n else 0
    rows = [("Case", f"{case['name']}, checksum {case['checksum']}" if case else "none"),
            ("Source", about["source"]), ("Session", about["session"]), ("Program", f"fluoronav {about['program']}"),
            ("Recorded", f"{n:,} frames in {session.duration_s:.1f} s"),
            ("Digest of all records", session.record(n - 1)["chain"] if n else "none")]
    if first_ns > EPOCH_NS:
        rows.insert(4, ("First frame", datetime.fromtimestamp(first_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")))
    return {"rows": rows, "case_name": case["name"] if case else "no case",
            "settings": _flat(about["settings"]), "fingerprint": _flat(about["fingerprint"])}


def _flat(value: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Names and values of nested settings, a line each."""
    out: list[tuple[str, str]] = []
    for name, one in value.items():
        if isinstance(one, Mapping):
            out += _flat(one, f"{before}{name}.")
        elif isinstance(one, list) and all(isinstance(v, str) for v in one):
            out.append((before + name, ", ".join(one)))
        else:
            out.append((before + name, one if isinstance(one, str) else json.dumps(one)))
    return out
