# SPDX-License-Identifier: Apache-2.0
"""Where does a vessel run? The middle line of a mask with its radius, as joined branches.

Paths of least cost through the mask, where the middle of a vessel is cheap, from its farthest end to every
other end: TEASAR (Sato, Bitter, Bender, Kaufman, Nakajima 2000) on scikit-image's minimal cost paths.
scikit-image's own 3D skeleton is not used: it loses whole branches of even width (its issue 3757).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from registration.geometry import Array, Float64
from registration.shapes import Polylines

MIDDLE = 3  # power of 1 / radius that a step costs: below 2 paths cut corners of thick vessels
REACH, REACH_VOXELS = 1.6, 2.0  # radii and voxels from the middle that are the vessel itself
BLUNT = 1.42  # radii from the middle of the last ball in a vessel that was cut straight to the rim of the cut
SMOOTH = 0.5  # radii along the line; paths go in voxel steps
CLOSING_VOXELS = (1.0, 1.5, 2.0)  # radii: more would join neighboring vessels
ALL = np.ones((3, 3, 3))


def centerline_of(mask: Array, patient_from_index: Float64, edge_mm: float) -> Polylines | None:
    """The centerline of a mask [k, j, i] of cubic voxels with an empty border, as a tree for each part.

    Points in the patient frame, mm, forks shared by their branches, radius for each point; None where
    no two voxels of a line are left. A loop of vessels is opened where its two ways meet.
    """
    radius = ndimage.distance_transform_edt(mask)
    numbered, _ = ndimage.label(mask, ALL)
    tree = _Tree()
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        part = numbered[wide] == number
        for branch in _branches(part, np.where(part, radius[wide], 0)):
            tree.add(branch + [s.start for s in wide])
    if not tree.lines:
        return None
    points, lines = tree.smoothed(radius)
    # to the first voxel outside: half a voxel too far, and about as much too near where the line is off the middle
    wide_voxels = ndimage.map_coordinates(radius, points.T, order=1)
    at = points[:, ::-1] @ patient_from_index[:3, :3].T + patient_from_index[:3, 3]
    _open_ends(wide_voxels, points, lines)
    return Polylines(at, tuple(lines), np.maximum(wide_voxels, 0.5) * edge_mm)


def without_tunnels(mask: Array) -> tuple[Array, int, int]:
    """The mask with thin holes through it closed, how many, and how many stay: real loops, or vessels that touch.

    Only as much is closed as takes tunnels away; a tunnel would push the line aside.
    """
    before = _tunnels(mask)
    best, left = mask, before
    for radius in CLOSING_VOXELS:
        if left == 0:
            break
        k = int(radius)
        ball = (np.mgrid[-k:k + 1, -k:k + 1, -k:k + 1] ** 2).sum(axis=0) <= radius**2
        closed = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(mask, k + 1), ball))
        closed = closed[(slice(k + 1, -k - 1),) * 3]
        if (count := _tunnels(closed)) < left:
            best, left = closed, count
    return best, before - left, left


def _tunnels(mask: Array) -> int:
    """Holes through a mask without cavities: parts - Euler number (26-connected)."""
    from skimage.measure import euler_number

    return int(ndimage.label(mask, ALL)[1] - euler_number(mask, 3))


def _branches(part: Array, radius: Float64) -> list[Array]:
    """Voxel paths (n, 3) of one connected part: the longest first, each later one ends on an earlier one."""
    from skimage.graph import MCP_Geometric

    deepest = np.unravel_index(int(np.argmax(radius)), radius.shape)
    steps = MCP_Geometric(np.where(part, 1.0, -1.0))
    root = _farthest(steps.find_costs([deepest])[0], part)
    away = MCP_Geometric(np.where(part, 1.0, -1.0)).find_costs([root])[0]
    middle = MCP_Geometric(np.where(part, 1 / np.maximum(radius, 1.0) ** MIDDLE, -1.0))
    middle.find_costs([root])
    left, taken, out = part.copy(), np.zeros_like(part), []
    while left.any():
        tip = _farthest(away, left)
        path = np.array(middle.traceback(tip))[::-1]  # from the tip to the root
        left[tip] = False
        hits = np.flatnonzero(taken[tuple(path.T)])
        path = path[: hits[0] + 1] if len(hits) else path
        _cover(left, path, radius)
        path = _to_ends(path, radius, part, free=not len(hits))
        _cover(left, path, radius)
        if len(path) > 1:
            taken[tuple(path.T)] = True
            out.append(path)
    return out


def _farthest(costs: Float64, among: Array) -> tuple[int, ...]:
    reached = np.where(among & np.isfinite(costs), costs, -1.0)
    return tuple(int(x) for x in np.unravel_index(int(np.argmax(reached)), reached.shape))


def _cover(left: Array, path: Array, radius: Float64) -> None:
    """Take away what lies in or near the vessel around a path."""
    for voxel in path:
        reach = REACH * radius[tuple(voxel)] + REACH_VOXELS
        low = np.maximum(voxel - int(reach), 0)
        box = tuple(slice(a, b) for a, b in zip(low, voxel + int(reach) + 1, strict=True))
        view = left[box]
        if view.any():
            grid = np.ogrid[tuple(slice(0, n) for n in view.shape)]
            far = sum((g - (v - a)) ** 2 for g, v, a in zip(grid, voxel, low, strict=True)) > reach**2
            view &= far


def _to_ends(path: Array, radius: Float64, part: Array, free: bool) -> Array:
    """The path with its tip (and its other end where free) moved from a corner of the end to the end's middle."""
    path = _to_end(path, radius, part)
    return _to_end(path[::-1], radius, part)[::-1] if free else path


