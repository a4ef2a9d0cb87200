# SPDX-License-Identifier: Apache-2.0
"""How sure are poses that several views, or several bodies in them, share? And what do the views tell of the C-arm?

One vector of unknowns: the motion of every body (6 numbers, left perturbation in the room), then of every C-arm
ln SDD and the principal point's shift along columns and rows (mm at the detector). Each view gives normal
equations and their scatter over all of them; they add. What the views do not see of a C-arm is held by the prior,
either carried through (`stated`) or weighed against what they see (`estimated`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from registration.confidence import IntrinsicPrior, by_intrinsics, length_bound, misfit, scatter
from registration.geometry import Array, CArm, Float64, Rigid
from registration.result import ErrorEstimate
from registration.similarity import Similarity
from registration.solver import adjoint, bounded

# As in confidence.py, but in the room: what is depth for one view is seen by the other. 0.01 deg, 0.05 mm. Of a C-arm,
# what the removal of scatter leaves and beam hardening adds shifts edges alike in all views: SDD 0.05 %, principal
# point 0.25 mm (40 simulated pairs of views by another integrator, chest and torso: along the axis that both views
# share the chest's are 0.4 mm off in the mean, the torso's not).
_FLOOR_BODY = np.array([2e-4, 2e-4, 2e-4, 0.05, 0.05, 0.05]) ** 2
_FLOOR_CARM = np.array([5e-4, 0.25, 0.25]) ** 2
_UNIT_BODY, _UNIT_CARM = np.array([1e-2] * 3 + [1.0] * 3), np.array([1e-2, 1.0, 1.0])  # conditioning only


@dataclass(frozen=True, slots=True)
class Look:
    """One view at a solution: computed and measured picture, weight (h, w), jacobian (6 * bodies, h, w) in the
    view's C-arm frame, the C-arm of these pixels, where it stands, and which C-arm it is (0, 1, ...)."""

    similarity: Similarity
    moving: Array
    fixed: Array
    weight: Array
    jacobian: Array
    carm: CArm
    carm_from_room: Float64
    which: int = 0


@dataclass(frozen=True, slots=True)
class Normal:
    """Added up over views, unknowns n = 6 * bodies + 3 * C-arms: hessian (n, n), gradient (n,), scatter (n, n)."""

    hessian: Float64
    gradient: Float64
    scatter: Float64
    bodies: int
    carms: int


@dataclass(frozen=True, slots=True)
class Doubt:
    """Covariance (n, n) of the unknowns above; `carms` C-arms; the first body is the one that is asked for."""

    covariance: Float64
    bodies: int
    carms: int

    def seen_by(self, carm_from_room: Float64, which: int) -> Float64:
        """(9, 9): the first body's motion in a view's C-arm frame, and the intrinsics of that C-arm."""
        at = 6 * self.bodies + 3 * which
        turn = np.zeros((9, len(self.covariance)))
        turn[:6, :6] = adjoint(carm_from_room)
        turn[6:, at:at + 3] = np.eye(3)
        return np.asarray(turn @ self.covariance @ turn.T)


def gathered(looks: Sequence[Look], carms: int) -> Normal | None:
    """Normal equations of all views; None where a picture says nothing."""
    bodies = len(looks[0].jacobian) // 6
    n = 6 * bodies + 3 * carms
    hessian, gradient, spread = np.zeros((n, n)), np.zeros(n), np.zeros((n, n))
    for look in looks:
        by_body = look.jacobian.reshape(bodies, 6, *look.carm.shape).sum(0)
        pitch_v, pitch_u = look.carm.pitch_mm_row_col
        by_carm = by_intrinsics(by_body, look.carm) * np.array([1, 1 / pitch_u, 1 / pitch_v], np.float32)[:, None, None]
        both = np.ascontiguousarray(np.concatenate([look.jacobian, by_carm]), np.float32)
        normal = look.similarity.evaluate(look.moving, look.fixed, look.weight, both).normal
        if normal is None or not np.isfinite(normal.hessian).all():
            return None
        turn = np.zeros((6 * bodies + 3, n))
        turn[:6 * bodies, :6 * bodies] = np.kron(np.eye(bodies), adjoint(look.carm_from_room))
        at = 6 * bodies + 3 * look.which
        turn[6 * bodies:, at:at + 3] = np.eye(3)
        hessian += turn.T @ normal.hessian @ turn
        gradient += turn.T @ normal.gradient
        spread += turn.T @ scatter(normal.scores, look.carm) @ turn
    return Normal(hessian, gradient, spread, bodies, carms)


def stated(normal: Normal, prior: IntrinsicPrior, agreement: float) -> Doubt:
    """Doubt where the C-arms are taken as stated: the poses' scatter, and how they follow what the prior allows."""
    k = 6 * normal.bodies
    inverse = _inverse(normal.hessian[:k, :k], np.tile(_UNIT_BODY, normal.bodies))
    return _carried(_seen(normal, inverse, agreement), inverse @ normal.hessian[:k, k:], normal, prior)


def _seen(normal: Normal, inverse: Float64, agreement: float) -> Float64:
    """The bodies' scatter (k, k) as their pictures leave it."""
    k = len(inverse)
    return np.asarray(inverse @ normal.scatter[:k, :k] @ inverse * misfit(agreement) ** 2
                      + np.diag(np.tile(_FLOOR_BODY, normal.bodies)))


