# SPDX-License-Identifier: Apache-2.0
"""What is written beside the picture? A step and a status as plain JSON for the page.

Nothing here names a person: pictures, numbers, the case's pseudonym and sentences of the pipeline.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from fluoronav.live.step import Status, Step
from registration.geometry import CArm, Rigid
from registration.result import Outcome

EPOCH_NS = 10**17  # smaller time stamps count from the start of a run
FIRST = "the first registration is under way"  # the pipeline's reason until its first answer
WORDS = {Outcome.ACCEPTED: "REGISTERED", Outcome.AMBIGUOUS: "UNCERTAIN", Outcome.LOST: "LOST"}


def describe_step(step: Step) -> dict[str, Any]:
    """The words and numbers of one step; lengths mm, angles degrees, pixels of the picture shown."""
    frame, exposure = step.frame, step.frame.exposure
    carm = step.enhanced.carm or frame.carm
    return plain({
        "index": frame.index,
        "time_ns": str(frame.time_ns),  # int64: a double of the page would round it
        "time_from": "epoch" if frame.time_ns >= EPOCH_NS else "run",
        "size": list(step.enhanced.display.shape),
        "angles": None if frame.angles is None else asdict(frame.angles),
        "carm": None if carm is None else {"sdd_mm": carm.sdd_mm, "sod_mm": carm.sod_mm,
                                           "pitch_mm": list(carm.pitch_mm_row_col)},
        "geometry_fault": frame.geometry_fault,
        "exposure": asdict(exposure),
        "intensity": frame.intensity.kind,
        "heads": asdict(step.enhanced.heads),
        "state": _state(step),
        "target": _target(step, carm),
        "overlay": {"method": step.overlay.method},
        "badges": list(dict.fromkeys([*step.badges, *step.enhanced.badges, *step.overlay.badges])),
        "timings": dict(step.timings),
        "commands": [command.kind for command in step.commands],
        "decisions": [decision.kind for decision in step.decisions],
        "truth": getattr(step, "truth", None),
    })


def describe_status(status: Status) -> dict[str, Any]:
    """The status as JSON."""
    described: dict[str, Any] = plain(asdict(status))
    return described


def plain(value: Any) -> Any:
    """The same as JSON can hold it: numbers that are not finite become None, arrays lists."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _state(step: Step) -> dict[str, Any]:
    found = step.registration
    error = found.error if found.outcome is Outcome.ACCEPTED else None
    begins = found.outcome is Outcome.LOST and found.why == FIRST
    return {"outcome": found.outcome.value, "begins": begins,
            "word": "REGISTERING" if begins else WORDS[found.outcome], "why": found.why, "start": found.start,
            "projected_mm": None if error is None else error.projected_mm,
            "spatial_mm": None if error is None else error.target_mm,
            "similarity": found.similarity, "alternatives": len(found.alternatives)}


def _target(step: Step, carm: CArm | None) -> dict[str, Any]:
    """Where lengths in the picture are measured: the plane of the target, or of the isocenter without a pose.

    px_u_v: pixel of the target; in_carm_mm: its place in the C-arm frame; mm_per_px_u_v: in that plane.
    """
    if carm is None:
        return {"plane": None, "mm_per_px_u_v": None, "px_u_v": None, "in_carm_mm": None}
    found, at = step.registration, np.zeros(3)
    known = found.outcome is Outcome.ACCEPTED and found.error is not None and found.carm_from_patient is not None
    if known:
        assert found.error is not None and found.carm_from_patient is not None
        at = Rigid.apply(found.carm_from_patient, found.error.target)
    scale = (carm.sod_mm - at[2]) / carm.sdd_mm
    row, col = carm.pitch_mm_row_col
    return {"plane": "target" if known else "isocenter", "mm_per_px_u_v": [col * scale, row * scale],
            "px_u_v": carm.project(at) if known else None, "in_carm_mm": at if known else None}
