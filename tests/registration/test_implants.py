# SPDX-License-Identifier: Apache-2.0
"""An implant's outline is found in a picture; its body is what the surface encloses."""

from __future__ import annotations

import numpy as np
import pytest

from registration.contours import Contours
from registration.errors import BadInput
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.implants import ImplantModel, implant_volume
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.shapes import Mesh

CARM = CArm.centered((400, 400), 0.4, 1100, 1000)


def sphere(radius: float, center: tuple[float, float, float] = (0, 0, 0), n: int = 40) -> Mesh:
    t, p = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n), indexing="ij")
    v = radius * np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], -1).reshape(-1, 3) + center
    i, j = np.meshgrid(np.arange(n - 1), np.arange(2 * n - 1), indexing="ij")
    a, b = (i * 2 * n + j).ravel(), ((i + 1) * 2 * n + j).ravel()
    return Mesh(v, np.concatenate([np.stack([a, b, a + 1], -1), np.stack([b, b + 1, a + 1], -1)]))


def block(low: tuple[float, ...], high: tuple[float, ...]) -> Mesh:
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return Mesh(corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]))


def joined(*parts: Mesh) -> Mesh:
    at = np.cumsum([0, *(len(p.vertices) for p in parts)])
    return Mesh(np.concatenate([p.vertices for p in parts]),
                np.concatenate([p.faces + a for p, a in zip(parts, at, strict=False)]))


def hook() -> Mesh:
    """A body without any symmetry: plate, peg, ball, all of other sizes and off center."""
    return joined(block((-25, -12, -4), (20, 14, 3)), block((5, -6, 3), (12, 2, 30)), sphere(9, (-18, 6, 8), n=14))


def shadow(mesh: Mesh, pose: np.ndarray, noise: float = 0.03, seed: int = 0) -> View:
    """A picture of metal that stops nearly all of the beam, drawn by testing every pixel's ray against
    every triangle; blurred as detectors blur, with a second piece of metal beside it."""
    from scipy import ndimage

    source, pixels = CARM.rays()
    back = Rigid.inverse(pose)
    origin = Rigid.apply(back, source)
    near = CARM.project_patient(pose, mesh.vertices)
    low, high = np.floor(near.min(0)).astype(int) - 1, np.ceil(near.max(0)).astype(int) + 2
    box = (slice(low[1], high[1]), slice(low[0], high[0]))  # no ray meets the mesh outside
    ways = Rigid.apply(back, pixels[box]).reshape(-1, 3) - origin
    hit = np.zeros(len(ways), bool)
    for a, b, c in mesh.vertices[mesh.faces]:
        e1, e2 = b - a, c - a  # Moeller, Trumbore 1997
        h = np.cross(ways, e2)
        det = h @ e1
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - a
            u = (h @ s) / det
            q = np.cross(s, e1)
            v = (ways @ q) / det
        hit |= (u >= 0) & (v >= 0) & (u + v <= 1)
    beam = np.ones(CARM.shape)
    beam[box][hit.reshape(beam[box].shape)] = 0.15
    beam[330:350, 120:330] *= 0.15
    beam = ndimage.gaussian_filter(beam, 1.0) * (1 - 0.2 * np.linspace(0, 1, CARM.shape[1]))
    beam = beam * (1 + np.random.default_rng(seed).normal(0, noise, CARM.shape))
    return View(-np.log(np.maximum(beam, 0.01)).astype(np.float32), np.ones(CARM.shape, np.float32), CARM)


TRUTH = carm_from_patient_at(20, 15, (0, 0, 0))


@pytest.fixture(scope="module")
def hook_view() -> View:
    return shadow(hook(), TRUTH)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_implant_is_found_from_ten_degrees_and_20_mm(hook_view: View, seed: int) -> None:
    rng = np.random.default_rng(seed)
    axis, way = rng.normal(size=(2, 3))
    off = Rigid.translation(*(way / np.linalg.norm(way) * 20)) @ Rigid.exp(
        np.r_[axis / np.linalg.norm(axis) * np.radians(10), 0, 0, 0])
    answer = ImplantModel(hook()).register(hook_view, [Start(off @ TRUTH, "file")], Settings())
    assert answer.outcome is Outcome.ACCEPTED, answer.why
    pose = answer.carm_from_patient
    assert pose is not None and answer.error is not None
    assert Rigid.angle_deg(pose @ Rigid.inverse(TRUTH)) < 1.0
    away = (pose @ Rigid.inverse(TRUTH))[:3, 3]
    assert np.hypot(away[0], away[1]) < 0.2  # a quarter of a pixel of 0.36 mm, and the drawn edge's own half pixel
    assert abs(away[2]) < answer.error.target_mm


