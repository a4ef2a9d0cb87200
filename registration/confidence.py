# SPDX-License-Identifier: Apache-2.0
"""How sure is a pose? Covariance, expected error at the target, and what they are made of.

The pose's scatter is the sandwich ``H^-1 (sum of g g^T) H^-1`` (Huber 1967; White 1982): H from the
normal equations, g the gradient's summands over cells of the picture. The summands hold whatever the
residual is made of, noise that is correlated within a cell and model mismatch alike, so nothing has to
be assumed about either. What one view cannot see at all, a wrong SDD or principal point, is carried
through the same normal equations from a prior.
"""

from __future__ import annotations

import functools
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
# Poses are never better known than this share of a pixel at the isocenter, whatever a picture says, as sampling shifts
# edges by that much: for 1 mm 0.022 mm, 0.11 mm in depth, 0.006 deg; what plain pictures of the same n = 450 leave.
_FLOOR = np.diag([1.1e-4, 1.1e-4, 1.1e-4, 0.022, 0.022, 0.11]) ** 2


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
    prior = prior or IntrinsicPrior()
    pitch_v, pitch_u = carm.pitch_mm_row_col
    sds = np.array([prior.sdd_share, prior.principal_mm / pitch_u, prior.principal_mm / pitch_v])
    unseen = Spread(np.eye(6) * 1e6, np.zeros((6, 3)), sds)
    if not np.isfinite(normal.hessian).all():
        return unseen
    scale = np.array([1e-2, 1e-2, 1e-2, 1.0, 1.0, 1.0])  # rad against mm: conditioning only
    h = normal.hessian[:6, :6] * np.outer(scale, scale)
    top = float(np.linalg.eigvalsh(h)[-1])
    if not top > 0:
        return unseen
    inverse = np.linalg.inv(h + 1e-10 * top * np.eye(6)) * np.outer(scale, scale)
    pose = inverse @ scatter(normal.scores[:, :6], carm) @ inverse * misfit(agreement) ** 2
    return Spread(pose + carm.mm_per_px_at_isocenter**2 * _FLOOR, inverse @ normal.hessian[:6, 6:], sds)


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
    across = round(np.sqrt(len(scores) * carm.shape[1] / carm.shape[0]))
    while len(scores) % across:  # the grid's own width, whatever the rounding
        across += 1
    # around their mean: at the optimum it is zero, before it it is what is left to descend
    grid = (scores - scores.mean(0)).reshape(-1, across * scores.shape[1])
    reach = max(1, round(_REACH * across))
    near = (_triangle(len(grid), reach) @ grid).reshape(-1, across, scores.shape[1])
    near = _triangle(across, reach) @ near
    return grid.reshape(len(scores), -1).T @ near.reshape(len(scores), -1)


@functools.lru_cache(maxsize=64)
def _triangle(n: int, reach: int) -> Float64:
    """(n, n): 1 for a cell itself, falling to 0 for one `reach` cells away."""
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return np.asarray(np.maximum(0.0, 1 - apart / reach))


def error_at(spread: Spread, carm: CArm, carm_from_patient: Float64, target_mm: Float64, *,
             tissue_mm: float = 0.0) -> ErrorEstimate:
    """95 % bounds of the error at a target (3,) of the patient frame, in 3D and in the picture.

    The projected one compares the target's place in the overlay with its place in the picture, scaled to
    the target's depth: an error of SDD that the pose has absorbed does not count there, and should not.
    tissue_mm: standard deviation along each axis of the target's own motion against the registered body.
    """
    x = Rigid.apply(carm_from_patient, target_mm)
    skew = np.array([[0, x[2], -x[1]], [-x[2], 0, x[0]], [x[1], -x[0], 0]])  # d x / d rotation
    in_space = np.hstack([skew, np.eye(3)])
    depth = max(carm.sod_mm - x[2], 1.0)
    # place in the plane through the target, mm
    in_plane = np.hstack([np.eye(2), (x[:2] / depth)[:, None]]) @ in_space
    pitch_v, pitch_u = carm.pitch_mm_row_col
    direct = np.array([[x[0], pitch_u * depth / carm.sdd_mm, 0.0], [x[1], 0.0, pitch_v * depth / carm.sdd_mm]])
    follow_3d = in_space @ spread.slip * spread.prior
    follow_2d = (in_plane @ spread.slip - direct) * spread.prior
    cov_3d = in_space @ spread.pose @ in_space.T + follow_3d @ follow_3d.T + tissue_mm**2 * np.eye(3)
    cov_2d = in_plane @ spread.pose @ in_plane.T + follow_2d @ follow_2d.T + tissue_mm**2 * np.eye(2)
    return ErrorEstimate(length_bound(cov_3d), length_bound(cov_2d), np.asarray(target_mm, np.float64))


def length_bound(covariance: Float64, share: float = 0.95) -> float:
    """The length below which a centered Gaussian vector stays in that share of the cases.

    Its square is a weighted sum of chi-squares, here the gamma distribution with the same mean and
    variance (Satterthwaite 1946; exact for one weight or equal ones, else within 2 %).
    """
    # of the eigenvalues, their sum and that of their squares
    mean, variance = float(np.trace(covariance)), 2 * float((covariance * covariance).sum())
    if not np.isfinite(mean) or mean <= 0:
        return float("inf") if not np.isfinite(mean) else 0.0
    return float(np.sqrt(special.gammaincinv(mean**2 / variance, share) * variance / mean))


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
