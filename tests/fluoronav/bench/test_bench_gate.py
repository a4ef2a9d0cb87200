# SPDX-License-Identifier: Apache-2.0
"""Does the gate's benchmark count what it says, and go on where it was cut?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluoronav.bench import gate
from fluoronav.bench.gate import Kept, Trial, summary
from fluoronav.bench.gate_scenes import ANATOMIES, CARM, CONDITIONS, bent, scene
from registration.geometry import Rigid, Volume
from registration.result import ErrorEstimate, Outcome, Registration

GOOD = Trial(0, "plain", "chest", True, "ACCEPTED", 0.95, 4.0, 0.2, 5.0, 0.5)


class Standing:
    """People whose middles are known, and nothing else: scenes ask for no more."""

    def center_mm(self, name: str) -> np.ndarray:
        return np.array([10.0 * ANATOMIES.index(name.split(",")[0]), 0, 0])

    def spine_mm(self, name: str) -> np.ndarray:
        return self.center_mm(name) + np.array([0, 50.0, 0])


def test_every_false_accept_is_counted_and_nothing_else() -> None:
    false = [replace(GOOD, projected_mm=5.1), replace(GOOD, right_patient=False, error_mm=None, projected_mm=None)]
    not_false = [replace(GOOD, projected_mm=4.9), replace(false[0], outcome="AMBIGUOUS"),
                 replace(false[1], outcome="LOST")]
    found = summary([GOOD, *false, *not_false])
    assert found["gate.false_accept"].value == pytest.approx(2 / 4) and found["gate.false_accept"].n == 4
    # right patient, within 2 mm or no pose shown at all: GOOD alone, and it was accepted
    assert found["gate.false_refuse"].value == 0 and found["gate.false_refuse"].n == 1


def test_a_refusal_without_a_pose_counts_as_false_whatever_the_pose_would_have_been() -> None:
    lost = replace(GOOD, outcome="LOST", error_mm=None, projected_mm=None, bound_mm=None, bound_projected_mm=None)
    found = summary([GOOD, lost, replace(GOOD, outcome="AMBIGUOUS", projected_mm=3.0)])
    assert (found["gate.false_refuse"].value, found["gate.false_refuse"].n) == (0.5, 2)


def test_coverage_is_of_accepted_right_patients() -> None:
    outside = replace(GOOD, error_mm=6.0, projected_mm=0.4)
    refused = replace(GOOD, outcome="AMBIGUOUS", error_mm=100.0)
    found = summary([GOOD, outside, refused])
    assert (found["gate.coverage_95"].value, found["gate.coverage_95"].n) == (0.5, 2)
    assert found["gate.coverage_95_projected"].value == 1.0
    assert "95 % interval" in found["gate.coverage_95"].note


def test_scenes_are_functions_of_their_number_and_cover_what_is_promised() -> None:
    people: Any = Standing()
    some = [scene(people, n) for n in range(8 * 48)]
    again = scene(people, 13)
    assert np.array_equal(some[13].start, again.start) and some[13].real == again.real
    assert {s.condition for s in some} == set(CONDITIONS)
    breaths = {(s.person, s.breath) for s in some if s.condition == "breathing"}
    assert breaths == {(p, b) for p in ANATOMIES for b in range(1, 13)}
    wrong = {(s.person, s.model) for s in some if s.condition == "other_patient"}
    assert wrong == {("chest", "torso"), ("torso", "chest"), ("chest", "chest, bent"), ("torso", "torso, bent")}
    for s in some:
        assert s.right_patient == (s.condition not in ("other_patient", "wrong_side"))
        off = Rigid.apply(s.start, people.center_mm(s.model)) - Rigid.apply(s.true, people.center_mm(s.person))
        near = s.condition != "moved_carm"
        assert np.linalg.norm(off) < 16 or not near  # the model begins where the person lies
        assert s.condition != "sdd_1_percent" or abs(s.real.sdd_mm / CARM.sdd_mm - 1) == pytest.approx(0.01)


def test_a_bent_volume_is_another_shape_of_the_same_matter() -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(20, 24, 24)).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    other = bent(volume, 5.0, 0.95, 1)
    assert other.data.shape == volume.data.shape and np.array_equal(other.data, bent(volume, 5.0, 0.95, 1).data)
    assert abs(np.corrcoef(other.data.ravel(), volume.data.ravel())[0, 1]) < 0.5


def test_a_run_that_was_cut_goes_on_with_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(gate, "chest_volume", lambda progress: None)
    monkeypatch.setattr(gate, "People", lambda chest, progress: Standing())
    monkeypatch.setattr(gate, "picture", lambda people, of: (made.append(of.index), np.full((4, 4), of.index))[1])

    def tried(people: Any, trying: Any, seen: np.ndarray) -> Trial:
        assert (seen == trying.index).all()
        found = Registration(Outcome.ACCEPTED, "", trying.true, np.eye(6), ErrorEstimate(5, 1, trying.target_mm))
        return gate.held(trying, found)

    monkeypatch.setattr(gate, "tried", tried)
    first = gate.simulate(lambda share, text: None, 1, store=tmp_path)
    assert [t.index for t in first] == made == list(range(8))
    file = next(tmp_path.glob("trials-*.jsonl"))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:5]) + lines[5][:40])  # the power went while the sixth was written
    again = gate.simulate(lambda share, text: None, 2, store=tmp_path)
    assert made == [*range(8), *range(8, 16)] and [t.index for t in again] == list(range(16))
    assert again[:8] == first and again == gate.simulate(lambda share, text: None, 2, store=tmp_path)
    right = [t for t in again if t.right_patient]
    assert all(t.error_mm is not None and t.error_mm < 1e-9 and t.projected_mm is not None for t in right)
    assert Kept(tmp_path).trials().keys() == set(range(16))
