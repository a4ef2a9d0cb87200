# SPDX-License-Identifier: Apache-2.0
"""What does the wall of the arteries look like? A closed triangle mesh around the tree."""

from __future__ import annotations

import numpy as np

from models.patient.tree import ArterialTree, distance_to
from registration.geometry import Array, Float64
from registration.shapes import Mesh


def vessel_mesh(tree: ArterialTree, spacing_mm: float = 1.2) -> Mesh:
    """The lumen's surface: marching cubes over the union of all branches; closed, outward winding."""
    from scipy import ndimage
    from skimage.measure import marching_cubes

    points = np.concatenate([b.points for b in tree.branches])
    margin = max(float(b.radius.max()) for b in tree.branches) + 4 * spacing_mm
    low, high = points.min(0) - margin, points.max(0) + margin
    shape = [int(n) for n in np.ceil((high - low) / spacing_mm).astype(int) + 1][::-1]
    distance = distance_to(tree, low, spacing_mm, (shape[0], shape[1], shape[2]))
    distance = ndimage.gaussian_filter(distance, 0.45)  # rounds the creases where branches meet
    vertices, faces, _, _ = marching_cubes(distance, 0.0, spacing=(spacing_mm,) * 3)
    return Mesh(vertices[:, ::-1] + low, faces[:, ::-1] if _inward(vertices[:, ::-1], faces) else faces)


def _inward(vertices: Float64, faces: Array) -> bool:
    """Whether the faces enclose a negative volume."""
    a, b, c = (vertices[faces[:, n]] for n in range(3))
    return bool(np.einsum("ij,ij->", a, np.cross(b, c)) < 0)
