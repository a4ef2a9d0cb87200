# SPDX-License-Identifier: Apache-2.0
"""What shape does a thing have? Triangle meshes and polylines in the patient frame, mm."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array, Float64, read_only


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles: vertices (n, 3) mm in the patient frame, faces (m, 3) indices, outward winding."""

    vertices: Float64
    faces: Array

    def __post_init__(self) -> None:
        v = np.ascontiguousarray(self.vertices, np.float64)
        f = np.ascontiguousarray(self.faces, np.int64)
        if v.ndim != 2 or v.shape[1:] != (3,) or len(v) < 3 or not np.isfinite(v).all():
            raise BadInput("mesh vertices", got=f"shape {v.shape}", expected="(n >= 3, 3) finite mm",
                           remedy="check the file")
        if f.ndim != 2 or f.shape[1:] != (3,) or len(f) < 1 or f.min() < 0 or f.max() >= len(v):
            raise BadInput("mesh faces", got=f"shape {f.shape}", expected="(m >= 1, 3) vertex numbers",
                           remedy="export the mesh as triangles")
        object.__setattr__(self, "vertices", read_only(v))
        object.__setattr__(self, "faces", read_only(f))


@dataclass(frozen=True, slots=True)
class Polylines:
    """Lines through points: points (n, 3) mm in the patient frame, each line the indices it joins
    in order; radius (n,) mm where it is known. Vessel centerlines, device paths."""

    points: Float64
    lines: tuple[Array, ...]
    radius_mm: Float64 | None = None

    def __post_init__(self) -> None:
        p = np.ascontiguousarray(self.points, np.float64)
        lines = tuple(read_only(np.ascontiguousarray(line, np.int64)) for line in self.lines)
        if p.ndim != 2 or p.shape[1:] != (3,) or len(p) < 2 or not np.isfinite(p).all():
            raise BadInput("polyline points", got=f"shape {p.shape}", expected="(n >= 2, 3) finite mm",
                           remedy="check the file")
        if not lines or any(len(x) < 2 or x.min() < 0 or x.max() >= len(p) for x in lines):
            raise BadInput("polylines", got=f"{len(lines)} lines", expected="lines of two points or more, "
                           "each the number of a point", remedy="check the cells of the file")
        object.__setattr__(self, "points", read_only(p))
        object.__setattr__(self, "lines", lines)
        if self.radius_mm is not None:
            r = np.ascontiguousarray(self.radius_mm, np.float64)
            if r.shape != (len(p),):
                raise BadInput("polyline radius", got=f"shape {r.shape}", expected=f"({len(p)},)",
                               remedy="give one radius for each point")
            object.__setattr__(self, "radius_mm", read_only(r))

    def sampled(self, step_mm: float) -> Float64:
        """Points (m, 3) along all lines, at most step_mm apart, ends included."""
        out = []
        for line in self.lines:
            p = self.points[line]
            for a, b in pairwise(p):
                n = max(1, int(np.ceil(np.linalg.norm(b - a) / step_mm)))
                out.append(a + (b - a) * (np.arange(n) / n)[:, None])
            out.append(p[-1:])
        return np.concatenate(out)

    @property
    def length_mm(self) -> float:
        """Length of all lines together, mm."""
        return float(sum(np.linalg.norm(np.diff(self.points[x], axis=0), axis=1).sum() for x in self.lines))
