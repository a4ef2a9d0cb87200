# SPDX-License-Identifier: Apache-2.0
"""The case folder: whole or not at all, checked byte by byte when opened, without a word of the headers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pydicom
import pytest
from case_inputs import NAMES, affine_of_series, ball, hounsfield, write_lines, write_series, write_stl, write_volume

from fluoronav.case import Case, create_case
from fluoronav.case.store import FORMAT, VERSION, checksum_of
from registration.errors import BadInput

CENTER = tuple(affine_of_series()[:3, :3] @ [12, 10, 4] + affine_of_series()[:3, 3])  # a ball inside the small CT
RADIUS = 4.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A CT, a surface and a centerline in it, a path, under names that a person might give them."""
    folder = tmp_path_factory.mktemp("Doe_Jane")
    line = np.array(CENTER) + np.linspace(-3, 3, 7)[:, None] * [0, 0, 1]
    ct = write_series(folder / "ct")
    return {"ct": ct, "surface": write_stl(folder / "QUENBY_left_coronary.stl", *ball(CENTER, RADIUS)),
            "line": write_lines(folder / "QUENBY_left_coronary.vtk", line, [list(range(7))], "Doe^Jane Quenby"),
            "path": _path(folder / "path.csv", line)}


def _path(path, points):
    path.write_text("L,P,S\n" + "\n".join(",".join(f"{x:.4f}" for x in p) for p in points) + "\n")
    return path


@pytest.fixture
def case(files, tmp_path):
    return create_case(tmp_path / "case", ct=files["ct"], vessels=[files["surface"], files["line"]], path=files["path"],
                       target=CENTER)


def test_what_was_given_comes_back(case):
    again = Case.open(case.folder)
    assert np.array_equal(again.volume_hu.data, hounsfield())
    assert np.allclose(again.volume_hu.patient_from_index, affine_of_series())
    assert list(again.surfaces) == list(again.centerlines) == ["left coronary"]
    assert len(again.surfaces["left coronary"].faces) == len(ball(CENTER, RADIUS)[1])
    assert again.centerlines["left coronary"].length_mm == pytest.approx(6, abs=1e-5)
    assert np.allclose(again.path_mm[[0, -1]], [np.add(CENTER, [0, 0, -3]), np.add(CENTER, [0, 0, 3])], atol=1e-4)
    assert np.allclose(again.target_mm, CENTER) and not again.target_assumed
    assert again.checksum == case.checksum and again.name == case.name and again.notes == case.notes
    assert again.implant is None and again.mr is None


def test_fractions_are_kept_as_they_are(tmp_path):
    data = hounsfield().astype(np.float32) + 0.37
    case = create_case(tmp_path / "case", ct=write_volume(tmp_path / "ct.nrrd", data, affine_of_series()))
    assert np.array_equal(case.volume_hu.data, data)


def test_the_same_input_makes_the_same_pseudonym_and_checksum_and_another_does_not(files, tmp_path):
    a, b = (create_case(tmp_path / name, ct=files["ct"]) for name in "ab")
    assert (a.name, a.checksum) == (b.name, b.checksum)
    other = hounsfield()
    other[0, 0, 0] += 1
    c = create_case(tmp_path / "c", ct=write_series(tmp_path / "other", other))
    assert c.checksum != a.checksum
    assert a.name.startswith("CASE ") and len(a.name) == 9


def test_no_word_of_the_headers_or_of_file_names_enters_the_folder(case, files):
    words = {w for value in NAMES.values() for w in (value, *value.replace("^", " ").split()) if len(w) > 3}
    for file in files["ct"].iterdir():
        for element in pydicom.dcmread(file):
            if element.VR in ("PN", "LO", "UI", "SH", "DA") and element.value:
                words.add(str(element.value))
    words |= {"QUENBY", "Quenby", "slice00", str(files["ct"].parent)}
    written = [data for file in case.folder.iterdir() for data in (file.read_bytes(), file.name.encode())]
    found = {word for word in words for data in written if word.encode() in data}
    assert len(words) > 15 and found == set()


def test_one_changed_byte_anywhere_is_seen(case, tmp_path):
    rng = np.random.default_rng(0)
    for file in sorted(case.folder.iterdir()):
        size = file.stat().st_size
        for at in {0, size - 1, *rng.integers(0, size, 12).tolist()}:
            copy = tmp_path / "damaged"
            shutil.copytree(case.folder, copy)
            raw = bytearray((copy / file.name).read_bytes())
            raw[at] ^= 1 << int(rng.integers(8))
            (copy / file.name).write_bytes(bytes(raw))
            with pytest.raises(BadInput):
                Case.open(copy)
            shutil.rmtree(copy)


