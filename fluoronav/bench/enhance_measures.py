# SPDX-License-Identifier: Apache-2.0
"""What is measured of a denoised run? Structural similarity, noise spectrum, temporal transfer, calibration.

Pure functions of pictures; which pictures, the other files of the bench say.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from registration.geometry import Array

NPS_BANDS = (0.0, 0.08, 0.2, 0.5)  # cycles a pixel: what looks like blotches, like grain, like salt
BLOCK = 64  # pixels a side of the blocks whose spectra are averaged


def similarity(a: Array, b: Array, span: float) -> Array:
    """Structural similarity of each pixel (rows, columns), -1..1; span: of the values of a picture.

    Source: Wang et al., IEEE TIP 13(4), 2004: Gaussian window of 1.5 pixels, K1 = 0.01, K2 = 0.03.
    """
    def mean(x: Array) -> Array:
        return cv2.GaussianBlur(np.asarray(x, np.float64), (11, 11), 1.5)

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    ma, mb = mean(a), mean(b)
    va, vb, ab = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    return np.asarray((2 * ma * mb + c1) * (2 * ab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)), np.float64)


def noise_spectrum(noise: Array) -> tuple[Array, Array]:
    """(frequencies in cycles a pixel, power) around rings: noise (frames, rows, columns) of mean zero.

    Blocks of 64 pixels that overlap by half, without their means (IEC 62220-1 in small). Power in units squared
    times pixels squared: white noise of variance v has power v at every frequency.
    """
    f = np.hypot(np.fft.fftfreq(BLOCK)[:, None], np.fft.fftfreq(BLOCK)[None])
    total, count = np.zeros((BLOCK, BLOCK)), 0
    for picture in noise:
        for r in range(0, picture.shape[0] - BLOCK + 1, BLOCK // 2):
            for c in range(0, picture.shape[1] - BLOCK + 1, BLOCK // 2):
                block = picture[r: r + BLOCK, c: c + BLOCK].astype(np.float64)
                total += np.abs(np.fft.fft2(block - block.mean())) ** 2 / BLOCK**2
                count += 1
    rings = np.arange(1, BLOCK // 2 + 1) / BLOCK
    ring = np.rint(f * BLOCK).astype(int)
    power = np.array([(total / max(count, 1))[ring == k].mean() for k in range(1, BLOCK // 2 + 1)])
    return rings, power


def banded(frequencies: Array, power: Array) -> Array:
    """Mean power in each of the NPS_BANDS."""
    return np.array([power[(frequencies > low) & (frequencies <= high)].mean() for low, high in pairwise(NPS_BANDS)])


def transfer_in_time(response: Sequence[float]) -> tuple[float, float]:
    """Temporal MTF at a quarter and a half of the frame rate from a step response: what a filter shows of a pixel's
    change in the frame in which it comes, one later, two later, ... (1 = all); what comes after is taken as settled."""
    steps = np.diff(np.concatenate([[0.0], np.asarray(response, np.float64)]))
    total = steps.sum() or 1.0
    k = np.arange(steps.size)
    quarter, half = (abs(np.sum(steps * np.exp(-2j * np.pi * f * k)) / total) for f in (0.25, 0.5))
    return float(quarter), float(half)


def ence(errors: Array, sigmas: Array, bins: int = 10) -> float:
    """Expected normalized calibration error: |RMS error - RMS sigma| over RMS sigma, mean over bins of sigma.

    Source: Levi et al., Sensors 22(15), 2022.
    """
    parts = np.array_split(np.argsort(sigmas, kind="stable"), bins)
    stated = np.array([np.sqrt((sigmas[p] ** 2).mean()) for p in parts])
    real = np.array([np.sqrt((errors[p] ** 2).mean()) for p in parts])
    return float(np.mean(np.abs(real - stated) / stated))
