# SPDX-License-Identifier: Apache-2.0
"""A real live run on a real case: a case folder made from files, the pipeline, threads, a source that a test steers."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from console_feed import counts, frame_at, pose_at, tree

from fluoronav.case import create_case
from fluoronav.imaging.frame import Frame
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.run import LiveRun
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.source import Gap

INTERVAL_S = 0.5  # pulsed: the page calls it stale after 1.25 s, which a busy machine does not reach


class Steered:
    """A source at 2 frames/s: `contrast` empties the vessels, `silent` stops the pictures, `ended` the run."""

    name, nominal_interval_s, notes = "steered", INTERVAL_S, ()

    def __init__(self) -> None:
        self.contrast, self.silent, self.ended = True, False, False
        self._closed = threading.Event()
        self._random = np.random.default_rng(3)

    def __iter__(self) -> Iterator[Frame | Gap]:
        lines, k = tree(), 0
        while not self._closed.wait(INTERVAL_S):
            if self.ended:
                yield Gap(0.0, "the pedal was released", ended=True)
                return
            if not self.silent:
                yield frame_at(k, counts(lines, pose_at(k) if self.contrast else None, self._random), INTERVAL_S)
                k += 1

    def close(self) -> None:
        self._closed.set()

    def truth(self, index: int) -> dict[str, Any] | None:
        return None


def real_run(folder: Path) -> tuple[LiveRun, Steered]:
    """The live run of a vessel case (centerline with radius, planned path, target), made from files."""
    lines = tree()
    assert lines.radius_mm is not None
    vtk = folder / "vessels.vtk"
    cells = [f"{len(line)} {' '.join(map(str, line))}" for line in lines.lines]
    size = sum(len(line) + 1 for line in lines.lines)
    vtk.write_text("\n".join([
        "# vtk DataFile Version 3.0", "vessels", "ASCII", "DATASET POLYDATA", f"POINTS {len(lines.points)} float",
        *(" ".join(f"{x:.4f}" for x in point) for point in lines.points), f"LINES {len(cells)} {size}", *cells,
        f"POINT_DATA {len(lines.points)}", "SCALARS radius float 1", "LOOKUP_TABLE default",
        *(f"{r:.3f}" for r in lines.radius_mm), ""]))
    path = lines.points[lines.lines[0]][:90]
    with (folder / "path.csv").open("w", newline="") as file:
        csv.writer(file).writerows(path.tolist())
    case = create_case(folder / "case", vessels=[vtk], path=folder / "path.csv", target=path[-1], axes="x,y,z")
    source = Steered()
    return LiveRun(Pipeline(case, PipelineSettings(overlay="lines")), source), source
