# SPDX-License-Identifier: Apache-2.0
"""The camera puts every point on the pixel that the C-arm names, turns nothing over, and knows what is in front."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from overlay_views import CARMS, points_in_view, poses

from overlays.camera import moved_px, pixels_of, view_of
from registration.geometry import CArm, Rigid

VECTORS = Path(__file__).parents[1] / "registration" / "geometry_vectors.json"


@pytest.mark.parametrize("name", CARMS)
def test_the_matrices_agree_with_projecting_by_hand(name: str) -> None:
    carm, rng = CARMS[name], np.random.default_rng(1)
    for pose in poses(20):
        points = points_in_view(carm, pose, 50, rng, margin_px=-200)
        pixels, depth = pixels_of(view_of(carm, pose), carm.shape, points)
        np.testing.assert_allclose(pixels, carm.project_patient(pose, points), atol=1e-6)
        assert (np.abs(depth) < 1).all()  # nothing of a body is cut away


def test_the_matrices_meet_vectors_made_apart_from_this_code() -> None:
    cases = json.loads(VECTORS.read_text())["cases"]
    for case in cases:
        carm = CArm(tuple(case["shape_rows_cols"]), tuple(case["pitch_mm_row_col"]), case["sdd_mm"], case["sod_mm"],
                    tuple(case["principal_px_u_v"]))
        view = view_of(carm, np.array(case["carm_from_patient"]))
        pixels, _ = pixels_of(view, carm.shape, np.array(case["points_patient_mm"]))
        np.testing.assert_allclose(pixels, case["pixels_u_v"], atol=1e-6)


def test_the_view_is_a_turn_without_a_mirror() -> None:
    for pose in poses(5):
        view = view_of(CARMS["cropped"], pose)
        np.testing.assert_allclose(Rigid.checked(view.eye_from_patient, "view"), view.eye_from_patient, atol=1e-9)
        source = Rigid.apply(view.eye_from_patient, Rigid.apply(Rigid.inverse(pose), CARMS["cropped"].source))
        np.testing.assert_allclose(source, view.source_in_eye, atol=1e-9)


def test_what_is_nearer_to_the_detector_is_in_front() -> None:
    carm = CARMS["centred"]
    on_a_ray = carm.source + (carm.detector_points([130.0, 40.0]) - carm.source) * np.linspace(0.1, 1, 30)[:, None]
    pixels, depth = pixels_of(view_of(carm, np.eye(4)), carm.shape, on_a_ray)
    assert np.ptp(pixels, axis=0).max() < 1e-9 and (np.diff(depth) < 0).all()


def test_movement_in_pixels_is_that_of_the_points() -> None:
    carm = CArm.centered((512, 512), 0.4, 1000, 600)
    pose = poses(1)[0]
    origin = Rigid.apply(Rigid.inverse(pose), np.zeros((1, 3)))
    aside = Rigid.translation(0.6, 0, 0) @ pose  # 0.6 mm at the isocenter are 1 mm at the detector
    assert moved_px(carm, pose, aside, origin) == pytest.approx(2.5)
    assert moved_px(carm, pose, pose) == 0
    assert moved_px(carm, pose, aside) == pytest.approx(3.0)  # 100 mm nearer to the source: 1000 / 500 * 0.6 / 0.4
    assert moved_px(carm, pose, pose, np.zeros((0, 3))) == 0
    assert moved_px(carm, pose, Rigid.translation(0, 0, 700) @ pose, origin) == np.inf
