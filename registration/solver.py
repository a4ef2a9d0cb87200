# SPDX-License-Identifier: Apache-2.0
"""Which poses explain the pictures best? One Levenberg-Marquardt on SE(3).

Any number of bodies (their line integrals add), any number of views (their places are known relative
to one room), any similarity, coarse to fine. Poses are perturbed on the left, in the room:
``room_from_body_new = exp(xi) @ room_from_body``. With one view the room is its C-arm frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from registration.geometry import Array, CArm, Float64, Rigid
from registration.similarity import Likeness, NormalEquations, Similarity

# one body at one level: (C-arm, carm_from_body, jacobian wanted) -> picture (h, w), jacobian (6, h, w) or None
Render = Callable[[CArm, Float64, bool], tuple[Array, Array | None]]


# A derivative serves for this much movement of the picture in all. Edges are two pixels wide; where the picture is not
# wholly explained, an older derivative also leads to another place (0.1 mm for one of 0.7 pixels).
FROZEN_PX = 0.35


@dataclass(frozen=True, slots=True)
class Sight:
    """One view at one level: fixed and weight (h, w) float32, their C-arm, and where it stands."""

    fixed: Array
    weight: Array
    carm: CArm
    carm_from_room: Float64 = field(default_factory=lambda: np.eye(4))


@dataclass(frozen=True, slots=True)
class Stage:
    """One step from coarse to fine. robust: lower the weight of what only the frame has, once, after a first step
    without: where a pose is off, edges that both have look foreign, and weights would hold it there.
    tolerance_px: a step that moves the picture by less is the last."""

    sights: tuple[Sight, ...]
    renders: tuple[Render, ...]
    similarity: Similarity
    iterations: int = 8
    robust: bool = False
    tolerance_px: float = 0.03


@dataclass(frozen=True, slots=True)
class Problem:
    """Stages from coarse to fine; `free` says which bodies may move (all, if None)."""

    stages: tuple[Stage, ...]
    free: tuple[bool, ...] | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """room_from_body of every body, the likeness at the last stage with its normal equations (6 numbers
    a body), the value after each stage, and how many pictures were computed."""

    room_from_body: tuple[Float64, ...]
    likeness: Likeness
    values: tuple[float, ...]
    renders: int
    moving: tuple[Array, ...]
    jacobians: tuple[Array, ...]
    weights: tuple[Array, ...]


def solve(problem: Problem, start: Sequence[Float64]) -> Solution:
    """Run the stages one after the other from room_from_body of every body."""
    poses = tuple(np.array(p, np.float64) for p in start)
    values: list[float] = []
    renders = 0
    state: _State | None = None
    for stage in problem.stages:
        poses, state, used = _descend(stage, poses, problem.free)
        values.append(state.likeness.value)
        renders += used
    if state is None:
        raise ValueError("a problem needs at least one stage")
    return Solution(poses, state.likeness, tuple(values), renders, state.moving, state.jacobians, state.weights)


@dataclass(frozen=True, slots=True)
class _State:
    likeness: Likeness
    moving: tuple[Array, ...]
    jacobians: tuple[Array, ...]
    weights: tuple[Array, ...]


def _descend(stage: Stage, poses: tuple[Float64, ...], free: tuple[bool, ...] | None) -> tuple[
        tuple[Float64, ...], _State, int]:
    """Levenberg-Marquardt at one stage. A derivative serves as long as the picture moves by less than a pixel's
    part from where it was taken; the last step, too short to matter, is taken without another look."""
    weights = tuple(s.weight for s in stage.sights)
    pictures = _pictures(stage, poses)
    state = _look(stage, pictures, weights)
    used, damping, strayed = 1, 1e-3, 0.0
    first = state.likeness.normal
    if stage.robust and stage.iterations and first is not None and np.isfinite(first.hessian).all():
        poses = _moved(next_step(first, damping, free), poses)
        pictures = _pictures(stage, poses)
        weights = tuple(stage.similarity.robust_weight(p, s.fixed, w)
                        for p, s, w in zip(pictures.moving, stage.sights, weights, strict=True))
        state, used = _look(stage, pictures, weights), 2
    for _ in range(stage.iterations):
        normal = state.likeness.normal
        if normal is None or not np.isfinite(normal.hessian).all():
            break
        step = next_step(normal, damping, free)
        trial = _moved(step, poses)
        moved = _movement_px(step, stage)
        if moved < stage.tolerance_px:
            poses, state = trial, _foreseen(state, step, stage.sights)
            break
        strayed += moved
        new = _look(stage, _pictures(stage, trial, None if strayed > FROZEN_PX else state.jacobians), weights)
        used += 1
        if strayed > FROZEN_PX:
            strayed = 0.0
        if new.likeness.value > state.likeness.value:
            poses, state, damping = trial, new, max(damping * 0.2, 1e-5)
        else:
            damping = max(damping * 8, 1e-2)
            if damping > 1e3:
                break
    return poses, state, used


def _moved(step: Float64, poses: tuple[Float64, ...]) -> tuple[Float64, ...]:
    return tuple(Rigid.exp(step[6 * b:6 * b + 6]) @ p for b, p in enumerate(poses))


def _foreseen(state: _State, step: Float64, sights: tuple[Sight, ...]) -> _State:
    """The state with its pictures where the step leads, as far as the derivatives tell."""
    moving = tuple(m + np.tensordot((np.kron(np.eye(len(step) // 6), adjoint(s.carm_from_room)) @ step).astype(
        np.float32), j, 1) for m, j, s in zip(state.moving, state.jacobians, sights, strict=True))
    return replace(state, moving=moving)


@dataclass(frozen=True, slots=True)
class _Pictures:
    moving: tuple[Array, ...]
    jacobians: tuple[Array, ...]


def _pictures(stage: Stage, poses: tuple[Float64, ...], kept: tuple[Array, ...] | None = None) -> _Pictures:
    """Every view's sum of all bodies (h, w), with its Jacobian (6 * bodies, h, w) or the one that is kept."""
    pairs = [_picture(stage, sight, poses, kept is None) for sight in stage.sights]
    return _Pictures(tuple(p for p, _ in pairs), tuple(j for _, j in pairs if j is not None) if kept is None else kept)


