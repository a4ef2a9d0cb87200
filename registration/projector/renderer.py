# SPDX-License-Identifier: Apache-2.0
"""Line integrals of a volume through a C-arm, with the derivative by the pose, on the processor's best path."""

from __future__ import annotations

import os
from typing import Literal, overload

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array, CArm, Float64, Rigid, Volume
from registration.projector import _projector

# names the path to take instead of the best: "portable C++", "AVX2", "AVX-512"
PATH_VARIABLE = "FLUORONAV_PROJECTOR"

# Pictures up to this many pixels get a finer grid of rays: their voxels hold sharper edges, and they cost little.
_SMALL = 160

# index axes (x, y, z) = (i, j, k) renamed so that the rays mostly run along the last; rows are the new (x, y, z)
_ORDERS = ((1, 2, 0), (0, 2, 1), (0, 1, 2))


class Prepared:
    """A volume laid out for projection: one copy for each axis along which rays mostly run, made when needed.

    The field is trilinear between voxel centres and zero outside: it falls linearly from the outer voxels'
    centres to zero over one voxel pitch, as if the volume had a border of zero voxels.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = _subdivided(volume)
        self.index_from_patient: Float64 = np.linalg.inv(np.asarray(self.volume.patient_from_index, np.float64))
        self._planes: dict[int, Array] = {}
        self._slabs: dict[int, tuple[Array, Array, float]] = {}

    def planes(self, axis: int) -> Array:
        """float32 [z][y][x] with a border of zeros in x and y; z is index axis `axis` (0: i, 1: j, 2: k)."""
        if axis not in self._planes:
            pad = _projector.PAD
            turned = self._turned(axis)
            out = np.zeros((turned.shape[0], turned.shape[1] + 2 * pad, turned.shape[2] + 2 * pad), np.float32)
            out[:, pad:-pad, pad:-pad] = turned
            self._planes[axis] = out
        return self._planes[axis]

    def slabs(self, axis: int) -> tuple[Array, Array, float]:
        """12-bit words [z / 8][y][z % 8][x] for the sheared renderer, boxes of what is not zero, 1/mm a word."""
        if axis not in self._slabs:
            self._slabs[axis] = _projector.slabs(self._turned(axis))
        return self._slabs[axis]

    def _turned(self, axis: int) -> Array:
        x, y, z = _ORDERS[axis]
        return np.transpose(self.volume.data, (2 - z, 2 - y, 2 - x))


@overload
def project(volume: Volume | Prepared, carm: CArm, carm_from_patient: Float64, *, jacobian: Literal[False] = False,
            threads: int = 2, fast: bool = False, path: str | None = None) -> Array: ...
@overload
def project(volume: Volume | Prepared, carm: CArm, carm_from_patient: Float64, *, jacobian: Literal[True],
            threads: int = 2, fast: bool = False, path: str | None = None) -> tuple[Array, Array]: ...


def project(volume: Volume | Prepared, carm: CArm, carm_from_patient: Float64, *, jacobian: bool = False,
            threads: int = 2, fast: bool = False, path: str | None = None) -> Array | tuple[Array, Array]:
    """Line integrals from the source to every pixel, and their derivative by the pose.

    Parameters
    ----------
    volume : attenuation in 1/mm, a Volume or one Prepared once for many projections; zero outside
    carm_from_patient : rigid (4, 4)
    jacobian : also return the derivative by xi = (rx, ry, rz, tx, ty, tz), rad and mm, of the left perturbation
        ``exp(xi) @ carm_from_patient`` in the C-arm frame, about the isocenter
    threads : how many to use; their number changes no bit of the result
    fast : four to eight times as fast, from 12-bit voxels and interpolated from a grid of rays: the picture is right
        to 2e-3 (relative, RMS) where pixels and voxels go together (0.6 voxels a pixel, which is where a picture
        has about as much detail as its volume), and the derivative is smoothed over a pixel. A volume
        that reaches behind the source or a pixel wider than two voxels is computed the slow way all the same.
    path : a name out of `paths()`; the best, or the environment's FLUORONAV_PROJECTOR, if None

    Returns
    -------
    (rows, columns) float32 line integrals without unit, and with `jacobian` (6, rows, columns) float32

    The field is `Prepared`'s; rays begin at the source and do not end at the detector. Source: Joseph 1982 (one plane
    a step along the rays' main axis, bilinear in it) and, if fast, Lacroute and Levoy 1994 (shear-warp); the
    derivative is that of the interpolant. Raises BadInput for a pose that is not rigid.
    """
    prepared = volume if isinstance(volume, Prepared) else Prepared(volume)
    pose = Rigid.checked(carm_from_patient, "carm_from_patient")
    axis, numbers = _view(prepared, carm, pose)
    h, w = carm.shape
    if fast:
        slabs, boxes, unit = prepared.slabs(axis)
        x, _, z = _ORDERS[axis]
        size = prepared.volume.data.shape[::-1]
        finer = 1.0 if max(h, w) > _SMALL else 1.5
        made = _projector.sheared(slabs, boxes, size[z], size[x], unit, finer, h, w, numbers, jacobian,
                                  max(1, threads), _chosen(path))
        if made is not None:
            return made
    return _projector.direct(prepared.planes(axis), h, w, numbers, jacobian, max(1, threads), _chosen(path))


def paths() -> tuple[str, ...]:
    """The paths that this processor can run, the best last."""
    return tuple(_projector.paths())


def best_path() -> str:
    """The name of the path in use: the best, or the environment's FLUORONAV_PROJECTOR."""
    return _chosen(None)


def projector_path() -> str:
    """The path in use, for a person: "AVX-512, float32 Joseph and 12-bit shear-warp"."""
    return f"{_chosen(None)}, float32 Joseph and 12-bit shear-warp"


def _chosen(path: str | None) -> str:
    name = path or os.environ.get(PATH_VARIABLE) or paths()[-1]
    if name not in paths():
        raise BadInput("projector path", got=name, expected="one of " + ", ".join(paths()),
                       remedy=f"leave {PATH_VARIABLE} empty for the best one")
    return name


def _view(prepared: Prepared, carm: CArm, carm_from_patient: Float64) -> tuple[int, Float64]:
    """The axis along which the rays mostly run, and the 27 numbers of the native View for it."""
    return _projector.placed(prepared.index_from_patient, carm_from_patient, *carm.shape, *carm.pitch_mm_row_col,
                             carm.sdd_mm, carm.sod_mm, *carm.principal_px_u_v)


def _subdivided(volume: Volume) -> Volume:
    """The same field on voxels of nearly equal edges: planes far apart get others interpolated between them.

    Exactly the same field, its fall to zero outside included; oblique rays would skip over thick slices.
    """
    factors = np.round(volume.spacing_mm / volume.spacing_mm.min()).astype(int)
    if factors.max() < 2:
        return volume
    data, affine = volume.data, volume.patient_from_index.copy()
    for a, f in enumerate(factors):
        if f < 2:
            continue
        place = np.arange(1, (data.shape[2 - a] + 1) * f) / f  # in the index of the volume with a border of zeros
        below = np.minimum(place.astype(int), data.shape[2 - a])
        bordered = np.moveaxis(np.pad(data, [(int(b == 2 - a),) * 2 for b in range(3)]), 2 - a, 0)
        share = (place - below).astype(np.float32)[:, None, None]
        data = np.moveaxis(bordered[below] * (1 - share) + bordered[below + 1] * share, 0, 2 - a)
        affine[:3, 3] += affine[:3, a] * (1 / f - 1)
        affine[:3, a] /= f
    return Volume(data, affine)
