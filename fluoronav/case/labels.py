# SPDX-License-Identifier: Apache-2.0
"""Which vessels does a label volume hold? A surface and a centerline for each label, in the patient frame.

The label's voxels are first put into the patient's axis order, so that a file with flipped axes and the
affine that says so gives the very same vessels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from fluoronav.case.centerline import centerline_of, without_tunnels
from fluoronav.case.fit import vtk_surface
from fluoronav.case.shape_files import outward
from fluoronav.case.volumes import Grid, read_grid
from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Array, Float64
from registration.shapes import Mesh, Polylines
from registration.voxelize import implant_volume

LABELS_MAX = 64  # more values than that are grey levels, not labels
ISLAND_VOXELS = 8  # islands of fewer voxels are noise of the segmentation
CELLS_MAX = 64_000_000  # voxels of the isotropic grid that the centerline is found on
FACES_MAX = 300_000
STREAK = 0.01  # of the largest part: smaller ones are rows of voxels behind an open end
EDGE_MIN_MM, SURFACE_CELLS_MAX = 0.3, 16_000_000  # of the voxels inside a surface
# vtkWindowedSincPolyDataFilter (Taubin, Zhang, Golub 1996): takes the voxel steps away without shrinking
SMOOTH_STEPS, PASS_BAND = 25, 0.05


@dataclass(frozen=True, slots=True)
class Tree:
    """Vessels of one label: suffix for their name, surface, centerline with radius (None where too small)."""

    suffix: str
    surface: Mesh
    centerline: Polylines | None


def read_labels(path: Path, label: str, notes: Notes) -> list[Tree]:
    """The vessels of a label volume (NIfTI, NRRD, MHA), one tree for each of its values. Raises BadInput."""
    grid = canonical(read_grid(path, label, notes))
    values = _values(grid.data, label)
    out = []
    for value in values:
        suffix = "" if len(values) == 1 else f" {int(value)}"
        out.append(_tree(Grid(grid.data == value, grid.patient_from_index), suffix, f"{label}{suffix}", notes))
    return out


def centerline_of_surface(mesh: Mesh, label: str, notes: Notes) -> Polylines | None:
    """The centerline of a vessel surface, with radius, through the voxels inside of it; None where it has none.

    The voxels are a quarter of the mean radius, 2 volume / area; open tube ends are no obstacle.
    """
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2
    middle = mesh.vertices.mean(axis=0)
    content = abs(float(np.einsum("ij,ij->i", a - middle, np.cross(b - middle, c - middle)).sum())) / 6
    box = float(np.prod(np.ptp(mesh.vertices, axis=0)))
    edge = max(min(2 * content / area / 4, 1.0), EDGE_MIN_MM, (box / SURFACE_CELLS_MAX) ** (1 / 3))
    body = implant_volume(mesh, edge, "contrast")
    mask = np.pad(ndimage.binary_fill_holes(body.data > body.data.max() / 2), 1)
    affine = body.patient_from_index @ _shift(-1)
    numbered, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    mask, _, loops = without_tunnels((sizes >= STREAK * sizes.max())[numbered])
    lines = centerline_of(mask, affine, edge)
    if lines is None or lines.radius_mm is None:
        return None
    notes.derived(f"{label}: centerline of {len(lines.lines)} branches, {lines.length_mm:.0f} mm, radius "
                  f"{lines.radius_mm.min():.1f} to {lines.radius_mm.max():.1f} mm (no centerline was given: paths "
                  f"through the middle of the surface, on voxels of {edge:.2g} mm)")
    if loops:
        notes.warn(f"{label}: {loops} loop(s) of the surface are opened: vessels that touch, or holes")
    return lines


def canonical(grid: Grid) -> Grid:
    """The same voxels with index axes that run along +L, +P and +S as nearly as they can."""
    affine = grid.patient_from_index
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = _nearest_axes(axes)
    data = np.transpose(grid.data, [2 - order[2 - k] for k in range(3)])  # data is [k, j, i]
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = affine[:3, list(order)], affine[:3, 3]
    for axis in range(3):
        if turned[axis, axis] < 0:
            n = data.shape[2 - axis]
            turned[:3, 3] += turned[:3, axis] * (n - 1)
            turned[:3, axis] *= -1
            data = np.flip(data, 2 - axis)
    return Grid(np.ascontiguousarray(data), turned)


def surface_of(mask: Array, patient_from_index: Float64) -> Mesh:
    """The smooth surface of a mask [k, j, i], outward, in the patient frame, mm."""
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, allow_degenerate=False)
    points = (vertices[:, ::-1] - 1) @ patient_from_index[:3, :3].T + patient_from_index[:3, 3]
    return outward(_smoothed(Mesh(points, faces)))[0]


def _nearest_axes(axes: Float64) -> tuple[int, ...]:
    """For each patient axis the index axis that runs along it, as a permutation."""
    from itertools import permutations

    return max(permutations(range(3)), key=lambda p: sum(abs(axes[k, p[k]]) for k in range(3)))


def _values(data: Array, label: str) -> Array:
    if data.dtype.kind == "f" and not np.array_equal(data, np.round(data)):
        raise BadInput(f"{label}", got="values that are not whole numbers", expected="a label volume",
                       remedy="threshold it into labels first")
    values = np.unique(data)
    values = values[values != 0]
    if not len(values):
        raise BadInput(label, got="an empty label volume", expected="voxels that are not 0", remedy="check the file")
    if len(values) > LABELS_MAX or values.min() < 0:
        raise BadInput(label, got=f"{len(values)} different values from {values.min()} to {values.max()}",
                       expected=f"a label volume of at most {LABELS_MAX} labels", remedy="give labels, not an image")
    return values


def _tree(grid: Grid, suffix: str, label: str, notes: Notes) -> Tree:
    mask, affine = _cropped(grid)
    mask = _tidied(mask, label, notes)
    surface = surface_of(mask, affine)
    isotropic, iso_affine, spacing = _isotropic(mask, affine)
    isotropic, closed, loops = without_tunnels(isotropic)
    lines = centerline_of(isotropic, iso_affine, spacing)
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    notes.read(f"{label}: label of {int(mask.sum())} voxels of {voxel[0]:.3g} x {voxel[1]:.3g} x {voxel[2]:.3g} mm")
    notes.derived(f"{label}: surface of {len(surface.faces)} triangles (marching cubes, smoothed without shrinking)")
    if lines is None:
        notes.warn(f"{label}: too small or too round for a centerline")
        return Tree(suffix, surface, None)
    assert lines.radius_mm is not None
    if closed:
        notes.derived(f"{label}: {closed} thin holes through the label closed for its centerline")
    notes.derived(f"{label}: centerline of {len(lines.lines)} branches, {lines.length_mm:.0f} mm, radius "
                  f"{lines.radius_mm.min():.1f} to {lines.radius_mm.max():.1f} mm (paths through the middle)")
    if loops:
        notes.warn(f"{label}: {loops} loop(s) of the label are opened: vessels that touch, or wide holes through it")
    return Tree(suffix, surface, lines)


def _cropped(grid: Grid) -> tuple[Array, Float64]:
    """The mask's own box, and its affine."""
    box = ndimage.find_objects(grid.data.astype(np.uint8))[0]
    affine = grid.patient_from_index.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in box[::-1]]
    return grid.data[box], affine


