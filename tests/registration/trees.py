# SPDX-License-Identifier: Apache-2.0
"""Vessel trees with known truth, drawn without any code of the product's registration: chords of tubes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree

from registration.geometry import CArm
from registration.model import View
from registration.shapes import Polylines


def tree(seed: int, branches: int = 6, size_mm: float = 45.0, flat: bool = False) -> Polylines:
    """A random tree: smooth branches that leave each other at random places, radius 1 to 2.5 mm."""
    rng = np.random.default_rng(seed)
    lines, points, radius = [], [], []
    for b in range(branches):
        if b == 0:
            start, way, length, wide = np.zeros(3), rng.normal(size=3), 2.0 * size_mm, 2.5
        else:
            parent = points[rng.integers(len(points))]
            start, way = parent[rng.integers(len(parent) // 4, len(parent))], rng.normal(size=3)
            length, wide = size_mm * rng.uniform(0.7, 1.5), rng.uniform(1.0, 2.0)
        way = way / np.linalg.norm(way)
        bend = rng.normal(size=3) * 0.02
        here, branch = start, [start]
        for _ in range(int(length)):
            way = way + np.cross(way, bend)
            way = way / np.linalg.norm(way)
            here = here + way
            branch.append(here)
        points.append(np.array(branch))
        radius.append(np.full(len(branch), wide))
    if flat:
        points = [p * [1, 1, 0.02] for p in points]
    at = np.cumsum([0, *(len(p) for p in points)])
    lines = tuple(np.arange(a, b) for a, b in pairwise(at))
    all_points = np.concatenate(points)
    return Polylines(all_points - all_points.mean(0), lines, np.concatenate(radius))


def picture(lines: Polylines, carm: CArm, pose: np.ndarray, *, noise: float = 0.02, seed: int = 0,
            empty: tuple[int, ...] = (), density: float = 0.15) -> View:
    """A picture of the tree filled with contrast (but for the branches `empty`) over a sloping background."""
    rng = np.random.default_rng(seed)
    rows, cols = carm.shape
    v, u = np.mgrid[:rows, :cols]
    image = 1.0 + 0.4 * np.sin(u / cols * 2) + 0.3 * (v / rows) ** 2
    assert lines.radius_mm is not None
    for k, line in enumerate(lines.lines):
        if k in empty:
            continue
        p = lines.points[line]
        dense = np.concatenate([a + (b - a) * t for a, b in pairwise(p) for t in (np.zeros(1), np.full(1, 0.5))])
        dense = dense.reshape(-1, 3)
        x = dense @ pose[:3, :3].T + pose[:3, 3]
        scale = carm.sdd_mm / (carm.sod_mm - x[:, 2])
        pitch = carm.pitch_mm_row_col[0]
        uv = np.stack([carm.principal_px_u_v[0] + x[:, 0] * scale / pitch,
                       carm.principal_px_u_v[1] + x[:, 1] * scale / pitch], -1)
        radius = lines.radius_mm[line][0]
        far, near = cKDTree(uv).query(np.stack([u.ravel(), v.ravel()], -1), distance_upper_bound=40)
        hit = np.isfinite(far)
        mm = far[hit] * pitch / scale[near[hit]]
        chord = 2 * np.sqrt(np.maximum(radius**2 - mm**2, 0))
        image.ravel()[hit] += density * chord
    image = image + rng.normal(0, noise, image.shape)
    return View(image.astype(np.float32), np.ones(carm.shape, np.float32), carm)
