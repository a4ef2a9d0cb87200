# SPDX-License-Identifier: Apache-2.0
"""Vessel phantom on a real C-arm: from the angles alone, how near do the centerlines come, and does one
rotation of the phantom explain all four views?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluoronav.bench.figure import Figure, Progress, shared_data
from registration.geometry import Float64, Rigid, carm_from_room

RUNS = ("IM1", "IM2", "IM3", "IM4")


@dataclass(frozen=True, slots=True)
class PhantomView:
    """One run's answer: its JSON entry and the rotation of the phantom against the gantry, 3x3 (None if LOST)."""

    entry: dict[str, object]
    room_from_patient: Float64 | None


def figures(progress: Progress) -> dict[str, Figure]:
    """`phantom.*`: worst vessel distance after (mm), spread and size of the rotation (deg), accepted, time."""
    views = phantom_views(progress)
    after = [v.entry["vessel_mm_after"] for v in views]
    before = [v.entry["vessel_mm_before"] for v in views]
    rotations = [v.room_from_patient for v in views if v.room_from_patient is not None]
    spread, angle = rotation_spread_deg(rotations)
    n = len(views)
    whole = all(isinstance(x, float) for x in after)
    return {
        "phantom.vessel_mm_worst": Figure(max(float(str(x)) for x in after) if whole else None, "mm", n,
                                          "" if whole else "at least one view was LOST"),
        "phantom.vessel_mm_before_worst": Figure(max(float(str(x)) for x in before), "mm", n),
        "phantom.rotation_spread_deg": Figure(spread, "deg", len(rotations), "largest deviation from the mean"),
        "phantom.rotation_deg": Figure(angle, "deg", len(rotations), "of the phantom against the gantry"),
        "phantom.accepted": Figure(sum(v.entry["outcome"] == "ACCEPTED" for v in views) / n, "share", n),
        "phantom.ms_median": Figure(float(np.median([float(str(v.entry["elapsed_ms"])) for v in views])), "ms", n),
    }


def phantom_views(progress: Progress) -> list[PhantomView]:
    """Register the four runs of the phantom from their angles, each by itself."""
    from fluoronav.case import create_case
    from fluoronav.locate import Options, expand, register_frames

    data = shared_data() / "vessel_phantom"
    with tempfile.TemporaryDirectory() as folder:
        case = create_case(Path(folder) / "phantom", vessels=[data / "surface.stl", data / "centerlines.vtk"])
        options = Options()
        runs, _ = expand([data / name for name in RUNS], options)
        found = register_frames(case, runs, options, progress=progress)
    out = []
    for one in found:
        pose, angles = one.registration.carm_from_patient, one.picture.frame.angles
        room = None
        if pose is not None and angles is not None:
            room = carm_from_room(angles.primary_deg, angles.secondary_deg)[:3, :3].T @ pose[:3, :3]
        out.append(PhantomView(one.entry, room))
    return out


def rotation_spread_deg(rotations: list[Float64]) -> tuple[float | None, float | None]:
    """(largest deviation from the mean rotation, angle of the mean), degrees; None without two rotations."""
    if len(rotations) < 2:
        return None, None
    u, _, vt = np.linalg.svd(np.sum(rotations, axis=0))
    mean = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt

    def angle(r: Float64) -> float:
        m = np.eye(4)
        m[:3, :3] = r
        return Rigid.angle_deg(m)

    return max(angle(mean.T @ r) for r in rotations), angle(mean)
