# SPDX-License-Identifier: Apache-2.0
"""Where does a registration begin? At the angles, anywhere, or at poses from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluoronav.imaging import Frame, Run
from fluoronav.locate.landmark_files import Landmarks
from registration.errors import BadGeometry, BadInput
from registration.geometry import Float64, Rigid, carm_from_patient_at
from registration.model import Model, Settings, Start, View


@dataclass(frozen=True, slots=True)
class InitEntry:
    """One pose of an --init FILE: the picture's file name (may be empty), 4x4 pose."""

    file: str
    carm_from_patient: Float64


def starts_for(model: Model, view: View, run: Run, frame: Frame, center_mm: Float64, settings: Settings,
               init: str | InitEntry | Landmarks = "angles") -> Sequence[Start]:
    """The poses to begin from. init: `angles` (the isocenter at center_mm), `search`, a pose, or landmarks.

    Raises BadGeometry for `angles` where the picture has none.
    """
    if isinstance(init, InitEntry):
        return [Start(init.carm_from_patient, "file")]
    if isinstance(init, Landmarks):
        assert frame.carm is not None  # a picture without distances was refused before
        return [Start(init.pose(frame.carm).carm_from_patient, "landmarks")]
    at = pose_at_angles(run, frame, center_mm)
    if init == "search":
        return model.search(view, at, settings)
    if at is None:
        raise BadGeometry(f"{run.name}, gantry angles", got="none", expected="primary and secondary angle",
                          remedy="use --init search or --init FILE")
    return [Start(at, "angles")]


def pose_at_angles(run: Run, frame: Frame, center_mm: Float64) -> Float64 | None:
    """The pose (4x4) at the gantry's angles with the isocenter at a point of the patient; None without angles."""
    if run.carm_from_room is not None:
        return run.carm_from_room @ Rigid.translation(*(-center_mm))
    if frame.angles is None:
        return None
    return carm_from_patient_at(frame.angles.primary_deg, frame.angles.secondary_deg, center_mm)


def read_init(path: str | Path, names: Sequence[str]) -> list[InitEntry]:
    """One pose for each of `names` (paths of runs, in order) from an --init FILE.

    Entries are matched by `file`, else by order; a single entry serves all. Raises BadInput.
    """
    entries = _entries(Path(path))
    if len(entries) == 1:
        return entries * len(names)
    by_name = {Path(e.file).name: e for e in entries if e.file}
    wanted = [Path(n).name for n in names]
    if len(by_name) == len(entries) and len(set(wanted)) == len(wanted) and all(n in by_name for n in wanted):
        return [by_name[n] for n in wanted]
    if len(entries) == len(names):
        return entries
    raise BadInput(f"--init {path}", got=f"{len(entries)} poses for {len(names)} inputs",
                   expected="one pose, one for each input in order, or entries named by `file`",
                   remedy="give one entry for each input")


def _entries(path: Path) -> list[InitEntry]:
    form = 'register --json output, or {"frames": [{"file": ..., "carm_from_patient": [[...]]}]}'
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        frames = data.get("frames", [data])
        raw = [(str(f.get("file") or ""), f["carm_from_patient"]) for f in frames]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = error.strerror if isinstance(error, OSError) else f"something else ({type(error).__name__}: {error})"
        raise BadInput(f"--init {path}", got=got, expected=form,
                       remedy="use angles, search, or such a file") from error
    if not raw:
        raise BadInput(f"--init {path}", got="no entry", expected=form, remedy="give at least one pose")
    out = []
    for k, (file, pose) in enumerate(raw):
        if pose is None:
            raise BadInput(f"--init {path}, entry {k}", got="no pose (it was LOST)", expected="a 4x4 matrix",
                           remedy="take the entry out or register it again")
        try:
            out.append(InitEntry(file, Rigid.checked(pose, f"--init {path.name}, entry {k}")))
        except (ValueError, TypeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"--init {path}, entry {k}", got=str(error), expected="a 4x4 matrix of numbers",
                           remedy="correct it") from error
    return out
