# SPDX-License-Identifier: Apache-2.0
"""Does a pose from landmarks carry them where they were seen, wrong clicks apart?"""

import numpy as np
import pytest

from registration.errors import BadInput
from registration.geometry import CArm, Rigid
from registration.landmarks import pose_of_landmarks

CARM = CArm.centered((512, 512), 0.6, 1020, 765)


def scene(seed, count, noise_px=1.0):
    rng = np.random.default_rng(seed)
    shift = Rigid.translation(*rng.uniform(-50, 50, 2), rng.uniform(-100, 100))
    pose = shift @ Rigid.exp([*rng.normal(size=3) * 2, 0, 0, 0])
    points = rng.uniform(-80, 80, (count, 3))
    return rng, pose, points, CARM.project_patient(pose, points) + noise_px * rng.normal(size=(count, 2))


@pytest.mark.parametrize("count", [4, 6, 10])
def test_exact_points_give_the_exact_pose_from_any_rotation(count):
    for seed in range(2):
        _, pose, points, at = scene(seed, count, 0.0)
        found = pose_of_landmarks(CARM, points, at)
        assert np.abs(found.carm_from_patient - pose).max() < 1e-3
        assert found.error_mm.max() < 1e-3 and found.used.all()


def test_noisy_points_give_a_pose_within_reach_of_the_refinement():
    for seed in range(3):
        _, pose, points, at = scene(seed, 6)
        found = pose_of_landmarks(CARM, points, at).carm_from_patient
        assert Rigid.angle_deg(found @ Rigid.inverse(pose)) < 3  # a pixel is 0.45 mm at points some 100 mm apart
        assert np.abs((found - pose)[:2, 3]).max() < 3


def test_two_wrong_clicks_of_eight_are_found_out():
    _, pose, points, at = scene(5, 8)
    at[:2] += [[90, -70], [-60, 110]]
    found = pose_of_landmarks(CARM, points, at)
    assert not found.used[:2].any() and found.used[2:].sum() >= 5  # the worst of six good ones may look like one
    assert Rigid.angle_deg(found.carm_from_patient @ Rigid.inverse(pose)) < 3


def test_points_that_contradict_each_other_lie_on_a_line_or_are_too_few_are_refused():
    rng, _, points, at = scene(7, 8)
    with pytest.raises(BadInput, match="half of the points"):
        pose_of_landmarks(CARM, points, rng.uniform(0, 511, (8, 2)))
    with pytest.raises(BadInput, match="on one line"):
        pose_of_landmarks(CARM, np.outer(np.arange(8.0), [1, 2, 3]), at)
    with pytest.raises(BadInput, match="4 pairs or more"):
        pose_of_landmarks(CARM, points[:3], at[:3])
    with pytest.raises(BadInput, match="finite"):
        pose_of_landmarks(CARM, np.where(points > 70, np.nan, points) * [1, 1, np.inf], at)
