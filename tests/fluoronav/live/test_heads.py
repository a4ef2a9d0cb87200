# SPDX-License-Identifier: Apache-2.0
"""Heads of the enhancement in a live run: switched by a command, recorded with the state, anatomy stays on anatomy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from live_scenes import case, frame_of, pose_at

from fluoronav.enhance.enhanced import Heads
from fluoronav.live.commands import checked_command
from fluoronav.live.deadlines import Deadlines
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.step import Command, Step
from registration.errors import BadInput
from registration.geometry import Rigid
from registration.result import Outcome

ALL = {"denoise": True, "contrast": 1.0, "superres": True, "stabilise": True}


def followed(pipeline: Pipeline, frames: range, commands: dict[int, Command] | None = None) -> list[Step]:
    """The answers to frames, with what the person did at some of them and the true pose given as a nudge first."""
    return [pipeline.step(frame_of(k), [c for c in [(commands or {}).get(k)] if c is not None]) for k in frames]


def test_a_command_switches_heads_and_off_gives_the_bits_of_before() -> None:
    on, off = Pipeline(None), Pipeline(None)
    plain = followed(off, range(4))
    switched = followed(on, range(4), {2: Command("heads", ALL), 3: Command("heads", {})})
    assert np.array_equal(plain[1].enhanced.display, switched[1].enhanced.display)
    assert switched[2].enhanced.heads == Heads(**ALL) == Heads(True, 1.0, True, True)
    assert switched[2].picture.shape == (384, 384, 3) and switched[2].enhanced.display.shape == (384, 384)
    assert np.array_equal(plain[3].enhanced.display, switched[3].enhanced.display) and on.heads == Heads()


def test_without_denoise_the_picture_is_raw_to_the_bit() -> None:
    steps = followed(Pipeline(None), range(3), {2: Command("heads", {"denoise": False})})
    assert np.array_equal(steps[2].enhanced.display, steps[2].enhanced.raw_display)
    assert steps[2].enhanced.values is not None and np.array_equal(steps[2].enhanced.values, steps[2].frame.pixels)


@pytest.mark.parametrize("heads", [{"stabilise": True}, {"superres": True}, {"stabilise": True, "superres": True}])
@pytest.mark.parametrize("view", ["raw", "enhanced"])
def test_a_projected_point_lands_on_the_same_anatomy_with_heads_and_without(heads: dict[str, Any], view: Any) -> None:
    """The overlay is drawn through the C-arm of the pixels that are shown: what moves pixels moves it."""
    start = {"carm_from_patient": pose_at(0).tolist()}
    runs = []
    for value in ({}, heads):
        pipeline = Pipeline(case(), PipelineSettings(init=start, overlay="lines", view=view))
        step = pipeline.step(frame_of(0), [Command("heads", value)])
        job = pipeline.wanted_job()
        decisions: list[Any] = []
        if job is not None:
            from fluoronav.live.step import Decision

            decisions = [Decision("job", {"job": job.name, "result": pipeline.run_job(job)})]
        for k in range(1, 8):
            step = pipeline.step(frame_of(k), (), decisions)
            decisions = []
        runs.append(step)
    plain, headed = runs
    assert plain.registration.outcome is headed.registration.outcome is Outcome.ACCEPTED
    assert plain.enhanced.carm is not None and headed.enhanced.carm is not None
    if heads.get("stabilise"):
        assert np.abs(headed.enhanced.shift_px).max() > 0.3  # there was something to move
    point = case().target_mm
    poses = [np.asarray(s.registration.carm_from_patient) for s in runs]
    before = plain.enhanced.carm.project(Rigid.apply(poses[0], point))
    after = headed.enhanced.carm.project(Rigid.apply(poses[1], point))
    factor = 2 if heads.get("superres") else 1
    moved = (np.asarray(before) + 0.5) * factor - 0.5 + factor * np.array(headed.enhanced.shift_px)
    assert np.hypot(*(after - moved)) < 0.35 * factor  # px; two trackers on pictures of different noise


def test_the_state_goes_on_from_a_snapshot_with_its_heads() -> None:
    first = Pipeline(None)
    followed(first, range(4), {1: Command("heads", {"contrast": 0.5, "stabilise": True})})
    second = Pipeline(None)
    second.restore(first.snapshot())
    a, b = (p.step(frame_of(4)) for p in (first, second))
    assert second.heads == Heads(contrast=0.5, stabilise=True)
    assert np.array_equal(a.picture, b.picture) and a.enhanced.shift_px == b.enhanced.shift_px


@pytest.mark.parametrize("value", [None, 3, {"contrast": 9}, {"contrast": "much"}, {"stabilise": 1}, {"sharpen": True}])
def test_switches_that_make_no_sense_are_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        checked_command(Command("heads", value))


def test_what_is_off_is_no_rung_of_the_savings() -> None:
    step = Pipeline(None).step(frame_of(0))
    clock = Deadlines(0.1)
    clock.done(step, None)
    assert clock.rungs == ("overlay", "motion", "denoise")
    enhanced = replace(step.enhanced, heads=Heads(superres=True))
    clock.done(replace(step, enhanced=enhanced), None)
    assert clock.rungs == ("overlay", "superres", "motion", "denoise")
