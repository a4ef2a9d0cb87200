# SPDX-License-Identifier: Apache-2.0
"""How sure is a pose? Covariance, expected error at the target, and what they are made of.

The pose's scatter is the sandwich ``H^-1 (sum of g g^T) H^-1`` (Huber 1967; White 1982): H from the
normal equations, g the gradient's summands over cells of the picture. The summands hold whatever the
residual is made of, noise that is correlated within a cell and model mismatch alike, so nothing has to
be assumed about either. What one view cannot see at all, a wrong SDD or principal point, is carried
through the same normal equations from a prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from registration import _similarity
from registration.geometry import Array, CArm, Float64, Rigid
from registration.result import ErrorEstimate
from registration.similarity import NormalEquations, Similarity


@dataclass(frozen=True, slots=True)
class IntrinsicPrior:
    """How well a C-arm's geometry is usually known, one standard deviation: SDD as a share of itself,
    principal point in mm at the detector along each axis."""

    sdd_share: float = 0.01
    principal_mm: float = 2.0

    def on(self, carm: CArm) -> Float64:
        """(3,): the standard deviations of ln SDD and the principal point's u and v in pixels of `carm`."""
        pitch_v, pitch_u = carm.pitch_mm_row_col
        return np.array([self.sdd_share, self.principal_mm / pitch_u, self.principal_mm / pitch_v])


@dataclass(frozen=True, slots=True)
class Spread:
    """Uncertainty of one pose: pose (6, 6) from the picture alone; slip (6, 3), how the pose follows an
    error of (ln SDD, principal u px, principal v px); prior (3,), their standard deviations."""

    pose: Float64
    slip: Float64
    prior: Float64

    @property
    def covariance(self) -> Float64:
        """(6, 6), tangent order, rad and mm: the picture's scatter and the prior's together."""
        follow = self.slip * self.prior
        return self.pose + follow @ follow.T


# The sandwich sees what varies within one picture; what misfits everywhere (an organ out of place, beam
# hardening) shows in the agreement q instead. Errors of simulated chests and torsos (n = 450: plain, collimated,
# few photons, breathing, two integrators) are some 6 (1 / q^2 - 1) times the sandwich's, 2.3 at q = 0.85, and no less.
_MISFIT, _LEAST = 6.0, 1.0
_REACH = 0.25  # of the picture's width: as far as breathing moves organs together
DOUBTS = (_REACH, _MISFIT, _LEAST)
# Poses are never better known than this share of a pixel at the isocenter, whatever a picture says, as sampling shifts
# edges by that much: for 1 mm 0.022 mm, 0.11 mm in depth, 0.006 deg; what plain pictures of the same n = 450 leave.
_FLOOR = np.array([1.1e-4, 1.1e-4, 1.1e-4, 0.022, 0.022, 0.11]) ** 2


def spread_of(similarity: Similarity, moving: Array, fixed: Array, weight: Array, jacobian: Array, carm: CArm,
              prior: IntrinsicPrior | None = None, *, agreement: float = 0.94) -> Spread:
    """Uncertainty of a pose at which `moving` (h, w) with jacobian (6, h, w) was computed."""
    normal = similarity.evaluate(moving, fixed, weight, with_intrinsics(jacobian, carm)).normal
    assert normal is not None
    return spread_from(normal, carm, prior, agreement=agreement)


def spread_from(normal: NormalEquations, carm: CArm, prior: IntrinsicPrior | None = None, *,
                agreement: float = 0.94) -> Spread:
    """Uncertainty of a pose from its normal equations with those of the intrinsics (9 numbers) on pixels of `carm`.

    agreement (0..1): how well the picture is explained as a share of what noise allows (gate.Fit).
    Directions that the picture does not see come out with a very large variance, never as zero.
    """
    sds = (prior or IntrinsicPrior()).on(carm)
    told = _similarity.spread(normal.hessian, normal.scores, *carm.shape, _REACH, misfit(agreement)) if np.isfinite(
        normal.hessian).all() else None
    if told is None:
        return Spread(np.eye(6) * 1e6, np.zeros((6, 3)), sds)
    return Spread(told[0] + np.diag(floor_of(carm)), told[1], sds)


