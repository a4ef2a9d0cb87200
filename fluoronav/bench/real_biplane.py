# SPDX-License-Identifier: Apache-2.0
"""Knee implant and wrist bone in two real views each: does every view, registered alone, agree with the joint pose?

No pose of either came with the pictures. Starts are displaced from poses that were fitted to both views apart from this
program (by silhouettes, by gradients); what is compared are this program's own single and joint answers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.bench.anatomies import wrist_radius
from fluoronav.bench.figure import Figure, Progress, shared_data
from fluoronav.bench.real_knee import displaced
from registration import partial
from registration.geometry import Box, Float64, Rigid
from registration.implants import ImplantModel
from registration.joint import JointModel, RoomView
from registration.joint_shapes import JointShape
from registration.ladder import Ladder
from registration.model import Settings, Start, View
from registration.result import Outcome, Registration
from registration.solver import Problem, Stage, solve
from registration.volume_model import FINE, VolumeModel

STARTS, SEED = 2, 17
KNEE_OFF, WRIST_OFF = (10.0, 20.0), (3.0, 3.0)  # deg, mm: bounds of the displaced starts
WRIST_FIELD_MM = 120.0  # of the pictures, around a bone 80 mm long
KNEE = (("femur", "100"), ("femur", "120"), ("femur", "140"), ("tibia", "100"))


@dataclass(frozen=True, slots=True)
class Agreement:
    """A view alone against the joint pose: outcomes; in-plane and depth distance of the body's center, and rotation;
    the joint center's distance, in the plane, from the pose that was fitted elsewhere. Infinite without a pose."""

    alone: Outcome
    joint: Outcome
    inplane_mm: float
    depth_mm: float
    rotation_deg: float
    reference_mm: float


def figures(progress: Progress) -> dict[str, Figure]:
    """`knee.biplane_*` (femur in three pairs of pictures, tibia in one) and `wrist.*` (radius in one pair)."""
    knee = list(knee_agreements(lambda s, t: progress(0.8 * s, t)))
    wrist = list(wrist_agreements(starts=4 * STARTS, progress=lambda s, t: progress(0.8 + 0.2 * s, t)))
    return {**_figures("knee.biplane_", knee), **_figures("wrist.", wrist)}


def _figures(name: str, found: Sequence[Agreement]) -> dict[str, Figure]:
    both = [a for a in found if np.isfinite(a.inplane_mm)]
    accepted = [a for a in both if a.alone is Outcome.ACCEPTED and a.joint is Outcome.ACCEPTED]
    inplane = np.array([a.inplane_mm for a in both])
    note = "a view alone against the joint pose, body's center"
    return {
        f"{name}inplane_mm_median": _median(inplane, "mm", note),
        f"{name}inplane_mm_worst": Figure(float(inplane.max()) if both else None, "mm", len(both), note),
        f"{name}inplane_within_1mm": Figure(float(np.mean([a.inplane_mm <= 1 for a in found])), "share", len(found)),
        f"{name}inplane_mm_worst_accepted": Figure(
            max((a.inplane_mm for a in accepted), default=None), "mm", len(accepted), "both answers ACCEPTED"),
        f"{name}depth_mm_median": _median([a.depth_mm for a in both], "mm", note),
        f"{name}rotation_deg_median": _median([a.rotation_deg for a in both], "deg", note),
        f"{name}reference_mm_median": _median([a.reference_mm for a in both], "mm",
                                              "joint pose against the one fitted elsewhere, in the plane"),
        f"{name}alone_accepted": Figure(float(np.mean([a.alone is Outcome.ACCEPTED for a in found])), "share",
                                        len(found)),
        f"{name}joint_accepted": Figure(float(np.mean([a.joint is Outcome.ACCEPTED for a in found])), "share",
                                        len(found)),
    }


def _median(values: Sequence[float] | np.ndarray, unit: str, note: str) -> Figure:
    return Figure(float(np.median(values)) if len(values) else None, unit, len(values), note)


