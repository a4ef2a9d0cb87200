# SPDX-License-Identifier: Apache-2.0
"""C-arms and poses to look from: off-centre, stretched, cropped, binned; and little shapes to look at."""

from __future__ import annotations

import numpy as np

from registration.geometry import Array, Box, CArm, Float64, Rigid, carm_from_patient_at
from registration.shapes import Mesh

CARMS = {
    "centred": CArm.centered((200, 200), 1.0, 1000, 600),
    "wide": CArm((150, 260), (0.9, 0.9), 1200, 785, (129.5, 74.5)),
    "principal point beside the middle": CArm((220, 180), (1.0, 1.0), 1100, 720, (31.3, 170.8)),
    "principal point outside": CArm((200, 200), (0.6, 0.6), 1000, 700, (-35.25, 228.6)),
    "pixels not square": CArm((160, 300), (1.4, 0.7), 1050, 640, (140.2, 90.9)),
    "cropped": CArm((480, 640), (0.4, 0.5), 1100, 720, (300.25, 250.5)).cropped(Box((101, 203), (300, 470))),
    "binned": CArm((481, 643), (0.4, 0.3), 1100, 720, (300.25, 250.5)).binned(3),
    "odd": CArm((171, 133), (1.1, 1.3), 900, 600, (60.4, 90.1)),
}


def poses(n: int, seed: int = 0) -> list[Float64]:
    """Gantry angles all around, with the isocenter off the patient's origin and a tilt beside."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        a, b = rng.uniform(-180, 180), rng.uniform(-60, 60)
        tilt = Rigid.exp(np.concatenate([rng.uniform(-0.4, 0.4, 3), rng.uniform(-20, 20, 3)]))
        out.append(tilt @ carm_from_patient_at(a, b, rng.uniform(-300, 300, 3)))
    return out


def points_in_view(carm: CArm, pose: Float64, n: int, rng: np.random.Generator, margin_px: float = 8) -> Float64:
    """Points (n, 3), patient frame, all over the picture and through the depth of a body."""
    u = rng.uniform(margin_px, carm.shape[1] - 1 - margin_px, n)
    v = rng.uniform(margin_px, carm.shape[0] - 1 - margin_px, n)
    far = carm.sod_mm - rng.uniform(-0.3, 0.3, n) * carm.sod_mm
    ends = carm.detector_points(np.stack([u, v], -1))
    inside = carm.source + (ends - carm.source) * (far / carm.sdd_mm)[:, None]
    return Rigid.apply(Rigid.inverse(pose), inside)


def sphere(center: Float64, radius_mm: float, rings: int = 10) -> Mesh:
    """A ball of triangles, wound outwards."""
    theta = np.linspace(0, np.pi, rings + 1)
    phi = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    vertices = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings), np.arange(2 * rings), indexing="ij")
    a, b = i * 2 * rings + j, i * 2 * rings + (j + 1) % (2 * rings)
    c, d = a + 2 * rings, b + 2 * rings
    faces = np.concatenate([np.stack([a, c, d], -1).reshape(-1, 3), np.stack([a, d, b], -1).reshape(-1, 3)])
    return Mesh(center + radius_mm * vertices, faces)


def plate(center: Float64, across: Float64, down: Float64) -> Mesh:
    """A flat rectangle between center +- across +- down."""
    corners = np.array([center - across - down, center + across - down, center + across + down, center - across + down])
    return Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]))


def joined(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    return Mesh(np.concatenate([m.vertices for m in meshes]),
                np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=False)]))


def centroid(rgba: Array) -> Float64:
    """Mean pixel (u, v) of a picture, by its alpha."""
    alpha = rgba[:, :, 3].astype(float)
    v, u = np.mgrid[: alpha.shape[0], : alpha.shape[1]]
    return np.array([(u * alpha).sum(), (v * alpha).sum()]) / alpha.sum()
