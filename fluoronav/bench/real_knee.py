# SPDX-License-Identifier: Apache-2.0
"""Knee implant in real fluoroscopy: from displaced starts, how often is the operator's pose found again?"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluoronav.bench.figure import Figure, Progress, shared_data
from registration.geometry import Array, Float64, Rigid

SOD_MM = 1000.0  # any will do: poses are compared in the source's frame
STARTS = 20
BONES = {"fem": "KR_right_7_fem.stl", "tib": "KR_right_6_tib.stl"}
FRAMES = ("0160", "0170", "0180")


@dataclass(frozen=True, slots=True)
class Trial:
    """One registration from a displaced start; angle and distances from the stored pose, overlap with the mask."""

    outcome: str
    rotation_deg: float
    inplane_mm: float
    iou: float
    seconds: float


def figures(progress: Progress) -> dict[str, Figure]:
    """`knee.*`: success from 5 deg / 10 mm and 10 deg / 20 mm, medians of the latter."""
    near = knee_trials(5, 10, STARTS, lambda s, t: progress(s / 2, t))
    far = knee_trials(10, 20, STARTS, lambda s, t: progress(0.5 + s / 2, t))
    n = len(far)
    return {
        "knee.success_5_10": Figure(success(near, 2.0, 1.5, 0.95), "share", len(near), "2 deg, 1.5 mm, IoU 0.95"),
        "knee.success_10_20": Figure(success(far, 1.5, 1.0, 0.965), "share", n, "1.5 deg, 1 mm, IoU 0.965"),
        "knee.rotation_deg_median": Figure(float(np.median([t.rotation_deg for t in far])), "deg", n),
        "knee.inplane_mm_median": Figure(float(np.median([t.inplane_mm for t in far])), "mm", n),
        "knee.iou_median": Figure(float(np.median([t.iou for t in far])), "", n),
        "knee.accepted": Figure(sum(t.outcome == "ACCEPTED" for t in far) / n, "share", n),
        "knee.ms_median": Figure(1000 * float(np.median([t.seconds for t in far])), "ms", n),
    }


def success(trials: list[Trial], deg: float, mm: float, iou: float) -> float:
    """Share of trials within all three bounds."""
    return sum(t.rotation_deg <= deg and t.inplane_mm <= mm and t.iou >= iou for t in trials) / len(trials)


def knee_trials(deg: float, mm: float, starts: int, progress: Progress, bones: tuple[str, ...] = ("fem", "tib"),
                frames: tuple[int, ...] = (0, 1, 2)) -> list[Trial]:
    """Register both implants in the frames from starts off by up to deg and mm (axis and direction uniform)."""
    from fluoronav.case import create_case
    from fluoronav.imaging import open_run
    from fluoronav.locate import model_for_case, pictures_of, view_of
    from registration.implants import ImplantModel
    from registration.model import Settings, Start

    data = shared_data() / "knee_implant"
    rng = np.random.default_rng(7)
    trials: list[Trial] = []
    total = len(bones) * len(frames) * starts
    with tempfile.TemporaryDirectory() as folder:
        carm_file = write_carm(Path(folder) / "carm.json")
        for bone in bones:
            case = create_case(Path(folder) / bone, implant=data / BONES[bone])
            model = model_for_case(case, Settings())
            assert isinstance(model, ImplantModel)
            for k in frames:
                run = open_run(data / "images" / f"AT_K1_V1_{FRAMES[k]}.tif", carm_file=carm_file)
                view = view_of(next(pictures_of(run)), 1024)
                stored = stored_pose(data / "poses" / f"{bone}.jts", k)
                mask = stored_mask(data / "labels" / f"AT_K1_V1_{FRAMES[k]}_label_{bone}.tif")
                for _ in range(starts):
                    start = displaced(stored, model.center_mm, deg, mm, rng)
                    begin = time.perf_counter()
                    answer = model.register(view, [Start(start, "file")], Settings())
                    seconds = time.perf_counter() - begin
                    pose = answer.carm_from_patient
                    if pose is None:
                        trials.append(Trial("LOST", 180.0, np.inf, 0.0, seconds))
                    else:
                        mine = model.contours.silhouette(view.carm, pose)
                        away = Rigid.apply(pose, model.center_mm) - Rigid.apply(stored, model.center_mm)
                        trials.append(Trial(answer.outcome.value, Rigid.angle_deg(pose @ Rigid.inverse(stored)),
                                            float(np.hypot(away[0], away[1])),
                                            float((mine & mask).sum() / (mine | mask).sum()), seconds))
                    progress(len(trials) / total, f"knee {bone} {FRAMES[k]}")
    return trials


def displaced(pose: Float64, center_mm: Float64, deg: float, mm: float, rng: np.random.Generator) -> Float64:
    """A pose turned about a point of the patient and shifted; axis uniform, angle and length uniform."""
    axis, way = rng.normal(size=(2, 3))
    axis, way = axis / np.linalg.norm(axis), way / np.linalg.norm(way)
    center = Rigid.apply(pose, center_mm)
    turn = Rigid.exp(np.r_[axis * np.radians(rng.uniform(0, deg)), 0, 0, 0])
    return np.asarray(Rigid.translation(*(center + way * rng.uniform(0, mm))) @ turn
                      @ Rigid.translation(*-center) @ pose)


def write_carm(path: Path) -> Path:
    """The geometry of the knee's pictures as a --carm FILE (README.bones.md: seen from the source)."""
    path.write_text(json.dumps({
        "shape_rows_cols": [1024, 1024], "pitch_mm_row_col": [0.373, 0.373], "sdd_mm": 1198.0, "sod_mm": SOD_MM,
        "principal_px_u_v": [511.5, 511.5], "primary_deg": 0.0, "secondary_deg": 0.0, "seen_from": "source",
        "intensity": "display", "polarity": "dark"}), encoding="utf-8")
    return path


def stored_pose(path: Path, row: int) -> Float64:
    """carm_from_patient of a row of a .jts file: x y z (mm), z x y (deg); R = Rz Rx Ry in the source's frame
    (x right, y up, z towards the viewer), turned into the C-arm's."""
    lines = [line.replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
    numbers = [[float(x) for x in parts[:6]] for parts in lines if parts and parts[0].lstrip("-")[:1].isdigit()]
    x, y, z, about_z, about_x, about_y = numbers[row]
    turn = np.eye(4)
    for axis, angle in ((2, about_z), (0, about_x), (1, about_y)):
        xi = np.zeros(6)
        xi[axis] = np.radians(angle)
        turn = turn @ Rigid.exp(xi)
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ Rigid.translation(x, y, z + SOD_MM) @ turn)


def stored_mask(path: Path) -> Array:
    """The stored mask, bool, seen from the detector."""
    import cv2

    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    return np.asarray(mask[:, ::-1] > 127)
