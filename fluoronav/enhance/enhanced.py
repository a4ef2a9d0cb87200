# SPDX-License-Identifier: Apache-2.0
"""What comes out of the enhancement chain: line integrals with their noise, and a picture to see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration.geometry import Array, CArm


@dataclass(frozen=True, slots=True)
class Heads:
    """What a person may switch while it runs: denoise and what is asked for beyond it (see ChainSettings)."""

    denoise: bool = True
    contrast: float = 0.0
    superres: bool = False
    stabilise: bool = False


# of white noise of unit variance: variance of its 5x5 binomial mean, and covariance of both
NEAR_VARIANCE, NEAR_COVARIANCE = (70 / 256) ** 2, (6 / 16) ** 2


@dataclass(frozen=True, slots=True)
class Shares:
    """What the denoiser did, in the grid of the frame (before any head moved or divided pixels).

    variance after and fresh before its spatial part, in units of one frame's noise (the latter is also the weight
    of the new frame in time: a Kalman filter's gain is its variance); weights (3, rows, columns) of the pixel, its
    line and its wide surroundings, where they were mixed.
    """

    variance: Array
    fresh: Array
    weights: Array | None

    def parts(self) -> Array:
        """(3, rows, columns) float32, sum 1: how much of a pixel is from now, from its surroundings, from before."""
        if self.weights is not None:
            own = self.weights[0]
        else:  # the share of its own detail that leaves so much of the variance
            left = np.clip(self.variance / self.fresh, NEAR_VARIANCE, 1)
            square, line = 1 - 2 * NEAR_COVARIANCE + NEAR_VARIANCE, NEAR_COVARIANCE - NEAR_VARIANCE
            kept = (np.sqrt(line**2 + square * (left - NEAR_VARIANCE)) - line) / square
            own = kept + (1 - kept) * NEAR_COVARIANCE
        now = np.clip(self.fresh, 0, 1) * own
        return np.stack([now, 1 - own, own - now]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Enhanced:
    """One enhanced frame; `carm` belongs to these pixels (stabilising moves both).

    line_integrals (rows, columns) float32, no unit, higher = denser; `relative` where they are only
    defined up to scale and offset (display, log and subtracted data). sigma (rows, columns) float32:
    standard deviation of the line integrals. display (rows, columns) uint8 after window/level,
    dense = dark. raw_display: the same window on the untouched frame. flow (cells down, cells
    across, 2) float32, px, (du, dv) from the previous frame to this one of cells of `cell` x `cell` pixels, or None.
    valid: bool mask.
    i0: unattenuated signal used (above dark), i0_source where it is from. badges: what is degraded, in words.
    values (rows, columns) float32: the clean signal in the frame's stored units, unbiased (contrast raised where
    that was asked for). shift_px: (du, dv) by which stabilising moved the content. shares: where a pixel is from.
    heads: what was on.
    """

    line_integrals: Array
    sigma: Array
    display: Array
    raw_display: Array
    flow: Array | None
    carm: CArm | None
    valid: Array
    relative: bool
    i0: float | None
    i0_source: str
    badges: tuple[str, ...] = ()
    values: Array | None = None
    shift_px: tuple[float, float] = (0.0, 0.0)
    shares: Shares | None = None
    heads: Heads = Heads()
    cell: int = 1
