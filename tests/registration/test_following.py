# SPDX-License-Identifier: Apache-2.0
"""What must a tracker stand? Gain, contrast, wires, coughs, an untold C-arm; and what it may do about depth.

Pictures are exact integrals of ellipsoids, the model is a volume of voxels and our projector."""

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels

from registration.depth import Depth, filtered
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.tracker import Tracker
from registration.volume_model import VolumeModel

CARM = CArm.centered((128, 128), 2.4, 1020, 765)
BASE = carm_from_patient_at(10, 5, [0, 0, 0])
V, U = np.mgrid[:128, :128].astype(float)


@pytest.fixture(scope="module")
def model():
    return VolumeModel(voxels(chest()), np.zeros(3))


def shot(pose, rng, *, extra=0.0, gain=1.0):
    exact = line_integrals(chest(), CARM, pose) + extra
    counts = np.maximum(rng.poisson(30000 * np.exp(-exact)), 1)
    return View((-np.log(gain * counts / 30000)).astype(np.float32), np.ones(CARM.shape, np.float32), CARM)


def error_mm(found, true):
    """In the picture, at the isocenter's depth."""
    apart = CARM.project_patient(found, np.zeros(3)) - CARM.project_patient(true, np.zeros(3))
    return float(np.linalg.norm(apart)) * CARM.mm_per_px_at_isocenter


def followed(model, views, poses):
    """Outcomes and errors (NaN where no pose was accepted) after a first frame at its true pose."""
    tracker = Tracker(model, Settings())
    state, first = tracker.step(None, views[0], start=Start(poses[0]))
    assert first.outcome is Outcome.ACCEPTED, first.why
    outcomes, errors = [], []
    for view, true in zip(views[1:], poses[1:], strict=True):
        state, found = tracker.step(state, view)
        outcomes.append(found.outcome)
        errors.append(error_mm(found.carm_from_patient, true) if found.outcome is Outcome.ACCEPTED else np.nan)
    return outcomes, np.array(errors)


def breathing(n):
    return [Rigid.translation(0, 6 * np.sin(k / 6), 0) @ BASE for k in range(n)]


def wire(k):
    return 1.0 * (np.abs(U - 40 - 3 * k - 10 * np.sin(V / 20)) < 0.8)


def contrast(k):
    return 0.5 * np.exp(-(((U - 80 - 10 * np.sin(V / 15)) / 2.5) ** 2)) * (30 * k > V)


@pytest.mark.parametrize("what", ["gain", "contrast", "wire"])
def test_the_pose_does_not_jump_when_what_is_no_anatomy_changes(model, what):
    rng, poses = np.random.default_rng(3), breathing(8)
    changed = {"gain": [dict(gain=2.0 if k > 3 else 1.0) for k in range(8)],
               "contrast": [dict(extra=contrast(max(0, k - 2))) for k in range(8)],
               "wire": [dict(extra=wire(k)) for k in range(8)]}[what]
    outcomes, errors = followed(model, [shot(p, rng, **c) for p, c in zip(poses, changed, strict=True)], poses)
    assert all(o is Outcome.ACCEPTED for o in outcomes)
    # a fifth of a pixel at the isocenter; what a plain frame leaves is 0.1 mm
    assert errors.max() < 0.36


@pytest.mark.parametrize("motion", [Rigid.translation(10, -11, 2), Rigid.exp([0, np.radians(12), 0, 0, 0, 0])],
                         ids=["a cough of 15 mm", "a C-arm turned by 12 deg and no tag said so"])
def test_a_jump_is_recovered_within_three_frames_and_never_accepted_wrong(model, motion):
    rng = np.random.default_rng(4)
    poses = [BASE] * 3 + [motion @ BASE] * 4
    outcomes, errors = followed(model, [shot(p, rng) for p in poses], poses)
    assert all(o is Outcome.ACCEPTED for o in outcomes[4:])
    assert np.nanmax(errors) < 0.5  # nothing that was accepted is far off, at the jump neither


def test_what_misled_coarse_pictures_is_carried_to_the_next_frame(model):
    rng, tracker = np.random.default_rng(5), Tracker(model, Settings())
    state, _ = tracker.step(None, shot(BASE, rng), start=Start(BASE))
    assert not state.lean.any()
    for _ in range(6):
        state, found = tracker.step(state, shot(BASE, rng))
    assert np.linalg.norm(found.lean[:3]) > 1e-3  # rad: voxels of 6 mm tilt the pose
    assert np.linalg.norm((found.lean - state.lean)[:3]) < 0.3 * np.linalg.norm(found.lean[:3])  # and always alike


TARGET, SOD = np.array([10.0, -20.0, 30.0]), 765.0
# scatter of a chest's pose: depth and tilt tell little and go together
SCATTER = np.diag([1e-3, 1e-3, 3e-4, 0.05, 0.05, 1.5]) ** 2
SCATTER[0, 5] = SCATTER[5, 0] = 0.5 * 1e-3 * 1.5


def depth_of(pose):
    return float(np.linalg.norm(Rigid.apply(pose, TARGET) - (0, 0, SOD)))


def run_of_depth(frames, seed):
    """(measured, filtered, true) depths, mm: breathing of 10 mm along the ray, noise as its scatter says."""
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(SCATTER)
    state, rows = None, []
    for k in range(frames):
        true = Rigid.translation(0, 0, 10 * np.sin(2 * np.pi * k / 60)) @ BASE
        seen = Rigid.exp(root @ rng.normal(size=6)) @ true
        state, pose = filtered(state, seen, SCATTER, TARGET, SOD)
        rows.append((depth_of(seen), depth_of(pose), depth_of(true)))
    return np.array(rows).T


def test_filtered_depth_is_better_and_the_single_frames_bound_stays_honest():
    seen, found, true = np.concatenate([run_of_depth(200, s) for s in range(4)], axis=1)
    assert np.std(found - true) < 0.75 * np.std(seen - true)
    bound = 1.96 * 1.55  # mm; 1.5 of depth, and what tilt adds at the target
    assert np.mean(np.abs(found - true) < bound) >= 0.95
    assert abs(np.mean(found - true)) < 0.1  # it does not lag


def test_a_surprise_in_depth_is_a_movement_and_not_smoothed_away():
    state, pose = filtered(None, BASE, SCATTER, TARGET, SOD)
    assert np.array_equal(pose, BASE)
    for _ in range(10):
        state, _ = filtered(state, BASE, SCATTER, TARGET, SOD)
    jumped = Rigid.translation(0, 0, 15) @ BASE
    after, pose = filtered(state, jumped, SCATTER, TARGET, SOD)
    assert np.array_equal(pose, jumped)
    assert after.value[1] == 0


def test_depth_states_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        Depth(np.zeros(2), np.eye(2)).value[0] = 1
