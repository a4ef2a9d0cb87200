# SPDX-License-Identifier: Apache-2.0
"""Shapes refuse what is broken; a result never says more than it knows."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from registration.errors import BadInput, BadPixels
from registration.geometry import CArm
from registration.model import View
from registration.result import ErrorEstimate, Outcome, Registration
from registration.shapes import Mesh, Polylines


def test_polylines_are_sampled_at_most_a_step_apart_ends_included() -> None:
    line = Polylines(np.array([[0, 0, 0], [10, 0, 0], [10, 3, 0.0]]), (np.array([0, 1, 2]),))
    points = line.sampled(0.7)
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).max() <= 0.7
    assert (points[0] == [0, 0, 0]).all() and (points[-1] == [10, 3, 0]).all()
    assert line.length_mm == pytest.approx(13)


@pytest.mark.parametrize("lines", [(), (np.array([0]),), (np.array([0, 9]),)])
def test_lines_of_points_that_are_not_there_are_refused(lines: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(BadInput, match="expected"):
        Polylines(np.zeros((3, 3)), lines)


def test_a_mesh_with_faces_out_of_range_is_refused() -> None:
    with pytest.raises(BadInput, match="faces"):
        Mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))


def test_lost_has_no_pose_and_accepted_has_everything() -> None:
    pose, error = np.eye(4), ErrorEstimate(1.0, 0.5, np.zeros(3))
    with pytest.raises(BadInput, match="LOST"):
        Registration(Outcome.LOST, "gone", carm_from_patient=pose)
    with pytest.raises(BadInput, match="pose"):
        Registration(Outcome.AMBIGUOUS, "two fit")
    with pytest.raises(BadInput, match="covariance"):
        Registration(Outcome.ACCEPTED, "good", carm_from_patient=pose, error=error)
    with pytest.raises(BadInput, match="covariance"):
        Registration(Outcome.ACCEPTED, "good", carm_from_patient=pose, error=error,
                     covariance=np.full((6, 6), np.nan))
    good = Registration(Outcome.ACCEPTED, "good", carm_from_patient=pose, error=error, covariance=np.eye(6))
    assert Registration.lost("why").carm_from_patient is None and good.error is error


def test_a_view_holds_picture_weight_and_geometry_together() -> None:
    carm = CArm.centered((4, 5), 1, 1000, 600)
    with pytest.raises(BadPixels, match="matrix"):
        View(np.zeros((5, 4)), np.zeros((5, 4)), carm)
    with pytest.raises(BadPixels, match="NaN"):
        View(np.full((4, 5), np.nan), np.ones((4, 5)), carm)


def test_an_error_says_its_four_parts_and_crosses_processes() -> None:
    error = BadPixels("frame 3", got="float64", expected="uint8", remedy="export grey scale")
    assert str(error) == "frame 3: got float64, expected uint8; export grey scale."
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