def knee_agreements(progress: Progress, *, which: Sequence[tuple[str, str]] = KNEE,
                    starts: int = STARTS) -> Iterator[Agreement]:
    """Femur and tibia of the biplane knee, each frame pair from displaced starts."""
    from fluoronav.case import create_case

    data, rng, done = shared_data() / "knee_biplane", np.random.default_rng(SEED), 0
    poses = json.loads((data / "poses_silhouette.json").read_text(encoding="utf-8"))["frames"]
    with tempfile.TemporaryDirectory() as folder:
        models: dict[str, ImplantModel] = {}
        for bone, frame in which:
            if bone not in models:
                mesh = create_case(Path(folder) / bone, implant=data / f"{bone}0.stl").implant
                assert mesh is not None
                models[bone] = ImplantModel(mesh)
            model, stored = models[bone], _pose(poses[frame][bone])
            views = _views(data, [f"cam0{n}/{frame}.tif" for n in (1, 2)], [f"cam0{n}.txt" for n in (1, 2)],
                           Rigid.apply(stored, model.center_mm), Path(folder), 1024)
            for _ in range(starts):
                alone, joint = _answers(model, views, displaced(stored, model.center_mm, *KNEE_OFF, rng))
                for view, one, both in zip(views, alone, joint, strict=True):
                    yield _compared((one.outcome, both.outcome), one.carm_from_patient, both.carm_from_patient,
                                    view.carm_from_room @ stored, model.center_mm)
                done += 1
                progress(done / (len(which) * starts), f"biplane {bone} {frame}")


def wrist_agreements(progress: Progress, *, starts: int = STARTS) -> Iterator[Agreement]:
    """The radius of the biplane wrist, one pair of pictures; the other pair has no pose to start from.

    A bone without what lies around it explains a picture partly at best, and the gate refuses it (outcomes are
    its own). What is compared are the solver's poses: the last stages of any registration, on the pixels that the
    start says belong to the bone, in one view and in both.
    """
    data, rng = shared_data() / "wrist_biplane", np.random.default_rng(SEED)
    bone = wrist_radius()
    model = VolumeModel(bone)
    # the stored pose counts from the volume's center
    stored = _pose(json.loads((data / "pose_radius_0099.json").read_text(encoding="utf-8")))
    stored = stored @ Rigid.translation(*-bone.center_mm)
    with tempfile.TemporaryDirectory() as folder:
        views = _views(data, [f"cam0{n}/xr_rad_uln_cam0{n}_UND.0099.tif" for n in (1, 2)],
                       [f"xr_calib_wrist_cam0{n}.txt" for n in (1, 2)], Rigid.apply(stored, bone.center_mm),
                       Path(folder), 2048)
    views = [RoomView(_cropped(v.view, v.carm_from_room @ stored, bone.center_mm), v.carm_from_room) for v in views]
    for n in range(starts):
        begun = displaced(stored, bone.center_mm, *WRIST_OFF, rng)
        alone, joint = _answers(model, views, begun)
        told = [partial.told_by(model, Ladder(v.view), v.carm_from_room @ begun, partial.FINAL) for v in views]
        both = _solved(model, told, [v.carm_from_room for v in views], begun)
        for view, seen, one, two in zip(views, told, alone, joint, strict=True):
            place = view.carm_from_room
            yield _compared((one.outcome, two.outcome), place @ _solved(model, [seen], [place], begun), place @ both,
                            place @ stored, bone.center_mm)
        progress((n + 1) / starts, "biplane radius")


def _answers(model: ImplantModel | VolumeModel, views: Sequence[RoomView],
             begun: Float64) -> tuple[Sequence[Registration], Sequence[Registration]]:
    """Both views alone and together, from one pose in the room."""
    starts = [Start(v.carm_from_room @ begun) for v in views]
    alone = [model.register(v.view, [start], Settings()) for v, start in zip(views, starts, strict=True)]
    together = JointModel(model) if isinstance(model, VolumeModel) else JointShape(model)
    return alone, together.register(views, starts[:1], Settings()).registrations


def _solved(model: VolumeModel, ladders: Sequence[Ladder], places: Sequence[Float64], begun: Float64) -> Float64:
    """room_from_body after the last stages, in one view or several."""
    stages = []
    for plan in FINE:
        sights = tuple(replace(ladder.sight(plan.edge_px), carm_from_room=place)
                       for ladder, place in zip(ladders, places, strict=True))
        # each picture has pixels of its own size, and takes the volume that suits them
        stages.append(Stage(sights, (lambda carm, pose, wanted: model.render(carm)(carm, pose, wanted),),
                            plan.similarity, plan.iterations, plan.robust, plan.tolerance_px))
    return solve(Problem(tuple(stages)), [begun]).room_from_body[0]


