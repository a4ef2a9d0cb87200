# SPDX-License-Identifier: Apache-2.0
"""Which outline does a mesh show in a picture? Contour points in space, their normals, the silhouette.

An edge lies on the contour where its two triangles fall on the same side of it in the picture. That
needs no winding and no closed surface: triangles may be turned either way, and the border of a hole is
a contour as well. Interior edges cancel, so that only contour edges are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration.geometry import Array, CArm, Float64, Rigid
from registration.shapes import Mesh

WELD_MM = 1e-3  # STL files repeat each corner for every triangle, to seven digits
PIECE_PX = 3.0  # long edges are cut to pieces of this length


@dataclass(frozen=True, slots=True)
class Outline:
    """Points on the contour of a mesh at a pose: carm_points (n, 3) mm in the C-arm frame; pixels (n, 2)
    (u, v); normals (n, 2) unit, pointing out of the silhouette; outer: those on the silhouette's border."""

    carm_points: Float64
    pixels: Float64
    normals: Float64
    outer: Array


class Contours:
    """The edges of a mesh, ready to give the outline at any pose."""

    def __init__(self, mesh: Mesh, weld_mm: float = WELD_MM) -> None:
        vertices, faces = welded(mesh, weld_mm)
        self.vertices = vertices
        half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        third = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
        half = np.sort(half, axis=1)
        order = np.lexsort((half[:, 1], half[:, 0]))
        half, third = half[order], third[order]
        first = np.r_[True, (half[1:] != half[:-1]).any(axis=1)]
        beside = np.diff(np.r_[np.flatnonzero(first), len(half)])
        start = np.flatnonzero(first)
        # nearly all edges have two triangles; the others (borders, three sheets) go through a slower sum
        pair = beside == 2
        self._edges = np.concatenate([half[start[pair]], half[start[~pair]]])
        self._pairs = np.stack([third[start[pair]], third[start[pair] + 1]], -1)
        odd = np.repeat(~pair, beside)
        self._odd_half, self._odd_third = half[odd], third[odd]
        self._odd_owner = np.repeat(np.arange((~pair).sum()), beside[~pair])

    def outline(self, carm: CArm, carm_from_patient: Float64) -> Outline:
        """The outline at a pose; triangles behind the source have none."""
        x = Rigid.apply(carm_from_patient, self.vertices)
        edges, side, p, q = self._contour(carm.project(x))
        if len(edges) == 0:
            return Outline(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, bool))
        low = np.floor(np.minimum(p.min(0), q.min(0))) - 4
        high = np.ceil(np.maximum(p.max(0), q.max(0))) + 4
        low, high = np.maximum(low, -4), np.minimum(high, np.array(carm.shape[::-1]) + 4)
        size = np.maximum(high - low, 1).astype(int)
        cover = coverage(p - low, q - low, side, (int(size[1]), int(size[0])))
        length = np.linalg.norm(q - p, axis=1)
        pieces = np.maximum(1, np.ceil(length / PIECE_PX)).astype(int)
        at = np.repeat(np.arange(len(edges)), pieces)
        within = np.arange(len(at)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        share = ((within + 0.5) / pieces[at])[:, None]
        points = x[edges[at, 0]] * (1 - share) + x[edges[at, 1]] * share
        pixels = carm.project(points)
        along = (q - p)[at] / length[at, None]
        normals = np.stack([along[:, 1], -along[:, 0]], -1) * np.sign(side[at])[:, None]
        outside = _at(cover, pixels - low + 2.0 * normals)
        inside = _at(cover, pixels - low - 1.5 * normals)
        return Outline(points, pixels, normals, (outside <= 0) & (inside > 0))

    def silhouette(self, carm: CArm, carm_from_patient: Float64) -> Array:
        """Bool (rows, columns): pixels whose center lies under the mesh."""
        _, side, p, q = self._contour(carm.project(Rigid.apply(carm_from_patient, self.vertices)))
        return coverage(p, q, side, carm.shape) > 0

    def _contour(self, uv: Float64) -> tuple[Array, Float64, Float64, Float64]:
        """Contour edges (n, 2), their signed number of triangles, and their ends (n, 2) in the picture."""
        ends = uv[self._edges]
        n = len(self._pairs)
        a, ab = ends[:n, 0], ends[:n, 1] - ends[:n, 0]
        side = np.zeros(len(self._edges))
        for k in (0, 1):
            side[:n] += np.sign(_cross(ab, uv[self._pairs[:, k]] - a))
        if len(self._odd_half):
            a = uv[self._odd_half[:, 0]]
            odd = np.sign(_cross(uv[self._odd_half[:, 1]] - a, uv[self._odd_third] - a))
            side[n:] = np.bincount(self._odd_owner, np.nan_to_num(odd), len(self._edges) - n)
        on = np.flatnonzero(np.nan_to_num(side))
        p, q = ends[on, 0], ends[on, 1]
        length = np.linalg.norm(q - p, axis=1)
        ok = np.isfinite(length) & (length > 1e-6)
        return self._edges[on[ok]], side[on[ok]], p[ok], q[ok]


def _cross(a: Float64, b: Float64) -> Float64:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def coverage(p: Float64, q: Float64, side: Float64, shape: tuple[int, int]) -> Array:
    """How many layers of triangles cover each pixel center, from contour edges p to q (n, 2) in pixels
    and the signed number of triangles beside each. By crossing counts along the rows."""
    rows, cols = shape
    down = np.where(q[:, 1] > p[:, 1], 1.0, -1.0)
    top = np.where((down > 0)[:, None], p, q)
    bottom = np.where((down > 0)[:, None], q, p)
    ok = np.isfinite(top).all(1) & np.isfinite(bottom).all(1)
    top, bottom, weight = top[ok], bottom[ok], (-down * side)[ok]
    first = np.clip(np.ceil(top[:, 1]), 0, rows).astype(int)
    last = np.clip(np.ceil(bottom[:, 1]), 0, rows).astype(int)
    count = np.maximum(last - first, 0)
    at = np.repeat(np.arange(len(top)), count)
    row = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count) + first[at]
    slope = (bottom[:, 0] - top[:, 0]) / np.maximum(bottom[:, 1] - top[:, 1], 1e-12)
    column = np.clip(np.ceil(top[at, 0] + (row - top[at, 1]) * slope[at]), 0, cols).astype(int)
    steps = np.bincount(row * (cols + 1) + column, weight[at], rows * (cols + 1)).reshape(rows, cols + 1)
    return np.asarray(np.round(np.cumsum(steps, axis=1)[:, :cols]))


def welded(mesh: Mesh, weld_mm: float = WELD_MM) -> tuple[Float64, Array]:
    """Vertices and faces with corners in one cell of weld_mm made one (their mean), and triangles
    without area left out. A wide cell makes a coarse mesh."""
    _, new, count = np.unique(np.round(mesh.vertices / weld_mm).astype(np.int64), axis=0,
                              return_inverse=True, return_counts=True)
    new = new.reshape(-1)
    vertices = np.stack([np.bincount(new, mesh.vertices[:, k]) for k in range(3)], -1) / count[:, None]
    faces = new[mesh.faces]
    good = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return vertices, faces[good]


def _at(image: Array, pixels: Float64) -> Array:
    rows, cols = image.shape
    u = np.round(np.nan_to_num(pixels[:, 0], nan=-1)).astype(int)
    v = np.round(np.nan_to_num(pixels[:, 1], nan=-1)).astype(int)
    ok = (u >= 0) & (v >= 0) & (u < cols) & (v < rows)
    out = np.zeros(len(pixels))
    out[ok] = image[v[ok], u[ok]]
    return out