def _to_end(path: Array, radius: Float64, part: Array) -> Array:
    """Cut back to where the vessel has its full width, then go straight on to the border."""
    gap = np.linalg.norm(path - path[0], axis=1)
    inside = np.flatnonzero(BLUNT * radius[tuple(path.T)] + 1 >= gap)
    first = int(inside[-1]) if len(inside) else 0
    kept = path[min(first, len(path) - 2):]
    wide = max(2, int(radius[tuple(kept[0])]))
    lever = kept[: 3 * wide + 1].astype(float)
    along = np.linalg.svd(lever - lever.mean(axis=0))[2][0]  # the line through the last three radii
    along *= np.sign(along @ (lever[0] - lever[-1])) or 1.0
    more = []
    for n in range(1, 2 * wide + 2):
        voxel = np.round(kept[0] + n * along).astype(int)
        if not part[tuple(voxel)]:
            break
        more.append(voxel)
    return np.concatenate([np.array(more[::-1], int).reshape(-1, 3), kept])


class _Tree:
    """Branches that share their forks; a branch that ends on another divides it there."""

    def __init__(self) -> None:
        self.lines: list[Array] = []

    def add(self, branch: Array) -> None:
        fork = branch[-1]
        for n, line in enumerate(self.lines):
            at = np.flatnonzero((line == fork).all(axis=1))
            if len(at) and 0 < at[0] < len(line) - 1:
                self.lines[n:n + 1] = [line[: at[0] + 1], line[at[0]:]]
                break
        self.lines.append(branch)

    def smoothed(self, radius: Float64) -> tuple[Float64, list[Array]]:
        """Points (n, 3) in index units and the numbers of each line's points."""
        points: list[Array] = []
        place: dict[tuple[int, ...], int] = {}
        lines = []
        for branch in self.lines:
            sigma = max(1.0, SMOOTH * float(np.median(radius[tuple(branch.T)])))
            line: list[int] = []
            for voxel, point in zip(branch, _smooth(branch.astype(float), sigma), strict=True):
                end = len(line) in (0, len(branch) - 1)
                key = tuple(int(x) for x in voxel) if end else (-1, len(points))
                if key not in place:
                    place[key] = len(points)
                    points.append(point)
                line.append(place[key])
            lines.append(np.array(line, np.int64))
        return np.array(points), lines


def _open_ends(radius: Float64, points: Float64, lines: list[Array]) -> None:
    """Near a vessel's end the nearest border is the end itself: there the radius is that farther in."""
    ends = [int(e) for line in lines for e in (line[0], line[-1])]
    for line in lines:
        for way in (line, line[::-1]):
            if ends.count(int(way[0])) > 1:
                continue
            step = np.linalg.norm(np.diff(points[way], axis=0), axis=1)
            growing = np.diff(radius[way]) > 0.3 * step  # as the end goes away
            near = np.cumsum(step) < 1.5 * float(radius[way].max())
            if (growing & near).any():
                last = int(np.flatnonzero(growing & near)[-1]) + 1
                radius[way[:last]] = radius[way[last]]


def _smooth(points: Float64, sigma: float) -> Float64:
    """Points (n, 3) smoothed along their order, ends held: what is left of the chord, odd about the ends."""
    n = len(points)
    if n < 4:
        return points
    chord = points[0] + np.linspace(0, 1, n)[:, None] * (points[-1] - points[0])
    rest = points - chord
    odd = np.concatenate([-rest[1:][::-1], rest, -rest[:-1][::-1]])
    return chord + ndimage.gaussian_filter1d(odd, sigma, axis=0)[n - 1: 2 * n - 1]
