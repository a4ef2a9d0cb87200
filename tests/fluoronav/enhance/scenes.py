# SPDX-License-Identifier: Apache-2.0
"""Counts with known truth for the tests of the chain: a smooth body, a wire, Poisson and electronic noise."""

from __future__ import annotations

import numpy as np

from fluoronav.imaging.frame import Exposure, Frame, Intensity

I0, DARK, GAIN, ELECTRONIC = 3000.0, 50.0, 2.0, 6.0
STATED = Intensity("linear", "dark", 14, i0=I0, i0_source="measured", dark=DARK, gain=GAIN,
                   electronic=ELECTRONIC)


def body(side: int = 192) -> np.ndarray:
    """Line integrals of something smooth, 0.6 to 2.4."""
    v, u = np.mgrid[:side, :side]
    return 1.5 + 0.5 * np.sin(u / 40) + 0.4 * np.cos(v / 30)


def wire_at(side: int, column: float, depth: float = 0.35) -> np.ndarray:
    """Line integral of a 2-pixel wire, a little slanted, that meets the middle row at a column."""
    v, u = np.mgrid[:side, :side]
    return depth * np.clip(1.5 - np.abs(u - column - 0.2 * (v - side / 2)), 0, 1)


def counts(p: np.ndarray, random: np.random.Generator, dose: float = 1.0) -> np.ndarray:
    """Detector counts of line integrals, with noise var = gain (mean - dark) + electronic^2."""
    mean = dose * I0 * np.exp(-p)
    noisy = random.poisson(mean / GAIN) * GAIN + random.normal(0, ELECTRONIC, p.shape) + DARK
    return np.clip(np.rint(noisy), 0, (1 << 14) - 1).astype(np.uint16)


def frame(pixels: np.ndarray, k: int = 0, intensity: Intensity = STATED) -> Frame:
    """Frame k at 15 frames/s, without geometry."""
    return Frame(pixels, k, k * 66_666_667, None, None, Exposure(), intensity, np.ones(pixels.shape, bool), "test")
