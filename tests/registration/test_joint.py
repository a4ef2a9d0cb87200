# SPDX-License-Identifier: Apache-2.0
"""Do several views find one patient, their depth, and their own geometry? Pictures come from exact formulas."""

from dataclasses import replace

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels
from test_volume_model import CARM, measured, off

from registration.errors import BadInput
from registration.geometry import Rigid, carm_from_room
from registration.joint import JointModel, RoomView
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.scatter import without_scatter
from registration.volume_model import VolumeModel

# SDD off by 1 %, principal point by 3 mm at the detector
WRONG = replace(CARM, sdd_mm=1.01 * CARM.sdd_mm, principal_px_u_v=(
    CARM.principal_px_u_v[0] + 3 / 1.6 / 2**0.5, CARM.principal_px_u_v[1] - 3 / 1.6 / 2**0.5))


def scene(seed, real=CARM, apart=75.0, moved=None):
    """(views, room_from_patient); moved: another pose of the patient in the second view."""
    rng = np.random.default_rng(100 + seed)
    room = Rigid.exp(rng.normal(size=6) * (0.05, 0.05, 0.05, 8, 8, 15))
    a = rng.uniform(-30, 30)
    places = [carm_from_room(a, rng.uniform(-10, 10)), carm_from_room(a + apart, rng.uniform(-10, 10))]
    poses = [room, room if moved is None else moved @ room]
    views = []
    for place, pose in zip(places, poses, strict=True):
        picture = measured(line_integrals(chest(), real, place @ pose), rng, gain=rng.uniform(0.5, 2))
        views.append(RoomView(View(picture, np.ones_like(picture), CARM), place))
    return views, room


@pytest.fixture(scope="module")
def model():
    return VolumeModel(voxels(chest()), np.zeros(3))


def depths(found, views, room):
    return [abs((v.carm_from_room @ found.room_from_patient - v.carm_from_room @ room)[2, 3]) for v in views]


def start(views, room, seed, *bounds):
    return Start(off(seed, *bounds) @ views[0].carm_from_room @ room, "angles")


def test_two_views_know_the_depth_and_say_so(model):
    errors = []
    for n, apart in enumerate((60.0, 75.0, 90.0)):
        views, room = scene(n, apart=apart)
        found = JointModel(model).register(views, [start(views, room, n, 10, 20)], Settings())
        assert found.outcome is Outcome.ACCEPTED, found.registrations[0].why
        errors += depths(found, views, room)
        single = model.register(views[0].view, [start(views, room, n, 5, 10)], Settings())
        bound = found.registrations[0].error.target_mm
        assert np.linalg.norm((found.room_from_patient - room)[:3, 3]) < bound < 0.5 * single.error.target_mm
        for view, one in zip(views, found.registrations, strict=True):
            assert np.allclose(one.carm_from_patient, view.carm_from_room @ found.room_from_patient)
            assert one.error.projected_mm < 1.0
    assert np.median(errors) < 0.3  # mm; one view alone is off by some 0.2 with true geometry, by 8 with SDD 1 % off


def test_far_starts_and_repetition(model):
    views, room = scene(5)
    answers = [JointModel(model).register(views, [start(views, room, 3, 20, 40, 80)], Settings()) for _ in range(2)]
    assert answers[0].outcome is Outcome.ACCEPTED
    assert max(depths(answers[0], views, room)) < 1
    assert np.array_equal(answers[0].room_from_patient, answers[1].room_from_patient)
    assert np.array_equal(answers[0].covariance, answers[1].covariance)


def test_a_patient_who_moved_between_the_views_is_not_accepted(model):
    views, room = scene(1, moved=Rigid.exp([0.05, 0.02, 0, 12, -15, 10]))
    found = JointModel(model).register(views, [start(views, room, 1, 2, 3)], Settings())
    assert found.outcome is not Outcome.ACCEPTED
    assert any("common pose" in r.why or "explained" in r.why for r in found.registrations)


def test_another_patient_and_empty_views_are_refused(model):
    views, room = scene(2)
    other = JointModel(VolumeModel(voxels(chest(1)), np.zeros(3)))
    found = other.register(views, [start(views, room, 2, 2, 3)], Settings())
    assert found.outcome is not Outcome.ACCEPTED
    blank = np.zeros(CARM.shape, np.float32)
    empty = [views[0], RoomView(View(blank, blank + 1, CARM), views[1].carm_from_room)]
    found = JointModel(model).register(empty, [start(views, room, 2, 2, 3)], Settings())
    assert found.outcome is Outcome.LOST and found.room_from_patient is None
    assert "empty" in found.registrations[1].why and "another view" in found.registrations[0].why


def test_sdd_and_principal_point_are_recovered_as_far_as_their_stated_doubt(model):
    shares, ratios = [], []
    for n in range(3):
        views, room = scene(n, real=WRONG)
        found = JointModel(model, intrinsics="shared").register(views, [start(views, room, n, 3, 6)], Settings())
        assert found.outcome is Outcome.ACCEPTED
        carm, sd = found.carms[0], found.carm_sd[0]
        shares.append(abs(carm.sdd_mm / WRONG.sdd_mm - 1))
        apart = (np.array(carm.principal_px_u_v) - WRONG.principal_px_u_v) * 1.6
        ratios += list(np.abs(apart) / sd[1:])
        assert np.linalg.norm((found.room_from_patient - room)[:3, 3]) < found.registrations[0].error.target_mm
        assert (sd[1:] < 1.9).all()  # the prior is 2 mm: the views have told something
    assert np.median(shares) < 0.002
    assert max(ratios) < 2.5  # standard deviations


def test_each_view_may_have_its_own_c_arm(model):
    views, room = scene(1, real=WRONG)
    found = JointModel(model, intrinsics="each").register(views, [start(views, room, 1, 3, 6)], Settings())
    assert found.outcome is Outcome.ACCEPTED and found.which == (0, 1)
    for carm, sd in zip(found.carms, found.carm_sd, strict=True):
        assert abs(np.log(carm.sdd_mm / WRONG.sdd_mm)) < 2.5 * sd[0] < 0.0075  # told: the prior is 1 %
    assert np.linalg.norm((found.room_from_patient - room)[:3, 3]) < found.registrations[0].error.target_mm


def test_what_cannot_be_done_is_refused_with_a_sentence(model):
    views, room = scene(0)
    with pytest.raises(BadInput, match="two or more"):
        JointModel(model, intrinsics="shared").register(views[:1], [start(views, room, 0, 2, 3)], Settings())
    with pytest.raises(BadInput, match="stated, shared"):
        JointModel(model, intrinsics="guessed")
    assert JointModel(model).register(views, [], Settings()).outcome is Outcome.LOST


def test_scatter_is_taken_away_where_the_volume_tells_it():
    true = carm_from_room(10, 5)
    exact = line_integrals(chest(), CARM, true).astype(np.float32)
    seen = measured(exact, np.random.default_rng(0), photons=1e7)
    clean = without_scatter(seen, np.ones_like(seen), exact)
    inside = exact > 0.5

    def misfit(picture):  # up to gain and offset
        x = np.stack([exact[inside], np.ones(inside.sum())], 1)
        return float(np.std(picture[inside] - x @ np.linalg.lstsq(x, picture[inside], rcond=None)[0]))

    assert misfit(clean) < 0.2 * misfit(seen)
    blank = np.zeros_like(exact)
    assert without_scatter(seen, np.ones_like(seen), blank) is seen
