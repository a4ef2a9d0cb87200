# SPDX-License-Identifier: Apache-2.0
"""Which surface or lines are in a file, and in which axes? STL, PLY, VTP and VTK, read by VTK, checked here."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Array, Float64
from registration.shapes import Mesh, Polylines

SUFFIXES = (".stl", ".ply", ".vtp", ".vtk", ".vtu", ".obj")
SMALLEST_MM, LARGEST_MM = 1.0, 3000.0  # extents of anything in a patient; outside them the unit is not mm
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
RADIUS_NAMES = ("radius", "maximuminscribedsphereradius", "radius_mm", "radii")


def is_shape_file(path: Path) -> bool:
    """Whether the name is that of a surface or line file."""
    return path.name.lower().endswith(SUFFIXES)


def parse_axes(axes: str) -> Float64:
    """patient_from_file (3, 3) of a text such as `-z,y,x`: L = -z, P = y, S = x. Raises BadInput."""
    parts = [part.strip().lower() for part in axes.split(",")]
    if len(parts) != 3 or not all(re.fullmatch(r"[+-]?[xyz]", part) for part in parts) or \
            {part[-1] for part in parts} != set("xyz"):
        raise BadInput("--axes", got=axes, expected="three of x, y, z with signs, each once",
                       remedy="write --axes=-z,y,x for L = -z, P = y, S = x")
    out = np.zeros((3, 3))
    for row, part in enumerate(parts):
        out[row, "xyz".index(part[-1])] = -1.0 if part[0] == "-" else 1.0
    if np.linalg.det(out) < 0:
        raise BadInput("--axes", got=f"{axes}, a reflection", expected="a turn",
                       remedy="check the signs: these axes would show the patient's mirror image")
    return out


def read_shape(path: Path, label: str, patient_from_file: Float64 | None, notes: Notes) -> Mesh | Polylines:
    """The surface or the lines of a file, in the patient frame (L, P, S), mm.

    label: what to call it in messages; patient_from_file (3, 3): the axes the person named, None for those
    that the file states (SPACE=RAS or LPS, as 3D Slicer writes) or else L, P, S. Raises BadInput.
    """
    if not path.is_file():
        raise BadInput(f"{label} {path.name}", got="no such file", expected=", ".join(SUFFIXES),
                       remedy="check the path")
    if path.suffix.lower() == ".stl":
        _whole_stl(path, label)
    polydata = _read(path, label)
    turn = _turn(path, polydata, label, patient_from_file, notes)
    points = _points(polydata, label) @ turn.T
    polygons, lines = _polygons(polydata), _cells(polydata.GetLines())
    if len(polygons) and lines:
        raise BadInput(f"{label} {path.name}", got=f"{len(polygons)} triangles and {len(lines)} lines",
                       expected="a surface or lines", remedy="export them into files of their own")
    if not len(polygons) and not lines:
        raise BadInput(f"{label} {path.name}", got="neither triangles nor lines", expected="a surface or lines",
                       remedy="export the model as a surface or as polylines")
    _size(points[np.unique(np.concatenate([polygons.ravel(), *lines])).astype(int)], f"{label} {path.name}")
    if len(polygons):
        return _surface(points, polygons, label, notes)
    return _lines(points, lines, polydata, label, notes)


def outward(mesh: Mesh) -> tuple[Mesh, bool]:
    """The mesh with outward winding, and whether it had to be turned."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] - mesh.vertices.mean(axis=0) for k in range(3))
    if float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) >= 0:
        return mesh, False
    return Mesh(mesh.vertices, mesh.faces[:, ::-1]), True


def _surface(points: Float64, triangles: Array, label: str, notes: Notes) -> Mesh:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    good = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0
    if not good.any():
        raise BadInput(label, got="triangles without area", expected="a surface", remedy="check the file")
    used, faces = np.unique(triangles[good], return_inverse=True)
    mesh, turned = outward(Mesh(points[used], faces.reshape(-1, 3)))
    notes.read(f"{label}: surface of {len(mesh.faces)} triangles, {_extent(mesh.vertices)}")
    if int((~good).sum()):
        notes.derived(f"{label}: {int((~good).sum())} triangles without area left out")
    if turned:
        notes.derived(f"{label}: winding turned outward")
    return mesh


