# SPDX-License-Identifier: Apache-2.0
"""Do the parts of a case fit each other? Extents, frames, centerline on surface; the target where none was given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fluoronav.case.dicom_series import Progress, Series
from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Float64, Volume
from registration.multimodal import MrMatch, match_mr
from registration.shapes import Mesh, Polylines

NEAR_MM = 2.0  # outside of the surface: what rounding, smoothing and open ends take away
MOST = 0.9  # of a centerline lies in its surface; a mirrored or turned one has far less


def check_inside(points: Float64, label: str, ct: Series | None, notes: Notes) -> None:
    """Refuse points (n, 3) that all lie outside of the CT; tell where some do."""
    if ct is None:
        return
    share = _share_inside(points, ct.volume)
    if share == 0:
        turned = _share_inside(points * [-1, -1, 1], ct.volume)
        hint = "these points taken as R, A, S would lie in it: --axes=-x,-y,z" if turned > MOST else \
            "check that it belongs to this CT, and its axes (--axes)"
        low, high = points.min(axis=0), points.max(axis=0)
        corners = ct.volume.corners_mm
        raise BadInput(f"place of {label}", got=f"{_box(low, high)}, wholly outside of the CT",
                       expected=f"inside {_box(corners.min(axis=0), corners.max(axis=0))}", remedy=hint)
    if share < 0.999:
        notes.warn(f"{label}: {1 - share:.1%} of its points lie outside of the CT")


def check_centerlines(name: str, lines: Polylines, surfaces: dict[str, Mesh], notes: Notes) -> None:
    """Refuse a centerline that does not lie in or near the surfaces given with it."""
    if not surfaces:
        return
    points = lines.points[np.unique(np.concatenate(lines.lines))]
    outside = np.min([signed_distance(mesh, points) for mesh in surfaces.values()], axis=0)
    share = float((outside < NEAR_MM).mean())
    if share < MOST:
        raise BadInput(f"centerline {name}", got=f"{share:.0%} of its points in or near the surface, the farthest "
                       f"{outside.max():.0f} mm away", expected=f"at least {MOST:.0%}",
                       remedy="give surface and centerline of the same vessels in the same axes")
    notes.derived(f"centerline {name}: {share:.0%} of its points lie in the surface or within {NEAR_MM:g} mm of it")


def signed_distance(mesh: Mesh, points: Float64) -> Float64:
    """Distance (n,) of points (n, 3) to a surface, mm, negative on the inner side."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

    distance = vtkImplicitPolyDataDistance()
    distance.SetInput(vtk_surface(mesh))
    out = numpy_to_vtk(np.zeros(len(points)), deep=True)
    distance.FunctionValue(numpy_to_vtk(np.ascontiguousarray(points, np.float64), deep=True), out)
    return vtk_to_numpy(out).copy()


def vtk_surface(mesh: Mesh):  # type: ignore[no-untyped-def]  # a vtkPolyData; VTK is imported late
    """The mesh as vtkPolyData."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    points, cells, out = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(mesh.vertices, deep=True))
    offsets = np.arange(0, 3 * len(mesh.faces) + 1, 3, dtype=np.int64)
    cells.SetData(numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(mesh.faces.ravel(), deep=True))
    out.SetPoints(points)
    out.SetPolys(cells)
    return out


def check_mr(mr: Series, ct: Series | None, notes: Notes) -> None:
    """Say in which frame an MR is; it is stored where its own header puts it."""
    low = float(mr.volume.data.min())
    if low < 0:
        notes.warn(f"MR: values down to {low:g}; a magnitude picture has none below 0. Is this a CT?")
    if ct is None:
        return
    if mr.frame_of_reference and mr.frame_of_reference == ct.frame_of_reference:
        notes.read("MR: in the same frame of reference as the CT")
    elif mr.frame_of_reference and ct.frame_of_reference:
        notes.warn("MR: in another frame of reference than the CT")
    else:
        notes.assumed("MR: in a frame of its own (no common frame of reference is stated)")
    share = _share_inside(mr.volume.corners_mm, ct.volume), _share_inside(ct.volume.corners_mm, mr.volume)
    middle = _share_inside(mr.volume.center_mm[None], ct.volume)
    if max(*share, middle) == 0:
        notes.warn("MR: does not overlap the CT where the headers put them")


def laid_onto_ct(mr: Series, ct: Series, notes: Notes, progress: Progress) -> MrMatch | None:
    """How an MR lies in the CT, by mutual information; None where both state one frame, or where it is too small."""
    if mr.frame_of_reference and mr.frame_of_reference == ct.frame_of_reference:
        return None
    try:
        match = match_mr(mr.volume, ct.volume, progress=progress)
    except BadInput as error:
        notes.warn(f"MR: not registered to the CT ({error}); kept where its own header puts it")
        return None
    if match.matched:
        notes.derived(f"MR: registered to the CT by mutual information ({match.why})")
    else:
        notes.warn(f"MR: does not match the CT ({match.why}); kept where its own header puts it")
    return match


def check_target(target: ArrayLike, ct: Series | None, notes: Notes) -> Float64:
    """A given target (3,), refused where it is no point or lies outside of the CT."""
    out = np.asarray(target, np.float64)
    if out.shape != (3,) or not np.isfinite(out).all():
        raise BadInput("--target", got=str(target), expected="three finite numbers: L, P, S mm", remedy="give X Y Z")
    if ct is not None and _share_inside(out[None], ct.volume) == 0:
        corners = ct.volume.corners_mm
        raise BadInput("--target", got=f"({out[0]:g}, {out[1]:g}, {out[2]:g}), outside of the CT",
                       expected=f"inside {_box(corners.min(axis=0), corners.max(axis=0))}",
                       remedy="give L, P, S in mm")
    notes.read(f"target: ({out[0]:.1f}, {out[1]:.1f}, {out[2]:.1f}) mm, as given")
    return out


def default_target(implant: Mesh | None, centerlines: dict[str, Polylines], surfaces: dict[str, Mesh],
                   volume: Volume | None, mr: Volume | None) -> tuple[Float64, str]:
    """The centroid of what is registered, and what that is."""
    if implant is not None:
        return implant.vertices.mean(axis=0), "centroid of the implant's vertices"
    if centerlines:
        points = [p.points[np.unique(np.concatenate(p.lines))] for p in centerlines.values()]
        return np.concatenate(points).mean(axis=0), "centroid of the centerlines"
    if surfaces:
        return np.concatenate([m.vertices for m in surfaces.values()]).mean(axis=0), "centroid of the surfaces"
    if volume is not None:
        return volume.center_mm, "center of the CT"
    assert mr is not None
    return mr.center_mm, "center of the MR"


def _share_inside(points: Float64, volume: Volume) -> float:
    index = (points - volume.patient_from_index[:3, 3]) @ np.linalg.inv(volume.patient_from_index[:3, :3]).T
    n = np.array(volume.data.shape[::-1])
    return float(((index >= -0.5) & (index <= n - 0.5)).all(axis=1).mean())


def _box(low: Float64, high: Float64) -> str:
    return " x ".join(f"{axis} {a:.0f}..{b:.0f}" for axis, a, b in zip("LPS", low, high, strict=True)) + " mm"
