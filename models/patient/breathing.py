# SPDX-License-Identifier: Apache-2.0
"""How does a breath move the inside of the body? A displacement field that scales with the diaphragm's excursion.

The displacement per mm of excursion is a smooth field D on a coarse grid. A place x of the moved body shows what was
at x - a D(x) (a in mm, 0 at end expiration), so a particle p is found at the x with x = p + a D(x). Volume, vessels
and truth use the one field. Excursions after Seppenwoolde et al. (IJROBP 53:822, 2002): kidney some 0.7 of the
diaphragm, more head to foot than front to back; spine and pelvis rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from models.patient.canvas import EXTENT_MM, Canvas
from models.patient.skeleton import spine_x, spine_y
from models.patient.tree import ArterialTree
from models.patient.trunk import half_depth, half_width
from registration.geometry import Array, Float64, Volume, read_only

NODE_MM = 6.0


@dataclass(frozen=True, slots=True)
class Breathing:
    """field (3, K, J, I) float32: displacement (L, P, S) in mm per mm of diaphragm excursion, on nodes NODE_MM apart,
    first_mm (3,) the place of node (0, 0, 0)."""

    field: Array
    first_mm: Float64

    @classmethod
    def of(cls, canvas: Canvas, tree: ArterialTree) -> Breathing:
        """The field of a patient."""
        from scipy import ndimage

        first = np.array([axis[0] for axis in canvas.axes], float)
        count = [int(np.ceil((high - low) / NODE_MM)) + 1 for low, high in EXTENT_MM]
        x, y, z = (first[c] + NODE_MM * np.arange(count[c]) for c in range(3))
        x, y, z = x[None, None, :], y[None, :, None], z[:, None, None]
        organs = _organ_share(x, y, z)
        wall = _wall_share(x, y, z)
        lift = 0.22 * wall * np.clip((z - 20) / 60, 0, 1)
        out = np.stack([np.sign(x) * 0.10 * lift * 4,
                        -0.16 * organs - 0.12 * np.clip(-y / 60, 0, 1) * np.clip((z + 90) / 100, 0, 1) * (1 - organs),
                        -organs + lift])
        out = np.stack([ndimage.gaussian_filter(f, 1.0, mode="nearest") for f in out]).astype(np.float32)
        rest = _resting_share(x, y, z, tree)
        return cls(read_only((out * rest).astype(np.float32)), read_only(first))

    def displacement(self, points_mm: ArrayLike, excursion_mm: float) -> Float64:
        """a D(x) at places (..., 3) of the moved body, mm."""
        from scipy import ndimage

        points = np.asarray(points_mm, np.float64)
        index = ((points.reshape(-1, 3) - self.first_mm) / NODE_MM).T[::-1]
        per_mm = [ndimage.map_coordinates(f, index, output=np.float64, order=1, mode="nearest") for f in self.field]
        return excursion_mm * np.stack(per_mm, -1).reshape(points.shape)

    def moved(self, points_mm: ArrayLike, excursion_mm: float) -> Float64:
        """Where particles (..., 3) mm of the body at end expiration are at an excursion."""
        rest = np.asarray(points_mm, np.float64)
        at = rest.copy()
        for _ in range(40):  # a contraction: |a dD/dx| < 0.6 at 14 mm
            last, at = at, rest + self.displacement(at, excursion_mm)
            if np.abs(at - last).max(initial=0.0) < 1e-6:
                break
        return at

    def volume(self, anatomy: Volume, excursion_mm: float, threads: int = 2) -> Volume:
        """The body at an excursion; anatomy: a volume of the canvas this field was made for."""
        from models.xray.integrator import deformed

        spacing = float(anatomy.spacing_mm[0])
        return deformed(anatomy, self.field / np.float32(spacing), NODE_MM / spacing, excursion_mm, threads=threads)


def _organ_share(x: Array, y: Array, z: Array) -> Array:
    """How far the inside of the belly follows the diaphragm, 0..1: less towards the pelvis."""
    falls = np.interp(z, [-170, -100, -20, 60, 130, 200], [0, 0.12, 0.5, 0.75, 1.0, 1.0])
    a, b = half_width(z) - 34, half_depth(z) - 24
    inside = np.clip((1 - (np.abs(x / a) ** 2.4 + np.abs((y + 7) / b) ** 2.4)) * 4, 0, 1)
    return np.asarray(falls * inside)


def _wall_share(x: Array, y: Array, z: Array) -> Array:
    """1 in the chest wall at the sides and in front, 0 inside and at the spine."""
    a, b = half_width(z) - 30, half_depth(z) - 20
    f = np.abs(x / a) ** 2.4 + np.abs((y + 7) / b) ** 2.4
    return np.asarray(np.clip((f - 0.75) * 3, 0, 1) * np.clip((np.hypot(x, y - 40) - 45) / 70, 0, 1))


def _resting_share(x: Array, y: Array, z: Array, tree: ArterialTree) -> Array:
    """0 within the spine and the pelvis, small at the aorta, 1 well away from them."""
    sx = np.array([spine_x(v) for v in z.ravel()])[:, None, None]
    sy = np.array([spine_y(v) for v in z.ravel()])[:, None, None]
    behind = np.hypot((x - sx) / 1.3, np.maximum(0, sy - y))  # the bodies and all that lies behind them
    spine = np.clip((behind - 20) / 22, 0, 1)
    processes = np.clip((np.abs(x - sx) - 44) / 16, 0, 1)  # the transverse processes reach further out
    spine = np.minimum(spine, np.maximum(processes, np.clip((sy + 10 - y) / 10, 0, 1)))
    aorta = tree["aorta"].points
    order = np.argsort(aorta[:, 2])
    ax, ay = (np.interp(z, aorta[order, 2], aorta[order, c]) for c in (0, 1))
    near = np.clip((np.hypot(x - ax, y - ay) - 8) / 34, 0, 1)
    pelvis = np.clip((z + 135) / 60, 0, 1)
    return np.asarray(spine * spine * (3 - 2 * spine) * (0.12 + 0.88 * near) * pelvis)
