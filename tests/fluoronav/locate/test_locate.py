# SPDX-License-Identifier: Apache-2.0
"""Which picture of a run is registered, where it begins, and what the answer's entry holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluoronav.imaging import open_run
from fluoronav.locate import Options, expand, pictures_of, read_init, register_frames, view_of
from registration.errors import BadGeometry, BadInput
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.model import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from trees import picture, tree

CARM = CArm.centered((256, 256), 0.75, 1000, 720)
KEYS = ["file", "index", "outcome", "why", "carm_from_patient", "covariance", "expected_error_mm",
        "projected_error_mm", "similarity", "start", "elapsed_ms"]


def write_pngs(folder: Path, frames: list[np.ndarray], **geometry: Any) -> Path:
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"f{k:03d}.png"), np.clip(frame, 0, 255).astype(np.uint8))
    stated = {"shape_rows_cols": list(frames[0].shape), "pitch_mm_row_col": [0.75, 0.75], "sdd_mm": 1000.0,
              "sod_mm": 720.0, "primary_deg": 25.0, "secondary_deg": -10.0, "seen_from": "detector",
              "intensity": "display", "polarity": "dark"} | geometry
    path = folder.parent / f"{folder.name}.json"
    path.write_text(json.dumps({k: v for k, v in stated.items() if v is not None}))
    return path


def scene(seed: int = 4) -> tuple[Any, np.ndarray, np.ndarray]:
    """(a case with a tree, the truth, grey picture without noise)."""
    lines = tree(seed)
    truth = carm_from_patient_at(25, -10, lines.points.mean(0) + np.array([4, -6, 3]))
    view = picture(lines, CARM, truth, noise=0.0)
    grey = 220 - 60 * view.line_integrals
    case = SimpleNamespace(name="T", implant=None, volume_hu=None, mr=None, surfaces={}, centerlines={"tree": lines},
                           target_mm=None, target_assumed=True, bodies=None)
    return case, truth, grey


def noisy(grey: np.ndarray, n: int, sigma: float = 6.0, gain: tuple[float, ...] = ()) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    gains = gain or (1.0,) * n
    return [g * grey + rng.normal(0, sigma, grey.shape) for g in gains]


def test_still_run_is_registered_on_its_mean_even_if_its_gain_drifts(tmp_path: Path) -> None:
    _, _, grey = scene()
    carm = write_pngs(tmp_path / "run", noisy(grey, 6, gain=(1.1, 1.02, 1.0, 1.0, 1.0, 0.99)))
    (chosen,) = pictures_of(open_run(tmp_path / "run", carm_file=carm))
    assert chosen.index is None and "mean of 6" in chosen.note
    assert chosen.values.std() < noisy(grey, 1)[0].std()


def test_run_that_changes_is_registered_on_its_middle_frame(tmp_path: Path) -> None:
    _, _, grey = scene()
    frames = noisy(grey, 7)
    for k, frame in enumerate(frames):
        frame[100:140, 20 + 8 * k:50 + 8 * k] -= 40  # a thing that moves
    carm = write_pngs(tmp_path / "run", frames)
    run = open_run(tmp_path / "run", carm_file=carm)
    (chosen,) = pictures_of(run)
    assert chosen.index == 3 and "middle" in chosen.note
    assert next(iter(pictures_of(run, index=-1))).index == 6
    assert [p.index for p in pictures_of(run, all_frames=True)] == list(range(7))
    with pytest.raises(BadInput, match="--index 7"):
        list(pictures_of(run, index=7))


def test_view_is_binned_with_its_geometry(tmp_path: Path) -> None:
    _, _, grey = scene()
    carm = write_pngs(tmp_path / "run", [grey])
    (chosen,) = pictures_of(open_run(tmp_path / "run", carm_file=carm))
    view = view_of(chosen, 128)
    assert view.carm.shape == view.line_integrals.shape == (128, 128)
    assert view.carm.pitch_mm_row_col == (1.5, 1.5)
    point = np.array([5.0, -7.0, 11.0])
    full, half = chosen.frame.carm.project(point), view.carm.project(point)
    np.testing.assert_allclose((full + 0.5) / 2 - 0.5, half, atol=1e-9)


def test_entry_has_every_key_and_its_figures_are_true(tmp_path: Path) -> None:
    case, truth, grey = scene()
    carm = write_pngs(tmp_path / "run", noisy(grey, 5))
    said: list[str] = []
    runs, faults = expand([tmp_path / "run"], Options(carm_files=(carm,)))
    assert not faults
    (found,) = register_frames(case, runs, Options(), say=said.append)
    entry = found.entry
    assert list(entry)[: len(KEYS)] == KEYS
    assert entry["outcome"] == "ACCEPTED", entry["why"]
    assert entry["index"] is None and entry["start"] == "angles" and entry["elapsed_ms"] > 0
    assert entry["vessel_mm_after"] < 0.5 < entry["vessel_mm_before"]
    target = entry["target_mm"]
    away = np.linalg.norm(Rigid.apply(entry["carm_from_patient"], target) - Rigid.apply(truth, target))
    assert away < entry["expected_error_mm"]
    assert any("isocenter" in line for line in said) and any("mean of 5" in line for line in said)


def test_given_poses_are_matched_by_name_then_by_order(tmp_path: Path) -> None:
    a, b = (carm_from_patient_at(10, x, (0, 0, 0)) for x in (0, 5))
    path = tmp_path / "init.json"

    def write(*entries: dict[str, Any]) -> Path:
        path.write_text(json.dumps({"frames": list(entries)}))
        return path

    named = write({"file": "x/two", "carm_from_patient": b.tolist()}, {"file": "one", "carm_from_patient": a.tolist()})
    assert [e.file for e in read_init(named, ["/d/one", "/d/two"])] == ["one", "x/two"]
    assert [e.file for e in read_init(named, ["p", "q"])] == ["x/two", "one"]
    single = write({"carm_from_patient": a.tolist()})
    assert len(read_init(single, ["p", "q", "r"])) == 3
    with pytest.raises(BadInput, match="2 poses for 3"):
        read_init(write({"carm_from_patient": a.tolist()}, {"carm_from_patient": b.tolist()}), ["p", "q", "r"])
    for bad in ({"carm_from_patient": None}, {"carm_from_patient": [[1, 2], [3, 4]]}, {"pose": 1},
                {"carm_from_patient": np.diag([1, 1, -1, 1]).tolist()}, {"carm_from_patient": "east"}):
        with pytest.raises(BadInput):
            read_init(write(bad), ["p"])
    path.write_text("not json")
    with pytest.raises(BadInput):
        read_init(path, ["p"])


def test_frames_without_angles_are_refused_unless_told_where_to_begin(tmp_path: Path) -> None:
    case, truth, grey = scene()
    carm = write_pngs(tmp_path / "run", [grey], primary_deg=None, secondary_deg=None)
    _, faults = expand([tmp_path / "run"], Options(carm_files=(carm,)))
    init = tmp_path / "init.json"
    init.write_text(json.dumps({"carm_from_patient": truth.tolist()}))
    options = Options(carm_files=(carm,), init=str(init))
    runs, faults_with_pose = expand([tmp_path / "run"], options)
    assert not faults_with_pose
    (found,) = register_frames(case, runs, options)
    assert found.entry["outcome"] == "ACCEPTED" and found.entry["start"] == "file"
    if not faults:
        with pytest.raises(BadGeometry, match="angles"):
            register_frames(case, runs, Options(carm_files=(carm,)))


def test_wrong_number_of_geometries_is_refused(tmp_path: Path) -> None:
    _, _, grey = scene()
    carm = write_pngs(tmp_path / "run", [grey])
    with pytest.raises(BadInput, match="2 files for 1"):
        expand([tmp_path / "run"], Options(carm_files=(carm, carm)))


def test_tolerance_decides_what_is_accepted(tmp_path: Path) -> None:
    case, _, grey = scene()
    carm = write_pngs(tmp_path / "run", noisy(grey, 3))
    runs, _ = expand([tmp_path / "run"], Options(carm_files=(carm,)))
    strict = Options(settings=Settings(tolerance_mm=0.001))
    (found,) = register_frames(case, runs, strict)
    assert found.entry["outcome"] == "AMBIGUOUS" and "tolerance" in found.entry["why"]


def test_a_case_with_ct_and_vessels_is_found_by_its_vessels_where_the_ct_says_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluoronav.locate import models
    from registration.geometry import Volume
    from registration.result import Registration

    case, _, grey = scene()
    case.volume_hu = Volume(np.zeros((4, 4, 4), np.float32), np.diag([50.0, 50, 50, 1]) - np.outer(
        [75 - c for c in (*case.centerlines["tree"].points.mean(0), 75)], [0, 0, 0, 1]))
    real = models.model_for_case

    class Silent:
        kind = "volume"

        def register(self, *_: Any) -> Registration:
            return Registration.lost("nothing of the CT is seen")

    monkeypatch.setattr("fluoronav.locate.registering.model_for_case",
                        lambda c, s, by, target_mm: Silent() if by == "volume" else real(c, s, by=by))
    carm = write_pngs(tmp_path / "run", noisy(grey, 3))
    runs, _ = expand([tmp_path / "run"], Options(carm_files=(carm,)))
    said: list[str] = []
    (found,) = register_frames(case, runs, Options(), say=said.append)
    assert found.entry["outcome"] == "ACCEPTED" and found.entry["by"] == "vessels"
    assert any("trying its vessels" in line for line in said)
    (only,) = register_frames(case, runs, Options(by="volume"))
    assert only.entry["outcome"] == "LOST" and only.entry["by"] == "volume"
