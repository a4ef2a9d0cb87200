# SPDX-License-Identifier: Apache-2.0
"""Which poses lay the outlines of a CT's bones on the edges in a picture? A proposer that looks at no brightness.

Points on the surface of bone show as an edge where rays graze them, so outlines from all sides cost no projection of
the volume. A picture's edges become, by a distance transform, how near the next one is; outlines are swept over that.
In a picture of a chest every other pixel lies near an edge of something, and the right pose comes behind hundreds; for
a bone alone it is often among the first hundred (2 of 8 among the first ten), where brightness has it too. So a search
asks for it only if told to.
Source: chamfer matching of outlines, Barrow et al. 1977, IJCAI; Lavallee & Szeliski 1995, IEEE PAMI 17(4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from registration import everywhere as sides
from registration.geometry import Array, CArm, Float64, Rigid, Volume
from registration.ladder import Ladder
from registration.model import Start, View
from registration.solver import Sight

if TYPE_CHECKING:
    from registration.volume_model import VolumeModel

NAME = "bone edges"
COUNT = 48
EDGE_PX = 128  # of the picture in which edges are looked for
_BONE_PER_MM = 0.026  # 250 HU at 60 keV: trabecular bone and denser
_STEPS = 80  # voxels along the volume's longest edge: a bone of 80 mm is looked at by the millimeter
_POINTS, _SEED = 4000, 0
_GRAZING = 0.2  # cosine between ray and normal below which a surface shows as an edge: 12 deg
_STEEPEST = 0.15  # share of the pixels that may be edges
_NEAR_MM = 4.0  # standard deviation at which an edge still counts: half a step of the sweep


@dataclass(frozen=True, slots=True)
class BoneSurface:
    """points (n, 3) on the surface of bone and their unit normals (n, 3), patient frame."""

    points: Float64
    normals: Float64

    @classmethod
    def of(cls, attenuation: Volume) -> BoneSurface:
        """Of a volume in 1/mm: some thousand points at most, none where it holds no bone."""
        extent = float(np.ptp(attenuation.corners_mm, axis=0).max())
        volume = attenuation.resampled(max(extent / _STEPS, float(attenuation.spacing_mm.max())))
        smooth = ndimage.gaussian_filter(volume.data, 0.7)
        bone = smooth > _BONE_PER_MM
        at = np.argwhere(bone & ~ndimage.binary_erosion(bone))
        slope = np.stack([g[tuple(at.T)] for g in np.gradient(smooth)], -1)[:, ::-1] / volume.spacing_mm
        steep = np.linalg.norm(slope, axis=1)
        some = np.random.default_rng(_SEED).permutation(np.flatnonzero(steep > 0))[:_POINTS]
        axes = volume.patient_from_index[:3, :3] / volume.spacing_mm
        return cls(Rigid.apply(volume.patient_from_index, at[some, ::-1].astype(float)),
                   slope[some] / steep[some, None] @ axes.T)

    def outline(self, carm: CArm, carm_from_patient: Float64) -> Array:
        """(rows, columns) float32: root of the number of outline points that meet each pixel (a bone seen edge-on
        has many in one), blurred by its width."""
        at = Rigid.apply(carm_from_patient, self.points)
        ray = carm.source - at
        across = np.abs(np.einsum("ij,ij->i", self.normals @ carm_from_patient[:3, :3].T, ray))
        uv = carm.project(at[across < _GRAZING * np.linalg.norm(ray, axis=1)])
        uv = np.rint(uv[np.isfinite(uv).all(axis=1)]).astype(int)
        uv = uv[((uv >= 0) & (uv < carm.shape[::-1])).all(axis=1)]
        count = np.bincount(uv[:, 1] * carm.shape[1] + uv[:, 0], minlength=carm.shape[0] * carm.shape[1])
        return np.asarray(ndimage.gaussian_filter(np.sqrt(count.reshape(carm.shape)), 0.7), np.float32)


class BoneEdges:
    """Starts for a volume by its bones' outlines: a proposer (`VolumeModel.proposers`) as any other."""

    def __init__(self, model: VolumeModel, count: int = COUNT) -> None:
        self._model, self._count = model, count

    def __call__(self, view: View) -> tuple[Start, ...]:
        """The `count` poses whose outlines lie nearest to edges, best first; none for a volume without bone, or a
        picture without edges."""
        ladder = Ladder(view, (EDGE_PX,))
        if ladder.fault():
            return ()
        small = ladder.sight(sides.EDGE_PX)
        everywhere = self._model.everywhere(small.carm)
        near = nearness(ladder.sight(EDGE_PX), small.carm.shape)
        outlines = everywhere.outlines(self._outlines)
        if not (outlines.any() and near.any()):
            return ()
        poses = everywhere.laid(outlines, sides.without_slow(near[None])[0], small.weight, self._count,
                                threads=self._model.threads)
        return tuple(Start(p, NAME) for p in poses)

    def _outlines(self, carm: CArm, poses: Float64) -> Array:
        surface = BoneSurface.of(self._model.attenuation)
        return sides.without_slow(np.stack([surface.outline(carm, p) for p in poses]))


def nearness(sight: Sight, shape: tuple[int, int]) -> Array:
    """How near edges are, 0 to 1, in pixels as large as make `shape` (rows, columns) of a picture."""
    edge = edges(sight)
    if not edge.any():
        return np.zeros(shape, np.float32)
    far_mm = ndimage.distance_transform_edt(~edge) * sight.carm.mm_per_px_at_isocenter
    near = np.exp(-0.5 * (far_mm / _NEAR_MM) ** 2)
    k = max(1, min(n // m for n, m in zip(near.shape, shape, strict=True)))
    rows, cols = (min(n // k, m) for n, m in zip(near.shape, shape, strict=True))
    out = np.zeros(shape, np.float32)
    out[:rows, :cols] = near[:rows * k, :cols * k].reshape(rows, k, cols, k).mean((1, 3))
    return out


def edges(sight: Sight) -> Array:
    """Bool (rows, columns): ridges of the steepest slopes, away from what is not seen."""
    inside = ndimage.binary_erosion(sight.weight > 0.5, iterations=2)
    if not inside.any():
        return inside
    down, right = np.gradient(ndimage.gaussian_filter(sight.fixed, 1.0))
    steep = np.hypot(down, right)
    v, u = np.mgrid[:steep.shape[0], :steep.shape[1]]
    along = np.maximum(steep, 1e-12)
    beside = [ndimage.map_coordinates(steep, [v + s * down / along, u + s * right / along], order=1, mode="nearest")
              for s in (1, -1)]
    least = max(float(np.quantile(steep[inside], 1 - _STEEPEST)), 1e-9)
    return np.asarray(inside & (steep >= least) & (steep >= np.maximum(*beside)))