def test_half_turn_of_a_round_tray_is_ambiguous() -> None:
    tray = joined(block((-25, -15, -2), (25, 15, 2)), block((-5, -5, 2), (5, 5, 25)))
    pose = carm_from_patient_at(0, 0, (0, 0, 0)) @ Rigid.exp(np.array([0.1, 0.0, 0.35, 0, 0, 0]))
    answer = ImplantModel(tray).register(shadow(tray, pose), [Start(pose, "file")], Settings())
    assert answer.outcome is Outcome.AMBIGUOUS
    assert answer.alternatives
    assert "second view" in answer.why


def test_an_implant_that_is_not_there_is_lost(hook_view: View) -> None:
    far = Rigid.translation(150, 150, 0) @ TRUTH
    assert ImplantModel(sphere(25)).register(hook_view, [Start(far, "file")], Settings()).outcome is Outcome.LOST
    flat = View(np.zeros(CARM.shape, np.float32), np.ones(CARM.shape, np.float32), CARM)
    assert ImplantModel(hook()).register(flat, [Start(TRUTH, "file")], Settings()).outcome is Outcome.LOST


def test_silhouette_of_a_sphere_is_its_shadow() -> None:
    pose = carm_from_patient_at(0, 0, (0, 0, 0))
    mask = Contours(sphere(30, n=80)).silhouette(CARM, pose)
    # tangent cone: radius at the detector = SDD tan(asin(r / SOD))
    radius = 1100 * np.tan(np.arcsin(30 / 1000)) / 0.4
    assert mask.sum() == pytest.approx(np.pi * radius**2, rel=0.005)  # facets cut 0.1 %, pixels the rest


def test_silhouette_needs_no_winding_and_no_closed_surface() -> None:
    mesh = sphere(30)
    rng = np.random.default_rng(0)
    faces = mesh.faces.copy()
    flipped = rng.random(len(faces)) < 0.5
    faces[flipped] = faces[flipped][:, ::-1]
    pose = carm_from_patient_at(30, 10, (0, 0, 0))
    whole = Contours(mesh).silhouette(CARM, pose)
    assert (Contours(Mesh(mesh.vertices, faces)).silhouette(CARM, pose) == whole).all()
    holed = Contours(Mesh(mesh.vertices, mesh.faces[::2])).silhouette(CARM, pose)
    assert not (holed & ~whole).any()


def test_outline_normals_point_out() -> None:
    outline = Contours(sphere(30)).outline(CARM, carm_from_patient_at(0, 0, (0, 0, 0)))
    away = outline.pixels - np.array(CARM.principal_px_u_v)
    assert outline.outer.sum() > 50
    assert ((outline.normals * away).sum(1)[outline.outer] > 0).all()


def test_body_has_the_volume_of_its_surface() -> None:
    body = implant_volume(sphere(10), 0.5, "titanium")
    assert body.data.max() == pytest.approx(0.33)
    filled = (body.data > 0).sum() * 0.5**3
    assert filled == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.02)  # facets cut 1 %
    at = np.argwhere(body.data > 0).mean(0)[::-1]
    np.testing.assert_allclose(body.patient_from_index[:3, :3] @ at + body.patient_from_index[:3, 3], 0, atol=0.1)


def test_body_survives_a_hole_and_flipped_triangles() -> None:
    mesh = sphere(10)
    middle = mesh.vertices[mesh.faces].mean(axis=1)
    open_top = Mesh(mesh.vertices, mesh.faces[middle[:, 2] < 9.5])
    whole, holed = implant_volume(mesh, 0.5), implant_volume(open_top, 0.5)
    full = (whole.data > 0).sum()
    assert abs(int((holed.data > 0).sum()) - int(full)) < 0.03 * full
    turned = Mesh(mesh.vertices, np.where((np.arange(len(mesh.faces)) % 3 == 0)[:, None],
                                          mesh.faces[:, ::-1], mesh.faces))
    assert (implant_volume(turned, 0.5).data == whole.data).all()


def test_unknown_material_and_voxel_sizes_are_refused() -> None:
    with pytest.raises(BadInput, match="implant material"):
        implant_volume(sphere(5), material="butter")
    for size in (0, -1, np.nan, 1e-4):
        with pytest.raises(BadInput, match="voxel size"):
            implant_volume(sphere(5), size)
