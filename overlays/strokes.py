# SPDX-License-Identifier: Apache-2.0
"""Which lines does a layer show at a pose? Strokes of pixel width in the C-arm frame, ribbons of them, and
their picture drawn without OpenGL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from overlays.scene import Layer
from registration.geometry import Array, CArm, Float64, Rigid
from registration.shapes import Polylines

CASING, DARK = 0.62, 0.08  # alpha and brightness of the border that sets a line off from bright and dark pictures
CAP = 8  # corners around the disc at each point of a ribbon


@dataclass(frozen=True, slots=True)
class Stroke:
    """Lines in the C-arm frame: points (n, 3) mm, lines of point numbers (a line of one is a dot), width in px of
    the picture, straight color (3,) 0 to 1."""

    points: Float64
    lines: tuple[Array, ...]
    width_px: float
    rgb: Float64

    @property
    def casing_px(self) -> float:
        """Width of the dark border, the line in its middle."""
        return self.width_px + max(1.6, self.width_px * 0.8)


def strokes_of(layer: Layer, carm: CArm, carm_from_patient: Float64) -> list[Stroke]:
    """The strokes of a layer of lines or points; a surface has none."""
    x = Rigid.apply(carm_from_patient, layer.points_mm)
    k = max(1.0, min(carm.shape) / 512)  # widths for the eye: a share of the picture, a pixel and a half at least
    if layer.style == "line":
        assert isinstance(layer.shape, Polylines)
        return [Stroke(x, layer.shape.lines, 1.5 * k, layer.rgb)]
    if layer.style == "device":
        assert isinstance(layer.shape, Polylines)
        tip = np.array([layer.shape.lines[-1][-1]])
        return [Stroke(x, layer.shape.lines, 1.8 * k, layer.rgb), Stroke(x, (tip,), 5 * k, layer.rgb)]
    if layer.style == "dots":
        return [Stroke(x, tuple(np.array([n]) for n in range(len(x))), 5 * k, layer.rgb)]
    if layer.style == "target":
        return [Stroke(*_cross_and_ring(point, carm, k), 1.6 * k, layer.rgb) for point in x]
    return []


def segments_of(stroke: Stroke, carm: CArm) -> tuple[Float64, Float64]:
    """Both ends (m, 3) of each segment, C-arm frame; those that reach the source are left out."""
    a = np.concatenate([line[:-1] if len(line) > 1 else line for line in stroke.lines])
    b = np.concatenate([line[1:] if len(line) > 1 else line for line in stroke.lines])
    p, q = stroke.points[a], stroke.points[b]
    ok = np.maximum(p[:, 2], q[:, 2]) < 0.9 * carm.sod_mm
    return p[ok], q[ok]


def ribbon(stroke: Stroke, carm: CArm) -> tuple[Float64, Array, Float64]:
    """Triangles around a stroke and its casing, half a pixel wider on each side: corners in pixels (n, 2), faces
    (m, 3), and how far (n, 2) each corner is from the line, px, linear in between; a disc at each point for ends
    and joins."""
    p, q = (carm.project(x) for x in segments_of(stroke, carm))
    wide = stroke.casing_px / 2 + 0.5
    along = q - p
    length = np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], -1) / length * wide
    m = len(p)
    n = np.arange(m)
    quads = np.concatenate([np.stack([n, n + m, n + 2 * m], -1), np.stack([n + m, n + 3 * m, n + 2 * m], -1)])
    aside = np.repeat([[wide, 0.0], [-wide, 0.0], [wide, 0.0], [-wide, 0.0]], m, axis=0)
    turn = np.arange(CAP) * (2 * np.pi / CAP)
    rim = wide / np.cos(np.pi / CAP) * np.stack([np.cos(turn), np.sin(turn)], -1)  # around the disc, not inside
    ends = np.concatenate([p, q])
    discs = (ends[:, None] + rim).reshape(-1, 2)
    fan = np.stack([np.zeros(CAP - 2, int), np.arange(1, CAP - 1), np.arange(2, CAP)], -1)
    faces = ((np.arange(2 * m) * CAP)[:, None, None] + fan[None] + 4 * m).reshape(-1, 3)
    return (np.concatenate([p + side, p - side, q + side, q - side, discs]), np.concatenate([quads, faces]),
            np.concatenate([aside, np.tile(rim, (2 * m, 1))]))


def paint(strokes: list[Stroke], carm: CArm) -> Array:
    """The strokes over each other, anti-aliased: (rows, columns, 4) uint8 RGBA, premultiplied."""
    out = np.zeros((*carm.shape, 4), np.uint8)
    ends = [tuple(carm.project(x) for x in segments_of(stroke, carm)) for stroke in strokes]
    for casing in (True, False):
        for stroke, (p, q) in zip(strokes, ends, strict=True):
            color = np.append(stroke.rgb * DARK, 1) * CASING if casing else np.append(stroke.rgb, 1)
            cover = coverage_of(p, q, stroke.casing_px if casing else stroke.width_px, carm.shape)
            _lay(out, cover, color.astype(np.float32))
    return out


def _lay(out: Array, cover: Array, color: Array) -> None:
    """Lay a premultiplied color (4,), 0 to 1, over out where it covers."""
    at = np.nonzero(cover > 0)
    share = cover[at][:, None]
    out[at] = (share * color * 255 + (1 - share * color[3]) * out[at] + np.float32(0.5)).astype(np.uint8)


def coverage_of(p: Float64, q: Float64, width_px: float, shape: tuple[int, int]) -> Array:
    """How far segments p to q (m, 2), in pixels (u, v), cover each pixel: float32, 0 to 1."""
    reach = int(np.ceil(width_px / 2 + 0.5))
    p, q = _clipped(p, q, shape, reach + 1)
    out = np.zeros(shape, np.float32)
    pieces = np.maximum(1, np.ceil(np.abs(q - p).max(axis=1, initial=0))).astype(int)
    at = np.repeat(np.arange(len(p)), pieces)
    within = np.arange(len(at)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    middle = p[at] + (q - p)[at] * ((within + 0.5) / pieces[at])[:, None]
    near = np.arange(-reach, reach + 1)
    du, dv = np.meshgrid(near, near)
    u = np.round(middle[:, 0]).astype(int)[:, None] + du.ravel()
    v = np.round(middle[:, 1]).astype(int)[:, None] + dv.ravel()
    far = _distance(u, v, p[at], q[at])
    value = np.clip(width_px / 2 + 0.5 - far, 0, 1).astype(np.float32)
    ok = (value > 0) & (u >= 0) & (v >= 0) & (u < shape[1]) & (v < shape[0])
    np.maximum.at(out.reshape(-1), v[ok] * shape[1] + u[ok], value[ok])
    return out


def _distance(u: Array, v: Array, p: Float64, q: Float64) -> Array:
    """Distance of pixels (m, k) to segments (m, 2)."""
    d = q - p
    square = np.maximum((d**2).sum(axis=1), 1e-12)[:, None]
    x, y = u - p[:, :1], v - p[:, 1:]
    share = np.clip((x * d[:, :1] + y * d[:, 1:]) / square, 0, 1)
    return np.hypot(x - share * d[:, :1], y - share * d[:, 1:])


def _clipped(p: Float64, q: Float64, shape: tuple[int, int], margin: int) -> tuple[Float64, Float64]:
    """The parts of segments inside the picture and a margin (Liang and Barsky 1984)."""
    low, high = -float(margin), np.array(shape[::-1], float) - 1 + margin
    d = q - p
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.stack([(low - p) / d, (high - p) / d])
    still = d == 0
    inside = (p >= low) & (p <= high)
    enter = np.where(still, np.where(inside, 0.0, 2.0), t.min(axis=0)).max(axis=1, initial=0)
    leave = np.where(still, np.where(inside, 1.0, -1.0), t.max(axis=0)).min(axis=1, initial=1)
    ok = enter <= leave
    return (p + enter[:, None] * d)[ok], (p + leave[:, None] * d)[ok]


def _cross_and_ring(point: Float64, carm: CArm, k: float) -> tuple[Float64, tuple[Array, ...]]:
    """A ring with four arms and a dot in its middle, parallel to the detector through a point."""
    turn = np.linspace(0, 2 * np.pi, 49)
    axes = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    offsets = np.concatenate([9 * np.stack([np.cos(turn), np.sin(turn)], -1), 5 * axes, 14 * axes, [[0, 0]]]) * k
    points = _at_depth(carm.project(point) + offsets, np.broadcast_to(point, (len(offsets), 3)), carm)
    return points, (np.arange(49), *(np.array([49 + n, 53 + n]) for n in range(4)), np.array([57]))


def _at_depth(pixels: Float64, points: Float64, carm: CArm) -> Float64:
    """Points (n, 3) of the C-arm frame on pixels (n, 2), each as far from the source as its point."""
    scale = (carm.sod_mm - points[:, 2:]) / carm.sdd_mm
    return carm.source + (carm.detector_points(pixels) - carm.source) * scale
