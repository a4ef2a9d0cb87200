# SPDX-License-Identifier: Apache-2.0
"""Where does a vessel run? The middle line of a mask with its radius, as joined branches.

The skeleton is scikit-image's (Lee, Kashyap, Chu 1994), its graph skan's; spurs that do not leave the
vessel's own thickness are removed, branches are smoothed along their length with their ends held.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import ndimage

from registration.geometry import Array, Float64
from registration.shapes import Polylines

SPUR = 1.5  # radii at the fork: a side branch must reach that far from the middle to leave the vessel (1 is its wall)
SMOOTH_MM_PER_RADIUS = 0.5  # along the line; the skeleton wanders by about a voxel, more in thick vessels
ROUNDS = 50  # of pruning; each takes away at least one spur


def centerline_of(mask: Array, patient_from_index: Float64, edge_mm: float) -> tuple[Polylines, int, int] | None:
    """The centerline of a mask [k, j, i] of cubic voxels, how many spurs were removed, how many loops it has.

    Points in the patient frame, mm, forks shared by their branches; None where nothing like a line is left.
    """
    from skimage.morphology import skeletonize

    radius = ndimage.distance_transform_edt(mask) * edge_mm
    thin = skeletonize(mask).astype(bool)
    thin[_lonely(thin)] = False
    if not thin.any():
        return None
    thin, dropped = _pruned(thin, radius, edge_mm)
    if not thin.any():
        return None
    branches = _branches(thin)
    return (*_as_lines(branches, radius, patient_from_index, edge_mm), dropped, _loops(thin))


def _lonely(thin: Array) -> Array:
    """Voxels of a skeleton without a neighbor: no line goes through them."""
    around = ndimage.convolve(thin.astype(np.uint8), np.ones((3, 3, 3), np.uint8), mode="constant")
    return thin & (around == 1)


def _graph(thin: Array) -> Any:
    from skan import Skeleton

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Skeleton(thin)


def _pruned(thin: Array, radius: Float64, edge_mm: float) -> tuple[Array, int]:
    """The skeleton without side branches that stay inside the vessel they start from; shortest first.

    After each round two branches may have become one, so the graph is made anew.
    """
    dropped = 0
    for _ in range(ROUNDS):
        graph = _graph(thin)
        spurs = []
        for k in range(graph.n_paths):
            path = graph.path_coordinates(k).astype(int)
            ends = [graph.degrees[graph.path(k)[e]] for e in (0, -1)]
            if sorted(int(n) > 1 for n in ends) != [False, True]:
                continue
            fork, tip = (path[-1], path[0]) if ends[0] == 1 else (path[0], path[-1])
            reach = float(np.linalg.norm(tip - fork)) * edge_mm
            if reach < SPUR * float(radius[tuple(fork)]) + edge_mm:
                spurs.append((reach, k, path, tuple(fork)))
        if not spurs:
            break
        taken: set[tuple[int, ...]] = set()
        for _, _, path, fork in sorted(spurs, key=lambda s: s[:2]):
            if fork in taken:
                continue  # one a fork and round: its twin may be the vessel's own end
            taken.add(fork)
            for voxel in path:
                if tuple(voxel) != fork:
                    thin[tuple(voxel)] = False
            dropped += 1
        thin[_lonely(thin)] = False
        if not thin.any():
            break
    return thin, dropped


def _branches(thin: Array) -> list[Array]:
    """Voxels (n, 3) of each branch, ends included."""
    graph = _graph(thin)
    return [graph.path_coordinates(k).astype(int) for k in range(graph.n_paths)]


def _as_lines(branches: list[Array], radius: Float64, patient_from_index: Float64, edge_mm: float,
              ) -> tuple[Polylines]:
    points: list[Float64] = []
    place: dict[tuple[int, ...], int] = {}
    lines = []

    def number(voxel: Array) -> int:
        key = tuple(int(x) for x in voxel)
        if key not in place:
            place[key] = len(points)
            points.append(np.array(key, float))
        return place[key]

    for branch in branches:
        wide = float(np.median(radius[tuple(branch.T)])) / edge_mm
        inner = _smooth(branch.astype(float), max(1.0, SMOOTH_MM_PER_RADIUS * wide))[1:-1]
        line = [number(branch[0])]
        for voxel in inner:
            line.append(len(points))
            points.append(voxel)
        line.append(number(branch[-1]))
        lines.append(np.array(line))
    at = np.array(points)
    # the border lies half a voxel before the first voxel outside, from which the distance is measured
    wide_mm = np.maximum(ndimage.map_coordinates(radius, at.T, order=1) - 0.5 * edge_mm, 0.5 * edge_mm)
    mm = at[:, ::-1] @ patient_from_index[:3, :3].T + patient_from_index[:3, 3]
    return (Polylines(mm, tuple(lines), wide_mm),)


def _smooth(points: Float64, sigma: float) -> Float64:
    """Points (n, 3) smoothed along their order, ends held (what is left of the chord is smoothed, odd at the ends)."""
    if len(points) < 4:
        return points
    t = np.linspace(0, 1, len(points))[:, None]
    chord = points[0] + t * (points[-1] - points[0])
    rest = points - chord
    n = len(points)
    odd = np.concatenate([-rest[1:][::-1], rest, -rest[:-1][::-1]])
    return chord + ndimage.gaussian_filter1d(odd, sigma, axis=0)[n - 1: 2 * n - 1]


def _loops(thin: Array) -> int:
    """Independent cycles of the skeleton's graph: edges - nodes + parts."""
    graph = _graph(thin)
    ends = [tuple(map(int, graph.path(k)[[0, -1]])) for k in range(graph.n_paths)]
    nodes = {node for pair in ends for node in pair}
    parts = ndimage.label(thin, np.ones((3, 3, 3)))[1]
    return max(0, len(ends) - len(nodes) + parts)