def _lines(points: Float64, lines: list[Array], polydata: Any, label: str, notes: Notes) -> Polylines:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    lines = [line for line in lines if len(line) > 1]
    if not lines:
        raise BadInput(label, got="no line of two points or more", expected="polylines", remedy="check the file")
    radius, data = None, polydata.GetPointData()
    for k in range(data.GetNumberOfArrays()):
        array = data.GetArray(k)
        if array is not None and (array.GetName() or "").lower() in RADIUS_NAMES and array.GetNumberOfComponents() == 1:
            radius = vtk_to_numpy(array).astype(np.float64)
    out = Polylines(points, tuple(lines), radius)
    idle = len(points) - len(np.unique(np.concatenate(lines)))
    notes.read(f"{label}: centerline of {len(lines)} lines, {out.length_mm:.0f} mm, {_extent(points)}, "
               + ("with radius" if radius is not None else "without radius"))
    if idle:
        notes.read(f"{label}: {idle} of {len(points)} points belong to no line; kept, not joined")
    return out


def _turn(path: Path, polydata: Any, label: str, given: Float64 | None, notes: Notes) -> Float64:
    """patient_from_file (3, 3): what the person or the file says, else L, P, S, and said so."""
    stated = _stated_space(path, polydata)
    if given is not None:
        said = {"RAS": LPS_FROM_RAS, "LPS": np.eye(3)}.get(stated or "")
        if said is not None and not np.array_equal(given, said):
            raise BadInput(f"axes of {label} {path.name}", got=f"--axes, and a file that states {stated}",
                           expected="one of them", remedy="leave --axes out, or take SPACE out of the file")
        notes.read(f"{label}: axes as --axes names them")
        return given
    if stated == "RAS":
        notes.derived(f"{label}: the file states R, A, S; turned into L, P, S")
        return LPS_FROM_RAS
    if stated == "LPS":
        notes.read(f"{label}: the file states L, P, S")
    else:
        notes.assumed(f"{label}: axes are L, P, S and lengths mm (the file does not say; --axes names others)")
    return np.eye(3)


def _stated_space(path: Path, polydata: Any) -> str | None:
    with path.open("rb") as file:
        found = re.search(rb"SPACE=(LPS|RAS)", file.read(2048))
    if found:
        return found[1].decode()
    array = polydata.GetFieldData().GetAbstractArray("SPACE")
    value = str(array.GetVariantValue(0).ToString()).upper() if array is not None and array.GetNumberOfValues() else ""
    return value if value in ("LPS", "RAS") else None


