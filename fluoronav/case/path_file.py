# SPDX-License-Identifier: Apache-2.0
"""Where shall the device go? A planned path from VTK, VTP, CSV or JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.case.shape_files import is_shape_file, read_shape
from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Float64
from registration.shapes import Mesh


def read_path(path: Path, patient_from_file: Float64 | None, notes: Notes) -> Float64:
    """Points (n, 3) of a planned path in the patient frame, mm, first to last. Raises BadInput.

    VTK or VTP: one polyline (its axes as for other line files); CSV: three numbers a row, a line of headings
    may stand first; JSON: a list of points, {"points": [...]} or {"path_mm": [...]}, or a markups file of
    3D Slicer with one curve or list of points. CSV and plain JSON are L, P, S.
    """
    if not path.is_file():
        raise BadInput(f"path {path.name}", got="no such file", expected="VTK, VTP, CSV or JSON",
                       remedy="check the path")
    kind = path.suffix.lower()
    if is_shape_file(path):
        points = _polyline(path, patient_from_file, notes)
    elif kind == ".csv":
        points = _csv(path)
    elif kind == ".json":
        points = _json(path)
    else:
        raise BadInput(f"path {path.name}", got="a file of another kind", expected="VTK, VTP, CSV or JSON",
                       remedy="export it as one of them")
    if points.ndim != 2 or points.shape[1:] != (3,) or len(points) < 2 or not np.isfinite(points).all():
        raise BadInput(f"path {path.name}", got=_wrong(points),
                       expected="two points or more of L, P, S", remedy="give three finite numbers a point")
    keep = np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 0])
    if keep.sum() < 2:
        raise BadInput(f"path {path.name}", got="one place", expected="a way from one place to another",
                       remedy="check the file")
    points = points[keep]
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    notes.read(f"path: {len(points)} points, {length:.0f} mm" + ("" if is_shape_file(path) else ", in L, P, S"))
    return points



def _wrong(points: Float64) -> str:
    if points.ndim == 2 and points.shape[1:] == (3,) and len(points) > 1:
        return f"{int((~np.isfinite(points)).any(axis=1).sum())} points that are not finite"
    return f"numbers of shape {points.shape}"


def _polyline(path: Path, patient_from_file: Float64 | None, notes: Notes) -> Float64:
    shape = read_shape(path, "path", patient_from_file, notes)
    if isinstance(shape, Mesh) or len(shape.lines) != 1:
        got = "a surface" if isinstance(shape, Mesh) else f"{len(shape.lines)} lines"
        raise BadInput(f"path {path.name}", got=got, expected="one polyline", remedy="export the path alone")
    return shape.points[shape.lines[0]]


def _csv(path: Path) -> Float64:
    try:
        rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if any(x.strip() for x in row)]
        if rows and not _is_number(rows[0][0]):
            rows = rows[1:]
        return np.array([[float(x) for x in row] for row in rows], np.float64)
    except (ValueError, IndexError) as error:
        raise BadInput(f"path {path.name}", got="rows that are not three numbers", expected="L,P,S in each row",
                       remedy="separate them by commas") from error


def _json(path: Path) -> Float64:
    try:
        return _points_of(json.loads(path.read_text("utf-8")), path)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"path {path.name}", got="JSON without points", expected='[[L, P, S], ...] or {"points": [...]}',
                       remedy="give three numbers a point") from error


def _points_of(content: Any, path: Path) -> Float64:
    if not isinstance(content, dict):
        return np.array(content, np.float64)
    if "markups" not in content:
        return np.array(content["points" if "points" in content else "path_mm"], np.float64)
    if len(content["markups"]) != 1:
        raise BadInput(f"path {path.name}", got=f"{len(content['markups'])} markups", expected="one",
                       remedy="export the path alone")
    one = content["markups"][0]
    points = np.array([p["position"] for p in one["controlPoints"]], np.float64)
    space = str(one.get("coordinateSystem", "")).upper()
    if space not in ("LPS", "RAS", "0", "1"):  # older files number them: RAS 0, LPS 1
        raise BadInput(f"path {path.name}", got=f"coordinate system {space or 'not stated'}", expected="LPS or RAS",
                       remedy="export the markups again")
    return points * ([-1, -1, 1] if space in ("RAS", "0") else [1, 1, 1])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
