# SPDX-License-Identifier: Apache-2.0
"""Does an ordinary frame's way in one native call say what the long way says, and is any other frame left to that?"""

from dataclasses import replace

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels

from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.ladder import Ladder
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import TRACK, VolumeModel

COARSE, FINE = CArm.centered((128, 128), 2.4, 1020, 765), CArm.centered((256, 240), 1.2, 1020, 765)
TRUE = carm_from_patient_at(10, 5, [0, 0, 0])
START = Rigid.exp([0.008, -0.01, 0.01, 2, -1.5, 4]) @ TRUE
TARGET, LEAN = np.array([10.0, -20.0, 30.0]), np.array([1e-3, 0, 0, 0.1, 0.2, 0.3])


@pytest.fixture(scope="module")
def model():
    return VolumeModel(voxels(chest()), TARGET)


def shown(carm, *, hidden=0, pose=TRUE):
    picture = line_integrals(chest(), carm, pose) + 0.02 * np.random.default_rng(1).normal(size=carm.shape)
    weight = np.ones(carm.shape, np.float32)
    weight[:hidden] = 0
    picture[:hidden] = 9.0
    return View(picture, weight, carm)


def quickly(model, view, pose=START, threads=2):
    return model._follower(view.carm).follow(view, pose, LEAN, TARGET, 0.5, threads)


@pytest.mark.parametrize("view", [shown(COARSE), shown(FINE), shown(COARSE, hidden=20), shown(FINE, hidden=40),
                                  replace(shown(FINE), relative=True)],
                         ids=["128", "256", "128, collimated", "256, collimated", "no counts"])
def test_it_says_what_the_long_way_says(model, view):
    quick, ladder = quickly(model, view), Ladder(view, [p.edge_px for p in TRACK])
    assert quick is not None
    rest = model.rest(ladder, TRACK, START, lean=LEAN)
    answer = model._answer(ladder, rest, TRACK[-1], "last", (), Settings(tissue_mm=0.5))
    # the same sums in the same order; only the algebra of six numbers is not
    assert np.array_equal(quick.rest.moving, rest.moving)
    assert np.allclose(quick.rest.room_from_body[0], rest.room_from_body[0], atol=1e-12)
    assert np.allclose(quick.rest.lean, rest.lean, atol=1e-12)
    assert quick.rest.renders == rest.renders
    assert quick.fit == answer.fit
    assert np.allclose(quick.spread.covariance, answer.spread.covariance, rtol=1e-9)
    assert quick.error.projected_mm == pytest.approx(answer.registration.error.projected_mm, rel=1e-9)
    assert quick.error.target_mm == pytest.approx(answer.registration.error.target_mm, rel=1e-9)


def test_threads_change_no_bit(model):
    one, two = (quickly(model, shown(FINE), threads=n) for n in (1, 2))
    assert np.array_equal(one.rest.room_from_body[0], two.rest.room_from_body[0])
    assert np.array_equal(one.spread.pose, two.spread.pose)
    assert one.fit == two.fit


def test_what_was_followed_before_changes_no_bit(model):
    view, aside = shown(FINE), carm_from_patient_at(80, 0, [0, 0, 0])
    first = quickly(model, view)
    other = quickly(model, shown(FINE, pose=aside), aside)  # rays along another axis of the volume
    again = quickly(model, view)
    assert other is not None
    assert np.array_equal(first.rest.room_from_body[0], again.rest.room_from_body[0])
    assert np.array_equal(first.rest.moving, again.rest.moving)


def test_an_empty_frame_is_left_to_the_long_way_which_says_why(model):
    view = View(np.zeros(FINE.shape), np.ones(FINE.shape), FINE)
    assert quickly(model, view) is None
    found = model.track(view, Start(START, "last"), Settings())
    assert found.outcome is Outcome.LOST
    assert "empty" in found.why