def test_cut_and_missing_files_are_seen(case):
    for file in sorted(case.folder.iterdir()):
        raw = file.read_bytes()
        for kept in (None, b"", raw[: len(raw) // 2], raw + b"\n"):
            if kept is None:
                file.unlink()
            else:
                file.write_bytes(kept)
            with pytest.raises(BadInput):
                Case.open(case.folder)
            file.write_bytes(raw)
    assert Case.open(case.folder).checksum == case.checksum


def _rewritten(folder, **changes):
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    manifest = {key: value for key, value in manifest.items() if value is not None}
    manifest["checksum"] = checksum_of(manifest)
    path.write_text(json.dumps(manifest, indent=1) + "\n")


@pytest.mark.parametrize("changes, said", [({"version": VERSION + 1}, "newer fluoronav"),
                                           ({"format": "another"}, f"format {FORMAT}"),
                                           ({"parts": None}, "without what a case needs"),
                                           ({"target_mm": None}, "without what a case needs")])
def test_newer_foreign_and_incomplete_cases_say_so(case, changes, said):
    _rewritten(case.folder, **changes)
    with pytest.raises(BadInput, match=said):
        Case.open(case.folder)


def test_foreign_folders_are_refused(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadInput, match="case create"):
            Case.open(folder)


def test_an_existing_case_is_replaced_on_purpose_only_and_nothing_else_ever(files, tmp_path):
    first = create_case(tmp_path / "case", ct=files["ct"])
    with pytest.raises(BadInput, match="--force"):
        create_case(tmp_path / "case", vessels=[files["line"]])
    assert Case.open(first.folder).checksum == first.checksum
    second = create_case(tmp_path / "case", vessels=[files["line"]], force=True)
    assert second.volume_hu is None and Case.open(first.folder).checksum == second.checksum
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("all of it")
    with pytest.raises(BadInput, match="something else"):
        create_case(tmp_path / "other", vessels=[files["line"]], force=True)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "all of it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case", "other"]  # no parts left behind


def test_a_failure_leaves_nothing_behind(files, tmp_path, monkeypatch):
    import fluoronav.case.store as store

    written = []

    def full(path, data):
        written.append(path)
        if len(written) == 2:
            raise OSError("disk full")
        path.write_bytes(data)

    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(BadInput, match="disk full"):
        create_case(tmp_path / "case", vessels=[files["surface"], files["line"]])
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------- what fits what


def test_a_mesh_outside_of_the_ct_is_refused_and_ras_is_recognized(files, tmp_path):
    far = write_stl(tmp_path / "far.stl", *ball(np.add(CENTER, 500), RADIUS))
    with pytest.raises(BadInput, match="wholly outside"):
        create_case(tmp_path / "case", ct=files["ct"], vessels=[far])
    ras = np.multiply(CENTER, [-1, -1, 1])
    vertices, faces = ball(ras, RADIUS)
    with pytest.raises(BadInput, match="--axes=-x,-y,z"):
        create_case(tmp_path / "case", ct=files["ct"], vessels=[write_stl(tmp_path / "ras.stl", vertices, faces)])
    turned = create_case(tmp_path / "turned", ct=files["ct"], vessels=[tmp_path / "ras.stl"], axes="-x,-y,z")
    assert np.allclose(turned.surfaces["vessels"].vertices.mean(axis=0), CENTER, atol=0.01)


def test_a_label_outside_of_the_ct_is_refused(files, tmp_path):
    away = affine_of_series()
    away[:3, 3] += 400
    label = write_volume(tmp_path / "label.nii.gz", (hounsfield() > 500).astype(np.uint8), away)
    with pytest.raises(BadInput, match="wholly outside"):
        create_case(tmp_path / "case", ct=files["ct"], vessels=[label])


def _labels(path, place=None):
    """Two halves of the small CT, labels 3 and 5."""
    data = np.zeros(hounsfield().shape, np.uint8)
    data[:, :, :12], data[:, :, 12:] = 3, 5
    return write_volume(path, data, affine_of_series() if place is None else place)


def test_bodies_come_back_under_their_names(files, tmp_path):
    label = _labels(tmp_path / "Jane_Doe.nii.gz")
    case = create_case(tmp_path / "case", ct=files["ct"], bodies=[f"Spine={label}:3", f"heart={label}:5"])
    again = Case.open(case.folder)
    assert again.bodies.names == ("spine", "heart")
    assert "bodies" in again.contents
    assert again.bodies.at(affine_of_series()[:3] @ [2, 10, 4, 1]) == "spine"
    assert again.bodies.at(affine_of_series()[:3] @ [22, 10, 4, 1]) == "heart"
    assert not any("Jane" in note for note in again.notes)
    both = create_case(tmp_path / "both", ct=files["ct"], bodies=[f"spine={label}:3,5"])
    assert (both.bodies.labels.data[:, :-1, :-1] == 1).all()  # the last cells reach beyond the CT
    twice = create_case(tmp_path / "twice", ct=files["ct"], bodies=[f"spine={label}:3", f"all={label}"])
    assert any("in an earlier body" in note for note in twice.notes)


@pytest.mark.parametrize(("given", "match"), [
    ("labels.nii.gz", "NAME=FILE"), ("spine=nothing.nii.gz", "no file"), ("rest={}", "name rest"),
    ("auto={}", "name auto"), ("spine={}:4", "label 4"), ("spine={}:0", "label 0"), ("=%s", "NAME=FILE")])
def test_bodies_that_say_nothing_are_refused(files, tmp_path, given, match):
    label = _labels(tmp_path / "labels.nii.gz")
    with pytest.raises(BadInput, match=match):
        create_case(tmp_path / "case", ct=files["ct"], bodies=[given.format(label)])
    assert not (tmp_path / "case").exists()


def test_bodies_without_their_ct_or_elsewhere_are_refused(files, tmp_path):
    away = affine_of_series()
    away[:3, 3] += 400
    with pytest.raises(BadInput, match="wholly outside"):
        create_case(tmp_path / "case", ct=files["ct"], bodies=[f"spine={_labels(tmp_path / 'a.nii.gz', away)}"])
    with pytest.raises(BadInput, match="add --ct"):
        create_case(tmp_path / "case", vessels=[files["surface"]], bodies=[f"spine={_labels(tmp_path / 'b.nii.gz')}"])
    grey = write_volume(tmp_path / "grey.nrrd", hounsfield().astype(np.float32) + 0.5, affine_of_series())
    with pytest.raises(BadInput, match="not whole numbers"):
        create_case(tmp_path / "case", ct=files["ct"], bodies=[f"spine={grey}"])


def test_a_centerline_that_is_not_in_its_surface_is_refused(files, tmp_path):
    line = np.array(CENTER) + [0, 12, 0] + np.linspace(-3, 3, 7)[:, None] * [0, 0, 1]
    beside = write_lines(tmp_path / "l.vtk", line, [list(range(7))])
    with pytest.raises(BadInput, match="in or near the surface"):
        create_case(tmp_path / "case", vessels=[files["surface"], beside])


def test_targets_and_paths_outside_of_the_ct_are_refused(files, tmp_path):
    for target, said in (((900, 0, 0), "outside of the CT"), ((np.nan, 0, 0), "three finite")):
        with pytest.raises(BadInput, match=said):
            create_case(tmp_path / "case", ct=files["ct"], target=target)
    with pytest.raises(BadInput, match="wholly outside"):
        create_case(tmp_path / "case", ct=files["ct"], path=_path(tmp_path / "p.csv", np.eye(3) * 900))


def test_paths_of_each_kind_are_the_same_path(files, tmp_path):
    points = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 10]])
    (tmp_path / "a.json").write_text(json.dumps(points.tolist()))
    (tmp_path / "b.json").write_text(json.dumps({"points": points.tolist()}))
    ras = [{"position": p} for p in (points * [-1, -1, 1]).tolist()]
    (tmp_path / "c.json").write_text(json.dumps({"markups": [{"coordinateSystem": "RAS", "controlPoints": ras}]}))
    write_lines(tmp_path / "d.vtk", points, [[0, 1, 2]])
    _path(tmp_path / "e.csv", points)
    for name in ("a.json", "b.json", "c.json", "d.vtk", "e.csv"):
        made = create_case(tmp_path / name[0], vessels=[files["line"]], path=tmp_path / name)
        assert np.allclose(made.path_mm, points)


