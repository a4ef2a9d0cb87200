# SPDX-License-Identifier: Apache-2.0
"""A CT ends, the patient does not; a bone is not alone: both are found, and refused where they are not shown."""

from __future__ import annotations

import numpy as np
import pytest

from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at
from registration.ladder import Ladder
from registration.model import Settings, Start, View
from registration.partial import FINAL, continued, cut_faces, told_by
from registration.projector.reference import joseph as exact
from registration.result import Outcome
from registration.volume_model import VolumeModel

CARM = CArm.centered((192, 192), 1.2, 1020.0, 765.0)
TARGETS = np.array([[0, 0, 0], [25, 0, 10], [-20, 15, -10], [10, -20, 15.0]])


def column(seed: int, length: int = 60, mm: float = 4.0) -> Volume:
    """A long body [k, j, i] with bones and organs of its own, air around it, matter on both ends."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((length, 34, 44)).astype(np.float32)
    body = ((j - 17) / 13) ** 2 + ((i - 22) / 19) ** 2 < 1
    data = np.where(body, np.float32(0.019), 0)
    for _ in range(60):
        at, size = rng.uniform((0, 8, 8), (length, 26, 36)), rng.uniform(1.2, 4.5, 3)
        inside = ((k - at[0]) / size[0]) ** 2 + ((j - at[1]) / size[1]) ** 2 + ((i - at[2]) / size[2]) ** 2 < 1
        data[inside & body] = rng.choice([0.004, 0.03, 0.045])
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = -mm * (np.array([44, 34, length]) - 1) / 2
    return Volume(data.astype(np.float32), affine)


def middle(volume: Volume, slices: int) -> Volume:
    first = (len(volume.data) - slices) // 2
    affine = volume.patient_from_index.copy()
    affine[:3, 3] += affine[:3, 2] * first
    return Volume(volume.data[first:first + slices], affine)


def seen(volume: Volume, pose: np.ndarray, seed: int = 0) -> View:
    clean = exact(volume, CARM, pose)
    noisy = clean + np.random.default_rng(seed).normal(0, 0.01, clean.shape)
    return View(noisy.astype(np.float32), np.ones(CARM.shape, np.float32), CARM)


def off(pose: np.ndarray) -> np.ndarray:
    return Rigid.exp([0.05, -0.04, 0.06, 6, -5, 12]) @ pose


def in_picture_mm(a: np.ndarray, b: np.ndarray) -> float:
    apart = CARM.project_patient(a, TARGETS) - CARM.project_patient(b, TARGETS)
    return float(np.linalg.norm(apart, axis=1).max() * CARM.mm_per_px_at_isocenter)


def test_the_faces_that_were_cut_are_those_that_matter_reaches():
    assert cut_faces(column(1)) == ((True, True), (False, False), (False, False))
    assert continued(column(1)).data.shape == (60 + 2 * 40, 34, 44)  # 160 mm at 4 mm
    grown = continued(column(1))
    assert np.array_equal(grown.data[40:100], column(1).data)
    assert np.allclose(Rigid.apply(grown.patient_from_index, [3, 4, 45.0]),
                       Rigid.apply(column(1).patient_from_index, [3, 4, 5.0]))
    assert np.array_equal(grown.data[3], column(1).data[0])


def test_a_volume_in_air_is_not_continued():
    alone = np.zeros((20, 20, 20), np.float32)
    alone[5:15, 5:15, 5:15] = 0.03
    volume = Volume(alone, np.eye(4))
    assert continued(volume) is volume


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_scan_that_ends_within_the_picture_is_found(seed):
    whole = column(seed)
    true = carm_from_patient_at(8.0 * seed, 6.0 - 4 * seed, np.zeros(3))
    found = VolumeModel(middle(whole, 28)).register(seen(whole, true, seed), [Start(off(true))], Settings())
    assert found.outcome is Outcome.ACCEPTED, found.why
    # half a pixel: some 0.4 voxels, of which 28 slices see 110 mm
    assert in_picture_mm(found.carm_from_patient, true) < 0.5 * CARM.mm_per_px_at_isocenter
    tracked = VolumeModel(middle(whole, 28)).track(
        seen(whole, true, seed), Start(Rigid.exp([0.01, 0.01, -0.01, 2, 1, 3]) @ true), Settings())
    assert tracked.outcome is Outcome.ACCEPTED, tracked.why
    assert in_picture_mm(tracked.carm_from_patient, true) < CARM.mm_per_px_at_isocenter


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_part_of_another_patient_is_never_accepted(seed):
    true = carm_from_patient_at(5.0, -5.0, np.zeros(3))
    found = VolumeModel(middle(column(seed), 28)).register(
        seen(column(seed + 20), true, seed), [Start(off(true))], Settings())
    assert found.outcome is not Outcome.ACCEPTED


def test_pixels_whose_rays_leave_through_a_cut_tell_nothing_and_those_beside_the_shadow_neither():
    whole, true = column(5), carm_from_patient_at(0.0, 0.0, np.zeros(3))
    part = VolumeModel(middle(whole, 28))
    trust = told_by(part, Ladder(seen(whole, true)), true, FINAL).view.weight
    # the body lies along rows or along columns of pixels; its middle line from end to end
    along = trust[:, 96] if trust[:, 96].min() == 0 and trust[0, 96] == 0 else trust[96]
    assert along[96] > 0.8 and along[0] == 0 and along[-1] == 0
    difference = np.abs(exact(middle(whole, 28), CARM, true) - exact(whole, CARM, true))
    assert difference[trust > 0.99].max() < 0.1 * exact(whole, CARM, true).max()
