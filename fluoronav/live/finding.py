# SPDX-License-Identifier: Apache-2.0
"""Where is the patient in this frame? Tracking, the results of jobs, and what to ask for when he is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fluoronav.enhance.enhanced import Enhanced
from fluoronav.imaging.frame import Frame
from fluoronav.live.gantry import Gantry
from fluoronav.live.jobs import MISSED, Job, afresh, after_failure, next_how, run_job
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.state import Doubt, PipelineState
from fluoronav.locate.models import center_of, model_for_case
from fluoronav.locate.pictures import Picture, view_of
from registration.apart import Apart
from registration.geometry import CArm, Float64, Rigid, carm_from_patient_at
from registration.model import Model, View
from registration.result import Outcome, Registration
from registration.tracker import Tracker, TrackerState
from registration.volume_model import VolumeModel

if TYPE_CHECKING:
    from fluoronav.case import Case

# pixels a side of what is followed; a CT is followed at 128 and judged from twice that
FOLLOWED = {"implant": 1024, "volume": 256, "vessels": 512, "mr": 256}
NO_CASE = "no case"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A pose that a job found, moved along with the gantry since; asked: by the person."""

    pose: Float64
    asked: bool


class Finder:
    """Finds the case in frames; holds its model, no state."""

    def __init__(self, case: Case | None, settings: PipelineSettings) -> None:
        self.settings = settings
        self.model: Model | None = None
        self.target_mm: Float64 = np.zeros(3)
        self.center_mm: Float64 = np.zeros(3)
        if case is not None:
            self.model = model_for_case(case, settings.registration, by=settings.by)
            self.target_mm = self.model.target_mm
            self.center_mm = center_of(case, self.model.kind)[0]

    def warm(self, carm: CArm | None) -> None:
        """Prepare the model for pictures of a C-arm."""
        if carm is not None and isinstance(self.model, VolumeModel):
            self.model.prepare(carm)

    def step(self, state: PipelineState, frame: Frame, enhanced: Enhanced, results: Sequence[dict[str, Any]], *,
             held: bool = False) -> tuple[PipelineState, Registration, View | None]:
        """The registration of one frame. results: of jobs, to be applied now; held: the frame was answered before
        and no newer one has come."""
        if self.model is None:
            return state, Registration.lost("no case is open: pictures are enhanced, nothing is registered"), None
        if enhanced.carm is None:
            return state, Registration.lost(f"the geometry is not known: {frame.geometry_fault or 'none stated'}"), None
        state = _with_gantry(state, Gantry.of(frame))
        view = self.view(frame, enhanced)
        state, candidate = self._results(state, results, Gantry.of(frame))
        if held and any(r["frame"] != frame.index for r in results) and state.jobs.pending is None:
            # the picture that stays has not been tried, and no frames come by which a wait would end
            state = replace(state, jobs=replace(state.jobs, wait=0))
        tracker = Tracker(self.model, self.settings.with_tolerance(state.tolerance_mm).registration, wide=False)
        after, registration = self._tracked(tracker, state, view, candidate)
        seen = registration.outcome is Outcome.ACCEPTED
        gantry = (state.gantry or Gantry()).followed(Gantry.of(frame), seen=seen)
        jobs = replace(state.jobs, wait=max(0, state.jobs.wait - 1))
        if seen:
            jobs = replace(jobs, failed=0, wait=0, why="")
        elif candidate is not None:
            jobs = after_failure(jobs, registration.why, doubt=registration.outcome is Outcome.AMBIGUOUS)
        doubt = None if seen else state.doubt
        return replace(state, tracker=after, gantry=gantry, jobs=jobs, doubt=doubt), registration, view

    def view(self, frame: Frame, enhanced: Enhanced) -> View:
        """What is tracked: the raw or the enhanced picture, at the size that the model resolves."""
        assert self.model is not None
        longest = FOLLOWED[self.model.kind]
        if self.settings.view == "raw" or enhanced.values is None:
            return view_of(frame, longest)
        seen = replace(frame, pixels=np.zeros(enhanced.values.shape, frame.pixels.dtype), carm=enhanced.carm,
                       valid=enhanced.valid)  # meaning and geometry of the enhanced pixels, whatever moved them
        return view_of(Picture(enhanced.values, seen, frame.index, "enhanced"), longest)

    def start_pose(self, frame: Frame) -> Float64 | None:
        """Where the settings begin: their pose, or the gantry's angles with the isocenter in the case's middle."""
        if self.model is None:
            return None
        if isinstance(self.settings.init, dict):
            return np.asarray(self.settings.init["carm_from_patient"], np.float64)
        if frame.angles is None:
            return None
        return carm_from_patient_at(frame.angles.primary_deg, frame.angles.secondary_deg, self.center_mm)

    # ---- jobs

    def job(self, state: PipelineState, frame: Frame, view: View | None) -> tuple[PipelineState, Job | None]:
        """The job that this frame wants, and the state that waits for it."""
        jobs, tracker = state.jobs, state.tracker
        lost = tracker is None or tracker.missed >= MISSED
        if view is None or not (jobs.asked or (lost and jobs.wait == 0 and jobs.pending is None)):
            return state, None
        init = "file" if isinstance(self.settings.init, dict) else str(self.settings.init)
        how = next_how(jobs, init, has_pose=tracker is not None)
        if how == "last" and tracker is None:
            how = init
        pose = tracker.carm_from_patient if how == "last" and tracker is not None else self.start_pose(frame)
        if how in ("angles", "file") and pose is None:
            why = "the gantry's angles are not stated: start with --init search or --init FILE"
            return replace(state, jobs=after_failure(replace(jobs, asked=None), why)), None
        name = f"{jobs.made}:{how}" + (":asked" if jobs.asked else "")
        settings = self.settings.with_tolerance(state.tolerance_mm).registration
        job = Job(name, how, frame.index, view, pose, Gantry.of(frame), settings)
        jobs = replace(jobs, pending=name, asked=None, made=jobs.made + 1)
        return replace(state, jobs=jobs), job

    def run(self, job: Job) -> dict[str, Any]:
        """The result of a job."""
        assert self.model is not None
        return run_job(self.model, job)

    def _results(self, state: PipelineState, results: Sequence[dict[str, Any]],
                 now: Gantry) -> tuple[PipelineState, _Candidate | None]:
        """The state after the results that were waited for, and the pose to be tried, if there is one."""
        candidate = None
        for result in results:
            if result["name"] != state.jobs.pending:
                continue  # superseded by a later job
            asked, why = str(result["name"]).endswith(":asked"), str(result["why"])
            if result["carm_from_patient"] is None:
                state = replace(state, jobs=after_failure(state.jobs, why), doubt=None)
                continue
            motion = Gantry.from_json(result["gantry"]).new_from_old(now)
            move = np.eye(4) if motion is None else motion
            pose = move @ np.asarray(result["carm_from_patient"], np.float64)
            if result["outcome"] == Outcome.ACCEPTED.value:
                state, candidate = replace(state, jobs=replace(state.jobs, pending=None), doubt=None), _Candidate(
                    pose, asked)
            else:
                rivals = tuple(move @ np.asarray(a, np.float64) for a in result["alternatives"])
                state = replace(state, jobs=after_failure(state.jobs, why, doubt=True), doubt=Doubt(why, pose, rivals))
        return state, candidate

    # ---- tracking

    def _tracked(self, tracker: Tracker, state: PipelineState, view: View,
                 candidate: _Candidate | None) -> tuple[TrackerState | None, Registration]:
        """The tracked pose; a candidate goes first where the patient is lost or the person asked for it, and is
        believed only where this picture confirms it."""
        old = state.tracker
        healthy = old is not None and old.missed == 0
        if candidate is not None and (candidate.asked or not healthy):
            missed = 1 if old is None else max(1, old.missed)
            fresh = TrackerState(candidate.pose, np.zeros(6), missed, apart=Apart() if old is None else old.apart)
            after, found = tracker.step(fresh, view)
            if found.outcome is Outcome.ACCEPTED or old is None:
                return after, found
            kept, again = tracker.step(old, view)
            return (kept, again) if again.outcome is Outcome.ACCEPTED else (after, found)
        if old is not None:
            return tracker.step(old, view)
        if state.doubt is not None:
            d = state.doubt
            return None, Registration(Outcome.AMBIGUOUS, d.why, d.carm_from_patient, alternatives=d.alternatives)
        return None, Registration.lost(state.jobs.why or "the first registration is under way")

    def badges(self, state: PipelineState, frame: Frame) -> list[str]:
        """What the person should know beyond the outcome."""
        if self.model is None:
            return [NO_CASE]
        if frame.carm is None:
            return ["no geometry"]
        if state.jobs.pending is not None:
            how = state.jobs.pending.split(":")[1]
            said = {"angles": "from the gantry's angles", "search": "by search", "last": "around the last pose",
                    "file": "from the pose given"}
            return [f"registering {said.get(how, how)}"]
        return []


def _with_gantry(state: PipelineState, now: Gantry) -> PipelineState:
    """Poses that the state remembers, moved along with the C-arm and the table."""
    if state.gantry is None:
        return state
    motion = state.gantry.new_from_old(now)
    if motion is None:
        return state
    tracker = state.tracker
    if tracker is not None:
        tracker = replace(tracker, carm_from_patient=_rigid(motion @ tracker.carm_from_patient), motion=np.zeros(6),
                          lean=np.zeros(6), depth=None)
    doubt = state.doubt
    if doubt is not None:
        doubt = Doubt(doubt.why, _rigid(motion @ doubt.carm_from_patient),
                      tuple(_rigid(motion @ a) for a in doubt.alternatives))
    undo = tuple(_rigid(motion @ pose) for pose in state.undo)
    return replace(state, tracker=tracker, doubt=doubt, undo=undo, gantry=now, jobs=afresh(state.jobs))


def _rigid(pose: Float64) -> Float64:
    """The pose with its rotation made exact, so that products of thousands of frames stay rigid."""
    return Rigid.checked(pose, "pose moved with the gantry")
