# SPDX-License-Identifier: Apache-2.0
"""What does a person see? Clean line integrals with their noise, and a window that does not flicker."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.noise import NoiseLaw
from fluoronav.enhance.work import Work
from fluoronav.imaging.frame import Frame, Intensity
from fluoronav.imaging.intensity import FLOOR, I0_PERCENTILE
from registration.geometry import Array, read_only

LOW, HIGH = 0.5, 99.5  # percentiles of the line integrals shown as white and black
MARGIN = 0.06  # of the window, on both sides
PACE = 0.08  # share of a new frame in the window: settles within a second at 15 frames/s
JUMP = 0.5  # of the window: a larger change is followed at once, it is another picture
SAMPLED = 128  # pixels a side that percentiles are taken of, at least
LEAST_WIDTH = 0.02  # a flat picture is shown flat, not as blown-up noise


@dataclass(frozen=True, slots=True)
class DisplayState:
    """Window in line integrals, and the unattenuated signal in use (above dark)."""

    low: float
    high: float
    i0: float | None
    i0_source: str


class Display:
    """Stage: line integrals, their standard deviation, and grey pictures of the clean and the raw frame."""

    name = "display"

    def step(self, state: DisplayState | None, item: Work) -> tuple[DisplayState, Work]:
        """Adds values, line_integrals, sigma, display, raw_display, i0 and relative to the item."""
        law, frame, clean, variance = item.law, item.frame, item.clean, item.variance
        assert law is not None and clean is not None and variance is not None
        stated = variance if item.stated is None else item.stated
        i0, source = _unattenuated(frame, clean, law, state)
        p_table, s_table = _tables(law, frame, i0)
        raw = _raw_table(frame.intensity, i0, law.forward.size)
        step = max(1, min(clean.shape) // SAMPLED)
        some = kernels.lookup(np.ascontiguousarray(clean[::step, ::step]), p_table, law.start, law.step)
        low, high = _window(some[frame.valid[::step, ::step]], state)
        pixels = np.ascontiguousarray(frame.pixels)
        raw_display = kernels.taken(pixels, kernels.window(raw[None], low, high)[0])
        # contrast is for the eye and for files; what is measured stays what it was
        shown = clean if item.shown is None else item.shown
        values, p, sigma, display = kernels.picture(clean, stated, shown, law.restore, p_table, s_table, law.start,
                                                    law.step, low, high)
        if item.fresh is None:  # nothing was denoised: the raw frame, bit for bit
            p = np.take(raw, pixels)
            if item.shown is None:
                values, display = pixels.astype(np.float32), raw_display
        return DisplayState(low, high, i0, source), replace(
            item, values=values, line_integrals=p, sigma=sigma, display=display, raw_display=raw_display, i0=i0,
            i0_source=source, relative=frame.intensity.kind != "linear", carm=frame.carm, valid=frame.valid,
            window=(low, high), p_table=p_table)


@functools.lru_cache(maxsize=4)
def _raw_table(meaning: Intensity, i0: float | None, entries: int) -> Array:
    """Line integrals (float32) of every stored value."""
    return read_only(line_integral_of(np.arange(entries, dtype=np.float64), meaning, i0), np.float32)


def line_integral_of(values: Array, law: Intensity, i0: float | None) -> Array:
    """Line integrals (relative ones where the data is not linear) of values in stored units."""
    if law.kind == "linear":
        return -np.log(np.maximum(values - law.dark, FLOOR) / (i0 or 1.0))
    full = float((1 << law.bits) - 1)
    return (full - values) / full if law.dense == "dark" else values / full


def _tables(law: NoiseLaw, frame: Frame, i0: float | None) -> tuple[Array, Array]:
    """Line integral and standard deviation (of one frame) at the nodes of the law."""
    values = law.restore.astype(np.float64)
    p = line_integral_of(values, frame.intensity, i0)
    if frame.intensity.kind == "linear":
        slope = 1 / np.maximum(values - frame.intensity.dark, FLOOR)
    else:
        slope = np.full(values.shape, 1 / ((1 << frame.intensity.bits) - 1))
    return p.astype(np.float32), (law.sigma * slope).astype(np.float32)


def _unattenuated(frame: Frame, clean: Array, law: NoiseLaw, state: DisplayState | None) -> tuple[float | None, str]:
    """(i0 above dark, where it is from); an estimate is followed slowly, so that pictures do not flicker."""
    meaning = frame.intensity
    if meaning.kind != "linear":
        return None, "none"
    if meaning.i0 is not None and meaning.i0 > 0:
        return float(meaning.i0), meaning.i0_source
    inside = clean[::4, ::4][frame.valid[::4, ::4]]
    brightest = float(np.percentile(inside, I0_PERCENTILE)) if inside.size else law.start
    found = max(float(np.interp(brightest, law.nodes(), law.restore)) - meaning.dark, 1.0)
    if state is None or state.i0 is None or abs(found / state.i0 - 1) > 0.2:
        return found, "estimated"
    return state.i0 * (found / state.i0) ** PACE, "estimated"


def _window(inside: Array, state: DisplayState | None) -> tuple[float, float]:
    """(low, high) of the window after a frame with these line integrals."""
    if inside.size < 16:
        return (state.low, state.high) if state is not None else (0.0, 1.0)
    low, high = (float(x) for x in np.percentile(inside, (LOW, HIGH)))
    width = max(high - low, LEAST_WIDTH)
    middle = (low + high) / 2
    low, high = middle - width * (0.5 + MARGIN), middle + width * (0.5 + MARGIN)
    if state is None or max(abs(low - state.low), abs(high - state.high)) > JUMP * (state.high - state.low):
        return low, high
    return state.low + PACE * (low - state.low), state.high + PACE * (high - state.high)
