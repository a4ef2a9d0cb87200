# SPDX-License-Identifier: Apache-2.0
"""How does blood get from the aorta to the kidneys and legs? An arterial tree that obeys Murray's law.

At every fork r0^3 = r1^3 + r2^3 (Murray, PNAS 12:207, 1926). Radii at rest; the aorta of an adult is about
18 mm wide here, its renal arteries 5.6 mm, the external iliac arteries 11 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.patient.skeleton import spine_x, spine_y
from registration.geometry import Array, Float64
from registration.shapes import Polylines

STEP_MM = 2.0  # between points of a centerline
SUPRACELIAC_RADIUS_MM = 8.9
# offspring of the aorta from above: name, radius at its mouth, where it leaves (S, mm)
_OFFSPRING = (("celiac", 3.0, 84.0), ("sma", 3.2, 66.0), ("renal_right", 2.75, 42.0), ("renal_left", 2.8, 37.0),
              ("ima", 1.7, -26.0))
BIFURCATION_S_MM = -60.0
PLANNED_RADIUS_MM = 1.25


@dataclass(frozen=True)
class Branch:
    """A vessel between two forks: points (n, 3) mm from upstream to downstream, radius (n,), parent's name and the
    place (number of a point of the parent) where it leaves."""

    name: str
    points: Float64
    radius: Float64
    parent: str | None
    leaves_at: int

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())


@dataclass(frozen=True)
class Fork:
    """Radii (mm) that meet at a fork: what comes in, what goes out."""

    place: str
    parent_mm: float
    children_mm: tuple[float, ...]


@dataclass(frozen=True)
class ArterialTree:
    """The branches from the aorta down, and its forks."""

    branches: tuple[Branch, ...]
    forks: tuple[Fork, ...]

    def __getitem__(self, name: str) -> Branch:
        return next(b for b in self.branches if b.name == name)

    def planned(self) -> ArterialTree:
        """The branches that a CT angiography shows well: 2.5 mm wide and more."""
        return ArterialTree(tuple(b for b in self.branches if b.radius[-1] >= PLANNED_RADIUS_MM), self.forks)

    def centerline(self) -> Polylines:
        """All branches; a branch begins with the point of its parent's axis where it leaves."""
        start: dict[str, int] = {}
        count = 0
        for b in self.branches:
            start[b.name] = count
            count += len(b.points)
        lines = []
        for b in self.branches:
            own = np.arange(start[b.name], start[b.name] + len(b.points))
            lines.append(own if b.parent is None else np.concatenate([[start[b.parent] + b.leaves_at], own[1:]]))
        used = np.unique(np.concatenate(lines))
        number = np.zeros(count, int)
        number[used] = np.arange(len(used))
        points = np.concatenate([b.points for b in self.branches])[used]
        radius = np.concatenate([b.radius for b in self.branches])[used]
        return Polylines(points, tuple(number[x] for x in lines), radius)

    def ostium(self, name: str) -> Float64:
        """Where a branch's axis leaves its parent's lumen, mm (3,)."""
        branch = self[name]
        assert branch.parent is not None
        parent = self[branch.parent]
        reach = parent.radius[branch.leaves_at]
        away = np.linalg.norm(branch.points[:, None] - parent.points[None], axis=2).min(1)
        outside = int(np.argmax(away > reach))
        a, b = away[outside - 1], away[outside]
        part = (reach - a) / (b - a)
        return np.asarray(branch.points[outside - 1] * (1 - part) + branch.points[outside] * part)


def arterial_tree(rng: np.random.Generator) -> ArterialTree:
    """The tree; the random numbers bend its vessels by a millimeter or two and set the tortuosity of the iliacs."""
    grow = _Growing(rng)
    aorta_line = [(_aorta_x(z), spine_y(z) - 16.5 - 11.0 + (2.0 if z < -50 else 0), z)
                  for z in (191, 168, 140, 110, 84, 60, 38, 10, -20, -45, BIFURCATION_S_MM)]
    aorta = grow.trunk("aorta", aorta_line, SUPRACELIAC_RADIUS_MM)
    radius = SUPRACELIAC_RADIUS_MM
    for name, r, z in _OFFSPRING:
        after = (radius**3 - r**3) ** (1 / 3)
        grow.forks.append(Fork(f"aorta, {name}", radius, (after, r)))
        grow.narrow(aorta, below_s_mm=z, radius=after)
        radius = after
    _visceral(grow, aorta)
    _renal(grow, aorta)
    _iliac(grow, aorta)
    return ArterialTree(tuple(grow.branches()), tuple(grow.forks))


def _aorta_x(z: float) -> float:
    return spine_x(z) + 9.0 + 4.0 * max(0.0, (z - 90) / 110.0) - 4.5 * max(0.0, (20 - z) / 80.0)


