# SPDX-License-Identifier: Apache-2.0
"""What does anatomy look like in a projection? Line integrals of bodies, bones, gas and clips, drawn at random.

Everything is drawn on a canvas in line integrals (no unit); every function takes its generator, so that a seed
is a picture. Two families that share no recipe: `train` (power-law tissue, rod-shaped bones, gas) and `test`
(cells, plates, ellipsoids), so that nobody grades what it was trained on.
"""

from __future__ import annotations

import cv2
import numpy as np

from registration.geometry import Array

Random = np.random.Generator


def power_law(side: int, slope: float, random: Random) -> Array:
    """(side, side) float32 of unit spread whose amplitude spectrum falls with frequency to the power -slope.

    Projections of tissue have amplitude slopes of about 1 to 1.6 (Burgess, Med Phys 28:419, 2001, has the power).
    """
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1 / side
    spectrum = np.fft.rfft2(random.normal(size=(side, side))) * frequency**-slope
    spectrum[0, 0] = 0
    out = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    return np.asarray(out / out.std(), np.float32)


def tissue(side: int, random: Random) -> Array:
    """A body: a smooth trend, power-law texture, trabeculae, rods, gas, clips. Line integrals of about 1 to 5."""
    out = 2.6 + random.uniform(0.2, 0.7) * power_law(side, 2.4, random)
    out += random.uniform(0.02, 0.10) * power_law(side, random.uniform(1.0, 1.6), random)
    for _ in range(random.integers(0, 5)):
        out += rod(side, random)
    for _ in range(random.integers(0, 4)):
        out -= random.uniform(0.05, 0.4) * blob(side, random, edge=random.uniform(0.6, 6))
    for _ in range(random.integers(0, 4)):
        out += random.uniform(0.2, 1.5) * clip(side, random)
    return np.clip(out, 0.3, 6).astype(np.float32)


def rod(side: int, random: Random) -> Array:
    """A rib or a long bone: a bent band, denser at its margins, with trabeculae inside."""
    v, u = np.indices((side, side), np.float32)
    angle, bend = random.uniform(0, np.pi), random.uniform(-1, 1) / side
    x, y = u - random.uniform(0, side), v - random.uniform(0, side)
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    off = np.abs(across + bend * along**2)
    half, cortex = random.uniform(8, 35), random.uniform(1.5, 5)
    inside = 1 / (1 + np.exp(np.clip((off - half) / random.uniform(0.4, 1.5), -30, 30)))
    margin = np.exp(-(((off - half + cortex) / cortex) ** 2))
    grain = trabeculae(side, angle, random)
    height = random.uniform(0.08, 0.5)
    return np.asarray(height * (inside * (0.6 + random.uniform(0, 0.15) * grain) + 0.5 * margin), np.float32)


def trabeculae(side: int, angle: float, random: Random) -> Array:
    """Fine struts along an angle: noise, smoothed along it and sharpened across."""
    noise = random.normal(size=(side, side)).astype(np.float32)
    length = int(random.integers(7, 17)) | 1
    kernel = np.zeros((length, length), np.float32)
    half = length // 2
    end = (round(half + half * np.cos(angle)), round(half + half * np.sin(angle)))
    start = (round(half - half * np.cos(angle)), round(half - half * np.sin(angle)))
    cv2.line(kernel, start, end, 1.0)
    out = cv2.GaussianBlur(cv2.filter2D(noise, -1, kernel), (0, 0), random.uniform(0.5, 1.2))
    out = out - cv2.GaussianBlur(out, (0, 0), 3.0)
    return np.asarray(out / max(float(out.std()), 1e-6), np.float32)


def blob(side: int, random: Random, edge: float) -> Array:
    """An ellipse (0..1) with a margin `edge` pixels wide."""
    v, u = np.indices((side, side), np.float32)
    x, y = u - random.uniform(0, side), v - random.uniform(0, side)
    angle = random.uniform(0, np.pi)
    a, b = random.uniform(6, 60, 2)
    r = np.hypot((x * np.cos(angle) + y * np.sin(angle)) / a, (-x * np.sin(angle) + y * np.cos(angle)) / b)
    return np.asarray(1 / (1 + np.exp(np.clip((r - 1) * min(a, b) / edge, -30, 30))), np.float32)


def clip(side: int, random: Random) -> Array:
    """A small dense thing, 2 to 8 pixels long: clip, suture or calcification (0..1)."""
    fine = np.zeros((side * 4, side * 4), np.float32)
    at = random.uniform(0, side * 4, 2)
    angle, length = random.uniform(0, np.pi), random.uniform(8, 32)
    step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    ends = [tuple(int(c) for c in at - step), tuple(int(c) for c in at + step)]
    cv2.line(fine, ends[0], ends[1], 1.0, int(random.integers(3, 10)))
    return cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)


# --------------------------------------------------------------------------------------------------
# The other family


def plates(side: int, random: Random) -> Array:
    """A body for tests: cells with thin walls, superposed ellipsoids, a sawtooth of plates. Line integrals."""
    v, u = np.indices((side, side), np.float32)
    out = np.full((side, side), 2.2, np.float32)
    for _ in range(random.integers(6, 14)):
        out += random.uniform(-0.15, 0.35) * chord(side, random)
    out += random.uniform(0.05, 0.15) * cells(side, int(random.integers(60, 220)), random)
    angle, period = random.uniform(0, np.pi), random.uniform(18, 50)
    phase = (u * np.cos(angle) + v * np.sin(angle) + 6 * np.sin(v / 37)) / period
    out += random.uniform(0.03, 0.15) * ((phase % 1) < 0.3)
    return np.clip(cv2.GaussianBlur(out, (0, 0), 0.6), 0.3, 6)


def chord(side: int, random: Random) -> Array:
    """Chord length (0..1) through an ellipsoid."""
    v, u = np.indices((side, side), np.float32)
    x, y = u - random.uniform(0, side), v - random.uniform(0, side)
    angle, (a, b) = random.uniform(0, np.pi), random.uniform(12, side / 2, 2)
    r2 = ((x * np.cos(angle) + y * np.sin(angle)) / a) ** 2 + ((-x * np.sin(angle) + y * np.cos(angle)) / b) ** 2
    return np.asarray(np.sqrt(np.maximum(1 - r2, 0)), np.float32)


def cells(side: int, count: int, random: Random) -> Array:
    """Walls (0..1) between the cells around random points: 1.5 pixels wide, a coarse trabecular net."""
    points = random.uniform(0, side, (count, 2)).astype(np.float32)
    from scipy.spatial import cKDTree

    v, u = np.indices((side, side), np.float32)
    distance, _ = cKDTree(points).query(np.stack([u.ravel(), v.ravel()], axis=1), k=2)
    gap = (distance[:, 1] - distance[:, 0]).reshape(side, side)
    return np.asarray(np.exp(-((gap / 1.8) ** 2)), np.float32)
