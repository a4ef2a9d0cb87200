# SPDX-License-Identifier: Apache-2.0
"""How far along its ray is the target? One view hardly tells; several frames tell better.

A Kalman filter (1960) of depth and its speed a frame, whose measurement is each frame's pose with the scatter that the
picture leaves it. The pose then follows the filtered depth along the direction in which its scatter says that depth
errors go, so that the picture stays explained. The stated bounds stay those of the single frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from registration.geometry import Float64, Rigid, read_only

# Breathing of 10 mm in 60 frames accelerates by 0.11 mm a frame and frame; a filter that expects less lags behind it.
_ACCELERATION_MM = 0.15
_SURPRISE = 3.0  # standard deviations: beyond them it is a movement, and the filter begins anew
_PUSH = _ACCELERATION_MM**2
_UNKNOWN_SPEED_MM = 1.0  # a frame, standard deviation


@dataclass(frozen=True, slots=True)
class Depth:
    """The target's distance from the source and its speed, (2,) mm and mm a frame, and their covariance (2, 2)."""

    value: Float64
    covariance: Float64

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", read_only(self.value, np.float64))
        object.__setattr__(self, "covariance", read_only(self.covariance, np.float64))


def filtered(before: Depth | None, carm_from_patient: Float64, scatter: Float64, target_mm: Float64,
             sod_mm: float) -> tuple[Depth, Float64]:
    """The depth after a frame and the pose (4, 4) moved to it.

    scatter (6, 6): covariance of the pose as far as it is new in every frame (left perturbation in the C-arm frame,
    rad and mm); what is wrong in all frames alike, such as SDD, no filter takes away. target_mm (3,) in the patient
    frame; sod_mm: of the source. before None: the filter begins.
    """
    x, y, z = Rigid.apply(carm_from_patient, target_mm).tolist()
    seen = math.hypot(x, y, z - sod_mm)
    u, v, w = x / seen, y / seen, (z - sod_mm) / seen
    by_pose = np.array([y * w - z * v, z * u - x * w, x * v - y * u, u, v, w])  # d depth / d xi
    follow = scatter @ by_pose
    variance = float(by_pose @ follow)
    after = _after(before, seen, variance)
    if after is None:
        return Depth(np.array([seen, 0.0]), np.diag([variance, _UNKNOWN_SPEED_MM**2])), carm_from_patient
    return after, Rigid.exp(follow * ((float(after.value[0]) - seen) / variance)) @ carm_from_patient


def _after(before: Depth | None, seen: float, variance: float) -> Depth | None:
    """The state after a depth was seen; None where the filter begins with it."""
    if before is None:
        return None
    depth, speed = before.value.tolist()
    (a, b), (_, c) = before.covariance.tolist()
    # a frame later: depth = depth + speed, and an unknown acceleration
    depth += speed
    a, b, c = a + 2 * b + c + 0.25 * _PUSH, b + c + 0.5 * _PUSH, c + _PUSH
    surprise, expected = seen - depth, a + variance
    if surprise**2 > _SURPRISE**2 * expected:
        return None
    gain, along = a / expected, b / expected
    return Depth(np.array([depth + gain * surprise, speed + along * surprise]),
                 np.array([[a - gain * a, b - gain * b], [b - gain * b, c - along * b]]))
