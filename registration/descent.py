# SPDX-License-Identifier: Apache-2.0
"""Where does a volume's pose come to rest in one view? solver.py's steps in one native call, where its bytes serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registration.geometry import Array, Float64, Rigid
from registration.projector import Prepared, _projector
from registration.projector.batch import numbers_of
from registration.projector.renderer import best_path, brick_size, main_axis
from registration.similarity import Correlation, NormalEquations
from registration.solver import Sight

_NONE = np.zeros(6)


@dataclass(frozen=True, slots=True)
class Rung:
    """A level of a descent: what is seen, the volume at its resolution, and how far to go; see solver.Stage."""

    sight: Sight
    volume: Prepared
    similarity: Correlation
    iterations: int
    robust: bool
    tolerance_px: float


@dataclass(frozen=True, slots=True)
class Rest:
    """Where a descent ended: room_from_body of the one body (the room is the view's C-arm frame), the value after each
    level, and at the last one the picture (h, w) and the normal equations in nine numbers: the pose's six, ln SDD,
    and the principal point's u and v in px. lean: the motion (xi) from where the levels before the last one ended."""

    room_from_body: tuple[Float64, ...]
    lean: Float64
    values: tuple[float, ...]
    renders: int
    moving: Array
    normal: NormalEquations


def descend(rungs: Sequence[Rung], carm_from_body: Float64, *, lean: Float64 | None = None,
            threads: int = 2) -> Rest | None:
    """The rest that a pose comes to, coarse to fine. None where the fast renderer does not serve the volume or a
    pose on the way: `solver.solve` does. The number of threads changes no bit.

    lean: where coarse levels were off before (xi, `Rest.lean`) they are expected to be off again: it is added before
    the last one.
    """
    path = best_path()
    levels = []
    for rung in rungs:
        carm = rung.sight.carm
        axis = main_axis(rung.volume, carm, carm_from_body)
        bricks = rung.volume.bricks(axis, path)
        if bricks is None:
            return None
        s, seen = rung.similarity, rung.sight
        levels.append((bricks[0], brick_size(rung.volume, axis), bricks[1], axis, rung.volume.index_from_patient,
                       numbers_of(carm).tolist(), seen.fixed, seen.weight, s.gradient, s.patch_px or 0, s.floor,
                       s.score_px, rung.iterations, rung.robust, rung.tolerance_px))
    found = _projector.descended(levels, carm_from_body, _NONE if lean is None else lean, max(1, threads), path)
    if found is None:
        return None
    pose, coarse, values, renders, moving, hessian, gradient, scores = found
    moved = Rigid.log(pose @ Rigid.inverse(coarse))
    return Rest((pose,), moved, tuple(values.tolist()), renders, moving, NormalEquations(hessian, gradient, scores))
