# SPDX-License-Identifier: Apache-2.0
"""Do the bodies that a segmentation names add up to the CT, and does the target's own answer where it has moved?"""

import numpy as np
import pytest
from ellipsoids import WATER, chest, line_integrals, voxels
from test_bodies import breathed
from test_volume_model import CARM, measured, off, pose

from registration.bodies import spine_of
from registration.errors import BadInput
from registration.following import Breath
from registration.geometry import Rigid, Volume
from registration.model import Settings, View
from registration.result import Outcome
from registration.segmentation import Segmentation
from registration.tracker import Tracker, TrackerState
from registration.volume_model import VolumeModel


def vertebrae():
    return [p for p in chest() if p.density == 0.9 * WATER and p.radii[0] > 10]


def heart():
    return next(p for p in chest() if p.density == 0.35 * WATER)


@pytest.fixture(scope="module")
def volume():
    return voxels(chest())


@pytest.fixture(scope="module")
def bodies(volume):
    """Vertebrae and heart, on a grid of its own."""
    grid = np.eye(4)
    grid[:3, :3] *= 3.0
    grid[:3, 3] = -168, -110, -180  # not the volume's
    k, j, i = np.indices((120, 74, 112))
    at = np.stack([i, j, k], -1) @ grid[:3, :3].T + grid[:3, 3]
    labels = np.zeros(at.shape[:3], np.float32)
    for n, parts in ((1, vertebrae()), (2, [heart()])):
        for p in parts:
            labels[(((at - p.center) @ p.axes.T / p.radii) ** 2).sum(-1) < 1] = n
    return Segmentation(("vertebrae", "heart"), Volume(labels, grid))


def test_the_parts_add_up_and_each_holds_its_own(volume, bodies):
    parts = bodies.parts(volume, "heart")
    assert list(parts) == ["heart", "vertebrae", "rest"]
    assert np.abs(sum(p.data for p in parts.values()) - volume.data).max() < 1e-6
    assert min(p.data.min() for p in parts.values()) >= 0
    at = np.round(Rigid.apply(np.linalg.inv(volume.patient_from_index), heart().center)).astype(int)[::-1]
    assert parts["heart"].data[tuple(at)] == pytest.approx(volume.data[tuple(at)])
    assert parts["rest"].data[tuple(at)] == pytest.approx(0, abs=1e-7)


def test_a_body_goes_with_what_is_fixed_to_it_and_ends_where_another_begins(volume, bodies):
    """What a picture shows of a bone is where it ends, and ribs are fixed to vertebrae."""
    def share(parts, name, point):
        at = tuple(np.round(Rigid.apply(np.linalg.inv(volume.patient_from_index), point)).astype(int)[::-1])
        return parts[name].data[at] / volume.data[at]

    p = vertebrae()[6]
    alone = bodies.body_at(p.center).parts(volume)
    assert share(alone, "vertebrae", p.center - [0, p.radii[1] + 3, 0]) == pytest.approx(1)
    assert share(alone, "rest", p.center - [0, p.radii[1] + 35, 0]) == pytest.approx(1)
    front = p.center - [0, p.radii[1], 0]
    way = np.linspace(front, heart().center, 41)
    both = bodies.parts(volume, "vertebrae")
    ends = [np.array([share(both, name, x) for x in way]) for name in ("vertebrae", "heart")]
    assert ends[0][0] == pytest.approx(1, abs=0.01) and ends[1][-1] == pytest.approx(1, abs=0.01)
    assert ends[0][-1] < 0.01 and ends[1][0] < 0.01


def test_the_target_names_the_body(bodies):
    assert bodies.at(heart().center) == "heart"
    assert bodies.at(vertebrae()[5].center) == "vertebrae"
    assert bodies.at([0.0, -80.0, 150.0]) is None
    assert bodies.at([900.0, 0.0, 0.0]) is None  # outside of the CT
    assert bodies.body_at(heart().center).name == "heart"
    nowhere = bodies.body_at([0.0, -80.0, 150.0])
    assert nowhere.name == "bodies"
    assert nowhere.holding([0.0, -80.0, 150.0]) == "rest"
    assert np.linalg.norm(bodies.middle_mm("heart") - heart().center) < 3


def test_what_a_segmentation_does_not_hold_is_refused(volume, bodies):
    with pytest.raises(BadInput, match="heart"):
        bodies.parts(volume, "liver")
    for names in (("vertebrae",), ("rest", "heart"), ("heart", "heart")):
        with pytest.raises(BadInput, match="name for each value"):
            Segmentation(names, bodies.labels)


def test_a_model_aimed_elsewhere_has_other_parts(volume, bodies):
    model = VolumeModel(volume, vertebrae()[5].center, segmentation=bodies)
    assert list(model.parts().models) == ["vertebrae", "rest"]
    assert list(model.aimed_at(heart().center).parts().models) == ["heart", "rest"]


def test_the_targets_own_body_is_followed_where_the_rest_has_moved(volume, bodies):
    target, spine = vertebrae()[5].center, spine_of(volume)
    model, true, rng = VolumeModel(volume, target, segmentation=bodies), pose(1), np.random.default_rng(4)
    tracker, state = Tracker(model, Settings(tissue_mm=0.5), wide=False), None
    for mm in (9.0, 8.6, 8.2, 7.8):
        way = np.array([0, 0.25 * mm, -0.97 * mm])
        picture = measured(line_integrals(breathed(spine, way), CARM, true), rng)
        if state is None:
            state = TrackerState(off(2, 0.3, 1) @ true, breath=Breath("vertebrae", Rigid.translation(*way)))
        state, found = tracker.step(state, View(picture, np.ones_like(picture), CARM))
        assert found.outcome is Outcome.ACCEPTED, found.why
        assert set(found.bodies) == {"vertebrae", "rest"}
        apart = CARM.project_patient(found.carm_from_patient, target) - CARM.project_patient(true, target)
        error = np.linalg.norm(apart) * CARM.mm_per_px_at_isocenter
        assert error < found.error.projected_mm  # as one body it is 7 mm off
        assert found.error.projected_mm < 2.5
