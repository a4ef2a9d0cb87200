# SPDX-License-Identifier: Apache-2.0
"""Many poses in one native call: small pictures of them, the way up from each, all turns and shifts of a picture."""

from __future__ import annotations

import numpy as np

from registration.geometry import Array, CArm, Float64
from registration.projector import _projector
from registration.projector.renderer import Prepared, best_path


class Batch:
    """A volume ready for thousands of small projections (direct renderer, float32)."""

    def __init__(self, prepared: Prepared) -> None:
        self._planes = prepared.planes(0), prepared.planes(1), prepared.planes(2)
        self._index = np.ascontiguousarray(prepared.index_from_patient)

    def pictures(self, carm: CArm, poses: Float64, *, threads: int = 2) -> Array:
        """Line integrals (n, rows, columns) float32 at carm_from_patient (n, 4, 4)."""
        return _projector.pictures(*self._planes, self._index, numbers_of(carm), _contiguous(poses), max(1, threads),
                                   best_path())

    def climb(self, carm: CArm, fixed: Array, weight: Array, poses: Float64, *, gradient: bool, iterations: int,
              tolerance_px: float = 0.1, threads: int = 2) -> tuple[Float64, Float64]:
        """Poses (n, 4, 4) after so many steps of Levenberg-Marquardt each, and the correlation there (n,).

        What climbs is `similarity.NCC` of fixed (rows, columns) with weight, or `similarity.GRADIENT`; the steps are
        those of solver.py. Without iterations poses are only scored. Every pose goes its own way: neither their
        number nor the threads change a bit.
        """
        return _projector.climbed(*self._planes, self._index, numbers_of(carm), _contiguous(poses), fixed, weight,
                                  gradient, iterations, tolerance_px, max(1, threads), best_path())


def sweep(computed: Array, pitch_mm: float, carm: CArm, fixed: Array, weight: Array, turns_rad: Float64,
          reach_px: tuple[int, int], *, stride: int = 1, threads: int = 2) -> tuple[Array, Array]:
    """The best correlation (n, m) of n computed pictures, each turned by m angles, over all shifts, and the shift
    (n, m, 2), px of `fixed` along (columns, rows), at which `fixed` lies on the computed picture.

    computed (n, size, size) with the central ray in their middle, pitch_mm at the detector, zero outside; reach_px:
    the largest shift along columns and rows; turns as a roll of the pose, right-handed about the central ray.
    stride: of the shifts along columns that are tried at first; those that it leaves out are tried beside the best.
    """
    turns = np.stack([np.cos(turns_rad), np.sin(turns_rad)], 1)
    return _projector.swept(computed, pitch_mm, fixed, weight, numbers_of(carm), turns, *reach_px, stride,
                            max(1, threads))


def numbers_of(carm: CArm) -> Float64:
    """(8,) what native code asks of a C-arm: rows, columns, pitch along rows and columns, SDD, SOD, principal u, v."""
    return np.array([*carm.shape, *carm.pitch_mm_row_col, carm.sdd_mm, carm.sod_mm, *carm.principal_px_u_v], np.float64)


def _contiguous(poses: Float64) -> Float64:
    return np.ascontiguousarray(poses, np.float64)
