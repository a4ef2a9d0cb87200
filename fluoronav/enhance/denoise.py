# SPDX-License-Identifier: Apache-2.0
"""How does noise go without taking a moving wire along? A temporal filter that doubts itself where lines change.

The filter of native/denoise.cpp runs in the scale of unit noise. Its thresholds are in units of what
noise alone does to the same statistics, measured on the difference of the first frames, because detectors
and displays correlate their noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.noise import quiet_mean, quiet_median
from fluoronav.enhance.work import Work
from registration.geometry import Array

# what white noise of unit variance does (10^6 samples; a test repeats it)
WHITE_EVIDENCE, WHITE_LINE, WHITE_POINT = 0.2847, 0.4440, 0.6017
WHITE_LEFT, WHITE_KEPT = 0.45, 0.30
MEDIAN_OF_NORMAL = 0.6745  # median magnitude over standard deviation
CALIBRATED = 384  # pixels a side: enough blocks to find quiet ones, and bounded time
MOST_CORRELATED = 1.7  # above it a statistic is taken as spoiled by motion, not as noise
REMAPPED = 0.15  # variance added where the state was moved by the flow: interpolation is not free
BLOCKS = 64  # a side at least, of 8 pixels or more, whose means tell a change of exposure
LEVELS = 12  # of brightness, each with its own shift
STEP = 0.35  # noise units: a common shift of the levels above it is a change of exposure
COMMON = 2.0  # times the spread of the blocks of a level: a shift that they share


@dataclass(frozen=True, slots=True)
class DenoiseSettings:
    """floor: least weight of the new frame (0.07: noise 0.19 in time alone); gate_*: evidence of change, in units
    of the median that noise alone gives, at which the filter begins to doubt and is sure; detail_*: the
    same for the spatial part; detail_least: share of the detail that always stays."""

    floor: float = 0.07
    gate_low: float = 3.1
    gate_high: float = 3.9
    detail_low: float = 1.6
    detail_high: float = 2.6
    detail_least: float = 0.25


@dataclass(frozen=True, slots=True)
class Calibration:
    """What noise alone does: medians of evidence, line and point detail; `left`: variance after the spatial
    part; `kept`: mean share of the detail that it keeps."""

    evidence: float = WHITE_EVIDENCE
    line: float = WHITE_LINE
    point: float = WHITE_POINT
    left: float = WHITE_LEFT
    kept: float = WHITE_KEPT
    frames: int = 0


@dataclass(frozen=True, slots=True)
class DenoiseState:
    """mean and variance of every pixel (unit of one frame's noise), calibration, last frame while learning."""

    mean: Array
    variance: Array
    calibration: Calibration
    previous: Array | None


class Remembered(Protocol):
    """What the states of all denoisers have."""

    @property
    def mean(self) -> Array:
        """Mean of every pixel."""

    @property
    def variance(self) -> Array:
        """Its variance in units of one frame's noise."""


class Denoise:
    """Stage: motion-gated, motion-compensated recursion in time, and a line-preserving part in space."""

    name = "denoise"

    def __init__(self, settings: DenoiseSettings | None = None) -> None:
        self.settings = settings or DenoiseSettings()

    def step(self, state: DenoiseState | None, item: Work) -> tuple[DenoiseState, Work]:
        """Adds `clean`, `variance`, `fresh` and `mean` to the item."""
        y = item.stabilized
        assert y is not None
        calibration = state.calibration if state is not None else Calibration()
        badges = item.badges
        if state is None:
            mean, variance = y, np.full_like(y, item.excess)
            clean, left, _ = kernels.spatial(y, variance, rules_of(calibration, self.settings, item.excess))
        else:
            before, doubt = self.before(state, item)
            if state.previous is not None and item.excess == 1 and item.law_before is None:
                calibration = calibrated(calibration, y, state.previous, item.frame.valid, self.settings)
            before, stepped = exposure_followed(before, y, item.frame.valid)
            if stepped:
                badges = (*badges, "exposure step followed")
            mean, variance, clean, left = kernels.denoised(
                y, before, doubt, rules_of(calibration, self.settings, item.excess), item.flow, item.trusted, item.cell)
        learning = y if calibration.frames < 4 and item.excess == 1 else None
        return (DenoiseState(mean, variance, calibration, learning),
                replace(item, clean=clean, variance=left, fresh=variance, mean=mean, badges=badges))

    def before(self, state: Remembered, item: Work) -> tuple[Array, Array]:
        """State mean in the present law's scale, and the state's variance."""
        if item.law_before is None or item.law is None:
            return state.mean, state.variance
        before, stored = item.law_before, np.arange(item.law.forward.size)
        table = np.interp(np.interp(before.nodes(), before.forward, stored), stored, item.law.forward)
        mean = kernels.lookup(state.mean, table.astype(np.float32), before.start, before.step)
        ratio = float(np.median(item.law_before.sigma) / np.median(item.law.sigma)) ** 2
        return mean, state.variance * np.float32(ratio)


def rules_of(c: Calibration, s: DenoiseSettings, excess: float = 1.0) -> Array:
    """The numbers of `Rules` in native/denoise.hpp, in their order."""
    return np.array([excess, 1 / c.evidence, 1 / c.line, 1 / c.point, s.gate_low, s.gate_high, s.floor, REMAPPED,
                     s.detail_low, s.detail_high, s.detail_least, c.left, c.kept], np.float32)


def exposure_followed(mean: Array, y: Array, valid: Array) -> tuple[Array, bool]:
    """(the state's levels moved by the common shift at each level, whether there was one).

    A change of exposure moves the blocks of a level by the same amount; what moves does not. Means of blocks of
    pixels, so that sorting by level does not pick noise.
    """
    block = max(8, max(y.shape) // BLOCKS)
    old, new = kernels.pooled(mean, block), kernels.pooled(y, block)
    down, across = (np.minimum(np.arange(n) * block + block // 2, size - 1)
                    for n, size in zip(old.shape, y.shape, strict=True))
    pick = valid[down[:, None], across]
    old, change = old[pick], (new - old)[pick]
    # half of the levels must have moved, and a level whose median has moved has half of its blocks moved
    if old.size < 64 or np.count_nonzero(np.abs(change) > STEP) < old.size // LEVELS // 2 * (LEVELS // 2):
        return mean, False
    order = np.argsort(old, kind="stable")[: old.size // LEVELS * LEVELS].reshape(LEVELS, -1)
    centers, shifts = old[order].mean(axis=1, dtype=np.float64), np.median(change[order], axis=1).astype(np.float64)
    spread = np.median(np.abs(change[order] - shifts[:, None]), axis=1)
    if np.mean((np.abs(shifts) > STEP) & (np.abs(shifts) > COMMON * spread)) < 0.5:
        return mean, False
    centers = np.maximum.accumulate(centers + 1e-6 * np.arange(centers.size))
    return mean + np.interp(mean, centers, shifts).astype(np.float32), True


def calibrated(old: Calibration, y: Array, previous: Array, valid: Array, settings: DenoiseSettings) -> Calibration:
    """The calibration with one more difference of frames, over the middle of the picture, in its running mean."""
    middle = middle_of(y.shape)
    change = (y[middle] - previous[middle]) / np.float32(np.sqrt(2))
    valid = valid[middle]
    none = np.zeros_like(change)
    whole = quiet_median(change, valid) or 1.0
    near, along, _ = kernels.parts(change)
    evidence = quiet_median(kernels.evidence(change, none, none, 1.0), valid) / whole * MEDIAN_OF_NORMAL
    line = _bounded(quiet_median(along, valid) / whole * MEDIAN_OF_NORMAL, WHITE_LINE)
    point = _bounded(quiet_median(change - near, valid) / whole * MEDIAN_OF_NORMAL, WHITE_POINT)
    rules = rules_of(Calibration(line=line, point=point), settings)
    clean, _, kept = kernels.spatial(change, none + np.float32((whole / MEDIAN_OF_NORMAL) ** 2), rules)
    found = {"evidence": _bounded(evidence, WHITE_EVIDENCE), "line": line, "point": point,
             "left": min(quiet_mean(clean**2, valid) / (whole / MEDIAN_OF_NORMAL) ** 2, 1.0),
             "kept": quiet_mean(kept, valid)}
    share = 1 / (old.frames + 1)
    mixed = {key: (1 - share) * getattr(old, key) + share * value for key, value in found.items()}
    return Calibration(**mixed, frames=old.frames + 1)


def middle_of(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The middle of a picture, CALIBRATED pixels a side at most."""
    return tuple(slice(max((n - CALIBRATED) // 2, 0), max((n - CALIBRATED) // 2, 0) + CALIBRATED) for n in shape)


def _bounded(value: float, white: float) -> float:
    return min(max(value, 0.6 * white), MOST_CORRELATED * white)
