# SPDX-License-Identifier: Apache-2.0
"""Which poses carry points of the patient to where a person saw them in the picture (PnP), wrong clicks apart?

From several hundred rotations and small sets of points, Gauss-Newton on the distance in the picture; the pose that
most points agree with wins (least median of squares, Rousseeuw 1984) and is refined on the points that agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration.errors import BadInput
from registration.everywhere import seen_from_all_sides
from registration.geometry import CArm, Float64, Rigid

LEAST = 4  # pairs: three leave up to four poses
_SETS, _SET, _STEPS = 12, 4, 12
_AGREE, _LEAST_MM = 3.0, 2.0  # a point agrees within three medians, and within 2 mm at the detector in any case
_MISFIT_MM = 15.0  # in the patient's plane: beyond it half of the points contradict the other half


@dataclass(frozen=True, slots=True)
class Landmarked:
    """A pose from landmarks: carm_from_patient, distance of each point in the picture (n,), mm at the isocenter, and
    which of them were used."""

    carm_from_patient: Float64
    error_mm: Float64
    used: Float64


def pose_of_landmarks(carm: CArm, patient_mm: Float64, pixels_u_v: Float64, *, seed: int = 0) -> Landmarked:
    """The pose from n pairs: patient_mm (n, 3), pixels_u_v (n, 2) on the C-arm's pixels, column and row.

    Raises BadInput for fewer than four pairs, for points on one line, and where no pose agrees with half of them.
    """
    points, at = np.asarray(patient_mm, np.float64), np.asarray(pixels_u_v, np.float64)
    _checked(points, at)
    pitch_v, pitch_u = carm.pitch_mm_row_col
    seen = (at - carm.principal_px_u_v) * (pitch_u, pitch_v)  # mm on the detector
    rng = np.random.default_rng(seed)
    sets = [np.arange(len(points))] + [rng.choice(len(points), _SET, replace=False)
                                       for _ in range(_SETS if len(points) > _SET else 0)]
    best, least = np.eye(4), np.inf
    for chosen in sets:
        poses = _fitted(carm, _starts(carm, points), points[chosen], seen[chosen], np.ones(len(chosen)), _STEPS)
        away = _distances(carm, poses, points, seen)
        middle = np.median(away, axis=1) + 1e-3 * away.mean(1)
        k = int(np.argmin(middle))
        if middle[k] < least:
            best, least = poses[k], float(middle[k])
        if len(chosen) == len(points) and away[k].max() < 2 * _LEAST_MM:
            break  # all agree: no need to look for those that do not
    for _ in range(3):
        away = _distances(carm, best[None], points, seen)[0]
        used = away <= max(_LEAST_MM, _AGREE * 1.4826 * float(np.median(away)))
        best = _fitted(carm, best[None], points, seen, used.astype(float), _STEPS)[0]
    away = _distances(carm, best[None], points, seen)[0] * carm.sod_mm / carm.sdd_mm
    if not np.isfinite(away).all() or float(np.median(away)) > _MISFIT_MM or int(used.sum()) < LEAST:
        raise BadInput("landmarks", got=f"distances of {np.array2string(away, precision=1)} mm at best",
                       expected=f"half of the points within {_MISFIT_MM:g} mm of where the picture shows them",
                       remedy="check the order of points, of coordinates (L, P, S) and of column and row")
    return Landmarked(Rigid.checked(best, "landmarks"), away, used)


def _checked(points: Float64, at: Float64) -> None:
    n = len(points)
    if points.shape != (n, 3) or at.shape != (n, 2) or n < LEAST:
        raise BadInput("landmarks", got=f"{n} pairs of shapes {points.shape} and {at.shape}",
                       expected=f"{LEAST} pairs or more of (L, P, S) and (column, row)", remedy="mark more points")
    if not np.isfinite(points).all() or not np.isfinite(at).all():
        raise BadInput("landmarks", got="NaN or infinite numbers", expected="finite mm and pixels",
                       remedy="correct them")
    for what, x in (("patient_mm", points), ("pixel_u_v", at)):
        spread = np.linalg.svd(x - x.mean(0), compute_uv=False)
        if not spread[1] > 0.02 * max(spread[0], 1e-9):
            raise BadInput(f"landmarks, {what}", got="points on one line, or on one spot",
                           expected="points that span the anatomy", remedy="mark points apart from each other")


def _starts(carm: CArm, points: Float64) -> Float64:
    """Poses (n, 4, 4) with the points' middle on the central ray: 60 directions, eight rolls each."""
    looks = seen_from_all_sides(points.mean(0))[1::3]
    angles = np.arange(8) * (np.pi / 4)
    rolls = np.tile(np.eye(4), (8, 1, 1))
    rolls[:, 0, 0] = rolls[:, 1, 1] = np.cos(angles)
    rolls[:, 0, 1], rolls[:, 1, 0] = -np.sin(angles), np.sin(angles)
    return (rolls[:, None] @ looks[None]).reshape(-1, 4, 4)