def _whole_stl(path: Path, label: str) -> None:
    """A binary STL says how many triangles it holds; VTK reads a cut one without a word."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(84)
        ascii_like = head[:5].lower() == b"solid" and b"facet" in head + file.read(1024)
        file.seek(max(0, size - 256))
        tail = file.read().lower()
    if ascii_like:
        if b"endsolid" not in tail:
            raise BadInput(f"{label} {path.name}", got="an STL without its end", expected="endsolid",
                           remedy="copy it again")
        return
    expected = 84 + 50 * struct.unpack("<I", head[80:84])[0] if len(head) == 84 else 84
    if size < expected or len(head) < 84:
        raise BadInput(f"{label} {path.name}", got=f"{size} bytes", expected=f"{expected} bytes of a binary STL",
                       remedy="copy or export it again")


def _read(path: Path, label: str) -> Any:
    """vtkPolyData of a file; what VTK says while reading becomes the reason of a refusal."""
    from vtkmodules.vtkFiltersGeometry import vtkGeometryFilter
    from vtkmodules.vtkIOGeometry import vtkOBJReader, vtkSTLReader
    from vtkmodules.vtkIOLegacy import vtkDataSetReader
    from vtkmodules.vtkIOPLY import vtkPLYReader
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLUnstructuredGridReader

    readers: dict[str, Any] = {".stl": vtkSTLReader, ".ply": vtkPLYReader, ".vtp": vtkXMLPolyDataReader,
                               ".vtk": vtkDataSetReader, ".vtu": vtkXMLUnstructuredGridReader, ".obj": vtkOBJReader}
    kind = readers.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"{label} {path.name}", got="a file of another kind", expected=", ".join(readers),
                       remedy="export it as one of them")
    with _vtk_words() as said:
        reader = kind()
        reader.SetFileName(str(path))
        reader.Update()
        data = reader.GetOutput()
        if data is not None and not data.IsA("vtkPolyData"):
            lines = _lines_of_grid(data) if data.IsA("vtkUnstructuredGrid") else None
            if lines is not None:
                data = lines
            else:
                geometry = vtkGeometryFilter()
                geometry.SetInputData(data)
                geometry.Update()
                data = geometry.GetOutput()
        words = said()
    if "ERR|" in words or "error" in words.lower() or data is None or data.GetNumberOfPoints() == 0:
        reason = re.sub(r"\S*[/\\]\S+", "", " ".join(words.split("|")[-1].split()))[:120]
        raise BadInput(f"{label} {path.name}", got="a file that cannot be read" + (f" ({reason})" if reason else ""),
                       expected="a whole surface or line file", remedy="export or copy it again")
    return data


@contextmanager
def _vtk_words() -> Iterator[Any]:
    """What VTK would print, as text."""
    from vtkmodules.vtkCommonCore import vtkOutputWindow, vtkStringOutputWindow

    before, catcher = vtkOutputWindow.GetInstance(), vtkStringOutputWindow()
    vtkOutputWindow.SetInstance(catcher)
    try:
        yield lambda: catcher.GetOutput() or ""
    finally:
        vtkOutputWindow.SetInstance(before)


def _lines_of_grid(grid: Any) -> Any:
    """The lines of an unstructured grid as vtkPolyData with all its points; None where it has other cells."""
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    kinds = {grid.GetCellType(k) for k in range(grid.GetNumberOfCells())}
    if not kinds or not kinds <= {3, 4}:  # VTK_LINE, VTK_POLY_LINE
        return None
    cells = vtkCellArray()
    cells.DeepCopy(grid.GetCells())
    out = vtkPolyData()
    out.SetPoints(grid.GetPoints())
    out.SetLines(cells)
    out.GetPointData().ShallowCopy(grid.GetPointData())
    return out


def _points(polydata: Any, label: str) -> Float64:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(polydata.GetPoints().GetData()).astype(np.float64)
    if not np.isfinite(points).all():
        raise BadInput(label, got=f"{int((~np.isfinite(points)).any(axis=1).sum())} points that are not finite",
                       expected="finite coordinates, mm", remedy="repair the file")
    return points


def _polygons(polydata: Any) -> Array:
    """Triangles (n, 3) of all polygons and strips."""
    from vtkmodules.vtkFiltersCore import vtkTriangleFilter

    if polydata.GetNumberOfPolys() + polydata.GetNumberOfStrips() == 0:
        return np.zeros((0, 3), np.int64)
    triangles = vtkTriangleFilter()
    triangles.SetInputData(polydata)
    triangles.PassLinesOff()
    triangles.PassVertsOff()
    triangles.Update()
    return np.array(_cells(triangles.GetOutput().GetPolys()), np.int64).reshape(-1, 3)


def _cells(cells: Any) -> list[Array]:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    if cells is None or cells.GetNumberOfCells() == 0:
        return []
    flat = vtk_to_numpy(cells.GetConnectivityArray()).astype(np.int64)
    return np.split(flat, vtk_to_numpy(cells.GetOffsetsArray())[1:-1])


def _size(points: Float64, label: str) -> None:
    extent = float(np.ptp(points, axis=0).max())
    if not SMALLEST_MM <= extent <= LARGEST_MM:
        raise BadInput(f"size of {label}", got=f"{extent:.4g} across", expected=f"{SMALLEST_MM:g} to {LARGEST_MM:g} mm",
                       remedy="export it in mm")


def _extent(points: Float64) -> str:
    size = np.ptp(points, axis=0)
    return f"{size[0]:.0f} x {size[1]:.0f} x {size[2]:.0f} mm"
