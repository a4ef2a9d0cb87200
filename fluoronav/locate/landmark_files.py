# SPDX-License-Identifier: Apache-2.0
"""What does a file of landmarks say? Points of the patient, and where a person saw them in each picture.

    {"frames": [{"file": "a.dcm", "landmarks": [{"name": "carina", "patient_mm": [L, P, S], "pixel_u_v": [column, row]},
    ...]}]}, or {"landmarks": [...]} where there is one picture

Pixels are counted from (0, 0) at the first pixel's center, on the picture as it is registered. Names are optional.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from registration.errors import BadInput
from registration.geometry import CArm, Float64
from registration.landmarks import LEAST, Landmarked, pose_of_landmarks

FORM = '{"landmarks": [{"patient_mm": [L, P, S], "pixel_u_v": [column, row]}, ...]}, for several files in "frames"'


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Pairs of one picture: file (may be empty), patient_mm (n, 3), pixel_u_v (n, 2); source: what errors name."""

    file: str
    patient_mm: Float64
    pixel_u_v: Float64
    source: str

    def pose(self, carm: CArm) -> Landmarked:
        """The pose that agrees with the pairs. Raises BadInput, also for pixels far outside of the picture."""
        rows, cols = carm.shape
        inside = ((self.pixel_u_v > -0.5) & (self.pixel_u_v < (cols - 0.5, rows - 0.5))).all(axis=1)
        if not inside.all():
            raise BadInput(self.source, got=f"pixel {self.pixel_u_v[~inside][0].tolist()}",
                           expected=f"column and row within a picture of {rows} x {cols} pixels (rows x columns)",
                           remedy="correct it, or swap column and row")
        try:
            return pose_of_landmarks(carm, self.patient_mm, self.pixel_u_v)
        except BadInput as error:
            raise BadInput(self.source, got=error.got, expected=error.expected, remedy=error.remedy) from error


def read_landmarks(path: Path, names: Sequence[str]) -> list[Landmarks]:
    """The landmarks of each of `names` (paths of runs, in order): matched by `file`, else by order. Raises BadInput."""
    entries = _entries(path)
    by_name = {Path(e.file).name: e for e in entries if e.file}
    wanted = [Path(n).name for n in names]
    if len(by_name) == len(entries) and len(set(wanted)) == len(wanted) and all(n in by_name for n in wanted):
        return [by_name[n] for n in wanted]
    if len(entries) == len(names):
        return entries
    raise BadInput(f"--landmarks {path.name}", got=f"landmarks of {len(entries)} pictures for {len(names)} inputs",
                   expected="one entry for each input, in order or named by `file`", remedy="add or name entries")


def _entries(path: Path) -> list[Landmarks]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        frames = data.get("frames", [data])
        out = [_entry(path, k, frame) for k, frame in enumerate(frames)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"--landmarks {path.name}", got=f"{type(error).__name__}: {error}", expected=FORM,
                       remedy="give such a file") from error
    if not out:
        raise BadInput(f"--landmarks {path.name}", got="no entry", expected=FORM, remedy="mark points in a picture")
    return out


def _entry(path: Path, k: int, frame: dict[str, Any]) -> Landmarks:
    source = f"--landmarks {path.name}, entry {k}"
    pairs = frame["landmarks"]
    if len(pairs) < LEAST:
        raise BadInput(source, got=f"{len(pairs)} landmarks", expected=f"{LEAST} or more, not on one line",
                       remedy="mark more points")
    patient, pixel = (np.array([_numbers(source, n, pair, key, size) for n, pair in enumerate(pairs)])
                      for key, size in (("patient_mm", 3), ("pixel_u_v", 2)))
    return Landmarks(str(frame.get("file") or ""), patient, pixel, source)


def _numbers(source: str, n: int, pair: dict[str, Any], key: str, size: int) -> list[float]:
    what = f"{source}, {pair.get('name') or f'landmark {n}'}, {key}"
    values = pair.get(key)
    numbers = isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != size or not np.isfinite(values).all():  # type: ignore[arg-type]
        raise BadInput(what, got=values, expected=f"{size} finite numbers", remedy="correct it")
    return [float(v) for v in values]  # type: ignore[union-attr]
