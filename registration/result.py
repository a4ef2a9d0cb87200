# SPDX-License-Identifier: Apache-2.0
"""What does a registration answer? A pose with its doubt, or a refusal with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from registration.errors import BadInput
from registration.geometry import Float64, Rigid, read_only


class Outcome(Enum):
    """Only ACCEPTED is ever drawn as anatomy."""

    ACCEPTED = "ACCEPTED"
    AMBIGUOUS = "AMBIGUOUS"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class ErrorEstimate:
    """95 % bounds of the error at the target, mm: in 3D, and in the picture's plane through it."""

    target_mm: float
    projected_mm: float
    target: Float64  # (3,) in the patient frame, mm

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", read_only(self.target, np.float64))


@dataclass(frozen=True, slots=True)
class Registration:
    """Where the patient is in one picture.

    ACCEPTED: pose, finite covariance, error. AMBIGUOUS: best pose and `alternatives`.
    LOST: no pose, no error, only `why`. `covariance` is (6, 6) in the order of the tangent vector
    (rx, ry, rz, tx, ty, tz), rad and mm, left perturbation in the C-arm frame about the isocenter.
    `bodies` holds room_from_body by name. `start` names the proposer that led here. `why` is a
    sentence that a person can act on. `quality` holds named numbers for reports (never for poses). Two are for the
    tracker: `lean` (6,), the motion (xi) by which coarse pictures missed this pose, and `scatter` (6, 6), that part of
    the covariance which is new in every frame.
    """

    outcome: Outcome
    why: str
    carm_from_patient: Float64 | None = None
    covariance: Float64 | None = None
    error: ErrorEstimate | None = None
    similarity: float | None = None
    start: str = ""
    bodies: dict[str, Float64] = field(default_factory=dict)
    alternatives: tuple[Float64, ...] = ()
    quality: dict[str, float] = field(default_factory=dict)
    lean: Float64 | None = None
    scatter: Float64 | None = None

    def __post_init__(self) -> None:
        if self.outcome is Outcome.LOST:
            if self.carm_from_patient is not None or self.error is not None:
                raise BadInput("registration", got="LOST with a pose", expected="LOST without one",
                               remedy="drop the pose: it must not be drawn")
            return
        if self.carm_from_patient is None:
            raise BadInput("registration", got=f"{self.outcome.value} without a pose",
                           expected="a pose", remedy="use LOST")
        object.__setattr__(self, "carm_from_patient",
                           read_only(Rigid.checked(self.carm_from_patient, "carm_from_patient")))
        if self.covariance is not None:
            object.__setattr__(self, "covariance", read_only(self.covariance, np.float64))
        if self.outcome is Outcome.ACCEPTED and (
                self.covariance is None or self.error is None
                or not np.isfinite(self.covariance).all()):
            raise BadInput("registration", got="ACCEPTED without finite covariance and error",
                           expected="both", remedy="use AMBIGUOUS or LOST")

    @classmethod
    def lost(cls, why: str, *, start: str = "", similarity: float | None = None) -> Registration:
        """A refusal."""
        return cls(Outcome.LOST, why, start=start, similarity=similarity)
