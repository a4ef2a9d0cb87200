# SPDX-License-Identifier: Apache-2.0
"""How far along its ray is the target? One view hardly tells; several frames tell better.

A Kalman filter (1960) of depth and its speed a frame, whose measurement is each frame's pose with the scatter that the
picture leaves it. The pose then follows the filtered depth along the direction in which its scatter says that depth
errors go, so that the picture stays explained. The stated bounds stay those of the single frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration.geometry import Float64, Rigid, read_only

# Breathing of 10 mm in 60 frames accelerates by 0.11 mm a frame and frame; a filter that expects less lags behind it.
_ACCELERATION_MM = 0.15
_SURPRISE = 3.0  # standard deviations: beyond them it is a movement, and the filter begins anew
_MOVE = np.array([[1.0, 1.0], [0.0, 1.0]])
_PUSH = _ACCELERATION_MM**2 * np.array([[0.25, 0.5], [0.5, 1.0]])
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
    x = Rigid.apply(carm_from_patient, target_mm)
    way = x - (0.0, 0.0, sod_mm)
    seen = float(np.linalg.norm(way))
    way = way / seen
    by_pose = np.concatenate([np.cross(x, way), way])  # d depth / d xi
    follow = scatter @ by_pose
    variance = float(by_pose @ follow)
    fresh = Depth(np.array([seen, 0.0]), np.diag([variance, _UNKNOWN_SPEED_MM**2]))
    if before is None:
        return fresh, carm_from_patient
    value, covariance = _MOVE @ before.value, _MOVE @ before.covariance @ _MOVE.T + _PUSH
    surprise, expected = seen - value[0], covariance[0, 0] + variance
    if surprise**2 > _SURPRISE**2 * expected:
        return fresh, carm_from_patient
    gain = covariance[:, 0] / expected
    after = Depth(value + gain * surprise, covariance - np.outer(gain, covariance[0]))
    xi = follow / variance * (after.value[0] - seen)
    return after, Rigid.exp(xi) @ carm_from_patient