def _visceral(grow: _Growing, aorta: str) -> None:
    x, y, z = grow.at(aorta, 84.0)
    grow.branch("celiac", aorta, 84.0, [(x, y - 12, z + 1), (x - 1, y - 24, z + 2)], 3.0)
    grow.fork("celiac", {
        "hepatic": (0.45, [(x - 16, y - 34, z - 2), (x - 38, y - 34, z + 8), (x - 56, y - 26, z + 18)]),
        "splenic": (0.55, [(x + 16, y - 26, z + 9), (x + 36, y - 10, z - 1), (x + 54, y + 4, z + 10),
                           (x + 72, y + 16, z + 12)])})
    grow.twigs("hepatic", (-0.9, 0.1, 0.45), 3)
    grow.twigs("splenic", (0.9, 0.5, 0.1), 2)
    x, y, z = grow.at(aorta, 66.0)
    grow.branch("sma", aorta, 66.0, [(x, y - 11, z - 2), (x - 2, y - 24, z - 22), (x - 8, y - 34, z - 62),
                                     (x - 22, y - 40, z - 104)], 3.2)
    grow.twigs("sma", (-0.5, -0.1, -0.9), 3)
    x, y, z = grow.at(aorta, -26.0)
    grow.branch("ima", aorta, -26.0, [(x - 3, y - 9, z - 5), (x + 8, y - 15, z - 28), (x + 22, y - 10, z - 62)], 1.7)
    grow.twigs("ima", (0.7, 0.2, -0.6), 2)


def _renal(grow: _Growing, aorta: str) -> None:
    for name, side, r, z in (("renal_right", -1, 2.75, 42.0), ("renal_left", 1, 2.8, 37.0)):
        x, y, _ = grow.at(aorta, z)
        hilum = (spine_x(z) + side * (44 if side > 0 else 48), y + 23, z - (7 if side > 0 else 17))
        first = [(x + side * 12, y + 1, z - 1), (x + side * 24, y + 9, z - 4 - 3 * (side < 0))]
        grow.branch(name, aorta, z, [*first, hilum], r)
        hx, hy, hz = hilum
        up, down = f"{name}_anterior", f"{name}_posterior"
        grow.fork(name, {up: (0.6, [(hx + side * 7, hy - 1, hz + 6), (hx + side * 13, hy + 1, hz + 17)]),
                         down: (0.4, [(hx + side * 7, hy + 5, hz - 6), (hx + side * 13, hy + 7, hz - 17)])})
        grow.twigs(up, (side * 0.8, 0.1, 0.55), 3)
        grow.twigs(down, (side * 0.85, 0.2, -0.5), 3)


def _iliac(grow: _Growing, aorta: str) -> None:
    x, y, _ = grow.at(aorta, BIFURCATION_S_MM)
    sides = (("right", -1, 0.51), ("left", 1, 0.49))
    sway = {name: 3.0 * grow.rng.uniform(-1, 1) for name, _, _ in sides}
    grow.fork(aorta, {
        f"common_iliac_{name}": (share, [(x + side * 9, y + 1, -72), (x + side * 23, y + 4 + sway[name], -92),
                                         (x + side * 36, y + 14, -112)])
        for name, side, share in sides})
    for name, side, _ in sides:
        grow.fork(f"common_iliac_{name}", {
            f"external_iliac_{name}": (0.62, [(x + side * 46, y + 12, -130), (side * 62, y - 10 + sway[name], -155),
                                              (side * 72, y - 34, -178), (side * 76, y - 43, -199)]),
            f"internal_iliac_{name}": (0.38, [(x + side * 37, y + 30, -128), (x + side * 41, y + 43, -148),
                                              (x + side * 46, y + 48, -166)])})
        grow.twigs(f"internal_iliac_{name}", (side * 0.5, 0.4, -0.5), 1)


