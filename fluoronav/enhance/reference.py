# SPDX-License-Identifier: Apache-2.0
"""What must the compiled kernels compute? The same formulas in numpy, slow and plain (see native/kernels.cpp)."""

from __future__ import annotations

import numpy as np

from registration.geometry import Array

UNKNOWN = np.float32(30.0)
SHARED = np.float32(0.85)
TAPS = (((1, 0), (2, 0), (3, 0)), ((1, 0), (2, 1), (3, 1)), ((1, 1), (2, 2), (3, 3)), ((0, 1), (1, 2), (1, 3)),
        ((0, 1), (0, 2), (0, 3)), ((0, 1), (-1, 2), (-1, 3)), ((-1, 1), (-2, 2), (-3, 3)), ((-1, 0), (-2, 1), (-3, 1)))
PAD = 4


def smoothstep(x: Array, low: float, high: float) -> Array:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blur3(picture: Array) -> Array:
    """3x3 binomial mean, borders repeated."""
    p = np.pad(picture, 1, mode="edge")
    rows = 0.25 * p[:-2] + 0.5 * p[1:-1] + 0.25 * p[2:]
    return (0.25 * rows[:, :-2] + 0.5 * rows[:, 1:-1] + 0.25 * rows[:, 2:]).astype(np.float32)


def line_best(picture: Array) -> Array:
    """Mean over 7 pixels along the line, out of eight directions, in which it is largest in magnitude, signed."""
    p = np.pad(picture, PAD, mode="edge")
    rows, columns = picture.shape

    def at(dx: int, dy: int) -> Array:
        return p[PAD + dy: PAD + dy + rows, PAD + dx: PAD + dx + columns]

    best = np.zeros_like(picture)
    for taps in TAPS:
        total = at(0, 0) + sum(at(dx, dy) + at(-dx, -dy) for dx, dy in taps)
        mean = (total / 7).astype(np.float32)
        best = np.where(np.abs(mean) > np.abs(best), mean, best)
    return best


def widened(values: Array) -> Array:
    """|values|, or a share of the largest of the four neighbors where that is more."""
    p = np.pad(np.abs(values), 1, mode="edge")
    beside = np.maximum(np.maximum(p[:-2, 1:-1], p[2:, 1:-1]), np.maximum(p[1:-1, :-2], p[1:-1, 2:]))
    return np.maximum(p[1:-1, 1:-1], SHARED * beside)


def evidence(y: Array, m: Array, v: Array, frame: float) -> Array:
    """Signed line mean of the blurred innovation over its standard deviation a pixel."""
    return line_best(blur3(((y - m) / np.sqrt(np.float32(frame) + v)).astype(np.float32)))


def temporal(y: Array, evidence: Array, m: Array, v: Array, frame: float, scale: float, low: float, high: float,
             floor: float) -> tuple[Array, Array]:
    """One step of the gated Kalman filter: (mean, variance)."""
    g = smoothstep(widened(evidence) * np.float32(scale), low, high)
    ignorance = (1 - g) * v + g * UNKNOWN
    a = np.maximum(ignorance / (ignorance + np.float32(frame)), np.float32(floor / frame)).astype(np.float32)
    return (m + a * (y - m)).astype(np.float32), (a * np.float32(frame)).astype(np.float32)


def parts(m: Array) -> tuple[Array, Array, Array]:
    """(base, detail, line means of the detail); base is the 5x5 binomial mean."""
    base = blur3(blur3(m))
    detail = (m - base).astype(np.float32)
    return base, detail, line_best(detail)


def spatial(m: Array, v: Array, line_scale: float, point_scale: float, low: float, high: float,
            least: float) -> tuple[Array, Array]:
    """(picture, share of its own detail that each pixel kept)."""
    base, detail, along = parts(m)
    sd = np.sqrt(v)
    s_line = smoothstep(widened(along) * np.float32(line_scale) / sd, low, high)
    s_point = smoothstep(np.abs(detail) * np.float32(point_scale) / sd, low, high + 1)
    s = np.maximum(np.maximum(s_line, s_point), np.float32(least))
    t = s_line * (1 - s_point) * smoothstep(v, 0.3, 0.9)
    out = base + s * ((1 - t) * detail + t * along)
    return out.astype(np.float32), (s * (1 - t)).astype(np.float32)


def lookup(y: Array, table: Array, start: float, step: float) -> Array:
    """Values of a table at y, linear between its nodes, held at its ends."""
    nodes = start + step * np.arange(table.size)
    return np.interp(y, nodes, table).astype(np.float32)


def window(p: Array, low: float, high: float) -> Array:
    """Display grey (uint8) of line integrals between low (255) and high (0)."""
    grey = 255.5 - (p - low) * (255 / (high - low))
    return np.clip(grey, 0, 255).astype(np.uint8)
