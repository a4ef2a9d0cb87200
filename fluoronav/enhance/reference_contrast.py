# SPDX-License-Identifier: Apache-2.0
"""What must the compiled contrast kernel compute? The same formulas in numpy (see native/contrast.cpp)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fluoronav.enhance.reference import blur3, smoothstep
from registration.geometry import Array

LEVELS = 4
WHITE = (0.794, 0.0404, 0.00737, 0.00174)  # variance of the detail of white noise of unit variance
LOW, HIGH = 4.0, 9.0
GAIN, PAST = 1.6, 2.0
SAMPLED = (16, 8, 4, 2)
RANGED = 2  # the level on whose grid ranges are taken


def contrast(y: Array, v: Array, floors: Array, strength: float) -> tuple[Array, float, float, float, float]:
    """(picture with its supported details raised, lower quartile of E on each level)."""
    picture, variance, added, quartiles = y, v, [], []
    top = low = y
    for level in range(LEVELS):
        mean = blur5(picture)
        detail = picture - mean
        energy = blur3(detail**2) / (np.float32(WHITE[level]) * variance)
        every = SAMPLED[level]
        sampled = np.sort(energy[::every, ::every], axis=None)
        quartiles.append(float(sampled[sampled.size // 4]))
        added.append(GAIN * strength * smoothstep(energy / np.float32(floors[level]), LOW, HIGH) * detail)
        picture, variance = mean[::2, ::2], _halved(variance, np.mean)
        if level < RANGED:
            top, low = _halved(top, np.max), _halved(low, np.min)
            ranged = picture
    wide = picture
    total = np.zeros_like(added[-1])
    for level in range(LEVELS - 1, -1, -1):
        shape = added[level].shape
        wide = _expanded(wide, shape)
        total = added[level] + (_expanded(total, shape) if level < LEVELS - 1 else 0)
    top, low = (_expanded(bound, added[1].shape) for bound in _ranges(ranged, top, low))
    top, low = (b.repeat(2, axis=0).repeat(2, axis=1)[: y.shape[0], : y.shape[1]] - y for b in (top, low))
    most = strength * (y - wide)
    out = y + np.clip(total, np.maximum(np.minimum(most, 0), np.minimum(low, 0)),
                      np.minimum(np.maximum(most, 0), np.maximum(top, 0)))
    return (out.astype(np.float32), *quartiles)


def blur5(picture: Array) -> Array:
    """5x5 binomial mean, borders repeated."""
    taps = np.array([1, 4, 6, 4, 1], np.float32) / 16
    return np.asarray(cv2.sepFilter2D(picture, -1, taps, taps, borderType=cv2.BORDER_REPLICATE), np.float32)


def _ranges(picture: Array, top: Array, low: Array) -> tuple[Array, Array]:
    """What may be reached: the extremes of 7x7 pixels, and past them on the side of the minority."""
    box = np.ones((7, 7), np.uint8)
    high = cv2.dilate(top, box, borderType=cv2.BORDER_REPLICATE)
    below = cv2.erode(low, box, borderType=cv2.BORDER_REPLICATE)
    skew = PAST * (high + below - 2 * cv2.blur(picture, (7, 7), borderType=cv2.BORDER_REPLICATE))
    return high + np.clip(skew, 0, high - below), below + np.clip(skew, below - high, 0)


def _halved(picture: Array, how: Callable[..., Array]) -> Array:
    """Mean or extremes of 2x2 pixels, borders repeated."""
    rows, columns = picture.shape
    p = np.pad(picture, ((0, rows % 2), (0, columns % 2)), mode="edge")
    return np.asarray(how(np.stack([p[::2, ::2], p[::2, 1::2], p[1::2, ::2], p[1::2, 1::2]]), axis=0), np.float32)


def _expanded(picture: Array, shape: tuple[int, ...]) -> Array:
    """Linear between the pixels, which lie on the even ones of the finer level."""
    rows, columns = (np.arange(n) / 2 for n in shape)
    r, c = rows.astype(int), columns.astype(int)
    p = np.pad(picture, ((0, 1), (0, 1)), mode="edge")
    fr, fc = (rows - r)[:, None], (columns - c)[None]
    top = (1 - fc) * p[r][:, c] + fc * p[r][:, c + 1]
    below = (1 - fc) * p[r + 1][:, c] + fc * p[r + 1][:, c + 1]
    return np.asarray((1 - fr) * top + fr * below, np.float32)
