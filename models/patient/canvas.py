# SPDX-License-Identifier: Apache-2.0
"""How does a shape become voxels? A grid of Hounsfield units, signed distances, and paint with soft edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from registration.geometry import Array, Float64, Volume

EXTENT_MM = ((-165.0, 165.0), (-115.0, 115.0), (-205.0, 195.0))  # L, P, S: outer faces of the volume


@dataclass(frozen=True)
class Patch:
    """A box of the canvas: its slices and the coordinates of its voxels as open grids (1,1,i), (1,j,1), (k,1,1)."""

    slices: tuple[slice, slice, slice]
    x: Array
    y: Array
    z: Array


class Canvas:
    """Hounsfield units on an isotropic grid in the patient frame; shapes are painted with one voxel of soft edge."""

    def __init__(self, spacing_mm: float, background: float) -> None:
        self.spacing = spacing_mm
        count = [round((b - a) / spacing_mm) for a, b in EXTENT_MM]
        self.axes = [np.float32(a + spacing_mm / 2) + np.float32(spacing_mm) * np.arange(n, dtype=np.float32)
                     for (a, _), n in zip(EXTENT_MM, count, strict=True)]
        self.hu = np.full(count[::-1], background, np.float32)

    @property
    def patient_from_index(self) -> Float64:
        """Affine of the grid, voxel centers at integers."""
        out = np.diag([self.spacing] * 3 + [1.0])
        out[:3, 3] = [axis[0] for axis in self.axes]
        return out

    def volume(self, hu: Array | None = None) -> Volume:
        """The painted volume (or another array on this grid)."""
        return Volume(self.hu if hu is None else hu, self.patient_from_index)

    def patch(self, low: ArrayLike, high: ArrayLike) -> Patch | None:
        """The voxels between two corners in mm; None where they lie outside."""
        cuts = []
        for axis, a, b in zip(self.axes, np.asarray(low, float), np.asarray(high, float), strict=True):
            start = int(np.clip(np.floor((a - axis[0]) / self.spacing), 0, len(axis)))
            stop = int(np.clip(np.ceil((b - axis[0]) / self.spacing) + 1, 0, len(axis)))
            if stop <= start:
                return None
            cuts.append(slice(start, stop))
        x, y, z = (axis[cut] for axis, cut in zip(self.axes, cuts, strict=True))
        return Patch((cuts[2], cuts[1], cuts[0]), x[None, None, :], y[None, :, None], z[:, None, None])

    def whole(self) -> Patch:
        """All voxels."""
        low, high = zip(*EXTENT_MM, strict=True)
        found = self.patch(low, high)
        assert found is not None
        return found

    def occupancy(self, distance: Array) -> Array:
        """Share of a voxel inside a shape from the signed distance (mm, negative inside) of its center."""
        return np.clip(np.float32(0.5) - distance * np.float32(1 / self.spacing), 0, 1)

    def paint(self, patch: Patch, distance: Array, hu: float | Array) -> None:
        """Replaces what lies inside a shape."""
        self.mix(patch, self.occupancy(distance), hu)

    def mix(self, patch: Patch, share: Array, hu: float | Array) -> None:
        """hu takes a share (0..1) of each voxel of the patch."""
        there = self.hu[patch.slices]
        there += share * (np.asarray(hu, np.float32) - there)

    def bone(self, patch: Patch, distance: Array, cortex_mm: float, cortex_hu: float, marrow_hu: float | Array) -> None:
        """A bone: marrow within a cortical shell."""
        self.paint(patch, distance, cortex_hu)
        self.paint(patch, distance + np.float32(cortex_mm), marrow_hu)


# --------------------------------------------------------------------------------------------------
# Signed distances (mm, negative inside) on a patch. Source: Quilez, "distance functions" (exact or bounds)


def capsule(p: Patch, a: Sequence[float], b: Sequence[float], radius_a: float, radius_b: float | None = None,
            squash: tuple[float, float, float] = (1, 1, 1)) -> Array:
    """A rod with round ends between a and b; squash stretches its section along x, y, z."""
    sx, sy, sz = (np.float32(1 / s) for s in squash)
    ax, ay, az = (np.float32(c) for c in a)
    d = np.array([(b[0] - a[0]) * sx, (b[1] - a[1]) * sy, (b[2] - a[2]) * sz], np.float32)
    x, y, z = (p.x - ax) * sx, (p.y - ay) * sy, (p.z - az) * sz
    along = np.clip((x * d[0] + y * d[1] + z * d[2]) / max(float(d @ d), 1e-9), 0, 1)
    radius = np.float32(radius_a) + np.float32((radius_b if radius_b is not None else radius_a) - radius_a) * along
    return np.sqrt((x - along * d[0]) ** 2 + (y - along * d[1]) ** 2 + (z - along * d[2]) ** 2) - radius


def ellipsoid(p: Patch, center: Sequence[float], radii: Sequence[float], turn: Float64 | None = None) -> Array:
    """An ellipsoid (first-order distance); turn (3, 3): columns are its axes."""
    c = [np.float32(v) for v in center]
    x, y, z = p.x - c[0], p.y - c[1], p.z - c[2]
    if turn is not None:
        t = np.asarray(turn, np.float32)
        x, y, z = (x * t[0, n] + y * t[1, n] + z * t[2, n] for n in range(3))
    r = [np.float32(v) for v in radii]
    k0 = np.sqrt((x / r[0]) ** 2 + (y / r[1]) ** 2 + (z / r[2]) ** 2)
    return (k0 - 1) * np.float32(min(radii)) * np.float32(1.15)


def box(p: Patch, center: Sequence[float], half: Sequence[float], rounding: float) -> Array:
    """A box with rounded edges; half sizes include the rounding."""
    q = [np.abs(g - np.float32(c)) - np.float32(h - rounding)
         for g, c, h in zip((p.x, p.y, p.z), center, half, strict=True)]
    outside = np.sqrt(sum(np.maximum(v, 0) ** 2 for v in q))
    return outside + np.minimum(np.maximum(np.maximum(q[0], q[1]), q[2]), 0) - np.float32(rounding)


def union(a: Array, b: Array, blend_mm: float = 0.0) -> Array:
    """Both shapes; the edge between them filled over blend_mm."""
    if blend_mm <= 0:
        return np.minimum(a, b)
    k = np.float32(blend_mm)
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * k * np.float32(0.25)


def turned(rx_deg: float, ry_deg: float, rz_deg: float) -> Float64:
    """Rotation (3, 3) about x, then y, then z."""
    a, b, c = np.radians([rx_deg, ry_deg, rz_deg])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def smooth_noise(canvas: Canvas, rng: np.random.Generator, cell_mm: float) -> Array:
    """A smooth random field on the canvas, standard deviation 1, correlated over about cell_mm."""
    from scipy import ndimage

    shape = [int(np.ceil(n * canvas.spacing / cell_mm)) + 3 for n in canvas.hu.shape]
    coarse = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 0.7)
    coarse /= coarse.std()
    out: Array = coarse
    for axis, n in enumerate(canvas.hu.shape):
        at = np.arange(n, dtype=np.float32) * np.float32(canvas.spacing / cell_mm) + 0.5
        low = at.astype(int)
        part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        first, second = np.take(out, low, axis), np.take(out, low + 1, axis)
        out = first + part * (second - first)
    return out
