# SPDX-License-Identifier: Apache-2.0
"""`register --landmarks FILE`: what it says begins the registration, and a bad file is refused in a sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluoronav.locate import Options, expand, register_frames
from fluoronav.locate.landmark_files import read_landmarks
from registration.errors import BadInput
from registration.geometry import CArm, Rigid

sys.path.insert(0, str(Path(__file__).resolve().parent))
from test_locate import CARM, noisy, scene, write_pngs


def pairs(truth: np.ndarray, points: np.ndarray, noise_px: float = 0.0) -> list[dict[str, Any]]:
    at = CARM.project_patient(truth, points) + noise_px * np.random.default_rng(1).normal(size=(len(points), 2))
    return [{"name": f"p{k}", "patient_mm": p.tolist(), "pixel_u_v": q.tolist()}
            for k, (p, q) in enumerate(zip(points, at, strict=True))]


def within(truth: np.ndarray, points: np.ndarray, count: int) -> np.ndarray:
    at = CARM.project_patient(truth, points)
    seen = points[((at > 4) & (at < 251)).all(axis=1)]
    return seen[np.linspace(0, len(seen) - 1, count).astype(int)]


def test_registration_begins_where_the_landmarks_lie_and_needs_no_angles(tmp_path: Path) -> None:
    case, truth, grey = scene()
    points = within(truth, case.centerlines["tree"].points, 7)
    carm = write_pngs(tmp_path / "run", noisy(grey, 1), primary_deg=None, secondary_deg=None)
    file = tmp_path / "marks.json"
    file.write_text(json.dumps({"landmarks": pairs(truth, points, 0.7)}))
    options = Options(carm_files=(carm,), landmarks=file)
    runs, faults = expand([tmp_path / "run"], options)
    assert not faults
    (found,) = register_frames(case, runs, options)
    assert found.entry["start"] == "landmarks"
    assert found.entry["outcome"] in ("ACCEPTED", "AMBIGUOUS")  # one view of a tree: its mirror may fit too
    apart = Rigid.apply(found.entry["carm_from_patient"], points) - Rigid.apply(truth, points)
    assert np.abs(apart[:, :2]).mean() < 1.5


def test_entries_are_matched_by_file_then_by_order(tmp_path: Path) -> None:
    marks = [{"patient_mm": [k, k * k, 1], "pixel_u_v": [k, 2 * k]} for k in range(4)]
    other = [{"patient_mm": [k, k * k, 2], "pixel_u_v": [k, 2 * k]} for k in range(5)]
    file = tmp_path / "marks.json"
    file.write_text(json.dumps({"frames": [{"file": "b.png", "landmarks": other},
                                           {"file": "a.png", "landmarks": marks}]}))
    assert [len(e.patient_mm) for e in read_landmarks(file, ["x/a.png", "x/b.png"])] == [4, 5]
    assert [len(e.patient_mm) for e in read_landmarks(file, ["c.png", "d.png"])] == [5, 4]
    with pytest.raises(BadInput, match="landmarks of 2 pictures for 3 inputs"):
        read_landmarks(file, ["a", "b", "c"])


GOOD = [{"patient_mm": [0, 0, 0], "pixel_u_v": [100, 100]}, {"patient_mm": [50, 0, 9], "pixel_u_v": [150, 100]},
        {"patient_mm": [0, 50, 30], "pixel_u_v": [100, 150]}, {"patient_mm": [50, 50, 0], "pixel_u_v": [150, 150]}]


@pytest.mark.parametrize(("content", "said"), [
    ("nothing", "JSONDecodeError"),
    ("[]", "AttributeError"),
    ("{}", "KeyError: 'landmarks'"),
    ('{"frames": []}', "no entry"),
    (json.dumps({"landmarks": 5}), "TypeError"),
    (json.dumps({"landmarks": GOOD[:3]}), "3 landmarks"),
    (json.dumps({"landmarks": [*GOOD[:3], {"patient_mm": [1, 2], "pixel_u_v": [1, 2]}]}), "landmark 3, patient_mm"),
    (json.dumps({"landmarks": [*GOOD[:3], {"patient_mm": [1, 2, "3"], "pixel_u_v": [1, 2]}]}), "3 finite numbers"),
    (json.dumps({"landmarks": [*GOOD[:3], {"patient_mm": [1, 2, 3], "pixel_u_v": [1, None]}]}), "pixel_u_v"),
    (json.dumps({"landmarks": [*GOOD[:3], {"name": "hilum", "patient_mm": [1, 2, float("nan")],
                                           "pixel_u_v": [1, 2]}]}), "hilum"),
])
def test_bad_files_are_refused_with_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "marks.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=r"--landmarks marks\.json") as told:
        read_landmarks(file, ["a.png"])
    assert said in str(told.value)
    with pytest.raises(BadInput, match="FileNotFoundError"):
        read_landmarks(tmp_path / "none.json", ["a.png"])


def test_pixels_outside_the_picture_and_points_on_one_line_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "marks.json"
    carm = CArm.centered((128, 256), 0.75, 1000, 720)
    file.write_text(json.dumps({"landmarks": GOOD}))
    with pytest.raises(BadInput, match=r"128 x 256 pixels"):
        read_landmarks(file, ["a"])[0].pose(carm)
    file.write_text(json.dumps({"landmarks": [dict(g, patient_mm=[k, k, k]) for k, g in enumerate(GOOD)]}))
    with pytest.raises(BadInput, match=r"marks\.json, entry 0.*on one line"):
        read_landmarks(file, ["a"])[0].pose(CARM)
