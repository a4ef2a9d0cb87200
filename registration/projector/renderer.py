# SPDX-License-Identifier: Apache-2.0
"""Line integrals of a volume through a C-arm, with the derivative by the pose, on the processor's best path."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array, CArm, Float64, Rigid, Volume
from registration.projector import _projector

if TYPE_CHECKING:
    from registration.projector import gpu

# names the path to take instead of the best: "portable C++", "AVX2", "AVX-512"
PATH_VARIABLE = "FLUORONAV_PROJECTOR"

# A voxel's mean must be a few steps of a byte whose 255 are the largest one: else metal leaves tissue no shades.
_RANGE = 100.0

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
        self._bricks: dict[tuple[int, str], tuple[Array, float]] = {}
        self._bytes_serve: bool | None = None
        self._resident: gpu.Resident | None = None

    def planes(self, axis: int) -> Array:
        """float32 [z][y][x] with a border of zeros in x and y; z is index axis `axis` (0: i, 1: j, 2: k)."""
        if axis not in self._planes:
            pad = _projector.PAD
            turned = self._turned(axis)
            out = np.zeros((turned.shape[0], turned.shape[1] + 2 * pad, turned.shape[2] + 2 * pad), np.float32)
            out[:, pad:-pad, pad:-pad] = turned
            self._planes[axis] = out
        return self._planes[axis]

    def bricks(self, axis: int, path: str) -> tuple[Array, float] | None:
        """Two bytes a voxel in a path's own order for the quick renderer, and 1/mm a step of the first; None where
        a byte does not serve: negative values, or a range that metal takes up."""
        if self._bytes_serve is None:
            data = self.volume.data
            filled = max(1, np.count_nonzero(data))
            self._bytes_serve = bool(data.min() >= 0 and data.max() * filled <= _RANGE * data.sum(dtype=np.float64))
        if not self._bytes_serve:
            return None
        if (axis, path) not in self._bricks:
            self._bricks[axis, path] = _projector.bricks(self._turned(axis), path)
        return self._bricks[axis, path]

    def resident(self) -> gpu.Resident:
        """The volume on the GPU. Raises BadInput where there is none."""
        if self._resident is None:
            from registration.projector import gpu

            self._resident = gpu.Resident(self.volume)
        return self._resident

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
    fast : several times as fast, from voxels of one byte (their derivative of two): the picture is right to 2e-4
        (relative, RMS; 256 planes) or 5e-4 (50 planes), the derivative to 5 %. A volume that has negative values,
        metal a hundred times its mean, or reaches behind the source, and pixels wider than two voxels, are computed
        the slow way all the same.
    path : a name out of `paths()`; the best, or the environment's FLUORONAV_PROJECTOR, if None. "GPU" is
        projector/gpu.py, where there is one; it is never chosen by itself

    Returns
    -------
    (rows, columns) float32 line integrals without unit, and with `jacobian` (6, rows, columns) float32

    The field is `Prepared`'s; rays begin at the source and do not end at the detector. Source: Joseph 1982 (one plane
    a step along the rays' main axis, bilinear in it); the derivative is that of the interpolant. Raises BadInput for a
    pose that is not rigid.
    """
    prepared = volume if isinstance(volume, Prepared) else Prepared(volume)
    pose = Rigid.checked(carm_from_patient, "carm_from_patient")
    if (path or os.environ.get(PATH_VARIABLE)) == "GPU":
        from registration.projector import gpu

        return gpu.project(prepared.resident(), carm, pose, jacobian=jacobian)
    axis, numbers = _view(prepared, carm, pose)
    h, w = carm.shape
    if fast:
        name = _chosen(path)
        bricks = prepared.bricks(axis, name)
        if bricks is not None:
            size = brick_size(prepared, axis)
            made = _projector.patches(bricks[0], size, bricks[1], h, w, numbers, jacobian, max(1, threads), name)
            if made is not None:
                return made
    return _projector.direct(prepared.planes(axis), h, w, numbers, jacobian, max(1, threads), _chosen(path))


def main_axis(prepared: Prepared, carm: CArm, carm_from_patient: Float64) -> int:
    """The index axis along which the rays of a picture mostly run; carm_from_patient is rigid."""
    return _view(prepared, carm, carm_from_patient)[0]


def brick_size(prepared: Prepared, axis: int) -> tuple[int, ...]:
    """Voxels along x, y, z of the bricks of an axis."""
    return tuple(prepared.volume.data.shape[2 - a] for a in _ORDERS[axis])


def paths() -> tuple[str, ...]:
    """The paths that this processor can run, the best last."""
    return tuple(_projector.paths())


def best_path() -> str:
    """The name of the path in use: the best, or the environment's FLUORONAV_PROJECTOR."""
    return _chosen(None)


def projector_path() -> str:
    """The path in use, for a person: "AVX-512, float32 Joseph and byte patches"."""
    return f"{_chosen(None)}, float32 Joseph and byte patches"


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
