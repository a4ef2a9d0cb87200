# SPDX-License-Identifier: Apache-2.0
"""Where does a volume's pose come to rest in one view? solver.py's steps in one native call, where its bytes serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from registration.geometry import Array, CArm, Float64
from registration.projector import Prepared, _projector
from registration.projector.batch import numbers_of
from registration.projector.renderer import best_path, brick_size, main_axis
from registration.similarity import Correlation, NormalEquations
from registration.solver import Sight

_NONE = np.zeros(6)


@dataclass(frozen=True, slots=True)
class Rung:
    """A level of a descent: its pixels, the volume at their resolution, and how far; see solver.Stage."""

    carm: CArm
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


def descend(rungs: Sequence[Rung], sights: Sequence[Sight], carm_from_body: Float64, *, lean: Float64 | None = None,
            threads: int = 2) -> Rest | None:
    """The rest that a pose comes to, coarse to fine, each rung looking at its sight. None where the fast renderer
    does not serve the volume or a pose on the way: `solver.solve` does. The number of threads changes no bit.

    lean: where coarse levels were off before (xi, `Rest.lean`) they are expected to be off again: it is added before
    the last one.
    """
    path = best_path()
    levels = [level_of(r, main_axis(r.volume, r.carm, carm_from_body), path) for r in rungs]
    if None in levels:
        return None
    found = _projector.descended(levels, [(s.fixed, s.weight) for s in sights], carm_from_body,
                                 _NONE if lean is None else lean, max(1, threads), path)
    return None if found is None else rest_of(found)


def level_of(rung: Rung, axis: int, path: str) -> tuple[Any, ...] | None:
    """What native code asks of a rung whose rays mostly run along an axis of the volume's; None: no bytes serve it."""
    bricks = rung.volume.bricks(axis, path)
    if bricks is None:
        return None
    s = rung.similarity
    return (bricks[0], brick_size(rung.volume, axis), bricks[1], axis, rung.volume.index_from_patient,
            numbers_of(rung.carm).tolist(), s.gradient, s.patch_px or 0, s.floor, s.score_px, rung.iterations,
            rung.robust, rung.tolerance_px)


def rest_of(found: tuple[Any, ...]) -> Rest:
    """From native code's answer."""
    pose, lean, values, renders, moving, hessian, gradient, scores = found
    return Rest((pose,), lean, values, renders, moving, NormalEquations(hessian, gradient, scores))
