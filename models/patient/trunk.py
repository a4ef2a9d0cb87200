# SPDX-License-Identifier: Apache-2.0
"""How wide and deep is the trunk, and where is the inner side of its wall? What bones, organs and breathing share."""

from __future__ import annotations

import numpy as np

from models.patient.canvas import Patch
from registration.geometry import Array, Float64

CAVITY_POWER = 2.4  # of the superellipse that the inside of the muscle wall follows


def half_width(z: Array) -> Array:
    """Half width of the trunk at a height, mm: chest, waist, hips."""
    return np.interp(z, [-205, -160, -110, -40, 20, 90, 195], [148, 151, 147, 137, 136, 143, 146]).astype(np.float32)


def half_depth(z: Array) -> Array:
    """Half of the trunk's depth at a height, mm."""
    return np.interp(z, [-205, -150, -80, 0, 80, 195], [94, 96, 95, 94, 99, 103]).astype(np.float32)


def cavity(z: Array) -> tuple[Array, Array, Array]:
    """Half width, half depth and middle (P) of the room inside the muscle wall at a height, mm."""
    return half_width(z) - 31, half_depth(z) - 22, np.interp(z, [-205, 195], [-8, -6]).astype(np.float32)


def cavity_distance(p: Patch) -> Array:
    """Signed distance (about, mm) to the inside of the muscle wall: the chest's and the belly's room."""
    a, b, middle = cavity(p.z)
    return superellipse(p, a, b, middle, CAVITY_POWER)


def superellipse(p: Patch, a: Array, b: Array, middle: Array | float, power: float) -> Array:
    """Signed distance (first order) to |x/a|^n + |(y - middle)/b|^n = 1 in every slice."""
    fx = np.abs(p.x / a) ** np.float32(power)
    fy = np.abs((p.y - middle) / b) ** np.float32(power)
    return (fx + fy - 1) * (np.minimum(a, b) / np.float32(power))


def within_wall(points: Float64, share: Float64, low_mm: float, high_mm: float) -> Float64:
    """Points (n, 3) brought into the wall, low to high mm outside of the cavity; share (n,) 0..1 of the way there."""
    a, b, middle = (np.asarray(v, np.float64) for v in cavity(points[:, 2]))
    level = np.abs(points[:, 0] / a) ** CAVITY_POWER + np.abs((points[:, 1] - middle) / b) ** CAVITY_POWER
    per_mm = CAVITY_POWER / np.minimum(a, b)
    wanted = np.clip(level, 1 + per_mm * low_mm, 1 + per_mm * high_mm)
    scale = 1 + share * ((wanted / level) ** (1 / CAVITY_POWER) - 1)
    out = points.copy()
    out[:, 0] *= scale
    out[:, 1] = middle + (out[:, 1] - middle) * scale
    return out
