# SPDX-License-Identifier: Apache-2.0
"""Does the tracker follow, notice a loss, come back, and keep no secrets?"""

from dataclasses import dataclass, field

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels

from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.model import Settings, Start, View
from registration.result import ErrorEstimate, Outcome, Registration
from registration.tracker import Tracker, TrackerState
from registration.volume_model import VolumeModel

CARM = CArm.centered((128, 128), 2.4, 1020, 765)


@dataclass
class Scripted:
    """A model that accepts whatever lies within its reach of where the patient is, and counts the calls."""

    at: np.ndarray
    visible: bool = True
    kind: str = "scripted"
    target_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))
    calls: list = field(default_factory=list)

    def answer(self, start, reach, name):
        self.calls.append((name, start.carm_from_patient))
        if not self.visible or np.linalg.norm(Rigid.log(self.at @ Rigid.inverse(start.carm_from_patient))) > reach:
            return Registration.lost("not within reach")
        return Registration(Outcome.ACCEPTED, "seen", self.at, np.eye(6), ErrorEstimate(1, 1, self.target_mm))

    def register(self, view, starts, settings):
        return self.answer(starts[0], 40, "register")

    def track(self, view, start, settings):
        return self.answer(start, 8, "track")

    def search(self, view, hint, settings):
        return ()


def blank():
    return View(np.zeros((64, 64)), np.ones((64, 64)), CArm.centered((64, 64), 4, 1000, 750))


def test_without_a_start_there_is_no_pose():
    state, found = Tracker(Scripted(np.eye(4))).step(None, blank())
    assert state is None
    assert found.outcome is Outcome.LOST
    assert "angles" in found.why


def test_steady_motion_is_predicted():
    model = Scripted(np.eye(4))
    tracker = Tracker(model)
    state, _ = tracker.step(None, blank(), start=Start(np.eye(4)))
    for n in range(1, 4):
        model.at = Rigid.translation(4.0 * n, 0, 0)
        state, found = tracker.step(state, blank())
        assert found.outcome is Outcome.ACCEPTED
    assert state.predicted[0, 3] == pytest.approx(14.0)  # 12 mm and half of the last 4 mm


def test_a_cough_is_caught_by_the_wide_registration_in_the_same_frame():
    model = Scripted(np.eye(4))
    tracker = Tracker(model)
    state, _ = tracker.step(None, blank(), start=Start(np.eye(4)))
    model.at = Rigid.translation(15, 0, 0)
    _, found = tracker.step(state, blank())
    assert found.outcome is Outcome.ACCEPTED
    assert [name for name, _ in model.calls] == ["register", "track", "register"]


def test_a_loss_hands_out_no_pose_costs_little_and_ends_when_the_patient_is_back():
    model = Scripted(np.eye(4))
    tracker = Tracker(model)
    state, _ = tracker.step(None, blank(), start=Start(np.eye(4)))
    model.visible = False
    model.calls.clear()
    for n in range(40):
        state, found = tracker.step(state, blank())
        assert found.outcome is Outcome.LOST
        assert found.carm_from_patient is None
        assert state.missed == n + 1
    assert sum(name == "register" for name, _ in model.calls) == 6  # frames 1, 2, 4, 8, 16, 32
    model.visible = True
    model.at = Rigid.translation(3, 0, 0)
    state, found = tracker.step(state, blank())
    assert found.outcome is Outcome.ACCEPTED
    assert state.missed == 0
    assert np.array_equal(state.motion, np.zeros(6))  # 40 frames' motion is no motion per frame


def test_states_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        TrackerState(np.eye(4)).carm_from_patient[0, 3] = 1


@pytest.fixture(scope="module")
def run():
    """Breathing with a moving wire and contrast, a cough, a closed beam, and the way back; (view, pose or None)."""
    rng, parts, out = np.random.default_rng(0), chest(), []
    base = carm_from_patient_at(10, 5, [0, 0, 0])
    v, u = np.mgrid[:128, :128].astype(float)
    for n in range(36):
        breath = np.sin(n / 5)
        true = Rigid.exp([0.03 * breath, 0, 0.01 * breath, 2 * breath, 8 * breath, 0]) @ base
        if n >= 20:
            true = Rigid.translation(11, -10, 0) @ true  # a cough of 15 mm between two frames
        exact = line_integrals(parts, CARM, true)
        exact = exact + 1.0 * (np.abs(u - 40 - n - 10 * np.sin(v / 20)) < 0.8)
        exact = exact + 0.4 * np.exp(-(((u - 80) / 3) ** 2)) * (v < 5 * n)
        signal = (0.1 if n in (27, 28, 29) else 1.0) * np.exp(-exact)
        if n in (27, 28, 29):
            signal = np.full_like(signal, 0.02)  # X-rays off
        gain = 0.8 + 0.4 * (n > 10)
        picture = -np.log(gain * np.maximum(rng.poisson(signal * 30000), 1) / 30000)
        out.append((View(picture, np.ones_like(picture), CARM), None if n in (27, 28, 29) else true))
    return out


def test_a_breathing_patient_is_followed_through_cough_and_gap(run):
    tracker, errors = Tracker(VolumeModel(voxels(chest()), np.zeros(3)), Settings()), []
    state, found = tracker.step(None, run[0][0], start=Start(Rigid.translation(6, 5, 10) @ run[0][1]))
    assert found.outcome is Outcome.ACCEPTED, found.why
    for view, true in run[1:]:
        before = state
        state, found = tracker.step(state, view)
        if true is None:
            assert found.outcome is Outcome.LOST
            continue
        assert found.outcome is Outcome.ACCEPTED, found.why
        apart = CARM.project_patient(found.carm_from_patient, np.zeros(3)) - CARM.project_patient(true, np.zeros(3))
        errors.append(np.linalg.norm(apart) * CARM.mm_per_px_at_isocenter)
    assert np.median(errors) < 0.2
    assert np.max(errors) < 0.6
    again = tracker.step(before, run[-1][0])  # the same state and view: the same bits
    assert np.array_equal(again[1].carm_from_patient, found.carm_from_patient)
