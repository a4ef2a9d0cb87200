# SPDX-License-Identifier: Apache-2.0
"""A real chest CT in simulated fluoroscopy of it: the truth comes from itk-rtk, the physics has two materials."""

import numpy as np
import pytest

if not hasattr(pytest.importorskip("itk"), "RTK"):
    pytest.skip("itk-rtk makes the truth (pip install 'fluoronav[test]')", allow_module_level=True)

from fluoronav.bench.gate_scenes import bent
from fluoronav.bench.real_chest import CARM, chest_volume, register_many
from fluoronav.bench.search import searched
from fluoronav.bench.truth import Physics, fluoroscopy, rtk_line_integrals, two_materials
from registration.geometry import Rigid, Volume, attenuation_from_hu, carm_from_patient_at
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def chest(shared_data):
    return chest_volume(lambda done, text: None)


def test_the_other_projector_puts_points_where_the_geometry_says():
    data = np.zeros((50, 60, 70), np.float32)
    at = [(10, 20, 30), (40, 50, 11), (25, 5, 60)]
    for k in at:
        data[k] = 1
    volume = Volume(data, Rigid.exp([0.3, -0.2, 0.5, 10, 20, -30]) @ np.diag([1.5, 2, 2.5, 1]))
    pose = Rigid.exp([0.2, 0.1, -0.2, 9, -5, 4]) @ carm_from_patient_at(33, -17, volume.center_mm)
    picture = rtk_line_integrals([volume], CARM, pose)[0]
    for k in at:
        center = volume.patient_from_index[:3, :3] @ k[::-1] + volume.patient_from_index[:3, 3]
        u, v = CARM.project_patient(pose, center)
        rows, cols = slice(round(v) - 8, round(v) + 9), slice(round(u) - 8, round(u) + 9)
        mass = picture[rows, cols]
        vv, uu = np.mgrid[rows, cols]
        assert (mass * uu).sum() / mass.sum() == pytest.approx(u, abs=0.06)
        assert (mass * vv).sum() / mass.sum() == pytest.approx(v, abs=0.06)


def test_eight_starts_end_within_two_millimeters(chest):
    errors, projected, _, accepted = register_many(chest, 8, (10.0, 20.0, None), lambda done, text: None, seed=1)
    assert errors.max() < 2.0
    assert np.median(projected) < 0.15
    assert accepted.all()


def test_pictures_in_any_rotation_are_found_without_a_start_and_another_patients_are_refused(chest):
    found = searched(chest, chest, CARM, 4, lambda done, text: None, seed=3)
    assert all(case.right for case in found), found
    foreign = searched(chest, bent(chest.resampled(3.0), 12.0, 0.94, 12), CARM, 2, lambda done, text: None, seed=4)
    assert not any(case.accepted for case in foreign), foreign


def test_the_mirrored_patient_is_refused(chest):
    true = carm_from_patient_at(-20, 5, chest.center_mm)
    picture = fluoroscopy(two_materials(chest), CARM, true, Physics(), np.random.default_rng(0))
    mirrored = Volume(chest.data[:, :, ::-1], chest.patient_from_index)
    found = VolumeModel(attenuation_from_hu(mirrored)).register(
        View(picture, np.ones_like(picture), CARM), [Start(true)], Settings())
    assert found.outcome is not Outcome.ACCEPTED
