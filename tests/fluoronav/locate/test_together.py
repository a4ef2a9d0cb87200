# SPDX-License-Identifier: Apache-2.0
"""Do files of several views get one pose, and is what cannot be joined refused?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluoronav.imaging import Run
from fluoronav.locate import Options, expand, register_together
from registration.errors import BadGeometry, BadInput
from registration.geometry import CArm, Rigid, Volume, carm_from_room, water_attenuation_per_mm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from ellipsoids import chest, line_integrals, voxels

CARM = CArm.centered((192, 192), 1.6, 1020, 765)
ROOM = Rigid.exp([0.05, -0.03, 0.04, 6, -8, 9])
ANGLES = ((5.0, -4.0), (80.0, 6.0))


@pytest.fixture(scope="module")
def case() -> Any:
    volume = voxels(chest())
    hu = Volume(1000 * (volume.data / water_attenuation_per_mm(60.0) - 1), volume.patient_from_index)
    return SimpleNamespace(name="T", implant=None, volume_hu=hu, surfaces={}, centerlines={}, target_mm=np.zeros(3),
                           target_assumed=True, bodies=None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    import cv2

    folder = tmp_path_factory.mktemp("views")
    pictures, stated = [], []
    for n, angles in enumerate(ANGLES):
        exact = line_integrals(chest(), CARM, carm_from_room(*angles) @ ROOM)
        grey = 255 * (1 - exact / exact.max())
        pictures.append(folder / f"view{n}.png")
        cv2.imwrite(str(pictures[-1]), np.round(grey).astype(np.uint8))
        stated.append(folder / f"view{n}.json")
        stated[-1].write_text(json.dumps({
            "shape_rows_cols": [192, 192], "pitch_mm_row_col": [1.6, 1.6], "sdd_mm": 1020.0, "sod_mm": 765.0,
            "primary_deg": angles[0], "secondary_deg": angles[1], "seen_from": "detector", "intensity": "display",
            "polarity": "dark"}))
    return pictures, stated


def opened(files: tuple[list[Path], list[Path]], **chosen: Any) -> tuple[list[Run], Options]:
    options = Options(carm_files=tuple(files[1]), joint=True, **chosen)
    runs, faults = expand(files[0], options)
    assert not faults
    return runs, options


def test_two_files_get_one_pose_with_its_depth(case: Any, files: tuple[list[Path], list[Path]]) -> None:
    said: list[str] = []
    runs, options = opened(files)
    found = register_together(case, runs, options, say=said.append)
    assert [f.entry["outcome"] for f in found] == ["ACCEPTED"] * 2, found[0].entry["why"]
    for one, angles in zip(found, ANGLES, strict=True):
        assert one.entry["joint_views"] == 2
        true = carm_from_room(*angles) @ ROOM
        target = one.entry["target_mm"]
        apart = Rigid.apply(one.entry["carm_from_patient"], target) - Rigid.apply(true, target)
        assert np.linalg.norm(apart) < 0.5  # mm in space, from pictures of eight bits
        assert np.allclose(one.entry["carm_from_patient"], one.entry["carm_from_room"] @ one.entry["room_from_patient"])
    assert found[0].entry["expected_error_mm"] == pytest.approx(found[1].entry["expected_error_mm"], rel=1e-3)
    assert any("isocenter" in line for line in said)


def test_poses_of_a_file_may_belong_to_either_view(
        case: Any, files: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    init = tmp_path / "init.json"
    start = Rigid.exp([0.02, 0.02, 0, 3, 3, 3]) @ ROOM
    init.write_text(json.dumps({"frames": [
        {"file": f"view{n}.png", "carm_from_patient": (carm_from_room(*ANGLES[n]) @ start).tolist()} for n in (1, 0)]}))
    runs, options = opened(files, init=str(init), intrinsics="shared")
    found = register_together(case, runs, options)
    assert found[0].entry["outcome"] == "ACCEPTED" and found[0].entry["start"] == "file"
    said = found[0].entry["carm"]
    assert abs(said["sdd_mm"] - 1020) < max(2.0, 3 * said["sdd_sd_mm"])
    assert np.abs(np.array(said["principal_px_u_v"]) - CARM.principal_px_u_v).max() * 1.6 < 6


def test_what_cannot_be_joined_is_refused(case: Any, files: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    runs, options = opened(files)
    with pytest.raises(BadInput, match="two or more views"):
        register_together(case, runs[:1], options)
    with pytest.raises(BadInput, match="one picture of each run"):
        register_together(case, *opened(files, all_frames=True))
    with pytest.raises(BadInput, match="expected volume"):
        register_together(case, *opened(files, by="vessels"))
    stated = json.loads(files[1][1].read_text())
    del stated["primary_deg"], stated["secondary_deg"]
    blind = tmp_path / "blind.json"
    blind.write_text(json.dumps(stated))
    runs, options = opened((files[0], [files[1][0], blind]), init="search")
    with pytest.raises(BadGeometry, match="where the C-arm stands"):
        register_together(case, runs, options)
