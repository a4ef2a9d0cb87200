# SPDX-License-Identifier: Apache-2.0
"""Is the step pure, honest and obedient? Bits, outcomes, jobs, nudges, the gantry's motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from live_scenes import ANGLES, case, error_mm, frame_of, pose_at

from fluoronav.imaging.frame import Angles
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.step import Command, Decision, Step
from registration.errors import BadInput
from registration.geometry import Rigid, carm_from_patient_at
from registration.result import Outcome

SETTINGS = PipelineSettings(overlay="lines")


def ran(pipeline: Pipeline, frames: Any, decisions: dict[int, list[Decision]] | None = None,
        commands: dict[int, list[Command]] | None = None) -> list[Step]:
    """Steps of frames; without decisions given, jobs are run at once and applied two frames later."""
    out, ready = [], {}
    for k, frame in enumerate(frames):
        given = (decisions or {}).get(k, []) if decisions is not None else ready.pop(k, [])
        out.append(pipeline.step(frame, (commands or {}).get(k, ()), given))
        job = pipeline.wanted_job()
        if job is not None and decisions is None:
            ready.setdefault(k + 2, []).append(Decision("job", {"job": job.name, "result": pipeline.run_job(job)}))
    return out


def same(a: Step, b: Step) -> bool:
    """Whether two answers agree in every bit that is promised."""
    poses = [s.registration.carm_from_patient for s in (a, b)]
    return (a.registration.outcome is b.registration.outcome and a.badges == b.badges
            and (poses[0] is poses[1] is None or np.array_equal(poses[0], poses[1]))
            and np.array_equal(a.picture, b.picture)
            and np.array_equal(a.enhanced.line_integrals, b.enhanced.line_integrals)
            and a.overlay.layers.keys() == b.overlay.layers.keys()
            and all(np.array_equal(a.overlay.layers[n], b.overlay.layers[n]) for n in a.overlay.layers))


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    return [frame_of(k) for k in range(8)]


@pytest.fixture(scope="module")
def steps(frames: list[Any]) -> list[Step]:
    return ran(Pipeline(case(), SETTINGS), frames)


def test_a_breathing_tree_is_found_by_a_job_then_followed_and_drawn(steps: list[Step]) -> None:
    assert [s.registration.outcome for s in steps[:2]] == [Outcome.LOST] * 2
    assert "registering from the gantry's angles" in steps[0].badges
    for k, step in enumerate(steps[2:], 2):
        found = step.registration
        assert found.outcome is Outcome.ACCEPTED, found.why
        assert found.carm_from_patient is not None
        assert error_mm(found.carm_from_patient, pose_at(k), case().target_mm) < 1.0  # pixels are 0.72 mm there
        assert step.overlay.layers and not np.array_equal(step.picture[..., 0], step.picture[..., 1])


def test_two_runs_give_the_same_bits_whatever_the_threads(frames: list[Any], steps: list[Step]) -> None:
    decisions = {k: list(s.decisions) for k, s in enumerate(steps)}
    again = ran(Pipeline(case(), replace(SETTINGS, threads=1)), frames, decisions)
    assert all(same(a, b) for a, b in zip(steps, again, strict=True))


@pytest.mark.parametrize("cut", [1, 5])
def test_a_restored_snapshot_goes_on_with_the_same_bits(frames: list[Any], steps: list[Step], cut: int) -> None:
    decisions = {k: list(s.decisions) for k, s in enumerate(steps)}
    first = Pipeline(case(), SETTINGS)
    ran(first, frames[:cut], decisions)
    second = Pipeline(case(), SETTINGS)
    second.restore(first.snapshot())
    rest = ran(second, frames[cut:], {k - cut: d for k, d in decisions.items()})
    assert all(same(a, b) for a, b in zip(steps[cut:], rest, strict=True))


def test_a_foreign_snapshot_is_refused() -> None:
    pipeline = Pipeline(None)
    for data in (b"", b"PK nonsense", pipeline.snapshot()[:-40]):
        with pytest.raises(BadInput, match="state of the pipeline"):
            pipeline.restore(data)


def test_lost_hides_the_anatomy_and_it_comes_back(frames: list[Any]) -> None:
    empty = [frame_of(k, empty=True) for k in (4, 5)]
    steps = ran(Pipeline(case(), SETTINGS), [*frames[:4], *empty, *frames[6:8]])
    for step in steps[4:6]:
        assert step.registration.outcome is Outcome.LOST
        assert not step.overlay.layers and step.overlay.method == "none"
        assert np.array_equal(step.picture[..., 0], step.enhanced.display)
        assert np.array_equal(step.picture[..., 0], step.picture[..., 2])
    assert steps[-1].registration.outcome is Outcome.ACCEPTED


def test_a_job_is_applied_at_the_frame_of_its_decision_and_only_if_it_is_waited_for(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    pipeline.step(frames[0])
    job = pipeline.wanted_job()
    assert job is not None
    result = pipeline.run_job(job)
    decision = Decision("job", {"job": job.name, "result": result})
    for k in (1, 2):
        assert pipeline.step(frames[k]).registration.outcome is Outcome.LOST
        assert pipeline.wanted_job() is None  # one at a time
    stranger = Decision("job", {"job": "other", "result": result | {"name": "other"}})
    assert pipeline.step(frames[3], (), (stranger,)).registration.outcome is Outcome.LOST
    assert pipeline.step(frames[4], (), (decision,)).registration.outcome is Outcome.ACCEPTED


def test_a_failed_job_says_why_and_is_tried_again_later(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    steps = ran(pipeline, [frame_of(k, empty=True) for k in range(3)] + frames[3:])
    assert "contrast" in steps[2].registration.why
    names = [s.decisions[0].value["job"] for s in steps if s.decisions]
    assert names == ["0:angles", "1:angles"]
    assert steps[-1].registration.outcome is Outcome.ACCEPTED


def test_a_picture_that_stays_is_tried_itself_after_a_job_of_an_earlier_one_failed(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    pipeline.step(frame_of(0, empty=True))
    first = pipeline.wanted_job()
    assert first is not None
    pipeline.step(frames[1])  # the last picture: the pedal is up, or the run has ended

    def answered(job: Any) -> Step:
        result = Decision("job", {"job": job.name, "result": pipeline.run_job(job)})
        return pipeline.step(frames[1], (), (Decision("held", 1), result))

    assert answered(first).registration.outcome is Outcome.LOST
    second = pipeline.wanted_job()
    assert second is not None and second.frame == 1, "no frame will come by which a wait could end"
    assert answered(second).registration.outcome is Outcome.ACCEPTED


def test_a_picture_that_stays_and_shows_nothing_is_tried_once() -> None:
    pipeline = Pipeline(case(), SETTINGS)
    blank = frame_of(0, empty=True)
    pipeline.step(blank)
    job = pipeline.wanted_job()
    assert job is not None
    pipeline.step(blank, (), (Decision("held", 0), Decision("job", {"job": job.name, "result": pipeline.run_job(job)})))
    assert pipeline.wanted_job() is None


def test_a_nudge_moves_the_tracked_pose_and_undo_returns(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    found = ran(pipeline, frames[:5])[-1].registration.carm_from_patient
    assert found is not None
    xi = [0, 0, 0, 60.0, 0, 0]  # far out of the tracker's reach
    away = pipeline.step(frames[5], (Command("nudge", xi),))
    assert away.registration.outcome is not Outcome.ACCEPTED
    assert pipeline._state.tracker is not None
    moved = pipeline._state.tracker.carm_from_patient @ Rigid.inverse(found)
    np.testing.assert_allclose(Rigid.log(moved), xi, atol=1e-9)
    back = pipeline.step(frames[6], (Command("undo"),))
    assert back.registration.outcome is Outcome.ACCEPTED
    small = pipeline.step(frames[7], (Command("nudge", [0, 0, 0.01, 1, -1, 0]),))
    assert small.registration.outcome is Outcome.ACCEPTED  # the tracker goes on from there
    assert small.commands[0].kind == "nudge"


def test_a_nudge_gives_a_start_where_nothing_was_found(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    middle = case().centerlines["tree"].points.mean(0)
    at_angles = carm_from_patient_at(ANGLES.primary_deg, ANGLES.secondary_deg, middle)
    xi = Rigid.log(pose_at(0) @ Rigid.inverse(at_angles))
    assert pipeline.step(frames[0], (Command("nudge", xi.tolist()),)).registration.outcome is Outcome.ACCEPTED


def test_the_known_motion_of_the_gantry_is_followed_at_once(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    ran(pipeline, frames[:5])
    other = Angles(40.0, 5.0)  # far beyond what the tracker catches by itself
    step = pipeline.step(frame_of(5, pose_at(5, other), angles=other))
    assert step.registration.outcome is Outcome.ACCEPTED, step.registration.why
    assert step.registration.carm_from_patient is not None
    assert error_mm(step.registration.carm_from_patient, pose_at(5, other), case().target_mm) < 1.0


def test_the_known_motion_of_the_table_is_followed_at_once(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    ran(pipeline, [replace(f, table_in_room_mm=(0.0, 0.0, 0.0)) for f in frames[:5]])
    table = (10.0, 0.0, 40.0)
    step = pipeline.step(frame_of(5, pose_at(5, table=table), table_in_room_mm=table))
    assert step.registration.outcome is Outcome.ACCEPTED, step.registration.why
    assert step.registration.carm_from_patient is not None
    assert error_mm(step.registration.carm_from_patient, pose_at(5, table=table), case().target_mm) < 1.0


def test_without_a_case_or_geometry_pictures_are_enhanced_and_nothing_is_drawn(frames: list[Any]) -> None:
    alone = Pipeline(None).step(frames[0])
    assert "no case" in alone.badges and "no case" in alone.registration.why
    bare = Pipeline(case(), SETTINGS).step(frame_of(0, carm=None))
    assert "no case" not in bare.badges and "no geometry" in bare.badges
    assert "no distances were stated" in bare.registration.why
    for step in (alone, bare):
        assert step.registration.outcome is Outcome.LOST and not step.overlay.layers
        assert step.enhanced.display.std() > 5


def test_frames_without_angles_say_what_to_do() -> None:
    steps = ran(Pipeline(case(), SETTINGS), [frame_of(k, angles=None) for k in range(2)])
    assert "--init" in steps[1].registration.why


def test_a_held_picture_is_answered_again_as_it_was(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    last = ran(pipeline, frames[:5])[-1]
    again = pipeline.step(frames[4], (), (Decision("held", 4),))
    assert np.array_equal(again.enhanced.display, last.enhanced.display)
    assert again.registration.outcome is Outcome.ACCEPTED


def test_tolerance_and_window_are_commands_and_layers_change_nothing(frames: list[Any]) -> None:
    pipeline, twin = Pipeline(case(), SETTINGS), Pipeline(case(), SETTINGS)
    ran(pipeline, frames[:5])
    twin.restore(pipeline.snapshot())
    layer = Command("layer", {"name": "centerline", "visible": False, "opacity": 0.0})
    assert same(pipeline.step(frames[5], (layer,)), twin.step(frames[5]))
    strict = pipeline.step(frames[6], (Command("tolerance", 0.001),))
    assert strict.registration.outcome is Outcome.AMBIGUOUS and not strict.overlay.layers
    plain = twin.step(frames[6])
    narrow = pipeline.step(frames[7], (Command("window", {"level": 128, "width": 64}),))
    assert narrow.enhanced.display.std() > plain.enhanced.display.std()
    assert set(np.unique(narrow.enhanced.display)) >= {0, 255}


def test_an_overlay_used_again_is_shifted_or_drawn_anew(frames: list[Any]) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    steps = ran(pipeline, frames[:5])
    drawn = steps[-1].frame.index
    step = pipeline.step(frames[5], (), (Decision("overlay_reused", {"frame": drawn}),))
    said = [d for d in step.decisions if d.kind == "overlay_reused"]
    if said:  # breathing moves the tree along the rows
        assert said[0].value["frame"] == drawn
        name = next(iter(step.overlay.layers))
        du, dv = said[0].value["shift_px"]
        before, after = steps[-1].overlay.layers[name], step.overlay.layers[name]
        assert np.array_equal(np.roll(before, (dv, du), (0, 1))[20:-20, 20:-20], after[20:-20, 20:-20])
    stranger = pipeline.step(frames[6], (), (Decision("overlay_reused", {"frame": 99}),))
    assert not any(d.kind == "overlay_reused" for d in stranger.decisions)


def test_a_stage_that_raises_is_off_and_the_picture_comes_through(frames: list[Any],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(case(), SETTINGS)
    ran(pipeline, frames[:4])

    def broken(*_: Any) -> Any:
        raise RuntimeError("no lines today")

    monkeypatch.setattr(pipeline.drawing, "draw", broken)
    for k in (4, 5):
        step = pipeline.step(frames[k])
        assert step.registration.outcome is Outcome.ACCEPTED
        assert any(b.startswith("alarm: overlay failed and is off") for b in step.badges)
        assert np.array_equal(step.picture[..., 0], step.enhanced.display)
    monkeypatch.setattr(pipeline.chain, "step", broken)
    raw = pipeline.step(frames[6])
    assert raw.enhanced.display.std() > 5 and "not enhanced" in raw.badges


def test_settings_survive_json_and_strangers_are_refused() -> None:
    settings = replace(SETTINGS, init={"carm_from_patient": np.eye(4)}, seed=3, tolerance_mm=2.0)
    assert PipelineSettings.from_json(settings.to_json()) == settings
    for bad in ({"speed": 1}, {"tolerance_mm": 0}, {"init": "guess"}, {"overlay": "paint"}, {"threads": 0},
                {"init": {"carm_from_patient": [[1]]}}, {"chain": {"magic": True}}):
        with pytest.raises(BadInput):
            PipelineSettings.from_json(bad)


def test_the_fingerprint_is_plain_and_repeats() -> None:
    import json

    first, second = Pipeline(None).fingerprint(), Pipeline(None).fingerprint()
    assert json.loads(json.dumps(first)) == second
    assert {"version", "build", "sources", "projector", "cpu_features", "libraries"} <= first.keys()