def _tidied(mask: Array, label: str, notes: Notes) -> Array:
    """The mask without cavities and without islands of a few voxels, and told."""
    filled = ndimage.binary_fill_holes(mask)
    numbered, count = ndimage.label(filled, np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    keep = sizes >= min(ISLAND_VOXELS, sizes[1:].max())
    keep[0] = False
    out = keep[numbered]
    if int(filled.sum() - mask.sum()):
        notes.derived(f"{label}: {int(filled.sum() - mask.sum())} voxels of closed cavities filled")
    if int((~keep[1:]).sum()):
        notes.derived(f"{label}: {int((~keep[1:]).sum())} islands of fewer than {ISLAND_VOXELS} voxels left out")
    if int(keep.sum()) > 1:
        notes.read(f"{label}: {int(keep.sum())} parts that do not touch")
    return out


def _isotropic(mask: Array, affine: Float64) -> tuple[Array, Float64, float]:
    """The mask on cubes of its smallest voxel edge (larger where that would not fit in memory), and their size."""
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    size = np.array(mask.shape[::-1]) * voxel
    edge = max(float(voxel.min()), float((np.prod(size) / CELLS_MAX) ** (1 / 3)))
    padded = np.pad(mask, 1)
    shifted = affine.copy()
    shifted[:3, 3] -= affine[:3, :3].sum(axis=1)
    if np.allclose(voxel, edge, rtol=1e-3):
        return padded, shifted, edge
    # the signed distance is linear across the border, so that interpolation keeps the border where it was
    sampling = tuple(voxel[::-1])
    signed = ndimage.distance_transform_edt(padded, sampling) - ndimage.distance_transform_edt(~padded, sampling)
    ratio = edge / voxel
    shape = np.floor((np.array(padded.shape[::-1]) - 1) / ratio).astype(int) + 1
    out = ndimage.affine_transform(signed.astype(np.float32), ratio[::-1], output_shape=tuple(shape[::-1]), order=1,
                                   mode="constant", cval=-1) > 0
    scaled = shifted.copy()
    scaled[:3, :3] = shifted[:3, :3] * ratio
    return np.pad(out, 1), scaled @ _shift(-1), edge


def _shift(n: float) -> Float64:
    out = np.eye(4)
    out[:3, 3] = n
    return out


def _smoothed(mesh: Mesh) -> Mesh:
    """Voxel steps taken away by a low pass, and thinned where there are too many triangles."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkQuadricDecimation, vtkWindowedSincPolyDataFilter

    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputData(vtk_surface(mesh))
    smooth.SetNumberOfIterations(SMOOTH_STEPS)
    smooth.SetPassBand(PASS_BAND)
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    smooth.Update()
    out = smooth.GetOutput()
    if len(mesh.faces) > FACES_MAX:
        fewer = vtkQuadricDecimation()
        fewer.SetInputData(out)
        fewer.SetTargetReduction(1 - FACES_MAX / len(mesh.faces))
        fewer.VolumePreservationOn()
        fewer.Update()
        out = fewer.GetOutput()
    faces = vtk_to_numpy(out.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return Mesh(vtk_to_numpy(out.GetPoints().GetData()).astype(np.float64), faces)