def _fitted(carm: CArm, poses: Float64, points: Float64, seen: Float64, weight: Float64, steps: int) -> Float64:
    """Poses (n, 4, 4) after steps of damped Gauss-Newton each on points (m, 3) seen at (m, 2) mm on the detector."""
    for _ in range(steps):
        x = points @ np.swapaxes(poses[:, :3, :3], 1, 2) + poses[:, None, :3, 3]
        depth = np.maximum(carm.sod_mm - x[..., 2], 50.0)  # in front of the source
        scale = carm.sdd_mm / depth
        residual = (x[..., :2] * scale[..., None] - seen) * weight[:, None]
        by_x = np.zeros((*x.shape[:2], 2, 3))
        by_x[..., 0, 0] = by_x[..., 1, 1] = scale
        by_x[..., :, 2] = x[..., :2] * (scale / depth)[..., None]
        turn = np.zeros((*x.shape[:2], 3, 3))  # d x / d rotation: -[x]
        turn[..., 0, 1], turn[..., 0, 2], turn[..., 1, 2] = x[..., 2], -x[..., 1], x[..., 0]
        turn -= np.swapaxes(turn, -1, -2)
        jacobian = np.concatenate([by_x @ turn, by_x], -1) * weight[:, None, None]
        j = jacobian.reshape(len(poses), -1, 6)
        h = np.swapaxes(j, 1, 2) @ j
        g = (np.swapaxes(j, 1, 2) @ residual.reshape(len(poses), -1, 1))[..., 0]
        scaled = np.einsum("nii->ni", h) * 1e-3 + 1e-9
        step = -np.linalg.solve(h + scaled[..., None] * np.eye(6), g[..., None])[..., 0]
        step /= np.maximum(1.0, np.max(np.abs(step) / (0.5, 0.5, 0.5, 100, 100, 150), axis=1))[:, None]
        poses = _turned(step) @ poses
    return poses


def _turned(xi: Float64) -> Float64:
    """(n, 4, 4): turns by xi[:, :3] and shifts by xi[:, 3:]; for steps, which need not be geodesics."""
    angle = np.linalg.norm(xi[:, :3], axis=1)[:, None, None]
    k = np.zeros((len(xi), 3, 3))
    k[:, 2, 1], k[:, 0, 2], k[:, 1, 0] = xi[:, 0], xi[:, 1], xi[:, 2]
    k -= np.swapaxes(k, 1, 2)
    out = np.tile(np.eye(4), (len(xi), 1, 1))
    out[:, :3, :3] += np.sinc(angle / np.pi) * k + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (k @ k)
    out[:, :3, 3] = xi[:, 3:]
    return out


def _distances(carm: CArm, poses: Float64, points: Float64, seen: Float64) -> Float64:
    """Distances (n, m), mm on the detector; infinite behind the source."""
    x = points @ np.swapaxes(poses[:, :3, :3], 1, 2) + poses[:, None, :3, 3]
    depth = carm.sod_mm - x[..., 2]
    ahead = depth > 1
    place = x[..., :2] * (carm.sdd_mm / np.where(ahead, depth, 1))[..., None]
    return np.where(ahead, np.linalg.norm(place - seen, axis=-1), np.inf)
