# SPDX-License-Identifier: Apache-2.0
"""What is put into a patient, and what flows there? Wires, catheters, stents, coils, vessels as line integrals."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from registration.geometry import Array

FINE = 4  # places a pixel along each side when a curve is drawn
Random = np.random.Generator


def curve(side: int, random: Random, bend: float) -> Array:
    """A smooth curve across the picture, (n, 2) of (u, v), about a pixel apart; bend in radians a pixel."""
    at = random.uniform(0.1, 0.9, 2) * side
    angle = random.uniform(0, 2 * np.pi)
    n = int(random.uniform(0.4, 1.3) * side)
    i = np.arange(n)
    turn = sum(np.sin(2 * np.pi * i / random.uniform(40, 250) + random.uniform(0, 6.3)) for _ in range(2))
    heading = angle + np.cumsum(bend * (0.6 * turn + random.uniform(-0.4, 0.4)))
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    points = at + np.cumsum(steps, axis=0)
    return np.asarray(points - points.mean(axis=0) + at, np.float64)


def tube(points: Array, width_px: float, side: int) -> Array:
    """Chord profile (0..1) of a round thing along a curve (n, 2), from four nested lines of a finer picture."""
    fine = np.zeros((side * FINE, side * FINE), np.float32)
    path = np.rint(((points + 0.5) * FINE - 0.5) * 16).astype(np.int32).reshape(-1, 1, 2)
    total = np.zeros_like(fine)
    for share in (0.995, 0.87, 0.66, 0.4):
        fine[:] = 0
        cv2.polylines(fine, [path], False, 1.0, max(1, round(width_px * FINE * share)), shift=4)
        total += fine
    return cv2.resize(total, (side, side), interpolation=cv2.INTER_AREA) / 4


@dataclass(frozen=True, slots=True)
class Device:
    """A curve with what is drawn along it: kind `wire`, `catheter`, `stent` or `coil`, width px, line integral."""

    kind: str
    points: Array
    width_px: float
    height: float

    def drawn(self, points: Array, side: int) -> tuple[Array, Array]:
        """(line integrals, profile 0..1) of the device when its curve lies at `points`."""
        if self.kind == "catheter":  # a wall: what is denser at its two margins
            outer, inner = tube(points, self.width_px, side), tube(points, self.width_px * 0.6, side)
            return self.height * np.maximum(outer - 0.7 * inner, 0), outer
        if self.kind == "stent":
            profile = np.maximum.reduce([tube(strut, 1.2, side) for strut in _struts(points, self.width_px)])
        else:
            profile = tube(points, self.width_px, side)
        return self.height * profile, profile


def _struts(points: Array, width_px: float) -> list[Array]:
    """Two zigzags around a short piece of the curve."""
    piece = points[: min(len(points), 60)]
    tangent = np.gradient(piece, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    phase = np.arange(len(piece)) / max(width_px * 0.35, 1.5)
    return [piece + normal * (np.sin(phase + shift) * width_px / 2)[:, None] for shift in (0.0, np.pi)]


def any_device(side: int, random: Random, family: str) -> Device:
    """A device at random; the test family has other widths, heights and bends."""
    kinds = ("wire", "wire", "wire", "catheter", "stent", "coil")
    kind = str(random.choice(kinds))
    test = family == "test"
    bend = random.uniform(0.03, 0.05) if test else random.uniform(0.005, 0.03)
    if kind == "coil":
        bend = 0.35
    points = curve(side, random, bend)
    if kind == "coil":
        points = points[: int(random.integers(40, 100))]
    width = {"wire": (1.4, 2.4) if test else (1.0, 3.2), "catheter": (5, 8) if test else (4, 10),
             "stent": (8, 14) if test else (7, 18), "coil": (1.2, 2.0)}[kind]
    height = {"wire": (0.2, 0.5) if test else (0.08, 0.7), "catheter": (0.15, 0.3) if test else (0.08, 0.4),
              "stent": (0.1, 0.25) if test else (0.06, 0.3), "coil": (0.3, 1.2)}[kind]
    return Device(kind, points, float(random.uniform(*width)), float(random.uniform(*height)))


@dataclass(frozen=True, slots=True)
class Vessels:
    """Branches (n, 2) with widths px and the distance of their roots from the inlet in pixels; contrast height."""

    branches: tuple[Array, ...]
    widths: tuple[float, ...]
    offsets: tuple[float, ...]
    height: float

    def drawn(self, moved: list[Array], front_px: float, tail_px: float, side: int) -> Array:
        """Line integrals with contrast between tail and front, measured along the branches from the inlet."""
        out = np.zeros((side, side), np.float32)
        for points, width, offset in zip(moved, self.widths, self.offsets, strict=True):
            s = offset + np.arange(len(points))
            filled = np.flatnonzero((s < front_px) & (s > tail_px))
            if filled.size > 2:
                out = np.maximum(out, width / 6 * tube(points[filled[0]: filled[-1] + 1], width, side))
        return np.asarray(self.height * cv2.GaussianBlur(out, (0, 0), 0.7), np.float32)


def vessels(side: int, random: Random) -> Vessels:
    """A tree of two generations."""
    root = curve(side, random, 0.03)
    branches, widths, offsets = [root], [float(random.uniform(3.5, 9))], [0.0]
    for _ in range(random.integers(1, 6)):
        start = int(random.integers(5, max(len(root) - 20, 6)))
        child = curve(side, random, 0.04)[: int(random.integers(30, 120))]
        branches.append(child - child[0] + root[min(start, len(root) - 1)])
        widths.append(widths[0] * float(random.uniform(0.3, 0.8)))
        offsets.append(float(start))
    return Vessels(tuple(branches), tuple(widths), tuple(offsets), float(random.uniform(0.1, 0.7)))
