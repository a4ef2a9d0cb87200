# SPDX-License-Identifier: Apache-2.0
"""What must the compiled contrast kernel compute? The same formulas in numpy (see native/contrast.cpp)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from fluoronav.enhance.reference import blur3, smoothstep
from registration.geometry import Array

LEVELS = 4
WHITE = (0.794, 0.0404, 0.00737, 0.00174)  # variance of the detail of white noise of unit variance
LOW, HIGH = 4.0, 9.0
GAIN, PAST = 1.6, 2.0
Choose = Callable[[Array, Array], Array]
SAMPLED = (16, 8, 4, 2)
RANGED = 2  # the level on whose grid ranges are taken


@dataclass(frozen=True, slots=True)
class Bands:
    """details: of each level, times their support 0..1; energies: of each level over that of noise (floors not taken
    off); low, high (rows, columns): range of the surroundings less the picture; most: the picture less the mean of the
    coarsest level. What is added lies between nothing and strength times `most`, and within the range.
    fine (7, rows / 4, columns / 4), coarse (2, rows / 8, columns / 8): what is told to who chooses gains."""

    details: list[Array]
    energies: list[Array]
    low: Array
    high: Array
    most: Array
    fine: Array
    coarse: Array


def contrast(y: Array, v: Array, floors: Array, strength: float,
             choose: Choose | None = None) -> tuple[Array, float, float, float, float]:
    """(picture with its supported details raised, lower quartile of E on each level); choose: gains (4, rows / 4,
    columns / 4) of the levels from `told` of the bands; 1 where nobody chooses."""
    bands = bands_of(y, v, floors)
    gains = None if choose is None else choose(bands.fine, bands.coarse)
    quartiles = []
    for level, energy in enumerate(bands.energies):
        every = SAMPLED[level]
        sampled = np.sort(energy[::every, ::every], axis=None)
        quartiles.append(float(sampled[sampled.size // 4]))
    total = np.zeros_like(bands.details[-1])
    for level in range(LEVELS - 1, -1, -1):
        own = GAIN * strength * bands.details[level]
        if gains is not None:
            own = own * gain_on(gains[level], level, own.shape)
        total = own + (_expanded(total, own.shape) if level < LEVELS - 1 else 0)
    most = strength * bands.most
    out = y + np.clip(total, np.maximum(np.minimum(most, 0), np.minimum(bands.low, 0)),
                      np.minimum(np.maximum(most, 0), np.maximum(bands.high, 0)))
    return (out.astype(np.float32), *quartiles)


def bands_of(y: Array, v: Array, floors: Array) -> Bands:
    """What may be raised of a picture, and how far."""
    picture, variance, details, energies, plain = y, v, [], [], []
    top = low = y
    for level in range(LEVELS):
        mean = blur5(picture)
        detail = picture - mean
        plain.append(detail)
        energies.append(blur3(detail**2) / (np.float32(WHITE[level]) * variance))
        details.append(smoothstep(energies[level] / np.float32(floors[level]), LOW, HIGH) * detail)
        picture, variance = mean[::2, ::2], _halved(variance, np.mean)
        if level < RANGED:
            top, low = _halved(top, np.max), _halved(low, np.min)
            ranged, noise = picture, variance
    fine = np.stack([_cells(energies[0], 4), _cells(energies[1], 2), energies[2], plain[2], top - ranged, low - ranged,
                     noise])
    wide = picture
    for detail in details[::-1]:
        wide = _expanded(wide, detail.shape)
    top, low = (_expanded(bound, details[1].shape) for bound in _ranges(ranged, top, low))
    top, low = (b.repeat(2, axis=0).repeat(2, axis=1)[: y.shape[0], : y.shape[1]] - y for b in (top, low))
    return Bands(details, energies, low, top, y - wide, fine, np.stack([energies[3], plain[3]]))


def gain_on(gain: Array, level: int, shape: tuple[int, ...]) -> Array:
    """A gain on the grid of the third level, on the grid (of a shape) of another."""
    if level > 2:
        return gain[::2, ::2]
    if level == 2:
        return gain
    half = tuple(-(-n // 2) for n in shape)
    return _expanded(gain if level == 1 else _expanded(gain, half), shape)


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


def _cells(picture: Array, size: int) -> Array:
    """Means of size x size pixels, borders repeated."""
    rows, columns = picture.shape
    p = np.pad(picture, ((0, -rows % size), (0, -columns % size)), mode="edge")
    return np.asarray(p.reshape(p.shape[0] // size, size, p.shape[1] // size, size).mean(axis=(1, 3)), np.float32)


def _expanded(picture: Array, shape: tuple[int, ...]) -> Array:
    """Linear between the pixels, which lie on the even ones of the finer level."""
    rows, columns = (np.arange(n) / 2 for n in shape)
    r, c = rows.astype(int), columns.astype(int)
    p = np.pad(picture, ((0, 1), (0, 1)), mode="edge")
    fr, fc = (rows - r)[:, None], (columns - c)[None]
    top = (1 - fc) * p[r][:, c] + fc * p[r][:, c + 1]
    below = (1 - fc) * p[r + 1][:, c] + fc * p[r + 1][:, c + 1]
    return np.asarray((1 - fr) * top + fr * below, np.float32)