class _Growing:
    """Branches while the tree is made."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.forks: list[Fork] = []
        self._made: dict[str, Branch] = {}

    def branches(self) -> list[Branch]:
        return list(self._made.values())

    def trunk(self, name: str, knots: Sequence[tuple[float, float, float]], radius: float) -> str:
        points = smooth_line(np.asarray(knots, float), STEP_MM)
        self._made[name] = Branch(name, points, np.full(len(points), radius), None, 0)
        return name

    def narrow(self, name: str, below_s_mm: float, radius: float) -> None:
        """A new radius from a height down, reached smoothly over some 6 mm beyond the fork."""
        b = self._made[name]
        part = np.clip((below_s_mm - b.points[:, 2]) / 6.0, 0, 1)
        r = b.radius * (1 - part) + radius * part
        self._made[name] = Branch(name, b.points, r, b.parent, b.leaves_at)

    def at(self, name: str, s_mm: float) -> Float64:
        points = self._made[name].points
        return points[int(np.argmin(np.abs(points[:, 2] - s_mm)))]

    def branch(self, name: str, parent: str, s_mm: float | None, knots: Sequence[tuple[float, float, float]],
               radius: float) -> None:
        """A branch from the parent's axis at a height, or from its end."""
        above = self._made[parent]
        leaves = len(above.points) - 1 if s_mm is None else int(np.argmin(np.abs(above.points[:, 2] - s_mm)))
        jitter = self.rng.normal(0, 0.6, (len(knots), 3))
        line = smooth_line(np.vstack([above.points[leaves], np.asarray(knots, float) + jitter]), STEP_MM)
        self._made[name] = Branch(name, line, np.full(len(line), radius), parent, leaves)

    def fork(self, parent: str, children: dict[str, tuple[float, Sequence[tuple[float, float, float]]]]) -> None:
        """The parent's end divides: name -> (share of its flow, knots). Flow goes with the radius to the third."""
        r0 = float(self._made[parent].radius[-1])
        radii = [(share * r0**3) ** (1 / 3) for share, _ in children.values()]
        self.forks.append(Fork(parent, r0, tuple(radii)))
        for (name, (_, knots)), r in zip(children.items(), radii, strict=True):
            self.branch(name, parent, None, knots, r)

    def twigs(self, parent: str, heading: tuple[float, float, float], generations: int) -> None:
        """The parent's end divides again and again, each time in two, leaning apart (Murray's angles, some 60 deg)."""
        if generations == 0:
            return
        b = self._made[parent]
        end, way = b.points[-1], b.points[-1] - b.points[-4]
        way = 0.5 * way / np.linalg.norm(way) + 0.5 * np.asarray(heading)
        across = np.cross(way, self.rng.normal(size=3) * (0.4, 1.0, 0.4))
        across /= np.linalg.norm(across)
        share = float(self.rng.uniform(0.38, 0.62))
        ways = {f"{parent}_{n}": (part, way + sign * 0.55 * (1.3 - part) * across)
                for n, part, sign in (("a", share, 1), ("b", 1 - share, -1))}
        length = min(7.0 * float(b.radius[-1]), 22.0)
        self.fork(parent, {name: (part, [tuple(end + length * 0.45 * w), tuple(end + length * (w + 0.12 * way))])
                           for name, (part, w) in ways.items()})
        for name, (_, w) in ways.items():
            self.twigs(name, tuple(0.6 * np.asarray(heading) + 0.4 * w), generations - 1)


def smooth_line(knots: Float64, step_mm: float) -> Float64:
    """Points about step_mm apart on a smooth curve through the knots (cubic spline over chord length)."""
    from scipy.interpolate import CubicSpline

    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1) ** 0.5)])
    curve = CubicSpline(chord, knots, bc_type="natural")
    fine = curve(np.linspace(0, chord[-1], 40 * len(knots)))
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    n = max(3, int(np.ceil(along[-1] / step_mm)) + 1)
    at = np.linspace(0, along[-1], n)
    return np.stack([np.interp(at, along, fine[:, c]) for c in range(3)], -1)


def planned_path(tree: ArterialTree) -> Float64:
    """From the right groin up the aorta into the left renal artery, (n, 3) mm about 2 mm apart, smoothed."""
    from scipy.ndimage import gaussian_filter1d

    aorta, common = tree["aorta"], tree["common_iliac_right"]
    up = [tree["external_iliac_right"].points[::-1], common.points[::-1][1:],
          aorta.points[tree["renal_left"].leaves_at: common.leaves_at][::-1], tree["renal_left"].points[1:]]
    line = np.concatenate(up)
    smooth = gaussian_filter1d(line, 4.0 / STEP_MM, axis=0, mode="nearest")  # a wire bends over some 4 mm
    smooth[0], smooth[-1] = line[0], line[-1]
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(smooth, axis=0), axis=1))])
    at = np.linspace(0, along[-1], int(along[-1] / STEP_MM) + 1)
    return np.stack([np.interp(at, along, smooth[:, c]) for c in range(3)], -1)


def distance_to(tree: ArterialTree, low: Float64, spacing: float, shape: tuple[int, int, int]) -> Array:
    """Signed distance (mm, negative in the lumen) of grid points low + spacing * (i, j, k), shape (k, j, i)."""
    out = np.full(shape, 8.0, np.float32)
    axes = [low[c] + spacing * np.arange(shape[2 - c]) for c in range(3)]
    for b in tree.branches:
        for first in range(0, len(b.points) - 1, 5):
            p, r = b.points[first: first + 6], b.radius[first: first + 6]
            margin = r.max() + 4 * spacing
            cut = [slice(*np.searchsorted(axis, [m - margin, x + margin]))
                   for axis, m, x in zip(axes, p.min(0), p.max(0), strict=True)]
            x, y, z = (axis[c].astype(np.float32) for axis, c in zip(axes, cut, strict=True))
            here = out[cut[2], cut[1], cut[0]]
            if here.size == 0:
                continue
            for i in range(len(p) - 1):
                d = (p[i + 1] - p[i]).astype(np.float32)
                qx, qy, qz = x - np.float32(p[i, 0]), y - np.float32(p[i, 1]), z - np.float32(p[i, 2])
                t = np.clip((qx * d[0] + (qy * d[1])[:, None] + (qz * d[2])[:, None, None]) / (d @ d), 0, 1)
                gone = np.sqrt((qx - t * d[0]) ** 2 + (qy[:, None] - t * d[1]) ** 2
                               + (qz[:, None, None] - t * d[2]) ** 2)
                np.minimum(here, gone - (r[i] + t * np.float32(r[i + 1] - r[i])), out=here)
    return out
