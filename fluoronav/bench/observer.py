# SPDX-License-Identifier: Apache-2.0
"""How well is a piece of wire seen? Two model observers of medical physics on patches with and without it.

Location, direction and background are known to the observer; he decides whether the wire is there. Both observers
weigh the noise of both answers (Barrett and Myers, Foundations of Image Science, 2004, ch. 13), because a filter that
follows motion is quieter where there is nothing: d'^2 = (difference of the means)^2 / (mean of the two variances).

- NPWE: non-prewhitening with an eye filter (Burgess, JOSA A 11:1237, 1994): the template is the drawn wire seen
  twice through E(f) = f^1.3 exp(-c f^2), which is largest at 4 cycles a degree.
- CHO: channelized Hotelling (Myers and Barrett, JOSA A 4:2447, 1987): Gabor channels along the wire, prewhitened
  by the mean covariance of both answers: what a linear observer can get at best through a few channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from registration.geometry import Array

HALF = 16  # pixels from the middle of a patch to its sides
APART = 12.0  # pixels between pieces along the wire
WINDOW = 4.0  # pixels: standard deviation of a glance along the wire
PX_PER_DEGREE = 42.0  # 0.29 mm pixels seen from 0.7 m
PEAK = 4.0 / PX_PER_DEGREE  # cycles a pixel
BANDS = (0.30, 0.15, 0.075, 0.0375)  # cycles a pixel across the wire: octaves
POWER = 1.3


@dataclass(frozen=True, slots=True)
class Patches:
    """(n, 33, 33) relative contrast about the known background, wires upright: where a wire is, and the same places
    in the frames without one; signal (33, 33): the wire as drawn."""

    present: Array
    absent: Array
    signal: Array

    @classmethod
    def joined(cls, parts: list[Patches]) -> Patches:
        """All of several."""
        return cls(np.concatenate([p.present for p in parts]), np.concatenate([p.absent for p in parts]),
                   np.mean([p.signal for p in parts], axis=0))


def upright(pictures: list[Array], places: Array, angle: float) -> Array:
    """(pictures x places, 33, 33): patches about places (n, 2) of (u, v), turned so that `angle` is upright."""
    i = np.arange(-HALF, HALF + 1, dtype=np.float64)
    across, along = np.meshgrid(i, i)
    u = along * np.cos(angle) - across * np.sin(angle)
    v = along * np.sin(angle) + across * np.cos(angle)
    out = [cv2.remap(picture, (u + x).astype(np.float32), (v + y).astype(np.float32), cv2.INTER_CUBIC,
                     borderMode=cv2.BORDER_REFLECT) for picture in pictures for x, y in places]
    return np.asarray(out, np.float32).reshape(-1, *u.shape)


def npwe(seen: Patches) -> float:
    """Detectability d' of the non-prewhitening observer with an eye filter."""
    side = 2 * HALF + 1
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    eye = f**POWER * np.exp(-POWER / 2 * (f / PEAK) ** 2)
    window = np.exp(-0.5 * ((np.arange(side) - HALF) / WINDOW) ** 2)[:, None]
    template = np.fft.irfft2(np.fft.rfft2(seen.signal * window) * eye**2, s=(side, side))
    return _separation(*((x * template).sum(axis=(1, 2))[:, None] for x in (seen.present, seen.absent)))


def hotelling(seen: Patches) -> float:
    """Detectability d' of the channelized Hotelling observer."""
    i = np.arange(-HALF, HALF + 1)
    window = np.exp(-0.5 * (i / WINDOW) ** 2)[:, None]
    channels = []
    for band in BANDS:  # an octave wide: sigma in pixels of a Gabor function
        bell = np.exp(-0.5 * (i * band * 2 * np.pi / 2.65) ** 2)
        wave = np.cos(2 * np.pi * band * i)
        channels.append(window * (bell * (wave - (bell * wave).sum() / bell.sum()))[None])
    kernels = np.stack(channels).reshape(len(BANDS), -1)
    return _separation(*(x.reshape(len(x), -1) @ kernels.T for x in (seen.present, seen.absent)))


def _separation(present: Array, absent: Array) -> float:
    """d' of answers (n, channels) to both."""
    change = present.mean(axis=0) - absent.mean(axis=0)
    covariance = (np.atleast_2d(np.cov(present.T)) + np.atleast_2d(np.cov(absent.T))) / 2
    return float(np.sqrt(max(change @ np.linalg.solve(covariance, change), 0.0)))