def floor_of(carm: CArm) -> Float64:
    """(6,): the variances that no pose falls below."""
    return carm.mm_per_px_at_isocenter**2 * _FLOOR


def misfit(agreement: float) -> float:
    """Factor on the sandwich's standard deviations for a picture explained that well."""
    return max(_LEAST, _MISFIT * (1 / max(agreement, 0.05) ** 2 - 1))


def scatter(scores: Float64, carm: CArm) -> Float64:
    """(n, n): sum of g g' over pairs of cells, near pairs in full and ever less up to `_REACH` apart;
    scores (cells, n): the gradient's summands over the cells of one picture.

    Tissue that moved against the bone leaves residuals that agree over many cells: counted as independent
    they would make the pose look several times too sure. The triangular weight keeps the sum positive
    (Newey and West 1987; Conley 1999 for the plane).
    """
    return _similarity.scatter(scores, *carm.shape, _REACH)


def error_at(spread: Spread, carm: CArm, carm_from_patient: Float64, target_mm: Float64, *,
             tissue_mm: float = 0.0) -> ErrorEstimate:
    """95 % bounds of the error at a target (3,) of the patient frame, in 3D and in the picture.

    The projected one compares the target's place in the overlay with its place in the picture, scaled to
    the target's depth: an error of SDD that the pose has absorbed does not count there, and should not.
    tissue_mm: standard deviation along each axis of the target's own motion against the registered body.
    """
    target = np.asarray(target_mm, np.float64)
    pitch_v, pitch_u = carm.pitch_mm_row_col
    in_space, in_plane = _similarity.moments(Rigid.apply(carm_from_patient, target), carm.sdd_mm, carm.sod_mm, pitch_u,
                                             pitch_v, spread.pose, spread.slip, spread.prior, tissue_mm)
    return ErrorEstimate(bound_of(*in_space), bound_of(*in_plane), target)


def length_bound(covariance: Float64, share: float = 0.95) -> float:
    """The length below which a centered Gaussian vector stays in that share of the cases.

    Its square is a weighted sum of chi-squares, here the gamma distribution with the same mean and
    variance (Satterthwaite 1946; exact for one weight or equal ones, else within 2 %).
    """
    return bound_of(float(np.trace(covariance)), float((covariance * covariance).sum()), share)


def bound_of(trace: float, trace_of_square: float, share: float = 0.95) -> float:
    """`length_bound` from the sum of a covariance's eigenvalues, and that of their squares."""
    if not math.isfinite(trace) or trace <= 0:
        return 0.0 if math.isfinite(trace) else math.inf
    spread = 2 * trace_of_square / trace
    return math.sqrt(float(special.gammaincinv(trace / spread, share)) * spread)


def by_intrinsics(jacobian: Array, carm: CArm) -> Array:
    """(3, h, w): derivatives of a computed picture by ln SDD and by the principal point's u and v, px.

    They need the picture's derivatives by u and v, taken from the Jacobian (6, h, w) instead of from
    neighbouring pixels, so that both lose the same to sampling. A turn about the source only moves the
    picture: with a = x / (SOD - z), b = y / (SOD - z) a turn by w moves it by
    (-wy - wz b + a (wx b - wy a), wx + wz a + b (wx b - wy a)); the turns about x and y give two equations. Such a
    turn w about the source s is one about the isocenter and the shift -w x s.
    """
    return with_intrinsics(jacobian, carm)[6:]


def with_intrinsics(jacobian: Array, carm: CArm) -> Array:
    """(9, h, w): a Jacobian (6, h, w), and after it what `by_intrinsics` makes of it."""
    (pitch_v, pitch_u), (cu, cv) = carm.pitch_mm_row_col, carm.principal_px_u_v
    return _similarity.with_intrinsics(jacobian, carm.sod_mm, pitch_u / carm.sdd_mm, pitch_v / carm.sdd_mm, cu, cv)
