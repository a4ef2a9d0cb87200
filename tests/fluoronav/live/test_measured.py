# SPDX-License-Identifier: Apache-2.0
"""Does a run say how often its stated bounds held?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluoronav.live.measured import Measured
from registration.result import ErrorEstimate, Outcome, Registration


def step(true_mm: float | None, outcome: Outcome = Outcome.ACCEPTED) -> Any:
    error = ErrorEstimate(5.0, 1.0, np.zeros(3))
    found = (Registration.lost("gone") if outcome is Outcome.LOST
             else Registration(outcome, "", np.eye(4), np.eye(6), error))
    truth = None if true_mm is None else {"target_error_mm": true_mm, "target_projected_error_mm": true_mm / 3}
    return SimpleNamespace(registration=found, timings={}, truth=truth)


def test_the_share_of_accepted_frames_whose_error_lay_within_the_stated_bound() -> None:
    measured = Measured()
    for true in (1.0, 2.0, 4.5, 6.0):
        measured.add(step(true), 10.0, 0.0)
    measured.add(step(100.0, Outcome.AMBIGUOUS), 10.0, 0.0)
    measured.add(step(None, Outcome.LOST), 10.0, 0.0)
    said = measured.summary()
    assert said["expected_error_mm_held"] == pytest.approx(3 / 4)  # 6 mm against 5
    assert said["projected_error_mm_held"] == pytest.approx(2 / 4)  # 1.5 and 2 mm against 1
    assert said["target_error_mm_median"] == pytest.approx(3.25)


def test_where_the_truth_is_not_known_nothing_is_said_of_it() -> None:
    measured = Measured()
    measured.add(step(None), 10.0, 0.0)
    said = measured.summary()
    assert said["expected_error_mm_held"] is None and said["stated_expected_error_mm_median"] == 5.0
