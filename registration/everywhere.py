# SPDX-License-Identifier: Apache-2.0
"""Which poses, out of all rotations and shifts, lay a volume's picture over a measured one?

A roll about the central ray turns the picture, and a turn about the source shifts it: both are tried on the
picture itself. Only the direction of view and the depth need projections of their own, some hundreds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from registration.geometry import Array, CArm, Float64
from registration.projector.batch import Batch, sweep

# Directions 15 deg apart, rolls of 15 deg, depths 110 mm apart: the nearest is some 10 deg off on each count, well
# inside the basin of the correlation of 32 pixels (20 deg; a scale that is 7 % off moves the picture's edge by 8 mm).
VIEWS, ROLLS, DEPTHS_MM = 180, 24, (-110.0, 0.0, 110.0)
LATERAL_MM = 100.0  # how far the volume's centre may lie from the central ray, at least
EDGE_PX = 16  # of the measured picture: pixels of 14 mm for a detector of 30 cm, as coarse as the steps above
_SHIFT_MM = 15.0  # of the shifts tried first, at the isocenter: what pixels of a detector of 30 cm measure
# Standard deviation of the mean that is taken off for a second look. On a field of 11 cm within a chest the direction
# that came 1,000th by whole pictures, scattered light and all, then comes among the first ten.
_SLOW_PX = 3.0


class Everywhere:
    """Pictures of a volume from all directions, as a C-arm with these (few) pixels would see them."""

    def __init__(self, batch: Batch, center_mm: Float64, extent_mm: float, carm: CArm, *, threads: int = 2) -> None:
        """center_mm (3,) in the patient frame; extent_mm: the volume's longest edge. A field that lies wholly within
        the volume is in reach, however long that is."""
        pitch_v, pitch_u = carm.pitch_mm_row_col
        field_mm = min(carm.shape[0] * pitch_v, carm.shape[1] * pitch_u) * carm.sod_mm / carm.sdd_mm
        reach = max(LATERAL_MM, (extent_mm - field_mm) / 2) * carm.sdd_mm / carm.sod_mm
        self.reach_px = (int(np.ceil(reach / pitch_u)), int(np.ceil(reach / pitch_v)))
        self.pitch_mm = float(np.sqrt(pitch_u * pitch_v))
        self._stride = max(1, int(_SHIFT_MM * carm.sdd_mm / carm.sod_mm / pitch_v))
        (h, w), (cu, cv) = carm.shape, carm.principal_px_u_v
        far_u = (max(cu, w - 1 - cu) + self.reach_px[0]) * pitch_u
        far_v = (max(cv, h - 1 - cv) + self.reach_px[1]) * pitch_v
        size = 2 * (int(np.hypot(far_u, far_v) / self.pitch_mm) + 2) + 1
        large = CArm.centered((size, size), self.pitch_mm, carm.sdd_mm, carm.sod_mm)
        self.carm, self._large = carm, large
        self.poses = seen_from_all_sides(center_mm)
        self.rolls_rad: Float64 = np.linspace(0, 2 * np.pi, ROLLS, endpoint=False)
        self.pictures = batch.pictures(large, self.poses, threads=threads)
        self._quick: Array | None = None
        self._outlines: Array | None = None

    def promising(self, fixed: Array, weight: Array, count: int, *, quick: bool = False,
                  threads: int = 2) -> Float64:
        """The poses (n, 4, 4) at the best shifts of `count` directions, depths and rolls, best first; fixed and
        weight (rows, columns) on this C-arm's pixels. quick: by what varies quickly over the pictures. Scatter does
        not, nor the thickness of a body, which a small field may share with a hundred other places."""
        pictures = self.pictures
        if quick:
            if self._quick is None:
                self._quick = without_slow(self.pictures)
            pictures, fixed = self._quick, without_slow(_filled(fixed, weight)[None])[0]
        return self.laid(pictures, fixed, weight, count, threads=threads)

    def outlines(self, draw: Callable[[CArm, Float64], Array]) -> Array:
        """What `draw` makes of this C-arm, wide enough for every shift, and all poses (n, 4, 4): once, and kept."""
        if self._outlines is None:
            self._outlines = draw(self._large, self.poses)
        return self._outlines

    def laid(self, pictures: Array, fixed: Array, weight: Array, count: int, *, threads: int = 2) -> Float64:
        """`promising` by any pictures (n, size, size) of all `poses`."""
        score, shift = sweep(pictures, self.pitch_mm, self.carm, fixed, weight, self.rolls_rad, self.reach_px,
                             stride=self._stride, threads=threads)
        best = np.argsort(-score, axis=None, kind="stable")[:count]
        which, roll = np.divmod(best, ROLLS)
        pitch_v, pitch_u = self.carm.pitch_mm_row_col
        slopes: Float64 = -shift.reshape(-1, 2)[best] * (np.array([pitch_u, pitch_v]) / self.carm.sdd_mm)
        turned: Float64 = np.matmul(about_source(self.carm, slopes), _rolled(self.rolls_rad[roll]))
        return np.matmul(turned, self.poses[which])


def without_slow(pictures: Array) -> Array:
    """Pictures (n, h, w) less their mean around each pixel; beyond the rim they are taken to go on as there."""
    slow = ndimage.gaussian_filter(pictures, (0.0, _SLOW_PX, _SLOW_PX), mode="nearest")
    return np.ascontiguousarray(pictures - slow, np.float32)


def _filled(fixed: Array, weight: Array) -> Array:
    """The picture (h, w), each pixel of no weight with the value of the nearest that has some."""
    nearest = ndimage.distance_transform_edt(weight <= 0, return_distances=False, return_indices=True)
    return np.asarray(fixed[tuple(nearest)], np.float32)


def seen_from_all_sides(center_mm: Float64) -> Float64:
    """carm_from_patient (n, 4, 4) with the centre on the central ray: every direction of view at every depth."""
    k = np.arange(VIEWS) + 0.5
    z, turn = 1 - 2 * k / VIEWS, np.pi * (1 + np.sqrt(5)) * k  # a Fibonacci lattice: even over the sphere
    r = np.sqrt(1 - z * z)
    toward_source = np.stack([r * np.cos(turn), r * np.sin(turn), z], 1)
    aside = np.where(np.abs(z)[:, None] < 0.9, (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))
    x = np.cross(aside, toward_source)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (VIEWS, len(DEPTHS_MM), 1, 1))
    poses[:, :, :3, :3] = np.stack([x, np.cross(toward_source, x), toward_source], 1)[:, None]
    poses[:, :, :3, 3] = -poses[:, :, :3, :3] @ center_mm
    poses[:, :, 2, 3] += DEPTHS_MM
    return poses.reshape(-1, 4, 4)


def _rolled(angle_rad: Float64) -> Float64:
    """(n, 4, 4): turns about the central ray."""
    out = np.tile(np.eye(4), (len(angle_rad), 1, 1))
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    out[:, 0, 0], out[:, 0, 1], out[:, 1, 0], out[:, 1, 1] = c, -s, s, c
    return out


def about_source(carm: CArm, slopes: Float64) -> Float64:
    """(n, 4, 4): turns about the source that carry the central ray's slope (0, 0) to `slopes` (n, 2)."""
    a, b = slopes.T
    # the shortest turn from (0, 0, -1) to (a, b, -1), Rodrigues' formula without its angle
    cosine = 1 / np.sqrt(1 + a * a + b * b)
    v = np.stack([b, -a], 1) * cosine[:, None]  # sine times the axis, which has no z
    shared = 1 / (1 + cosine)
    out = np.tile(np.eye(4), (len(slopes), 1, 1))
    out[:, 0, 0], out[:, 1, 1] = 1 - shared * v[:, 1] ** 2, 1 - shared * v[:, 0] ** 2
    out[:, 0, 1] = out[:, 1, 0] = shared * v[:, 0] * v[:, 1]
    out[:, 0, 2], out[:, 2, 0] = v[:, 1], -v[:, 1]
    out[:, 1, 2], out[:, 2, 1] = -v[:, 0], v[:, 0]
    out[:, 2, 2] = cosine
    source = np.array([0, 0, carm.sod_mm])
    out[:, :3, 3] = source - out[:, :3, :3] @ source
    return out
