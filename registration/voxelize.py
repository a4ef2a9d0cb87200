# SPDX-License-Identifier: Apache-2.0
"""How does a surface become a body? Voxels inside a mesh, and their attenuation."""

from __future__ import annotations

import numpy as np

from registration.contours import welded
from registration.errors import BadInput
from registration.geometry import Array, Float64, Volume
from registration.shapes import Mesh

# Linear attenuation at 60 keV, 1/mm. Source: NIST XCOM mu/rho with the alloys' densities
# (Co-28Cr-6Mo 8.3 g/cm3, Ti-6Al-4V 4.43, 316L 7.9, UHMWPE 0.94; contrast: 150 mg of iodine per ml of water).
MATERIALS_PER_MM = {"cobalt-chrome": 0.90, "titanium": 0.33, "steel": 0.92, "polyethylene": 0.0186, "contrast": 0.13}
MOST_VOXELS = 200_000_000


def implant_volume(mesh: Mesh, spacing_mm: float = 0.5, material: str = "cobalt-chrome") -> Volume:
    """The attenuation (1/mm) of a mesh filled with a material, on voxels of a size, axes as the patient's.

    A voxel is inside where two of three axes say so by the number of surfaces crossed on the way to it:
    a hole or a flipped triangle misleads rays of one axis, seldom of two. Raises BadInput.
    """
    if material not in MATERIALS_PER_MM:
        raise BadInput("implant material", got=material, expected=", ".join(MATERIALS_PER_MM), remedy="choose one")
    if not (np.isfinite(spacing_mm) and spacing_mm > 0):
        raise BadInput("voxel size", got=spacing_mm, expected="a number above 0 mm", remedy="give mm, such as 0.5")
    vertices, faces = welded(mesh)
    low = vertices.min(axis=0) - 1.5 * spacing_mm
    shape = np.ceil((vertices.max(axis=0) - low) / spacing_mm + 1.5).astype(int)
    if int(np.prod(shape.astype(np.int64))) > MOST_VOXELS:
        raise BadInput("voxel size", got=f"{spacing_mm} mm, {shape.tolist()} voxels",
                       expected=f"at most {MOST_VOXELS:,} voxels", remedy="take larger voxels")
    # half a voxel off any round number, so that rays do not run along edges of CAD meshes
    triangles = ((vertices - low) / spacing_mm + 1e-4 * np.pi)[faces]
    votes = np.zeros(tuple(shape), np.uint8)
    for axis in range(3):
        votes += inside_along(triangles, tuple(int(n) for n in shape), axis)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = low
    data = (votes >= 2).transpose(2, 1, 0).astype(np.float32) * MATERIALS_PER_MM[material]
    return Volume(data, affine)


def inside_along(triangles: Float64, shape: tuple[int, ...], axis: int) -> Array:
    """Voxels (i, j, k) with an odd number of surfaces below them along an axis; uint8 0 or 1.

    triangles (m, 3, 3) in voxel units, voxel centers at integers.
    """
    other = [k for k in range(3) if k != axis]
    flat, height = triangles[:, :, other], triangles[:, :, axis]
    first = np.ceil(flat.min(axis=1)).astype(int)
    count = np.maximum(np.floor(flat.max(axis=1)).astype(int) - first + 1, 0)
    number = count[:, 0] * count[:, 1]
    at = np.repeat(np.arange(len(flat)), number)
    k = np.arange(len(at)) - np.repeat(np.cumsum(number) - number, number)
    width = np.maximum(count[at, 1], 1)
    ij = first[at] + np.stack([k // width, k % width], -1)
    a, b, c = (flat[at, n] for n in range(3))
    area = _cross(b - a, c - a)
    w1, w2 = _cross(ij - a, c - a), _cross(b - a, ij - a)
    edge_on = area == 0
    w1, w2 = (np.where(edge_on, -1.0, w / np.where(edge_on, 1.0, area)) for w in (w1, w2))
    hit = (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1)
    hit &= ((ij >= 0) & (ij < np.array(shape)[other])).all(axis=1)
    at, ij, w1, w2 = at[hit], ij[hit], w1[hit], w2[hit]
    z = height[at, 0] + w1 * (height[at, 1] - height[at, 0]) + w2 * (height[at, 2] - height[at, 0])
    steps = np.zeros((shape[other[0]], shape[other[1]], shape[axis] + 1), np.int32)
    np.add.at(steps, (ij[:, 0], ij[:, 1], np.clip(np.ceil(z), 0, shape[axis]).astype(int)), 1)
    odd = (np.cumsum(steps, axis=2)[:, :, :-1] & 1).astype(np.uint8)
    return np.asarray(np.moveaxis(odd, 2, axis))


def _cross(a: Float64, b: Float64) -> Float64:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
