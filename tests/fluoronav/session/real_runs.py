# SPDX-License-Identifier: Apache-2.0
"""A real pipeline on a real case: a breathing vessel tree whose truth is known, recorded as it is answered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.case import Case, create_case
from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.live.measured import true_errors
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.step import Command, Decision
from fluoronav.session.record import SessionRecorder
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.shapes import Polylines

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from trees import picture, tree

CARM = CArm.centered((160, 160), 1.2, 1000, 720)
LINES = tree(4)


def vessel_case(folder: Path) -> Case:
    """A case folder made of a centerline file."""
    _write_vtk(folder / "input" / "aorta.vtk", LINES)
    return create_case(folder / "case", vessels=[folder / "input" / "aorta.vtk"], target=LINES.points.mean(0))


def _write_vtk(path: Path, lines: Polylines) -> None:
    path.parent.mkdir(parents=True)
    assert lines.radius_mm is not None
    text = ["# vtk DataFile Version 3.0", "tree", "ASCII", "DATASET POLYDATA", f"POINTS {len(lines.points)} double",
            *(" ".join(map(repr, p)) for p in lines.points.tolist()),
            f"LINES {len(lines.lines)} {sum(len(x) + 1 for x in lines.lines)}",
            *(" ".join(map(str, [len(x), *x])) for x in lines.lines),
            f"POINT_DATA {len(lines.points)}", "SCALARS Radius double 1", "LOOKUP_TABLE default",
            *map(repr, lines.radius_mm.tolist())]
    path.write_text("\n".join(text) + "\n")


def pose(k: int) -> np.ndarray:
    """True pose of frame k: off the isocenter, breathing along the head's axis."""
    return carm_from_patient_at(25.0, -10.0, LINES.points.mean(0) + np.array([4, -6, 3 + 3 * np.sin(k / 3)]))


def frames(count: int, empty: range = range(0), name: str = "scene") -> list[Frame]:
    """Frames at 15 a second; those in `empty` show no vessel."""
    out = []
    for k in range(count):
        lines = Polylines(LINES.points + 1000, LINES.lines, LINES.radius_mm) if k in empty else LINES
        grey = 220 - 60 * picture(lines, CARM, pose(k), noise=0.0).line_integrals
        grey = grey + np.random.default_rng(k).normal(0, 2.5, grey.shape)
        out.append(Frame(
            np.clip(grey, 0, 255).astype(np.uint8), k, 10**18 + round(k / 15 * 1e9), CARM, Angles(25.0, -10.0),
            Exposure(80.0, 200.0 + 50 * (k > 20), 8.0, 0.4), Intensity("display", "dark", 8),
            np.ones(CARM.shape, bool), name))
    return out


def record(path: Path, case: Case | None, pictures: list[Frame], commands: dict[int, list[Command]] | None = None,
           lost: range = range(0)) -> dict[str, Any]:
    """Answers frame by frame, jobs run at once and applied two frames later, and records all but the frames
    `lost`, as a recorder does whose disk could not follow. Returns how often each outcome came."""
    pipeline = Pipeline(case, PipelineSettings(overlay="lines"))
    recorder = SessionRecorder(path, case=case, pipeline_settings=pipeline.settings.to_json(),
                               fingerprint=pipeline.fingerprint(), source_name=pictures[0].source_name,
                               nominal_interval_s=1 / 15)
    ready: dict[int, list[Decision]] = {}
    outcomes: dict[str, Any] = {}
    for k, frame in enumerate(pictures):
        step = pipeline.step(frame, (commands or {}).get(k, ()), ready.pop(k, []))
        job = pipeline.wanted_job()
        if job is not None:
            ready.setdefault(k + 2, []).append(Decision("job", {"job": job.name, "result": pipeline.run_job(job)}))
        truth = {"carm_from_patient": pose(k).tolist(),
                 "target_in_carm_mm": Rigid.apply(pose(k), LINES.points.mean(0)).tolist(), "breathing_mm": 0.0}
        object.__setattr__(step, "truth", true_errors(truth, step, pipeline.finder.target_mm))
        outcomes[step.registration.outcome.value] = outcomes.get(step.registration.outcome.value, 0) + 1
        if k in lost:
            recorder._lost += 1
        else:
            recorder.write(step, snapshot=pipeline.snapshotter())
    recorder.close()
    return outcomes
