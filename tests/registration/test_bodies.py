# SPDX-License-Identifier: Apache-2.0
"""Is the spine told from the rest, and found while the rest moves with the breath?"""

from dataclasses import replace

import numpy as np
import pytest
from ellipsoids import WATER, chest, line_integrals, voxels
from test_volume_model import CARM, measured, off, pose

from registration.bodies import spine_and_rest, spine_of
from registration.errors import BadInput
from registration.geometry import Volume
from registration.joint import JointModel, RoomView
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import VolumeModel


@pytest.fixture(scope="module")
def volume():
    return voxels(chest())


def vertebrae():
    return [p for p in chest() if p.density == 0.9 * WATER and p.radii[0] > 10]


def test_the_parts_add_up_and_the_spine_runs_through_the_vertebrae(volume):
    spine = spine_of(volume)
    parts = spine_and_rest(volume, spine)
    assert np.abs(parts["spine"].data + parts["rest"].data - volume.data).max() < 1e-6
    assert min(p.data.min() for p in parts.values()) >= 0
    away = spine.distance_mm(np.array([p.center for p in vertebrae() if abs(p.center[2]) < 120]))
    assert away.max() < 15  # the mask reaches 20 mm in full


def test_a_volume_without_bone_has_no_spine(volume):
    with pytest.raises(BadInput, match="bone"):
        spine_of(Volume(np.minimum(volume.data, 0.02), volume.patient_from_index))


def breathed(spine, by):
    """The exact body with everything away from the spine moved; what is near moves less, as ribs do."""
    def share(p):
        t = 1.0 if p.radii.max() > 40 else float(np.clip((spine.distance_mm(p.center) - 40) / 40, 0, 1))
        return t * t * (3 - 2 * t)

    return [replace(p, center=p.center + share(p) * np.asarray(by)) for p in chest()]


@pytest.mark.filterwarnings("error")
def test_the_spine_is_found_while_the_tissue_has_moved_by_12_mm(volume):
    spine = spine_of(volume)
    target = spine.middle_mm
    whole = VolumeModel(volume, target)
    model = JointModel({k: VolumeModel(v, target) for k, v in spine_and_rest(volume, spine).items()})
    errors, alone = [], []
    for n in range(4):
        rng, true = np.random.default_rng(n), pose(n)
        way = rng.normal(size=3) * (0.3, 0.5, 1)
        exact = line_integrals(breathed(spine, 12 * way / np.linalg.norm(way)), CARM, true)
        picture = measured(exact, rng)
        view, start = View(picture, np.ones_like(picture), CARM), [Start(off(n, 6, 10) @ true)]
        found = model.register([RoomView(view, np.eye(4))], start, Settings(), whole=whole)
        one = whole.register(view, start, Settings(bodies="one"))
        if found.outcome is Outcome.ACCEPTED:
            assert set(found.registrations[0].bodies) == {"spine", "rest"}

        def error(p, true=true):
            if p is None:
                return np.inf
            points = target + np.array([[0, 0, -40], [0, 0, 0], [0, 0, 40.0]])
            apart = CARM.project_patient(p, points) - CARM.project_patient(true, points)
            return np.linalg.norm(apart, axis=1).mean() * CARM.mm_per_px_at_isocenter

        errors.append(error(found.room_from_patient))
        alone.append(error(one.carm_from_patient))
    assert np.median(errors) < 0.8 < np.median(alone)


def test_bodies_need_the_whole(volume):
    model = JointModel({k: VolumeModel(v) for k, v in spine_and_rest(volume).items()})
    blank = np.zeros(CARM.shape, np.float32)
    with pytest.raises(BadInput, match="undivided"):
        model.register([RoomView(View(blank, blank + 1, CARM), np.eye(4))], [Start(np.eye(4))], Settings())
