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
from scipy.spatial import cKDTree

from registration.confidence import IntrinsicPrior, Spread
from registration.geometry import Array, CArm, Float64, Rigid
from registration.vessel_detect import Skeleton

ANGLE_MM = 2.0  # opposite directions count as 2 * this: at crossings a point finds its own vessel
ALONG = 0.05  # weight of the residual along a vessel: keeps a single straight vessel from sliding freely
WORST_CONDITION = 1e12  # rad against mm make 1e6 of it
SINGLE_TURN_DEG = 4.0  # poses closer than that are one for a person: no twin
TRUNCATE_MM, NEAR_MM, TIGHT_MM = 3.0, 2.0, 0.7
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
    """A skeleton ready to be matched: points (n, 2), tangents (n, 2), search tree, field lookup."""

    points: Float64
    tangents: Float64
    tree: cKDTree
    field: Array
    carm: CArm

    @classmethod
    def of(cls, skeleton: Skeleton, carm: CArm, most: int = 2000) -> Seen:
        step = max(1, -(-len(skeleton) // most))
        p, t = skeleton.points[::step], skeleton.tangent[::step]
        return cls(p, t, cKDTree(_with_angle(p, t)), skeleton.field, carm)

    def thinned(self, n: int) -> Seen:
        """The same with at most n points."""
        step = max(1, -(-len(self.points) // n))
        p, t = self.points[::step], self.tangents[::step]
        return Seen(p, t, cKDTree(_with_angle(p, t)), self.field, self.carm)

    def in_field(self, points: Float64) -> Array:
        """Which points (n, 2), mm at the isocenter, fall where vessels could be seen."""
        c = self.carm
        scale = c.sdd_mm / c.sod_mm
        u = np.round(points[:, 0] * scale / c.pitch_mm_row_col[1] + c.principal_px_u_v[0])
        v = np.round(points[:, 1] * scale / c.pitch_mm_row_col[0] + c.principal_px_u_v[1])
        rows, cols = self.field.shape
        ok = (u >= 0) & (v >= 0) & (u < cols) & (v < rows)
        ok[ok] = self.field[v[ok].astype(int), u[ok].astype(int)]
        return ok


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
                if gain < 1e-4 * now:
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
    flat, _, _, ok = _projected(curves.moved(pose), seen)
    inside = np.flatnonzero(ok)[seen.in_field(flat[ok])]
    to_skeleton = np.full(len(flat), np.inf)
    if len(inside) == 0:
        return np.full(len(seen.points), np.inf), to_skeleton
    to_skeleton[inside] = cKDTree(seen.points).query(flat[inside])[0]
    return cKDTree(flat[ok]).query(seen.points)[0], to_skeleton


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


def _with_angle(points: Float64, tangents: Float64) -> Float64:
    """Points (n, 2) with their undirected direction as two more coordinates (double angle)."""
    x, y = tangents.T
    return np.concatenate([points, ANGLE_MM * np.stack([x * x - y * y, 2 * x * y], -1)], axis=1)


def _projected(moved: Curves, seen: Seen) -> tuple[Float64, Float64, Float64, Array]:
    """Picture points (n, 2) mm, their unit tangents, d point / d x (n, 2, 3), and which have a picture."""
    x = moved.points
    sod = seen.carm.sod_mm
    depth = sod - x[:, 2]
    ok = depth > 0.05 * sod
    m = sod / np.where(ok, depth, sod)
    flat = x[:, :2] * m[:, None]
    grad = np.zeros((len(x), 2, 3))
    grad[:, 0, 0] = grad[:, 1, 1] = m
    grad[:, :, 2] = flat * (m / sod)[:, None]
    t = np.einsum("nij,nj->ni", grad, moved.tangents)
    length = np.linalg.norm(t, axis=1, keepdims=True)
    t = np.where(length > 0.1, t / np.maximum(length, 1e-12), 0.0)  # seen end on: no direction
    return flat, t, grad, ok


def _residuals(curves: Curves, seen: Seen, pose: Float64,
               scale: float) -> tuple[Float64, Float64, Float64, float] | None:
    """Residuals (k,), Jacobian (k, 9) by pose and intrinsics, weights (k,) and the robust cost of both directions."""
    moved = curves.moved(pose)
    flat, tangent, grad, ok = _projected(moved, seen)
    inside = np.flatnonzero(ok)[seen.in_field(flat[ok])]
    if len(inside) < 5:
        return None
    own = _with_angle(flat, tangent)
    near = np.flatnonzero(ok)
    reach = 6 * scale + ANGLE_MM
    d1, k1 = cKDTree(own[near]).query(_with_angle(seen.points, seen.tangents), distance_upper_bound=reach)
    d2, k2 = seen.tree.query(own[inside], distance_upper_bound=reach)
    hit1, hit2 = np.isfinite(d1), np.isfinite(d2)
    at1, at2 = near[k1[hit1]], inside[hit2]
    target = np.concatenate([seen.points[hit1], seen.points[k2[hit2]]])
    along = np.concatenate([tangent[at1], seen.tangents[k2[hit2]]])
    index = np.concatenate([at1, at2])
    share = np.concatenate([np.full(len(at1), 1 / len(seen.points)),
                            np.full(len(at2), EMPTY_WEIGHT / len(inside))])
    far2 = np.concatenate([d1[hit1], d2[hit2]]) ** 2
    s2 = scale * scale
    weight = share * (s2 / (s2 + far2)) ** 2  # Geman, McClure 1987
    missed = (len(seen.points) - len(at1)) / len(seen.points) + EMPTY_WEIGHT * (1 - len(at2) / len(inside))
    cost = float((share * far2 / (s2 + far2)).sum() + missed)
    if len(index) < 8:
        return None
    delta = flat[index] - target
    jac3 = grad[index]
    x = moved.points[index]
    turn = np.stack([jac3[:, :, 2] * x[:, None, 1] - jac3[:, :, 1] * x[:, None, 2],
                     jac3[:, :, 0] * x[:, None, 2] - jac3[:, :, 2] * x[:, None, 0],
                     jac3[:, :, 1] * x[:, None, 0] - jac3[:, :, 0] * x[:, None, 1]], axis=-1)
    jac = np.concatenate([turn, jac3, by_intrinsics(flat[index], seen.carm)], axis=-1)
    normal = np.stack([-along[:, 1], along[:, 0]], -1)
    end_on = (along == 0).all(1)
    normal[end_on] = delta[end_on] / np.maximum(np.linalg.norm(delta[end_on], axis=1, keepdims=True), 1e-9)
    r = np.concatenate([(normal * delta).sum(1), (along * delta).sum(1)])
    j = np.concatenate([np.einsum("ni,nij->nj", normal, jac), np.einsum("ni,nij->nj", along, jac)])
    return r, j, np.concatenate([weight, ALONG * weight]), cost
