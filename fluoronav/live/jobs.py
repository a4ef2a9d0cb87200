# SPDX-License-Identifier: Apache-2.0
"""What takes too long for a step? Registration from afar: wanted by a step, run beside it, verified by a later one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fluoronav.live.gantry import Gantry
from fluoronav.live.state import JobsState
from registration.geometry import Float64
from registration.model import Model, Settings, Start, View

MISSED = 3  # frames lost before registration begins again: a blink is not worth it
LONGEST_WAIT = 32  # frames between attempts that find nothing: the patient may come back
# The same while the picture is recognized and says too little: registering again tells what is known already, and the
# tracker itself accepts the frame that says more. Doubled up to 17 s.
LONGEST_DOUBT = 256


@dataclass(frozen=True, slots=True)
class Job:
    """A registration to be run beside the step. name: unique in its run; how: `angles`, `search`, `last` or
    `file`; frame: index of the picture; view; pose (4x4): where it begins (None: anywhere); gantry of the picture."""

    name: str
    how: str
    frame: int
    view: View
    pose: Float64 | None
    gantry: Gantry
    settings: Settings


def run_job(model: Model, job: Job) -> dict[str, Any]:
    """The answer of a job as plain JSON: name, how, frame, outcome, why, carm_from_patient, alternatives, gantry,
    projected_error_mm. Pure; may run in another thread."""
    starts: Sequence[Start]
    if job.how == "search" or job.pose is None:
        starts = model.search(job.view, job.pose, job.settings)
    else:
        starts = [Start(job.pose, job.how)]
    found = model.register(job.view, starts, job.settings)
    pose = found.carm_from_patient
    return {"name": job.name, "how": job.how, "frame": job.frame, "outcome": found.outcome.value, "why": found.why,
            "carm_from_patient": None if pose is None else pose.tolist(),
            "alternatives": [a.tolist() for a in found.alternatives], "gantry": job.gantry.to_json(),
            "projected_error_mm": found.error.projected_mm if found.error is not None else None}


def next_how(state: JobsState, init: str, *, has_pose: bool) -> str:
    """How the next job registers: as asked for, from the settings' start, or around the last pose and from the
    settings' start in turn."""
    if state.asked is not None and state.asked != "again":
        return state.asked
    if not has_pose or state.failed % 2 == 1:
        return init
    return "last"


def after_failure(state: JobsState, why: str, *, doubt: bool = False) -> JobsState:
    """The state after a result that was no pose, or one (doubt) that is not sure enough or that no picture confirmed:
    each wait twice as long as the one before, up to a limit."""
    longest = LONGEST_DOUBT if doubt else LONGEST_WAIT
    return JobsState(None, state.asked, state.made, state.failed + 1, min(2 ** min(state.failed + 1, 16), longest), why)


def afresh(state: JobsState) -> JobsState:
    """The state once something is new, another place of the C-arm: soon again, but not at every angle of a turn."""
    return replace(state, failed=min(state.failed, 1), wait=min(state.wait, 4))