def _cropped(view: View, pose: Float64, center_mm: Float64) -> View:
    """The part of a picture around the bone, as a collimator would leave it, with its C-arm."""
    carm = view.carm
    at = np.round(carm.project_patient(pose, center_mm)[::-1]).astype(int)
    half = round(WRIST_FIELD_MM / 2 / carm.mm_per_px_at_isocenter)
    low, high = np.maximum(at - half, 0), np.minimum(at + half, carm.shape)
    box = Box(tuple(map(int, low)), tuple(map(int, high)))
    return View(view.line_integrals[box.slices], view.weight[box.slices], carm.cropped(box), view.relative)


def _compared(outcomes: tuple[Outcome, Outcome], alone: Float64 | None, joint: Float64 | None, stored: Float64,
              center_mm: Float64) -> Agreement:
    if alone is None or joint is None:
        return Agreement(*outcomes, *(np.inf,) * 4)
    away = Rigid.apply(alone, center_mm) - Rigid.apply(joint, center_mm)
    reference = Rigid.apply(joint, center_mm) - Rigid.apply(stored, center_mm)
    return Agreement(*outcomes, float(np.hypot(*away[:2])), abs(float(away[2])),
                     Rigid.angle_deg(alone @ Rigid.inverse(joint)), float(np.hypot(*reference[:2])))


def _views(data: Path, pictures: Sequence[str], calibrations: Sequence[str], center_mm: Float64, folder: Path,
           longest: int) -> list[RoomView]:
    """Two pictures through the same door as any file, each with its calibrated camera."""
    from fluoronav.imaging import open_run
    from fluoronav.locate import pictures_of, view_of

    out = []
    for n, (picture, calibration) in enumerate(zip(pictures, calibrations, strict=True)):
        stated = carm_of_camera(data / "calibration" / calibration, center_mm)
        file = folder / f"carm{n}.json"
        file.write_text(json.dumps(stated), encoding="utf-8")
        run = open_run(data / picture, carm_file=file)
        assert run.carm_from_room is not None
        out.append(RoomView(view_of(next(pictures_of(run)), longest), run.carm_from_room))
    return out


def carm_of_camera(path: Path, center_mm: Float64) -> dict[str, Any]:
    """The --carm FILE of a pinhole calibration (README.bones.md: x right, y down, z away from the source).

    center_mm (3,), world: the isocenter is put as far from the source, the detector a quarter farther: a pinhole knows
    no millimeters at the detector.
    """
    text = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    after = {text[k]: text[k + 1:k + 4] for k in range(len(text)) if text[k][0].isalpha()}
    cols, rows = (int(x) for x in after["image size"][0].split(","))
    k, turn = (np.array([[float(x) for x in row.split(",")] for row in after[name]])
               for name in ("camera matrix", "rotation"))
    shift = np.array([float(x) for x in after["translation"]])
    u, _, vt = np.linalg.svd(turn)  # written with few digits: the nearest rotation
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3], camera_from_world[:3, 3] = u @ vt, shift
    sod = float(Rigid.apply(camera_from_world, center_mm)[2])
    sdd = 1.25 * sod
    place = Rigid.translation(0, 0, sod) @ np.diag([-1.0, 1.0, -1.0, 1.0]) @ camera_from_world
    return {"shape_rows_cols": [rows, cols], "pitch_mm_row_col": [sdd / float(k[1, 1]), sdd / float(k[0, 0])],
            "sdd_mm": sdd, "sod_mm": sod, "principal_px_u_v": [float(k[0, 2]), float(k[1, 2])],
            "carm_from_room": place.tolist(), "seen_from": "source", "intensity": "display", "polarity": "dark"}


def _pose(stored: dict[str, Any]) -> Float64:
    """world_from_body of a stored R and t_mm."""
    pose = np.eye(4)
    u, _, vt = np.linalg.svd(np.array(stored["R"], float))
    pose[:3, :3], pose[:3, 3] = u @ vt, stored["t_mm"]
    return pose
