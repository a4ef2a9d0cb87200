# SPDX-License-Identifier: Apache-2.0
"""What is drawn lies where it belongs, is not mirrored, and hides what is behind it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from overlay_views import CARMS, centroid, joined, plate, points_in_view, poses, sphere

from overlays import Layer, Renderer, Scene, scene_of
from registration.geometry import CArm, Float64, Rigid, carm_from_patient_at
from registration.shapes import Mesh

VECTORS = Path(__file__).parents[1] / "registration" / "geometry_vectors.json"
BOUND_PX = 0.25  # the promise of the overlay
BALL_MM = 2.0  # a ball's picture is centered on its center's within r^2 tan(angle) / distance: 0.01 px here


def _shaded(mesh: Mesh) -> Scene:
    return Scene((Layer("vessels", "vessels", "#35d6f2", 1.0, True, mesh, "shaded", "made for the test"),))


def _balls(points: Float64) -> Scene:
    return Scene(tuple(Layer(f"ball {k}", "", "#ffffff", 1, True, sphere(p, BALL_MM), "shaded", "made for the test")
                       for k, p in enumerate(points)))


def _dots(points: Float64) -> Scene:
    return Scene(tuple(Layer(f"dot {k}", "", "#ffffff", 1, True, p, "dots", "made for the test")
                       for k, p in enumerate(points)))


def _worst_px(scene: Scene, method: str, carm: CArm, pose: Float64, points: Float64) -> float:
    renderer = Renderer(scene, method)  # type: ignore[arg-type]
    layers = renderer.draw(carm, pose).layers
    renderer.close()
    found = np.array([centroid(layers[layer.name]) for layer in scene.layers])
    return float(np.linalg.norm(found - carm.project_patient(pose, points), axis=1).max())


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("name", CARMS)
def test_balls_drawn_by_vtk_lie_within_a_quarter_pixel_of_points_projected_by_hand(name: str) -> None:
    carm, rng = CARMS[name], np.random.default_rng(len(name))
    for k, pose in enumerate(poses(6, seed=len(name))):
        points = points_in_view(carm, pose, 5, rng, margin_px=18)  # whole balls
        assert _worst_px(_balls(points), "vtk", carm, pose, points) <= BOUND_PX, (name, k)


@pytest.mark.parametrize("method", ["vtk", "lines"])
@pytest.mark.parametrize("name", CARMS)
def test_landmarks_lie_within_a_quarter_pixel(name: str, method: str, opengl: None) -> None:
    carm, rng = CARMS[name], np.random.default_rng(7)
    for pose in poses(3, seed=2):
        points = points_in_view(carm, pose, 6, rng)
        assert _worst_px(_dots(points), method, carm, pose, points) <= BOUND_PX


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("method", ["vtk", "lines"])
def test_landmarks_meet_vectors_made_apart_from_this_code(method: str) -> None:
    met = 0
    for case in json.loads(VECTORS.read_text())["cases"]:
        carm = CArm(tuple(case["shape_rows_cols"]), tuple(case["pitch_mm_row_col"]), case["sdd_mm"], case["sod_mm"],
                    tuple(case["principal_px_u_v"]))
        pixels = np.array(case["pixels_u_v"])
        inside = ((pixels > 12) & (pixels < np.array(carm.shape[::-1]) - 13)).all(axis=1)
        points = np.array(case["points_patient_mm"])[inside]
        layers = Renderer(_dots(points), method).draw(carm, np.array(case["carm_from_patient"])).layers  # type: ignore[arg-type]
        for rgba, expected in zip(layers.values(), pixels[inside], strict=True):
            assert np.linalg.norm(centroid(rgba) - expected) <= BOUND_PX
            met += 1
    assert met >= 20


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("style", ["line", "device"])
def test_lines_run_where_they_belong(style: str) -> None:
    from registration.shapes import Polylines

    carm, pose = CARMS["pixels not square"], poses(1, seed=3)[0]
    ends = points_in_view(carm, pose, 2, np.random.default_rng(5), margin_px=30)
    scene = Scene((Layer("path", "", "#ffb52e", 1, True, Polylines(ends, (np.array([0, 1]),)), style, "planned"),))  # type: ignore[arg-type]
    (p, q) = carm.project_patient(pose, ends)
    normal = np.array([q[1] - p[1], p[0] - q[0]]) / np.linalg.norm(q - p)
    for method in ("vtk", "lines"):
        rgba = Renderer(scene, method).draw(carm, pose).layers["path"]  # type: ignore[arg-type]
        v, u = np.nonzero(rgba[:, :, 3] > 0)
        weight = rgba[v, u, 3].astype(float)
        aside = (np.stack([u, v], -1) - p) @ normal
        assert abs((aside * weight).sum() / weight.sum()) <= BOUND_PX
        assert np.abs(aside).max() < 6


@pytest.mark.usefixtures("opengl")
def test_lines_of_vtk_are_whole_and_look_like_plain_ones() -> None:
    from registration.shapes import Polylines

    for carm in (CARMS["centred"], CArm.centered((600, 600), 0.4, 1000, 600)):
        pose = poses(1, seed=3)[0]
        rng = np.random.default_rng(5)
        ends = points_in_view(carm, pose, 6, rng, margin_px=30)
        curve = np.concatenate([a + (b - a) * np.linspace(0, 1, 60)[:, None] for a, b in pairwise(ends)])
        line = Polylines(curve, (np.arange(len(curve)),))
        scene = scene_of(centerlines={"a": line}, device=line, landmarks_mm=ends, target_mm=ends[0])
        vtk, lines = (Renderer(scene, m).draw(carm, pose).layers for m in ("vtk", "lines"))  # type: ignore[arg-type]
        for name, rgba in vtk.items():
            expected = lines[name].astype(float)
            apart = np.abs(rgba - expected)
            assert apart[..., 3].sum() < 0.005 * expected[..., 3].sum(), name  # roundings, and the tip of the device
            full = expected[..., 3] == 255  # the core: no gaps, no casing across it
            assert np.quantile(apart[full], 0.995) <= 2, name


@pytest.mark.parametrize("method", ["vtk", "lines"])
def test_the_cross_of_a_target_is_centered_on_it(method: str, opengl: None) -> None:
    for name, carm in CARMS.items():
        pose = poses(1, seed=len(name))[0]
        point = points_in_view(carm, pose, 1, np.random.default_rng(3), margin_px=25)
        scene = Scene((Layer("target", "target", "#ff4df0", 1, True, point, "target", "planned"),))
        assert _worst_px(scene, method, carm, pose, point) <= BOUND_PX


def _letter() -> Float64:
    """An F in the patient's frontal plane as somebody facing the patient reads it: up is the head (+S), the
    reader's right is the patient's left (+L)."""
    cells = [(0, k) for k in range(7)] + [(1, 6), (2, 6), (3, 6), (1, 3), (2, 3)]
    return np.array([[10.0 * x - 15, 0, 10.0 * y - 30] for x, y in cells])


@pytest.mark.usefixtures("opengl")
def test_a_letter_is_not_mirrored() -> None:
    carm = CARMS["centred"]
    frontal = carm_from_patient_at(0, 0, [0, 0, 0])
    letter = joined([sphere(p, 4.0) for p in _letter()])
    seen = Renderer(_shaded(letter), "vtk").draw(carm, frontal).layers["vessels"][:, :, 3] > 60
    rows, cols = np.nonzero(seen)
    stem = np.median(cols)  # most of an F is its stem, on the left; its bars reach to the right and up
    assert cols.max() - stem > 2 * (stem - cols.min())
    middle = (rows.min() + rows.max()) / 2
    assert (rows < middle).sum() > 1.2 * (rows > middle).sum()
    v, u = np.mgrid[: carm.shape[0], : carm.shape[1]]
    balls = carm.project_patient(frontal, _letter())
    by_hand = (np.hypot(u[..., None] - balls[:, 0], v[..., None] - balls[:, 1]) < 4.0 * 1000 / 600).any(axis=-1)
    assert (seen & by_hand).sum() > 0.9 * (seen | by_hand).sum()
    assert (seen[:, ::-1] & by_hand).sum() < 0.5 * (seen[:, ::-1] | by_hand).sum()


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("steep_in_front", [True, False])
@pytest.mark.parametrize("inside_out", [True, False])
def test_what_is_nearer_to_the_detector_hides_the_rest(steep_in_front: bool, inside_out: bool) -> None:
    # a wall seen steeply is denser than one seen flat: that tells which of the two is in front
    carm, pose = CARMS["centred"], poses(1, seed=8)[0]
    flat_z, steep_z = (40.0, -40.0) if steep_in_front else (-40.0, 40.0)  # +z is towards the source: behind
    parts = [plate(np.array([0, 0, flat_z]), np.array([20.0, 0, 0]), np.array([0, 20.0, 0])),
             plate(np.array([0, 0, steep_z]), np.array([5.0, 0, 20.0]), np.array([0, 20.0, 0]))]
    for order in (parts, parts[::-1]):
        mesh = joined(order)
        faces = mesh.faces[:, ::-1] if inside_out else mesh.faces
        in_patient = Mesh(Rigid.apply(Rigid.inverse(pose), mesh.vertices), faces)
        rgba = Renderer(_shaded(in_patient), "vtk").draw(carm, pose).layers["vessels"]
        middle = int(rgba[100, 100, 3])
        assert (middle > 220) if steep_in_front else (middle < 140)


@pytest.mark.usefixtures("opengl")
def test_a_solid_looks_the_same_however_its_triangles_are_turned() -> None:
    carm, pose = CARMS["wide"], poses(1, seed=5)[0]
    center = points_in_view(carm, pose, 1, np.random.default_rng(2), margin_px=50)[0]
    ball = sphere(center, 12.0)
    mixed = ball.faces.copy()
    mixed[::2] = mixed[::2, ::-1]
    drawn = [Renderer(_shaded(Mesh(ball.vertices, f)), "vtk").draw(carm, pose).layers["vessels"].astype(int)
             for f in (ball.faces, ball.faces[:, ::-1], mixed)]
    for other in drawn[1:]:
        assert np.abs(other - drawn[0]).max() <= 24  # corners' normals are summed in another order
        assert np.abs(other - drawn[0]).mean() < 0.05


@pytest.mark.usefixtures("opengl")
def test_light_comes_from_the_upper_left_at_every_pose() -> None:
    carm = CARMS["principal point outside"]
    for pose in poses(4, seed=4):
        center = points_in_view(carm, pose, 1, np.random.default_rng(2), margin_px=60)[0]
        rgba = Renderer(_shaded(sphere(center, 15.0, rings=24)), "vtk").draw(carm, pose).layers["vessels"].astype(float)
        bright = rgba[:, :, 1] / np.maximum(rgba[:, :, 3], 1)
        v, u = np.mgrid[: carm.shape[0], : carm.shape[1]]
        core = (rgba[:, :, 3] > 0) & (rgba[:, :, 3] < 136)  # the middle, where the rim does not darken
        best = core & (bright > np.quantile(bright[core], 0.9))
        u0, v0 = carm.project_patient(pose, center)
        assert u[best].mean() < u0 - 2 and v[best].mean() < v0 - 2


@pytest.mark.usefixtures("opengl")
def test_outlines_of_both_methods_lie_on_each_other() -> None:
    carm, pose = CARMS["cropped"], poses(1, seed=6)[0]
    center = points_in_view(carm, pose, 1, np.random.default_rng(2), margin_px=60)[0]
    scene = Scene((Layer("implant", "", "#9fd0ff", 1, True, sphere(center, 6.0, rings=24), "outline", "test"),))
    drawn = [Renderer(scene, m).draw(carm, pose).layers["implant"] for m in ("vtk", "lines")]  # type: ignore[arg-type]
    for rgba in drawn:
        assert np.linalg.norm(centroid(rgba) - carm.project_patient(pose, center)) <= BOUND_PX
    a, b = (r[:, :, 3].astype(float) for r in drawn)
    assert np.abs(a - b).sum() < 0.35 * a.sum()  # stairs of whole pixels against their smooth border
    assert a[round(carm.project_patient(pose, center)[1]), round(carm.project_patient(pose, center)[0])] == 0


@pytest.mark.usefixtures("opengl")
def test_what_is_outside_or_behind_the_source_leaves_the_picture_clear() -> None:
    carm, pose = CARMS["centred"], np.eye(4)
    scene = _balls(np.array([[0, 0, 640.0], [900.0, 0, 0], [0, -900.0, 50.0]]))
    assert all(not rgba.any() for rgba in Renderer(scene, "vtk").draw(carm, pose).layers.values())
    assert all(not rgba.any() for rgba in Renderer(scene, "lines").draw(carm, pose).layers.values())
