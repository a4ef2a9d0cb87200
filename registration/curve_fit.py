# SPDX-License-Identifier: Apache-2.0
"""Which rigid motion lays curves in space onto the skeleton of a picture? Matching and least squares.

Everything is measured in mm at the isocenter on the picture's plane, so neither pixel size nor
magnification enters a threshold. Distances count in both directions: from each skeleton point to the
nearest projected curve (what is seen must be explained), and from each projected curve point inside
the field to the nearest skeleton point (what is claimed should be seen; robustly, as branches may be
empty of contrast or outside the field, and then must not pull).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration import _vessels
from registration.confidence import IntrinsicPrior, Spread
from registration.geometry import Array, CArm, Float64, Rigid
from registration.vessel_detect import Skeleton

ANGLE_MM = 2.0  # opposite directions count as 2 * this: at crossings a point finds its own vessel
ALONG = 0.05  # weight of the residual along a vessel: keeps a single straight vessel from sliding freely
WORST_CONDITION = 1e12  # rad against mm make 1e6 of it
SINGLE_TURN_DEG = 4.0  # poses closer than that are one for a person: no twin
TRUNCATE_MM, NEAR_MM, TIGHT_MM = 3.0, 2.0, 0.7
SETTLED = 1e-3  # of the cost: a step that gains less is the last of its scale
EMPTY_WEIGHT = 0.5  # a claimed vessel unseen weighs half of a seen vessel unexplained: it may hold no contrast


@dataclass(frozen=True, slots=True)
class Curves:
    """Points (n, 3) mm along lines in space and their unit tangents (n, 3)."""

    points: Float64
    tangents: Float64

    def moved(self, b_from_a: Float64) -> Curves:
        """The curves in frame b (also under a reflection)."""
        r = b_from_a[:3, :3]
        return Curves(self.points @ r.T + b_from_a[:3, 3], self.tangents @ r.T)

    def every(self, n: int) -> Curves:
        """At most n of the points, evenly taken."""
        step = max(1, -(-len(self.points) // n))
        return Curves(self.points[::step], self.tangents[::step])


@dataclass(frozen=True, slots=True)
class Seen:
    """A skeleton ready to be matched: points (n, 2), tangents (n, 2), field (rows, columns), and their compiled
    index (native/curves.hpp)."""

    points: Float64
    tangents: Float64
    field: Array
    carm: CArm
    index: _vessels.Seen

    @classmethod
    def of(cls, skeleton: Skeleton, carm: CArm, most: int = 2000) -> Seen:
        return cls._made(skeleton.points, skeleton.tangent, skeleton.field, carm, most)

    def thinned(self, n: int) -> Seen:
        """The same with at most n points."""
        return self._made(self.points, self.tangents, self.field, self.carm, n)

    @classmethod
    def _made(cls, points: Float64, tangents: Float64, field: Array, carm: CArm, most: int) -> Seen:
        step = max(1, -(-len(points) // most))
        p, t = np.ascontiguousarray(points[::step]), np.ascontiguousarray(tangents[::step])
        to_mm = carm.sod_mm / carm.sdd_mm
        pitch_v, pitch_u = carm.pitch_mm_row_col
        index = _vessels.Seen(p, t, field.view(np.uint8), carm.sod_mm, pitch_u * to_mm, pitch_v * to_mm,
                              *carm.principal_px_u_v, ANGLE_MM)
        return cls(p, t, field, carm, index)


@dataclass(frozen=True, slots=True)
class Fit:
    """A pose (motion of the curves, 4x4) and how well it explains the skeleton.

    cost: mean truncated distance of both directions, mm; seen_mm: mean distance of the 90 % nearest
    skeleton points to the curves; explained: share of skeleton points within 2 mm; filled: share of
    curve points in the field within 2 mm of the skeleton; tight: of those near, the share within
    0.7 mm; in_field: share of curve points inside it;
    normal: (9, 9) weighted normal equations of the pose and of (ln SDD, principal u px, v px);
    residual_mm: weighted spread; weights: their sum.
    """

    pose: Float64
    cost: float
    seen_mm: float
    explained: float
    filled: float
    tight: float
    in_field: float
    normal: Float64
    residual_mm: float
    weights: float


def fit(curves: Curves, seen: Seen, pose: Float64, scales_mm: tuple[float, ...], steps: int) -> Float64:
    """The pose after Levenberg-Marquardt steps at each robust scale, coarse to fine."""
    for scale in scales_mm:
        damping = 1e-3
        cost = np.inf
        best = pose
        for _ in range(steps):
            residuals = _residuals(curves, seen, pose, scale)
            if residuals is None:
                return best
            r, jacobian, weight, now = residuals
            if now < cost:
                gain, cost, best, damping = cost - now, now, pose, max(damping * 0.3, 1e-6)
                pull = jacobian[:, :6]
                hessian, gradient = (pull.T * weight) @ pull, pull.T @ (weight * r)
                if gain < SETTLED * now:
                    break
            else:
                damping *= 10
                if damping > 1e3:
                    break
            pose = Rigid.exp(_bounded(_solved(hessian, gradient, damping))) @ best
        pose = best
    return pose


def judged(curves: Curves, seen: Seen, pose: Float64) -> Fit:
    """How well a pose explains the skeleton, plain distances without directions."""
    to_curve, to_skeleton = distances(curves, seen, pose)
    inside = np.isfinite(to_skeleton)
    nothing = Fit(pose, TRUNCATE_MM, np.inf, 0.0, 0.0, 0.0, 0.0, np.zeros((9, 9)), np.inf, 0.0)
    if inside.sum() < 5:
        return nothing
    cost = _cost(to_curve, to_skeleton[inside])
    nearest = np.sort(to_curve)[: max(1, int(0.9 * len(to_curve)))]
    residuals = _residuals(curves, seen, pose, 1.0)
    if residuals is None:
        return nothing
    r, jacobian, weight, _ = residuals
    spread = float(np.sqrt((weight * r * r).sum() / max(weight.sum(), 1e-9)))
    near = np.concatenate([to_curve[to_curve < NEAR_MM], to_skeleton[to_skeleton < NEAR_MM]])
    return Fit(pose, cost, float(nearest.mean()), float((to_curve < NEAR_MM).mean()),
               float((to_skeleton[inside] < NEAR_MM).mean()), float((near < TIGHT_MM).mean()) if near.size else 0.0,
               float(inside.mean()), (jacobian.T * weight) @ jacobian, spread, float(weight.sum()))


def distances(curves: Curves, seen: Seen, pose: Float64) -> tuple[Float64, Float64]:
    """From each skeleton point to the nearest projected curve, and from each curve point to the nearest
    skeleton point (infinite outside the field), mm at the isocenter."""
    to_curve, to_skeleton = seen.index.distances(curves.points, curves.tangents, np.ascontiguousarray(pose))
    return np.where(to_curve < 0, np.inf, to_curve), np.where(to_skeleton < 0, np.inf, to_skeleton)


def rivalry(curves: Curves, seen: Seen, pose: Float64, other: Curves, other_pose: Float64) -> float:
    """Cost of a pose as a share of a rival's, over the points that at least one of them explains: what
    neither does (a catheter, an empty branch) tells nothing about which is right."""
    a, b = distances(curves, seen, pose), distances(other, seen, other_pose)
    told = np.minimum(a[0], b[0]) < NEAR_MM
    there = np.isfinite(a[1]) & np.isfinite(b[1]) & (np.minimum(a[1], b[1]) < NEAR_MM)
    if not told.any() or not there.any():
        return 1.0
    return _cost(a[0][told], a[1][there]) / max(_cost(b[0][told], b[1][there]), 1e-9)


def _cost(to_curve: Float64, to_skeleton: Float64) -> float:
    return float((np.minimum(to_curve, TRUNCATE_MM).mean()
                  + EMPTY_WEIGHT * np.minimum(to_skeleton, TRUNCATE_MM).mean()) / (1 + EMPTY_WEIGHT))


def _bounded(xi: Float64) -> Float64:
    """A step of at most 0.15 rad and 40 mm: further the linear picture is not true."""
    return xi / max(1.0, float(np.linalg.norm(xi[:3])) / 0.15, float(np.linalg.norm(xi[3:])) / 40)


def _solved(hessian: Float64, gradient: Float64, damping: float) -> Float64:
    scale: Float64 = np.diag(hessian) + 1e-9 * np.trace(hessian) + 1e-12
    return np.asarray(-np.linalg.solve(hessian + damping * np.diag(scale), gradient))


def by_intrinsics(flat: Float64, carm: CArm) -> Float64:
    """(n, 2, 3): how picture points (n, 2), mm at the isocenter, move with ln SDD and with the principal
    point's u and v (pixels)."""
    out = np.zeros((len(flat), 2, 3))
    out[:, :, 0] = flat
    out[:, 0, 1] = carm.pitch_mm_row_col[1] * carm.sod_mm / carm.sdd_mm
    out[:, 1, 2] = carm.pitch_mm_row_col[0] * carm.sod_mm / carm.sdd_mm
    return out


def spread_of_fit(normal: Float64, residual_mm: float, weights: float, independent: float,
                  carm: CArm) -> Spread | None:
    """How sure the pose of a fit is: residuals' spread over the independent ones of them, and how the
    pose follows a wrong SDD or principal point. None where six degrees of freedom are not fixed."""
    h = normal[:6, :6]
    if not np.isfinite(h).all() or np.linalg.cond(h) > WORST_CONDITION:
        return None
    prior = IntrinsicPrior()
    inverse = np.linalg.inv(h)
    sds = np.array([prior.sdd_share, *(prior.principal_mm / p for p in carm.pitch_mm_row_col[::-1])])
    scale = residual_mm**2 * weights / independent
    return Spread(np.asarray(inverse * scale, np.float64), inverse @ normal[:6, 6:], sds)


def _residuals(curves: Curves, seen: Seen, pose: Float64,
               scale: float) -> tuple[Float64, Float64, Float64, float] | None:
    """Residuals (k,), Jacobian (k, 9) by pose and intrinsics, weights (k,) and the robust cost of both directions;
    None where too little of the curves falls into the field or finds a match."""
    return seen.index.residuals(curves.points, curves.tangents, np.ascontiguousarray(pose), scale, ALONG, EMPTY_WEIGHT)
