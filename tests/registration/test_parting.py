# SPDX-License-Identifier: Apache-2.0
"""Is it noticed that tissue has moved against the spine, and is the right part answered for?"""

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels
from test_bodies import breathed
from test_volume_model import CARM, measured, off, pose

from registration.bodies import spine_of
from registration.geometry import Rigid
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import VolumeModel


@pytest.fixture(scope="module")
def volume():
    return voxels(chest())


@pytest.fixture(scope="module")
def spine(volume):
    return spine_of(volume)


def pictured(spine, mm, n):
    """A picture of the chest breathed by so many mm (exact line integrals), its true pose, and a start."""
    rng, true = np.random.default_rng(n), pose(n)
    way = rng.normal(size=3) * (0.3, 0.5, 1)
    exact = line_integrals(breathed(spine, mm * way / np.linalg.norm(way)), CARM, true)
    picture = measured(exact, rng)
    return View(picture, np.ones_like(picture), CARM), true, [Start(off(n, 6, 10) @ true)]


def projected(found, true, target):
    if found.carm_from_patient is None:
        return np.inf
    apart = CARM.project(Rigid.apply(found.carm_from_patient, target)) - CARM.project(Rigid.apply(true, target))
    return float(np.linalg.norm(apart)) * CARM.mm_per_px_at_isocenter


def test_a_spine_target_gets_the_spines_pose_where_tissue_has_moved(volume, spine):
    model, told = VolumeModel(volume, spine.middle_mm), 0
    for n in range(4):
        view, true, start = pictured(spine, 12.0, n)
        found = model.register(view, start, Settings())
        error = projected(found, true, spine.middle_mm)
        if found.outcome is Outcome.ACCEPTED:
            assert error < max(found.error.projected_mm, 1.0)  # 1 mm: what a rigid spine leaves of one that bends
            told += "moved against each other" in found.why and found.quality["parted_mm"] > 2
    assert told >= 2


def test_as_one_body_what_the_target_is_off_is_in_the_bound_or_refused(volume, spine):
    model = VolumeModel(volume, spine.middle_mm)
    for n in range(4):
        view, true, start = pictured(spine, 12.0, n)
        found = model.register(view, start, Settings(bodies="one"))
        assert found.outcome is Outcome.ACCEPTED or "moved against each other" in found.why
        assert projected(found, true, spine.middle_mm) < found.error.projected_mm


def test_a_patient_as_in_the_ct_stays_one_body_or_is_found_as_well(volume, spine):
    model, whole = VolumeModel(volume, spine.middle_mm), 0
    for n in range(6):
        view, true, start = pictured(spine, 0.0, n)
        found = model.register(view, start, Settings())
        assert found.outcome is Outcome.ACCEPTED
        assert projected(found, true, spine.middle_mm) < 0.4  # voxels of 3 mm
        assert found.error.projected_mm < 2.0  # with what the two bodies differ by
        whole += "parted_mm" not in found.quality
    assert whole >= 3  # a body of a few smooth ellipsoids is explained a little better by any two


def test_a_bone_on_its_own_has_no_parts(volume, spine):
    """A single vertebra lies in the spine's part whole: it is found as one body, and nothing fails."""
    data = volume.data.copy()
    at = np.round(np.linalg.inv(volume.patient_from_index) @ [*spine.middle_mm, 1])[:3].astype(int)
    mask = np.zeros(data.shape, bool)
    mask[at[2] - 6:at[2] + 7, at[1] - 6:at[1] + 7, at[0] - 6:at[0] + 7] = True  # 39 mm a side
    bone = VolumeModel(type(volume)(np.where(mask, data, 0).astype(np.float32), volume.patient_from_index))
    assert bone.parts() is None
    assert VolumeModel(volume).parts() is not None