def estimated(normal: Normal, prior: IntrinsicPrior, agreement: float, moved: Float64) -> tuple[Float64, Doubt]:
    """The step (n,) to where pictures and prior agree best, and the doubt there.

    moved (3 * carms,): the intrinsics now, as changes against the stated ones. The pictures' optimum with its
    sandwich is one Gaussian, the prior around the stated values another; their product is the answer.
    """
    unit = np.concatenate([np.tile(_UNIT_BODY, normal.bodies), np.tile(_UNIT_CARM, normal.carms)])
    inverse = _inverse(normal.hessian, unit)
    floor = np.concatenate([np.tile(_FLOOR_BODY, normal.bodies), np.tile(_FLOOR_CARM, normal.carms)])
    seen = inverse @ normal.scatter @ inverse * misfit(agreement) ** 2 + np.diag(floor)
    information = np.linalg.inv(seen / np.outer(unit, unit)) / np.outer(unit, unit)
    held = np.concatenate([np.zeros(6 * normal.bodies), 1 / np.tile(_variances(prior), normal.carms)])
    covariance = _inverse(information + np.diag(held), unit)
    best = -inverse @ normal.gradient
    pull = information @ best - held * np.concatenate([np.zeros(6 * normal.bodies), moved])
    return covariance @ pull, Doubt(covariance, normal.bodies, normal.carms)


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of how bodies lie against each other, n numbers of mean zero: their derivatives (n, 6 * bodies) by
    the motions of the bodies, what they are now, and their standard deviations."""

    by: Float64
    now: Float64
    sd: Float64


def linked(normal: Normal, link: Link, prior: IntrinsicPrior, agreement: float) -> tuple[Float64, Doubt]:
    """The step (6 * bodies,) to where pictures and link agree best, and the doubt there, the C-arms taken as stated.

    As `estimated`: the pictures' optimum with its sandwich is one Gaussian, the link another.
    """
    k, unit = 6 * normal.bodies, np.tile(_UNIT_BODY, normal.bodies)
    inverse = _inverse(normal.hessian[:k, :k], unit)
    seen = _seen(normal, inverse, agreement)
    information = np.linalg.inv(seen / np.outer(unit, unit)) / np.outer(unit, unit)
    known = link.by.T / link.sd**2
    covariance = _inverse(information + known @ link.by, unit)
    step = covariance @ (-information @ (inverse @ normal.gradient[:k]) - known @ link.now)
    slip = covariance @ information @ inverse @ normal.hessian[:k, k:]
    return bounded(step), _carried(covariance, slip, normal, prior)


def _carried(poses: Float64, slip: Float64, normal: Normal, prior: IntrinsicPrior) -> Doubt:
    """The doubt of poses (k, k) that follow by `slip` (k, m) what the prior allows the C-arms."""
    k = len(poses)
    allowed = np.diag(np.tile(_variances(prior), normal.carms))
    out = np.zeros_like(normal.hessian)
    out[:k, :k] = poses + slip @ allowed @ slip.T
    out[:k, k:] = -slip @ allowed
    out[k:, :k], out[k:, k:] = out[:k, k:].T, allowed
    return Doubt(out, normal.bodies, normal.carms)


def changed(carm: CArm, by: Float64) -> CArm:
    """The C-arm with (ln SDD, principal point u mm, v mm) changed, at whatever binning."""
    (cu, cv), (pitch_v, pitch_u) = carm.principal_px_u_v, carm.pitch_mm_row_col
    return replace(carm, sdd_mm=carm.sdd_mm * float(np.exp(by[0])),
                   principal_px_u_v=(cu + by[1] / pitch_u, cv + by[2] / pitch_v))


def error_in(doubt: Doubt, carm: CArm, carm_from_room: Float64, which: int, room_from_patient: Float64,
             target_mm: Float64, *, tissue_mm: float = 0.0) -> ErrorEstimate:
    """95 % bounds at a target (3,) of the patient frame: in 3D (the same for every view), and in this picture.

    The projected one compares the target's place in the overlay with its place in the picture, as for one view.
    """
    x = Rigid.apply(carm_from_room @ room_from_patient, target_mm)
    skew = np.array([[0, x[2], -x[1]], [-x[2], 0, x[0]], [x[1], -x[0], 0]])  # d x / d rotation
    in_space = np.hstack([skew, np.eye(3)])
    depth = max(carm.sod_mm - x[2], 1.0)
    in_plane = np.hstack([np.eye(2), (x[:2] / depth)[:, None]]) @ in_space
    direct = np.array([[x[0], depth / carm.sdd_mm, 0.0], [x[1], 0.0, depth / carm.sdd_mm]])
    both = doubt.seen_by(carm_from_room, which)
    cov_3d = in_space @ both[:6, :6] @ in_space.T + tissue_mm**2 * np.eye(3)
    plane = np.hstack([in_plane, direct])
    cov_2d = plane @ both @ plane.T + tissue_mm**2 * np.eye(2)
    return ErrorEstimate(length_bound(cov_3d), length_bound(cov_2d), np.asarray(target_mm, np.float64))


def _variances(prior: IntrinsicPrior) -> Float64:
    return np.array([prior.sdd_share, prior.principal_mm, prior.principal_mm]) ** 2


def _inverse(matrix: Float64, unit: Float64) -> Float64:
    """The inverse of a positive matrix whose unknowns have such units; unseen directions stay finite, and large."""
    scaled = matrix * np.outer(unit, unit)
    top = max(float(np.linalg.eigvalsh(scaled)[-1]), 1e-300)
    return np.asarray(np.linalg.inv(scaled + 1e-10 * top * np.eye(len(unit))) * np.outer(unit, unit))
