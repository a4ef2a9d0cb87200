# SPDX-License-Identifier: Apache-2.0
"""`case create` and `case show` as a person calls them: one sentence and exit code 2, JSON alone on stdout."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from case_inputs import affine_of_series, ball, hounsfield, write_lines, write_series, write_stl, write_volume

CENTER = tuple(affine_of_series()[:3, :3] @ [12, 10, 4] + affine_of_series()[:3, 3])


def run(*args):
    """The command in a process of its own, as `fluoronav case ...`."""
    return subprocess.run([sys.executable, "-m", "fluoronav", "case", *map(str, args)], capture_output=True, text=True,
                          timeout=120)


def said_no(done, *words):
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and "expected" in done.stderr
    for word in words:
        assert word in done.stderr
    return True


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    ct = write_series(folder / "ct")
    label = write_volume(folder / "aorta.nii.gz", (hounsfield() > 500).astype(np.uint8), affine_of_series())
    done = run("create", folder / "case", "--ct", ct, "--vessels", label, "--target", *CENTER, "--json")
    return folder, done


def test_create_prints_one_json_object(made):
    folder, done = made
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["case"] == str(folder / "case") and answer["name"].startswith("CASE ")
    assert len(answer["checksum"]) == 64 and answer["ct"]["shape_kji"] == [8, 20, 24]
    assert list(answer["surfaces"]) == ["aorta"] and answer["surfaces"]["aorta"]["triangles"] > 20
    assert not answer["target_assumed"] and np.allclose(answer["target_mm"], CENTER)
    assert any(note.startswith("read: CT") for note in answer["notes"])


def test_show_says_what_is_there_and_draws_it(made, tmp_path):
    import cv2

    folder, _ = made
    done = run("show", folder / "case", "--png", tmp_path / "case.png")
    assert done.returncode == 0, done.stderr
    assert "CASE " in done.stdout and "CT, vessels" in done.stdout and "marching cubes" in done.stdout
    picture = cv2.imread(str(tmp_path / "case.png"))
    assert picture is not None and picture.shape[1] == 1500
    blue, green, red = (picture[..., k].astype(int) for k in range(3))
    assert ((blue > 150) & (red > 150) & (green < 120)).sum() > 50  # the target, magenta
    assert ((blue > 120) & (red < 120) & (blue - red > 60)).sum() > 200  # vessels, cyan


def test_the_same_facts_as_json(made):
    folder, created = made
    assert json.loads(run("show", folder / "case", "--json").stdout) == json.loads(created.stdout)


def test_a_case_without_a_volume_is_drawn_as_projections(tmp_path):
    stl = write_stl(tmp_path / "s.stl", *ball((5, 6, 7), 20))
    assert run("create", tmp_path / "c", "--implant", stl).returncode == 0
    assert run("show", tmp_path / "c", "--png", tmp_path / "c.png").returncode == 0
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_axes_turn_a_mesh_file(tmp_path):
    stl = write_stl(tmp_path / "s.stl", *ball((5, 6, 7), 20))
    done = run("create", tmp_path / "c", "--implant", stl, "--axes=-z,y,x", "--json")
    assert np.allclose(json.loads(done.stdout)["target_mm"], [-7, 6, 5], atol=0.01)


def _bad_ct(folder):
    return write_series(folder / "ct", skip=(4,))


REFUSALS = {
    "missing slice": (lambda p: ("--ct", _bad_ct(p)), "missing slice"),
    "no rescale": (lambda p: ("--ct", write_series(p / "ct", RescaleSlope=None)), "RescaleSlope"),
    "no gantry tilts so far": (lambda p: ("--ct", write_series(p / "ct", step=np.array([0, 2.4, 2.4]))), "tilt"),
    "mixed series": (lambda p: ("--ct", write_series(p / "ct", change=lambda k, ds: setattr(
        ds, "SeriesInstanceUID", f"1.2.{k // 4}"))), "2 series"),
    "reflection": (lambda p: ("--implant", write_stl(p / "s.stl", *ball((1, 2, 3), 9)), "--axes=-x,y,z"), "reflection"),
    "outside": (lambda p: ("--ct", write_series(p / "ct"), "--vessels",
                           write_stl(p / "s.stl", *ball((900, 2, 3), 9))), "wholly outside"),
    "not in the surface": (lambda p: (
        "--vessels", write_stl(p / "s.stl", *ball((0, 0, 0), 9)), "--vessels",
        write_lines(p / "l.vtk", np.array([[50.0, 0, 0], [60, 0, 0]]), [[0, 1]])), "near the surface"),
    "nothing": (lambda p: (), "at least one"),
    "absent": (lambda p: ("--ct", p / "nowhere"), "no such file"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_is_one_sentence_and_exit_code_2(tmp_path, name):
    args, word = REFUSALS[name]
    assert said_no(run("create", tmp_path / "case", *args(tmp_path), "--json"), word)
    assert not (tmp_path / "case").exists()


def test_an_existing_case_and_a_damaged_one_are_refused(made, tmp_path):
    folder, _ = made
    assert said_no(run("create", folder / "case", "--ct", folder / "ct"), "--force")
    (tmp_path / "manifest.json").write_text("{")
    assert said_no(run("show", tmp_path), "damaged JSON")