def _look(stage: Stage, pictures: _Pictures, weights: tuple[Array, ...]) -> _State:
    """Likeness and joint normal equations of the pictures."""
    parts = [stage.similarity.evaluate(p, s.fixed, w, j) for p, s, w, j in zip(
        pictures.moving, stage.sights, weights, pictures.jacobians, strict=True)]
    return _State(_joined(parts, stage.sights), pictures.moving, pictures.jacobians, weights)


def _picture(stage: Stage, sight: Sight, poses: tuple[Float64, ...], jacobian: bool) -> tuple[Array, Array | None]:
    pairs = [render(sight.carm, sight.carm_from_room @ pose, jacobian)
             for render, pose in zip(stage.renders, poses, strict=True)]
    if len(pairs) == 1:
        return pairs[0]
    jacobians = [j for _, j in pairs if j is not None]
    return sum((p for p, _ in pairs[1:]), pairs[0][0]), np.concatenate(jacobians) if jacobians else None


def _joined(parts: Sequence[Likeness], sights: tuple[Sight, ...]) -> Likeness:
    """Mean over views; each view's motion is turned from its C-arm into the room first."""
    n = len(parts)
    if n == 1 and np.array_equal(sights[0].carm_from_room, _HERE):
        return parts[0]
    value = sum(p.value for p in parts) / n
    hessian: Float64 = np.zeros(())
    gradient: Float64 = np.zeros(())
    scores: list[Float64] = []
    for part, sight in zip(parts, sights, strict=True):
        if part.normal is None:
            return Likeness(value, np.concatenate([p.by_block for p in parts]))
        a = np.kron(np.eye(len(part.normal.gradient) // 6), adjoint(sight.carm_from_room))
        hessian = hessian + a.T @ part.normal.hessian @ a / n
        gradient = gradient + a.T @ part.normal.gradient / n
        scores.append(part.normal.scores @ a / n)
    return Likeness(value, np.concatenate([p.by_block for p in parts]),
                    NormalEquations(hessian, gradient, np.concatenate(scores)))


def adjoint(b_from_a: Float64) -> Float64:
    """(6, 6): the tangent vector in frame b of a motion given in frame a. Source: Murray 1994, eq. 2.58."""
    r, t = b_from_a[:3, :3], b_from_a[:3, 3]
    skew = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    out = np.zeros((6, 6))
    out[:3, :3] = out[3:, 3:] = r
    out[3:, :3] = skew @ r
    return out


def next_step(normal: NormalEquations, damping: float, free: tuple[bool, ...] | None = None) -> Float64:
    """(n,): the motion of every body that a damped, bounded step of Gauss-Newton takes."""
    n = len(normal.gradient)
    use = np.repeat(free, 6) if free is not None else np.ones(n, bool)
    h, g = normal.hessian[np.ix_(use, use)], normal.gradient[use]
    scale = np.maximum(np.diag(h), 1e-12)
    out = np.zeros(n)
    # the second term keeps directions finite that the pictures do not see at all
    out[use] = -np.linalg.solve(h + np.diag(damping * scale) + 1e-9 * scale.max() * np.eye(len(g)) * _UNITS[:len(g)], g)
    return bounded(out)


_HERE = np.eye(4)
_UNITS = np.tile([1.0, 1.0, 1.0, 1e-4, 1e-4, 1e-4], 64)  # 1 rad moves things by some 100 mm: (1 / 100)^2

# One step may turn by 0.2 rad and shift by 30 mm, 80 mm in depth: the linear model holds no further.
_BOUND = np.array([0.2, 0.2, 0.2, 30.0, 30.0, 80.0])


def bounded(step: Float64) -> Float64:
    """A step (6 * bodies,) no longer than the linear model holds."""
    excess = float(np.max(np.abs(step) / np.tile(_BOUND, len(step) // 6)))
    return step / max(1.0, excess)


def _movement_px(step: Float64, stage: Stage) -> float:
    """How far a step moves the picture of a point some 100 mm from the isocenter, pixels (about)."""
    per_body = step.reshape(-1, 6)
    mm = np.abs(per_body[:, :3]).max() * 100 + np.abs(per_body[:, 3:5]).max() + np.abs(per_body[:, 5]).max() * 0.13
    return float(mm / min(s.carm.mm_per_px_at_isocenter for s in stage.sights))
