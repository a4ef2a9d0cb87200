# SPDX-License-Identifier: Apache-2.0
"""Vessels from labels, surfaces and lines: in the patient's axes, never mirrored, or refused."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from case_inputs import ball, flipped, tree_mask, write_lines, write_stl, write_volume
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from fluoronav.case.fit import signed_distance
from fluoronav.case.labels import canonical, read_labels
from fluoronav.case.shape_files import parse_axes, read_shape
from fluoronav.case.volumes import Grid
from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Rigid
from registration.shapes import Mesh, Polylines

SHAPE = (56, 44, 48)
AFFINE = np.diag([0.8, 0.8, 0.8, 1.0])
AFFINE[:3, 3] = (-20.0, 5.0, 100.0)
FORK, TIPS = np.array([-2.0, 20, 122]), np.array([[-2, 20, 106.0], [-12, 20, 140], [9, 24, 138]])
LINES = [np.stack([FORK, tip]) for tip in TIPS]
RADIUS = 3.0


@pytest.fixture(scope="module")
def mask():
    return tree_mask(SHAPE, AFFINE, LINES, RADIUS)


def one_tree(path):
    trees = read_labels(path, "label", Notes())
    assert len(trees) == 1
    return trees[0]


def on_lines(points):
    """Distance of points to the true middle lines, which go on to the end of the round tips."""
    best = np.full(len(points), np.inf)
    for a, b in LINES:
        t = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1 + RADIUS / np.linalg.norm(b - a))
        best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return best


def check_middle(points):
    """Within a voxel of the middle; where three tubes meet, the middle of what they make lies elsewhere."""
    away = np.linalg.norm(points - FORK, axis=1) > 2 * RADIUS
    assert on_lines(points[away]).max() < 0.8
    assert on_lines(points).max() < 0.6 * RADIUS


def volume_of(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_a_label_becomes_the_tree_that_it_was_made_from(tmp_path, mask):
    tree = one_tree(write_volume(tmp_path / "label.nii.gz", mask, AFFINE))
    lines = tree.centerline
    assert len(lines.lines) == 3 and lines.radius_mm is not None
    check_middle(lines.points)
    assert np.median(np.abs(lines.radius_mm - RADIUS)) < 0.4 and np.abs(lines.radius_mm - RADIUS).max() < 0.8
    for tip in TIPS:  # the line reaches each end
        assert np.linalg.norm(lines.points - tip, axis=1).min() < 0.8
    distance = on_lines(tree.surface.vertices)
    assert abs(np.median(distance) - RADIUS) < 0.2  # smoothing moves the surface by less than a quarter voxel
    inside = float(mask.sum()) * 0.8**3
    assert volume_of(tree.surface) == pytest.approx(inside, rel=0.03)  # not shrunk, and outward (positive)


def test_the_forks_are_shared_by_their_branches(tmp_path, mask):
    lines = one_tree(write_volume(tmp_path / "label.nrrd", mask, AFFINE)).centerline
    ends = [int(e) for line in lines.lines for e in (line[0], line[-1])]
    assert sorted(ends.count(e) for e in set(ends)) == [1, 1, 1, 3]


@pytest.mark.parametrize("axes", [c for n in (1, 2, 3) for c in combinations(range(3), n)])
@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
def test_a_label_with_flipped_axes_lands_on_the_same_vessels(tmp_path, mask, axes, kind):
    plain = one_tree(write_volume(tmp_path / f"a.{kind}", mask, AFFINE))
    turned = one_tree(write_volume(tmp_path / f"b.{kind}", *flipped(mask, AFFINE, axes)))
    for a, b in ((plain.surface.vertices, turned.surface.vertices),
                 (plain.centerline.points, turned.centerline.points)):
        apart = max(cKDTree(a).query(b)[0].max(), cKDTree(b).query(a)[0].max())
        assert apart < 0.4  # half a voxel
    assert volume_of(turned.surface) > 0  # outward, though the index frame is left-handed


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(3)), flips=st.sets(st.integers(0, 2)), seed=st.integers(0, 999))
def test_the_same_voxels_in_any_axis_order_are_the_same_grid(order, flips, seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 9, (3, 4, 5)).astype(np.int16)
    affine = Rigid.exp([0.2, -0.1, 0.15, 4, 5, 6]) @ np.diag([0.5, 0.7, 1.1, 1])
    other, moved = flipped(data, affine, tuple(flips))
    shuffled = np.eye(4)
    shuffled[:3, :3], shuffled[:3, 3] = moved[:3, list(order)], moved[:3, 3]
    again = canonical(Grid(np.transpose(other, [2 - order[2 - n] for n in range(3)]), shuffled))
    plain = canonical(Grid(data, affine))
    assert np.array_equal(again.data, plain.data)
    assert np.allclose(again.patient_from_index, plain.patient_from_index)


def test_a_label_on_another_grid_is_placed_by_its_own_affine(tmp_path):
    coarse = AFFINE @ np.diag([1, 1, 2.5, 1])  # 0.8 x 0.8 x 2 mm
    tree = one_tree(write_volume(tmp_path / "c.mha", tree_mask((23, 44, 48), coarse, LINES, RADIUS), coarse))
    assert on_lines(tree.centerline.points).max() < 2.0  # one slice
    assert len(tree.centerline.lines) == 3


def test_each_value_is_a_tree_of_its_own(tmp_path, mask):
    two = mask.copy()
    two[:10, :10, :10] = 0
    two[2:4, 2:4, 2:40] = 7
    trees = read_labels(write_volume(tmp_path / "two.nii", two, AFFINE), "label", Notes())
    assert [tree.suffix for tree in trees] == [" 1", " 7"]


def test_a_tunnel_does_not_send_the_line_around_it_and_cavities_are_filled(tmp_path, mask):
    notes, holed = Notes(), mask.copy()
    at = np.round((np.array([-2, 20, 112.0]) - AFFINE[:3, 3]) / 0.8).astype(int)
    holed[at[2], :, at[0]] = 0
    at = np.round((FORK - AFFINE[:3, 3]) / 0.8).astype(int)
    holed[at[2], at[1], at[0]] = 0
    trees = read_labels(write_volume(tmp_path / "h.nii.gz", holed, AFFINE), "label", notes)
    assert len(trees[0].centerline.lines) == 3
    check_middle(trees[0].centerline.points)
    assert any("thin holes" in line for line in notes.lines) and any("cavities" in line for line in notes.lines)


GREY = np.arange(729).reshape(9, 9, 9)


@pytest.mark.parametrize("data, said", [(np.zeros((9, 9, 9), np.uint8), "empty"),
                                        ((GREY / 7).astype(np.float32), "whole numbers"),
                                        (GREY.astype(np.int16), "not an image")])
def test_an_image_is_no_label(tmp_path, data, said):
    with pytest.raises(BadInput, match=said):
        read_labels(write_volume(tmp_path / "x.nrrd", data, AFFINE), "label", Notes())


# ---------------------------------------------------------------------------------------- meshes, lines


def test_axes_are_a_turn_and_no_reflection():
    assert np.array_equal(parse_axes("-z,y,x") @ [1, 2, 3], [-3, 2, 1])
    for bad in ("z,y,x", "-x,y,z", "x,y", "x,x,z", "a,b,c", "", "x y z"):
        with pytest.raises(BadInput, match="--axes"):
            parse_axes(bad)


def test_a_surface_is_read_as_it_stands_and_wound_outward(tmp_path):
    vertices, faces = ball((10, -20, 30), 8)
    for k, wound in enumerate((faces, faces[:, ::-1])):
        mesh = read_shape(write_stl(tmp_path / f"{k}.stl", vertices, wound), "s", None, Notes())
        assert isinstance(mesh, Mesh) and len(mesh.faces) == len(faces)
        assert volume_of(mesh) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.03)  # a polyhedron within the ball
        assert np.allclose(mesh.vertices.mean(axis=0), (10, -20, 30), atol=0.01)
    assert signed_distance(mesh, np.array([[10, -20, 30.0], [10, -20, 48]])) == pytest.approx([-8, 10], abs=0.2)


@pytest.mark.parametrize("head, turn", [(b"3D Slicer output. SPACE=RAS", [-1, -1, 1]),
                                        (b"3D Slicer output. SPACE=LPS", [1, 1, 1]), (b"x", [1, 1, 1])])
def test_the_space_that_a_file_states_is_obeyed(tmp_path, head, turn):
    vertices, faces = ball((10, -20, 30), 8)
    notes = Notes()
    mesh = read_shape(write_stl(tmp_path / "s.stl", vertices, faces, head), "s", None, notes)
    assert np.allclose(mesh.vertices.mean(axis=0), np.multiply((10, -20, 30), turn), atol=0.01)
    assert any(line.startswith("assumed") for line in notes.lines) == (head == b"x")


def test_axes_that_contradict_the_file_are_refused(tmp_path):
    path = write_stl(tmp_path / "s.stl", *ball((1, 2, 3), 8), b"SPACE=LPS")
    with pytest.raises(BadInput, match="states LPS"):
        read_shape(path, "s", parse_axes("-x,-y,z"), Notes())


def test_vtp_and_ply_are_read_as_vtk_writes_them(tmp_path):
    from vtkmodules.vtkFiltersSources import vtkSphereSource
    from vtkmodules.vtkIOPLY import vtkPLYWriter
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    source = vtkSphereSource()
    source.SetCenter(4, 5, 6)
    source.SetRadius(7)
    for writer, name in ((vtkXMLPolyDataWriter(), "s.vtp"), (vtkPLYWriter(), "s.ply")):
        writer.SetFileName(str(tmp_path / name))
        writer.SetInputConnection(source.GetOutputPort())
        writer.Write()
        mesh = read_shape(tmp_path / name, "s", None, Notes())
        assert np.allclose(mesh.vertices.mean(axis=0), (4, 5, 6), atol=0.01)


def test_lines_keep_points_that_belong_to_no_line(tmp_path):
    points = np.stack([np.arange(9.0), np.zeros(9), np.zeros(9)], 1)
    notes = Notes()
    path = write_lines(tmp_path / "l.vtk", points, [[0, 1, 2, 3], [4, 5, 6, 7]])
    lines = read_shape(path, "l", parse_axes("y,z,x"), notes)
    assert isinstance(lines, Polylines) and [list(x) for x in lines.lines] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert np.allclose(lines.points[:, 2], np.arange(9))
    assert any("1 of 9 points belong to no line" in line for line in notes.lines)


def test_damaged_and_foreign_shape_files_are_refused(tmp_path):
    whole = write_stl(tmp_path / "s.stl", *ball((1, 2, 3), 8)).read_bytes()
    (tmp_path / "cut.stl").write_bytes(whole[:-60])
    (tmp_path / "noise.vtk").write_bytes(bytes(range(256)))
    (tmp_path / "noise.vtp").write_text("<VTKFile><not closed")
    (tmp_path / "noise.ply").write_text("ply\nnonsense")
    (tmp_path / "model.step").write_text("x")
    for name in ("cut.stl", "noise.vtk", "noise.vtp", "noise.ply", "model.step", "absent.stl"):
        with pytest.raises(BadInput):
            read_shape(tmp_path / name, "s", None, Notes())


def test_meters_and_not_finite_are_refused(tmp_path):
    vertices, faces = ball((0.01, 0.02, 0.03), 0.008)
    with pytest.raises(BadInput, match="export it in mm"):
        read_shape(write_stl(tmp_path / "m.stl", vertices, faces), "s", None, Notes())
    vertices[0] = np.nan
    with pytest.raises(BadInput, match="non-finite"):
        read_shape(write_stl(tmp_path / "n.stl", vertices, faces), "s", None, Notes())
