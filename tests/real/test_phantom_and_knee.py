# SPDX-License-Identifier: Apache-2.0
"""The real phantom and the real knee: claims of the README, scored by scripts made apart from this code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluoronav.bench.real_knee import displaced, stored_mask, stored_pose, write_carm
from fluoronav.bench.real_phantom import rotation_spread_deg
from fluoronav.imaging import open_run
from fluoronav.locate import Located, Options, expand, pictures_of, register_frames, view_of
from registration.geometry import Rigid, carm_from_patient_at, carm_from_room
from registration.implants import ImplantModel
from registration.joint import RoomView
from registration.joint_shapes import JointShape
from registration.model import Settings, Start
from registration.result import Outcome
from registration.shapes import Mesh, Polylines
from registration.vessels import VesselModel

pytestmark = pytest.mark.real
RUNS = ("IM1", "IM2", "IM3", "IM4")


def scorer(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def centerlines(path: Path) -> Polylines:
    words = path.read_text().split()
    at = words.index("POINTS")
    n = int(words[at + 1])
    points = np.array(words[at + 3:at + 3 + 3 * n], float).reshape(n, 3)
    at = words.index("CELLS")
    ids, lines = [int(x) for x in words[at + 3:at + 3 + int(words[at + 2])]], []
    while ids:
        lines.append(np.array(ids[1:1 + ids[0]]))
        ids = ids[1 + ids[0]:]
    return Polylines(points, tuple(lines))


def case_with(**parts: Any) -> Any:
    return SimpleNamespace(**{"name": "T", "implant": None, "volume_hu": None, "mr": None, "surfaces": {},
                              "centerlines": {}, "target_mm": None, "target_assumed": True, "path_mm": None} | parts)


@pytest.fixture(scope="module")
def phantom(shared_data: Path) -> list[Located]:
    folder = shared_data / "vessel_phantom"
    case = case_with(centerlines={"tree": centerlines(folder / "centerlines.vtk")})
    runs, faults = expand([folder / name for name in RUNS], Options())
    assert not faults
    return register_frames(case, runs, Options())


def test_phantom_lies_within_half_a_mm_in_every_view(phantom: list[Located], shared_data: Path,
                                                     shared_checks: Path) -> None:
    score = scorer(shared_checks, "vessel_distance")
    line = score.centreline(str(shared_data / "vessel_phantom" / "centerlines.vtk"))
    for one in phantom:
        assert one.entry["outcome"] == "ACCEPTED", one.entry["why"]
        assert one.entry["index"] is None
        carm = one.picture.frame.carm
        assert carm is not None
        v, u = np.nonzero(score.vessels(one.picture.values.astype(float)))
        projected = carm.project_patient(one.entry["carm_from_patient"], line)
        far = np.sort(score.cKDTree(projected).query(np.stack([u, v], -1))[0])
        mm = far[: int(0.9 * len(far))].mean() * carm.mm_per_px_at_isocenter
        assert mm < 0.5  # an independent fit reached 0.22 to 0.26; issue 7 asks for 0.5
        assert abs(mm - one.entry["vessel_mm_after"]) < 0.1
        assert one.entry["vessel_mm_before"] > 2


def test_one_rotation_of_the_phantom_explains_all_views(phantom: list[Located]) -> None:
    rotations = []
    for one in phantom:
        angles = one.picture.frame.angles
        assert angles is not None
        gantry = carm_from_room(angles.primary_deg, angles.secondary_deg)[:3, :3]
        rotations.append(gantry.T @ np.asarray(one.entry["carm_from_patient"])[:3, :3])
    spread, angle = rotation_spread_deg(rotations)
    assert spread is not None and spread < 1.0
    assert angle == pytest.approx(4.9, abs=1.0)


def test_phantom_mirrored_through_the_picture_is_never_accepted(phantom: list[Located], shared_data: Path) -> None:
    """The depth trap of README.vessel.md, sprung on purpose: the mirrored tree fits at 0.5 to 0.65 mm."""
    lines = centerlines(shared_data / "vessel_phantom" / "centerlines.vtk")
    for one in phantom:
        pose = np.asarray(one.entry["carm_from_patient"])
        center = Rigid.apply(pose, lines.points.mean(0))
        about = Rigid.translation(*center) @ np.diag([1.0, 1, -1, 1]) @ Rigid.translation(*-center)
        mirror = Rigid.inverse(pose) @ about @ pose
        model = VesselModel(Polylines(lines.points @ mirror[:3, :3].T + mirror[:3, 3], lines.lines))
        angles = one.picture.frame.angles
        assert angles is not None
        start = carm_from_patient_at(angles.primary_deg, angles.secondary_deg, model.center_mm)
        answer = model.register(view_of(one.picture), [Start(start, "angles")], Settings())
        assert answer.outcome is not Outcome.ACCEPTED


@pytest.mark.parametrize("pair", [(0, 1), (2, 3)])
def test_two_views_of_the_phantom_settle_depth_and_mirror(phantom: list[Located], shared_data: Path,
                                                          pair: tuple[int, int]) -> None:
    lines = centerlines(shared_data / "vessel_phantom" / "centerlines.vtk")
    views = []
    for k in pair:
        angles = phantom[k].picture.frame.angles
        assert angles is not None
        views.append(RoomView(view_of(phantom[k].picture), carm_from_room(angles.primary_deg, angles.secondary_deg)))
    model = VesselModel(lines)
    start = [Start(views[0].carm_from_room @ Rigid.translation(*(-model.center_mm)), "angles")]
    found = JointShape(model).register(views, start, Settings())
    assert found.outcome is Outcome.ACCEPTED, found.registrations[0].why
    for one, view in zip(found.registrations, views, strict=True):
        assert one.carm_from_patient is not None and one.error is not None
        # a common pose holds both views, gantry and isocenter included: 0.27 to 0.47 mm
        distance = model.distance_mm(view.view, one.carm_from_patient)
        assert distance is not None and distance < 0.6
        assert one.error.target_mm < 10  # a single view states some 15
    seen = views[0].carm_from_room
    mirror = Rigid.inverse(seen) @ np.diag([1.0, 1, -1, 1]) @ seen
    points = lines.points @ mirror[:3, :3].T
    mirrored = VesselModel(Polylines(points - points.mean(0) + lines.points.mean(0), lines.lines))
    assert JointShape(mirrored).register(views, start, Settings()).outcome is not Outcome.ACCEPTED


def test_a_single_noisy_frame_is_enough(shared_data: Path) -> None:
    folder = shared_data / "vessel_phantom"
    case = case_with(centerlines={"tree": centerlines(folder / "centerlines.vtk")})
    runs, _ = expand([folder / "IM3"], Options())
    (one,) = register_frames(case, runs, Options(index=5))
    assert one.entry["outcome"] == "ACCEPTED" and one.entry["index"] == 5
    assert one.entry["vessel_mm_after"] < 0.5


@pytest.mark.parametrize(("bone", "mesh"), [("fem", "KR_right_7_fem.stl"), ("tib", "KR_right_6_tib.stl")])
def test_knee_implant_is_found_from_ten_degrees_and_20_mm(shared_data: Path, shared_checks: Path, tmp_path: Path,
                                                          bone: str, mesh: str) -> None:
    folder = shared_data / "knee_implant"
    triangles = scorer(shared_checks, "knee_silhouette").mesh(str(folder / mesh)).reshape(-1, 3)
    model = ImplantModel(Mesh(triangles, np.arange(len(triangles)).reshape(-1, 3)))
    carm_file = write_carm(tmp_path / "carm.json")
    rng = np.random.default_rng(11)
    for k, name in enumerate(("0160", "0170", "0180")):
        run = open_run(folder / "images" / f"AT_K1_V1_{name}.tif", carm_file=carm_file)
        view = view_of(next(pictures_of(run)), 1024)
        stored = stored_pose(folder / "poses" / f"{bone}.jts", k)
        start = displaced(stored, model.center_mm, 10, 20, rng)
        answer = model.register(view, [Start(start, "file")], Settings())
        assert answer.carm_from_patient is not None, answer.why
        pose = answer.carm_from_patient
        mask = stored_mask(folder / "labels" / f"AT_K1_V1_{name}_label_{bone}.tif")
        mine = model.contours.silhouette(view.carm, pose)
        away = Rigid.apply(pose, model.center_mm) - Rigid.apply(stored, model.center_mm)
        # issue 7's bounds; the stored poses are an operator's
        assert Rigid.angle_deg(pose @ Rigid.inverse(stored)) < 1.5
        assert np.hypot(away[0], away[1]) < 1.0
        assert (mine & mask).sum() / (mine | mask).sum() >= 0.965


def test_femur_is_not_taken_for_the_tibia_nor_left_for_right(shared_data: Path, shared_checks: Path,
                                                            tmp_path: Path) -> None:
    folder = shared_data / "knee_implant"
    read = scorer(shared_checks, "knee_silhouette").mesh
    femur = read(str(folder / "KR_right_7_fem.stl")).reshape(-1, 3)
    tibia = read(str(folder / "KR_right_6_tib.stl")).reshape(-1, 3)
    run = open_run(folder / "images" / "AT_K1_V1_0160.tif", carm_file=write_carm(tmp_path / "carm.json"))
    view = view_of(next(pictures_of(run)), 1024)
    stored = stored_pose(folder / "poses" / "fem.jts", 0)
    left = femur * [-1, 1, 1] + [2 * femur[:, 0].mean(), 0, 0]
    for wrong in (tibia - tibia.mean(0) + femur.mean(0), left):
        model = ImplantModel(Mesh(wrong, np.arange(len(wrong)).reshape(-1, 3)))
        answer = model.register(view, [Start(stored, "file")], Settings())
        assert answer.outcome is not Outcome.ACCEPTED


def test_poses_go_through_json_as_the_scorer_reads_them(phantom: list[Located]) -> None:
    from fluoronav.session.coding import plain

    back = json.loads(json.dumps(plain({"frames": [one.entry for one in phantom]}), allow_nan=False))
    assert [Path(f["file"]).name for f in back["frames"]] == list(RUNS)
    for one, entry in zip(phantom, back["frames"], strict=True):
        np.testing.assert_array_equal(entry["carm_from_patient"], one.entry["carm_from_patient"])
        assert np.shape(entry["covariance"]) == (6, 6)