@pytest.mark.parametrize("name, text", [
    ("p.csv", "1,2\n3,4\n"), ("p.csv", "1,2,x\n"), ("p.csv", "1,2,nan\n2,3,4\n"), ("p.csv", "1,2,3\n1,2,3\n"),
    ("p.csv", ""), ("p.csv", "1,2,3\n4,5\n"), ("p.json", "{}"), ("p.json", "[[1,2,3]]"), ("p.json", "[1"),
    ("p.json", '{"points": 3}'), ("p.txt", "1 2 3")])
def test_what_is_no_path_is_refused(files, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match="path"):
        create_case(tmp_path / "case", vessels=[files["line"]], path=tmp_path / name)


def test_an_mr_says_in_which_frame_it_is(files, tmp_path):
    def same(k, ds):
        ds.FrameOfReferenceUID = pydicom.dcmread(files["ct"] / "slice000.dcm").FrameOfReferenceUID

    plain = {"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
    for name, change, said in (("same", same, "same frame of reference"), ("other", None, "not registered")):
        mr = write_series(tmp_path / name, change=change, **plain)
        made = create_case(tmp_path / f"case-{name}", ct=files["ct"], mr=mr)
        assert np.array_equal(made.mr.data, hounsfield() + 1024.0)
        assert any(said in note for note in made.notes)
        assert made.mr_match is None  # one frame already, or a slab of too few slices


def test_without_a_target_it_is_the_centroid_and_said_to_be_assumed(files, tmp_path):
    made = create_case(tmp_path / "a", ct=files["ct"])
    assert made.target_assumed and np.allclose(made.target_mm, made.volume_hu.center_mm)
    made = create_case(tmp_path / "b", implant=files["surface"])
    assert made.target_assumed and np.allclose(made.target_mm, CENTER, atol=0.01)
    assert any(note.startswith("assumed: target: centroid of the implant") for note in made.notes)
    with pytest.raises(BadInput, match="at least one"):
        create_case(tmp_path / "c")
    with pytest.raises(BadInput, match="got lines"):
        create_case(tmp_path / "c", implant=files["line"])
    with pytest.raises(BadInput, match="leave it out"):
        create_case(tmp_path / "c", ct=files["ct"], axes="x,y,z")
