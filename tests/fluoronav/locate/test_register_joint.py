# SPDX-License-Identifier: Apache-2.0
"""Does `fluoronav register --joint --intrinsics --bodies` go from files to JSON, and does a table that moved count?"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fluoronav.cli.app import app
from fluoronav.locate.together import _moved_with_table
from registration.bodies import spine_of
from registration.errors import BadInput
from registration.geometry import CArm, Rigid, carm_from_room, water_attenuation_per_mm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from ellipsoids import chest, line_integrals, voxels

CARM = CArm.centered((192, 192), 1.6, 1020, 765)
REAL = replace(CARM, sdd_mm=1.01 * CARM.sdd_mm)
ROOM = Rigid.exp([0.05, -0.03, 0.04, 6, -8, 9])
ANGLES = ((5.0, -4.0), (80.0, 6.0))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("joint")
    volume = voxels(chest())
    hu = np.round(1000 * (volume.data / water_attenuation_per_mm(60.0) - 1)).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(volume.spacing_mm.tolist())
    image.SetOrigin(volume.patient_from_index[:3, 3].tolist())
    sitk.WriteImage(image, str(folder / "ct.nii"))
    # a segmentation of the vertebrae, with another body's label, its left to right turned around
    labels = np.where(volume.data > 1.5 * water_attenuation_per_mm(60.0), 7, 0).astype(np.uint8)
    labels[:, volume.data.shape[1] // 2:] //= 7  # ribs and what else lies behind the middle: 1
    _, j, i = np.indices(labels.shape)
    near = np.hypot(*(np.stack([i, j], -1) @ volume.patient_from_index[:2, :2].T + volume.patient_from_index[:2, 3]
                      - spine_of(volume).middle_mm[:2]).transpose(3, 0, 1, 2)) < 26
    labels = np.where(near & (labels > 0), 7, labels)
    turned = sitk.GetImageFromArray(np.ascontiguousarray(labels[:, :, ::-1]))
    turned.SetSpacing(volume.spacing_mm.tolist())
    turned.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    turned.SetOrigin((volume.patient_from_index @ [labels.shape[2] - 1, 0, 0, 1])[:3].tolist())
    sitk.WriteImage(turned, str(folder / "labels.nii.gz"))
    made = CliRunner().invoke(app, ["case", "create", str(folder / "case"), "--ct", str(folder / "ct.nii"),
                                    "--bodies", f"vertebrae={folder / 'labels.nii.gz'}:7"])
    assert made.exit_code == 0, made.output
    return folder / "case"


@pytest.fixture(scope="module")
def arguments(case: Path) -> list[str]:
    """The case, two pictures of the patient lying off center, and what is stated of their C-arm (SDD 1 % wrong)."""
    import cv2

    pictures, stated = [], []
    for n, angles in enumerate(ANGLES):
        exact = line_integrals(chest(), REAL, carm_from_room(*angles) @ ROOM)
        pictures.append(case.parent / f"view{n}.png")
        cv2.imwrite(str(pictures[-1]), np.round(60000 * np.exp(-exact)).astype(np.uint16))
        stated += ["--carm", str(case.parent / f"view{n}.json")]
        Path(stated[-1]).write_text(json.dumps({
            "shape_rows_cols": [192, 192], "pitch_mm_row_col": [1.6, 1.6], "sdd_mm": CARM.sdd_mm, "sod_mm": CARM.sod_mm,
            "primary_deg": angles[0], "secondary_deg": angles[1], "seen_from": "detector", "intensity": "linear",
            "polarity": "dark"}))
    return [str(case), *map(str, pictures), *stated]


def registered(arguments: list[str], *more: str) -> tuple[list[dict[str, Any]], int]:
    done = CliRunner().invoke(app, ["register", *arguments, "--joint", "--json", *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return json.loads(done.stdout)["frames"], done.exit_code


def error_mm(entry: dict[str, Any], n: int) -> float:
    target = entry["target_mm"]
    true = carm_from_room(*ANGLES[n]) @ ROOM
    return float(np.linalg.norm(Rigid.apply(entry["carm_from_patient"], target) - Rigid.apply(true, target)))


def test_the_geometry_of_the_c_arm_is_found_along(arguments: list[str]) -> None:
    entries, code = registered(arguments, "--intrinsics", "shared")
    assert code == 0 and [e["outcome"] for e in entries] == ["ACCEPTED"] * 2, entries[0]["why"]
    for n, entry in enumerate(entries):
        assert abs(entry["carm"]["sdd_mm"] / REAL.sdd_mm - 1) < 0.003
        assert error_mm(entry, n) < entry["expected_error_mm"] < 5  # without: 8 mm of depth in either view


def test_spine_and_rest_in_two_views(arguments: list[str]) -> None:
    entries, code = registered(arguments, "--bodies", "spine")
    assert code == 0, entries[0]["why"]
    assert set(entries[0]["bodies"]) == {"spine", "rest"} and entries[0]["joint_views"] == 2
    assert error_mm(entries[0], 0) < entries[0]["expected_error_mm"]


def test_a_body_of_the_case_in_two_views_and_in_one(arguments: list[str]) -> None:
    entries, code = registered(arguments, "--bodies", "vertebrae")
    assert code == 0, entries[0]["why"]
    assert list(entries[0]["bodies"]) == ["vertebrae", "rest"]
    assert error_mm(entries[0], 0) < entries[0]["expected_error_mm"]
    unknown = CliRunner().invoke(app, ["register", arguments[0], arguments[1], *arguments[3:5], "--bodies", "liver"])
    assert isinstance(unknown.exception, BadInput)
    assert "auto, one, spine, vertebrae" in str(unknown.exception)


def test_a_patient_goes_with_the_table() -> None:
    said: list[str] = []
    places = [carm_from_room(*a) for a in ANGLES]
    frames: Any = [SimpleNamespace(source_name="a", table_in_room_mm=(1.0, 2.0, 3.0)),
                   SimpleNamespace(source_name="b", table_in_room_mm=(11.0, 2.0, -7.0))]
    found = _moved_with_table(places, frames, said.append)
    assert np.array_equal(found[0], places[0])
    # carm_from_patient of the second view, of a patient who was at the origin of the room
    moved = places[1] @ [10, 0, -10, 1]
    assert np.allclose(found[1][:, 3], moved) and "10.0, 0.0, -10.0" in said[0]
    frames[0].table_in_room_mm = None
    still = _moved_with_table(places, frames, said.append)
    assert np.array_equal(np.stack(still), np.stack(places)) and len(said) == 1
