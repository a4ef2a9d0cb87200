# SPDX-License-Identifier: Apache-2.0
"""Does a case with a CT run live? Pictures by exact formulas, one volume, cough, blanked beam and a turning C-arm."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_scenes import ListSource
from test_pipeline import ran, same

from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.live.jobs import afresh, after_failure
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.run import LiveRun
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.state import JobsState
from fluoronav.live.step import Decision
from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at, water_attenuation_per_mm
from registration.result import Outcome

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from ellipsoids import chest, line_integrals, voxels

CARM = CArm.centered((128, 128), 2.4, 1020, 765)
ANGLES = Angles(10.0, 5.0)
SETTINGS = PipelineSettings(overlay="lines")
TARGET = np.array([20.0, -10.0, 15.0])


def case() -> Any:
    attenuation = voxels(chest())
    hu = 1000 * (attenuation.data / water_attenuation_per_mm(60.0) - 1)
    return SimpleNamespace(name="CASE V", implant=None, volume_hu=Volume(hu, attenuation.patient_from_index),
                           surfaces={}, centerlines={}, target_mm=TARGET, target_assumed=False,
                           path_mm=np.array([[0, 0, -60.0], [5, 0, 0], [20, -10, 15]]), mr=None, bodies=None)


def pose_at(k: int, angles: Angles = ANGLES) -> np.ndarray:
    """The patient lies some mm and degrees off, and breathes."""
    askew = Rigid.exp([0.02, -0.03, 0.02, 0, 0, 0])
    return carm_from_patient_at(angles.primary_deg, angles.secondary_deg, [6, 4, -5 + 5 * np.sin(k / 4)]) @ askew


def frame_of(k: int, *, angles: Angles = ANGLES, beam: bool = True) -> Frame:
    """Counts of frame k: I0 20000, gain 1, as stated in the header."""
    rng = np.random.default_rng(k)
    exact = line_integrals(chest(), CARM, pose_at(k, angles))
    signal = 20000 * np.exp(-exact) if beam else np.full(CARM.shape, 20.0)
    counts = np.clip(rng.poisson(signal), 0, 65535).astype(np.uint16)
    return Frame(pixels=counts, index=k, time_ns=round(k / 15 * 1e9), carm=CARM, angles=angles, exposure=Exposure(),
                 intensity=Intensity("linear", "dark", 16, i0=20000.0, i0_source="header", gain=1.0, electronic=0.0),
                 valid=np.ones(CARM.shape, bool), source_name="chest")


def off_mm(step: Any, k: int, angles: Angles = ANGLES) -> float:
    """Error of the target in the picture, mm at its depth."""
    pose = step.registration.carm_from_patient
    apart = CARM.project_patient(pose, TARGET) - CARM.project_patient(pose_at(k, angles), TARGET)
    return float(np.linalg.norm(apart)) * CARM.mm_per_px_at_isocenter


@pytest.fixture(scope="module")
def opened() -> Any:
    return case()


def test_a_ct_is_registered_followed_lost_with_the_beam_and_found_again(opened: Any) -> None:
    frames = [frame_of(k, beam=k not in (5, 6)) for k in range(9)]
    pipeline = Pipeline(opened, SETTINGS)
    steps = ran(pipeline, frames)
    for k, step in enumerate(steps):
        if k < 2 or k in (5, 6):
            assert step.registration.outcome is Outcome.LOST and not step.overlay.layers
        else:
            assert step.registration.outcome is Outcome.ACCEPTED, step.registration.why
            assert off_mm(step, k) < 0.6  # a third of a pixel
            assert {"path", "target"} <= step.overlay.layers.keys()
    decisions = {k: list(s.decisions) for k, s in enumerate(steps)}
    one = PipelineSettings(overlay="lines", threads=1)
    again = ran(Pipeline(opened, one), frames, decisions)
    assert all(same(a, b) for a, b in zip(steps, again, strict=True))


def test_a_turning_c_arm_is_followed_through_its_angles(opened: Any) -> None:
    pipeline = Pipeline(opened, SETTINGS)
    ran(pipeline, [frame_of(k) for k in range(4)])
    for k in range(4, 8):
        angles = Angles(10.0 + 8 * (k - 3), 5.0 - 3 * (k - 3))  # 128 degrees a second: faster than any C-arm
        step = pipeline.step(frame_of(k, angles=angles))
        assert step.registration.outcome is Outcome.ACCEPTED, step.registration.why
        assert off_mm(step, k, angles) < 0.6


def test_a_job_is_moved_along_with_the_c_arm_that_turned_meanwhile(opened: Any) -> None:
    pipeline = Pipeline(opened, SETTINGS)
    pipeline.step(frame_of(0))
    job = pipeline.wanted_job()
    assert job is not None
    result = pipeline.run_job(job)
    angles = Angles(-15.0, 20.0)
    decision = Decision("job", {"job": job.name, "result": result})
    step = pipeline.step(frame_of(1, angles=angles), (), (decision,))
    assert step.registration.outcome is Outcome.ACCEPTED, step.registration.why
    assert off_mm(step, 1, angles) < 0.6


@pytest.mark.parametrize("what", ["not sure enough", "not confirmed"])
def test_a_registration_that_settles_nothing_is_not_begun_over_and_over(opened: Any, what: str) -> None:
    """32 frames of one picture: every answer of a job is a pose, and none of them is accepted."""
    pipeline, frame = Pipeline(opened, PipelineSettings(overlay="none", tolerance_mm=0.3)), frame_of(0)
    jobs: list[int] = []
    decisions: tuple[Decision, ...] = ()
    pose = pose_at(0) if what == "not sure enough" else Rigid.translation(60, 0, 0) @ pose_at(0)
    outcome = Outcome.AMBIGUOUS if what == "not sure enough" else Outcome.ACCEPTED
    for k in range(32):
        step = pipeline.step(replace(frame, index=k, time_ns=round(k / 15 * 1e9)), (), decisions)
        assert step.registration.outcome is not Outcome.ACCEPTED
        job, decisions = pipeline.wanted_job(), ()
        if job is not None:
            jobs.append(k)
            result = {"name": job.name, "how": job.how, "frame": k, "outcome": outcome.value, "why": "as told",
                      "carm_from_patient": pose.tolist(), "alternatives": [], "gantry": job.gantry.to_json(),
                      "projected_error_mm": 6.0}
            decisions = (Decision("job", {"job": job.name, "result": result}),)
    assert jobs[0] == 0
    assert len(jobs) <= 5  # after 2, 4, 8 and 16 frames
    gaps = np.diff(jobs)
    assert (np.diff(gaps) > 0).all()


def test_waiting_ends_where_the_c_arm_moves_and_grows_longer_in_doubt_than_when_lost() -> None:
    lost = doubt = JobsState()
    for _ in range(12):
        lost, doubt = after_failure(lost, "nothing there"), after_failure(doubt, "not sure", doubt=True)
    assert lost.wait == 32  # he may come back
    assert doubt.wait == 256  # he is there, and the tracker sees him
    assert afresh(doubt).wait == 4
    assert after_failure(afresh(doubt), "not sure", doubt=True).wait == 4


def test_blend_shows_what_the_picture_shows(opened: Any) -> None:
    pipeline = Pipeline(opened, SETTINGS)
    step = ran(pipeline, [frame_of(k) for k in range(3)])[-1]
    drr = LiveRun(pipeline, ListSource([])).blend(step)
    assert drr is not None and drr.shape == CARM.shape and drr.dtype == np.uint8
    assert np.corrcoef(drr.ravel(), step.enhanced.display.ravel())[0, 1] > 0.95  # dense is dark in both
