# SPDX-License-Identifier: Apache-2.0
"""Which bodies does a segmentation of the CT name? Each may move by its own pose; what is in none is the rest.

The parts add up to the CT, so their line integrals do too. A body is cut out beyond its label, softly, as spine and
rest are (bodies.py): its edge, which is what a picture shows, and what is fixed to it, such as rib heads to vertebrae,
go along. Between bodies each voxel goes with the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from registration.errors import BadInput
from registration.geometry import Array, Float64, Rigid, Volume

REST = "rest"
_BEYOND_MM, _SOFT_MM = 16.0, 10.0  # from whole to nothing in twice that, as RADIUS_MM of a spine whose bone has 20 mm
_NEAR_MM = 3.0  # farther from a body than from another by that, a voxel is the other's alone
_AT_MM = 4.0  # from a label, a target still belongs to its body


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Bodies of a CT by name: labels [k, j, i] in the patient frame, 0 = none, n = names[n - 1]. Raises BadInput."""

    names: tuple[str, ...]
    labels: Volume

    def __post_init__(self) -> None:
        found = np.unique(self.labels.data)
        whole = np.array_equal(found, np.round(found)) and found.min() >= 0 and found.max() <= len(self.names)
        if not self.names or REST in self.names or len(set(self.names)) < len(self.names) or not whole:
            raise BadInput("segmentation", got=f"names {list(self.names)}, values up to {found.max():g}",
                           expected=f"a name for each value, none of them twice, none of them {REST}",
                           remedy="segment the CT again")

    def at(self, point_mm: Float64) -> str | None:
        """The name of the body that a point (3,) of the patient frame lies in or close to; None in the rest."""
        affine, data = self.labels.patient_from_index, self.labels.data
        middle = Rigid.apply(np.linalg.inv(affine), np.asarray(point_mm, np.float64))[::-1]
        reach = np.ceil(_AT_MM / self.labels.spacing_mm[::-1]) + 1
        low = np.clip(np.round(middle - reach), 0, data.shape).astype(int)
        high = np.clip(np.round(middle + reach) + 1, 0, data.shape).astype(int)
        k, j, i = np.nonzero(data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
        if not len(k):
            return None
        at = np.stack([k, j, i], 1) + low
        away = np.linalg.norm(Rigid.apply(affine, at[:, ::-1].astype(float)) - point_mm, axis=1)
        nearest = int(away.argmin())
        return self.names[int(data[tuple(at[nearest])]) - 1] if away[nearest] < _AT_MM else None

    def middle_mm(self, name: str) -> Float64:
        """The mean (3,) of a body's voxels in the patient frame."""
        k, j, i = np.nonzero(self.labels.data == self.names.index(name) + 1)
        return Rigid.apply(self.labels.patient_from_index, np.array([i.mean(), j.mean(), k.mean()]))

    def body_at(self, point_mm: Float64) -> Body:
        """The body that holds a point and the rest; where none does, all bodies together and the rest."""
        name = self.at(point_mm)
        return Body(self, self.names if name is None else (name,))

    def parts(self, attenuation: Volume, first: str) -> dict[str, Volume]:
        """Every body by itself, that one first, and the rest: volumes on one grid that add up to the given one."""
        if first not in self.names:
            raise BadInput("body", got=first, expected=" or ".join(self.names), remedy="name one of the case's bodies")
        return self._parts(attenuation, [(n, (n,)) for n in (first, *(n for n in self.names if n != first))])

    def _parts(self, attenuation: Volume, groups: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, Volume]:
        away = [self._away(attenuation, names) for _, names in groups]
        nearest = np.minimum.reduce(away)
        near = [np.clip(1 - (d - nearest) / _NEAR_MM, 0, 1) for d in away]
        t = np.clip((_BEYOND_MM + _SOFT_MM - nearest) / (2 * _SOFT_MM), 0, 1)
        whole = t * t * (3 - 2 * t) / sum(near[1:], near[0])
        out, rest = {}, attenuation.data
        for (name, _), share in zip(groups, near, strict=True):
            part = np.asarray(attenuation.data * (share * whole), np.float32)
            out[name], rest = Volume(part, attenuation.patient_from_index), rest - part
        return out | {REST: Volume(np.maximum(rest, 0.0), attenuation.patient_from_index)}

    def _away(self, attenuation: Volume, names: Sequence[str]) -> Array:
        """How far the voxels of a volume [k, j, i] are from the bodies, mm, as far as it matters."""
        own = np.isin(self.labels.data, [self.names.index(n) + 1 for n in names])
        reach = _BEYOND_MM + _SOFT_MM + _NEAR_MM
        away = np.full(own.shape, reach, np.float32)
        if own.any():
            spacing = self.labels.spacing_mm[::-1]
            margin = np.ceil(reach / spacing).astype(int)
            box = tuple(slice(max(0, s.start - m), s.stop + m)
                        for s, m in zip(ndimage.find_objects(own.astype(np.uint8))[0], margin, strict=True))
            away[box] = np.minimum(ndimage.distance_transform_edt(~own[box], spacing), reach)
        here = np.linalg.inv(self.labels.patient_from_index) @ attenuation.patient_from_index
        return np.asarray(ndimage.affine_transform(away, here[2::-1, 2::-1], here[2::-1, 3], order=1, mode="nearest",
                                                   output_shape=attenuation.data.shape))


@dataclass(frozen=True, slots=True)
class Body:
    """One body of a segmentation, or several that move together, against the rest."""

    segmentation: Segmentation
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0] if len(self.names) == 1 else "bodies"

    def parts(self, attenuation: Volume) -> dict[str, Volume]:
        """Two volumes on one grid that add up to the given one: the body's, and `rest`."""
        return self.segmentation._parts(attenuation, [(self.name, self.names)])

    def holding(self, point_mm: Float64) -> str:
        """The name of the part that a point (3,) belongs to."""
        return self.name if self.segmentation.at(point_mm) in self.names else REST
