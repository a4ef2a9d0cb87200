# SPDX-License-Identifier: Apache-2.0
"""May a pose be drawn as anatomy? Evidence is weighed; the answer is ACCEPTED, AMBIGUOUS or LOST.

Wrong poses with a good excuse are the danger: another patient's chest also has ribs. What tells them
apart is not how well the picture as a whole correlates (0.92 for a mirrored chest) but how many patches
of its gradient are explained as well as their noise allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration import _similarity
from registration.confidence import Spread
from registration.geometry import Array, Float64
from registration.model import Settings
from registration.result import ErrorEstimate, Outcome, Registration

# Median patch correlation, as a share of what noise allows. Simulated chests and torsos (bench gate): the right patient
# reaches 0.76 and more in 99.2 % of 740 pictures; of four between 0.65 and 0.72 two were 4 and 6 mm off. The mirrored,
# the bent and the other patient reach 0.52 at most, also as the best of a search over all rotations (0.39); a body of
# smooth ellipsoids, which hardly tells head from foot, is found wrong at 0.69.
ACCEPT, REFUSE = 0.72, 0.50
# px of a patch; patches that need no larger pixels; how many times as many those must show
ASKED = (16, 24, 1.5)


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a picture is explained. agreement: median over patches of their correlation as a share of
    what their noise allows; explained: share of patches above one half of that; patches: how many say
    anything (their structure exceeds their noise)."""

    agreement: float
    explained: float
    patches: int

    @property
    def clear(self) -> bool:
        """Beyond doubt as far as the picture goes."""
        return self.patches >= MIN_PATCHES and self.agreement >= ACCEPT


MIN_PATCHES = 6  # fewer patches with structure cannot tell one patient from another


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the gate weighs: fit, spread, expected error, rival poses that fit as well, the start; and what it hands
    on to the next frame (`Registration.lean`, `Registration.scatter`)."""

    fit: Fit
    spread: Spread
    error: ErrorEstimate
    rivals: tuple[Float64, ...]
    start: str
    lean: Float64 | None = None
    scatter: Float64 | None = None


def fit_of(moving: Array, fixed: Array, weight: Array, noise: Array) -> Fit:
    """Patch by patch agreement of a computed and a measured picture (h, w); noise (h, w): what it would
    show if nothing but noise were measured.

    Where noise hides most patches, larger pixels are asked, in patches of the same place and size: few photons tell
    large structures all the same, and what few patches are left at full resolution show wires, which no volume has.
    """
    return Fit(*_similarity.explained(moving, fixed, weight, noise, *ASKED))


def judge(evidence: Evidence, carm_from_patient: Float64, settings: Settings) -> Registration:
    """The verdict, with a sentence that a person can act on."""
    fit, error = evidence.fit, evidence.error
    quality = {"agreement": fit.agreement, "explained": fit.explained, "patches": float(fit.patches)}
    if fit.patches < MIN_PATCHES:
        return Registration.lost(
            f"only {fit.patches} parts of the picture show structure above the noise: open the collimator, raise "
            "the dose or average frames", start=evidence.start, similarity=fit.agreement)
    if fit.agreement < REFUSE or not np.isfinite(error.projected_mm):
        return Registration.lost(
            f"the picture is not explained by this volume (agreement {fit.agreement:.2f}, {REFUSE:.2f} needed): check "
            "patient, side and gantry angles, or search without a start", start=evidence.start,
            similarity=fit.agreement)
    outcome, why = Outcome.ACCEPTED, (f"agreement {fit.agreement:.2f}, {error.projected_mm:.1f} mm expected in the "
                                      f"picture, {error.target_mm:.0f} mm in depth")
    if fit.agreement < ACCEPT:
        outcome, why = Outcome.AMBIGUOUS, (
            f"only partly explained (agreement {fit.agreement:.2f}, {ACCEPT:.2f} needed): check by eye with the blend, "
            "hold breath or take another view")
    elif evidence.rivals:
        outcome, why = Outcome.AMBIGUOUS, (
            f"{len(evidence.rivals)} other pose(s) explain the picture as well: take a second view or start from "
            "the gantry's angles")
    elif error.projected_mm > settings.tolerance_mm:
        outcome, why = Outcome.AMBIGUOUS, (
            f"expected error {error.projected_mm:.1f} mm in the picture exceeds the tolerance of "
            f"{settings.tolerance_mm:g} mm: bring more bone into the field or raise the tolerance")
    return Registration(outcome, why, carm_from_patient, evidence.spread.covariance, error, fit.agreement,
                        evidence.start, alternatives=evidence.rivals, quality=quality, lean=evidence.lean,
                        scatter=evidence.scatter)
