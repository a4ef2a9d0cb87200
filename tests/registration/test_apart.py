# SPDX-License-Identifier: Apache-2.0
"""Is a breathing patient who is tracked as one body never said to be surer than he is?"""

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels
from test_bodies import breathed
from test_volume_model import CARM, measured, off, pose

from registration.apart import Apart
from registration.bodies import spine_of
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.tracker import Tracker
from registration.volume_model import VolumeModel


def test_a_look_comes_soon_where_something_moves_and_else_seldom():
    still = Apart(seen_mm=0.0, agreement=0.95, frames=4)
    assert not still.due(0.95)
    assert still.due(0.92)  # explained less well: somebody may breathe
    assert Apart(seen_mm=0.0, agreement=0.95, frames=24).due(0.95)
    assert Apart(allowed_mm=3.0, seen_mm=0.0, agreement=0.95, frames=4).due(0.95)
    assert not Apart(allowed_mm=3.0, seen_mm=3.0, agreement=0.95, frames=1).due(0.5)


def test_what_grows_is_allowed_for_ahead_and_forgotten_slowly():
    grown = Apart(2.0, 2.0, 0.9, 4).seen(5.0, 0.9)
    assert grown.allowed_mm == pytest.approx(8.0)  # 5 mm, and the 3 mm that it grew by
    back = grown.seen(0.0, 0.95)
    assert 2.0 < back.allowed_mm < 8.0
    for _ in range(20):
        back = back.seen(0.0, 0.95)
    assert back.allowed_mm == 0.0


@pytest.fixture(scope="module")
def run():
    """Model with its target in the spine, the pose, and views of a breath of 12 mm and back."""
    volume = voxels(chest())
    spine, true, rng = spine_of(volume), pose(1), np.random.default_rng(2)
    ways = [6 * (1 - np.cos(np.pi * n / 7)) * np.array([0.0, 0.25, -0.97]) for n in range(8)]
    exact = [line_integrals(breathed(spine, way), CARM, true) for way in ways]
    pictures = [measured(p, rng) for p in (*exact, *exact[::-1]) for _ in range(3)]
    views = [View(p, np.ones_like(p), CARM) for p in pictures]
    return VolumeModel(volume, spine.middle_mm), true, views


def test_breath_widens_the_bound_or_refuses_and_the_same_state_gives_the_same_bits(run):
    model, true, views = run
    tracker, refused, inside = Tracker(model, Settings(tissue_mm=0.5), wide=False), 0, []
    state, found = tracker.step(None, views[0], start=Start(off(0, 2, 3) @ true))
    assert found.outcome is Outcome.ACCEPTED
    for view in views[1:]:
        before = state
        state, found = tracker.step(state, view)
        again = tracker.step(before, view)
        assert again[0].apart == state.apart
        if found.carm_from_patient is not None:
            assert np.array_equal(again[1].carm_from_patient, found.carm_from_patient)
        if found.outcome is not Outcome.ACCEPTED:
            refused += "against each other" in found.why
            continue
        apart = [CARM.project_patient(p, model.target_mm) for p in (found.carm_from_patient, true)]
        error = np.linalg.norm(apart[0] - apart[1]) * CARM.mm_per_px_at_isocenter
        inside.append(error < found.error.projected_mm)
    assert refused > 8  # as one body it is up to 11 mm off
    assert np.mean(inside) > 0.9  # 95 % of them, in few
