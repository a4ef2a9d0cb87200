# SPDX-License-Identifier: Apache-2.0
"""What must the compiled kernels compute? The same formulas in numpy, slow and plain (see native/kernels.cpp)."""

from __future__ import annotations

import numpy as np

from registration.geometry import Array

UNKNOWN = np.float32(30.0)
SHARED = np.float32(1.0)
DIRECTIONS, REACH = 12, 5
PAD = REACH + 1


def taps(direction: int) -> list[tuple[int, int]]:
    """(dx, dy) on one side of a line through the center, one pixel apart along its longer axis."""
    angle = np.pi * direction / DIRECTIONS
    c, s = np.cos(angle), np.sin(angle)
    longer = max(abs(c), abs(s))
    return [(round(i * c / longer), round(i * s / longer)) for i in range(1, REACH + 1)]


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
    """Mean over 11 pixels along the line, out of twelve directions, in which it is largest in magnitude, signed."""
    p = np.pad(picture, PAD, mode="edge")
    rows, columns = picture.shape

    def at(dx: int, dy: int) -> Array:
        return p[PAD + dy: PAD + dy + rows, PAD + dx: PAD + dx + columns]

    best = np.zeros_like(picture)
    for direction in range(DIRECTIONS):
        total = at(0, 0) + sum(at(dx, dy) + at(-dx, -dy) for dx, dy in taps(direction))
        mean = (total / (2 * REACH + 1)).astype(np.float32)
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
    ignorance = (1 - g) * v + g * UNKNOWN * np.float32(frame)
    a = np.maximum(ignorance / (ignorance + np.float32(frame)), np.float32(floor / frame)).astype(np.float32)
    after = (1 - a) ** 2 * ignorance + a * a * np.float32(frame)
    return (m + a * (y - m)).astype(np.float32), after.astype(np.float32)


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
    return (base + s * detail).astype(np.float32), s.astype(np.float32)


def moved(m: Array, v: Array, flow: Array, trusted: Array, price: float) -> tuple[Array, Array]:
    """The state moved along the flow where that is trusted (Catmull-Rom; its variance from the nearest pixel)."""
    rows, columns = m.shape
    r, c = np.indices(m.shape, np.float32)
    x, y = np.clip(c - flow[..., 0], 0, columns - 1), np.clip(r - flow[..., 1], 0, rows - 1)
    ix, iy = x.astype(int), y.astype(int)
    wx, wy = _cubic(x - ix), _cubic(y - iy)
    total = np.zeros_like(m)
    for b in range(4):
        line = np.clip(iy + b - 1, 0, rows - 1)
        total += wy[b] * sum(wx[a] * m[line, np.clip(ix + a - 1, 0, columns - 1)] for a in range(4))
    near = v[np.minimum((y + 0.5).astype(int), rows - 1), np.minimum((x + 0.5).astype(int), columns - 1)]
    on = trusted.astype(bool)
    return np.where(on, total, m).astype(np.float32), np.where(on, near + np.float32(price), v).astype(np.float32)


def _cubic(t: Array) -> tuple[Array, Array, Array, Array]:
    """Catmull-Rom weights of four neighbors at a fraction t."""
    return (t * (-0.5 + t * (1 - 0.5 * t)), 1 + t * t * (-2.5 + 1.5 * t), t * (0.5 + t * (2 - 1.5 * t)),
            t * t * (-0.5 + 0.5 * t))


def chosen(y: Array, m0: Array, v0: Array, m1: Array, v1: Array, frame: float) -> tuple[Array, Array]:
    """Of two hypotheses about the state, the one that explains the frame better over 5x5 binomial pixels."""
    worse = (y - m1) ** 2 / (np.float32(frame) + v1) - (y - m0) ** 2 / (np.float32(frame) + v0)
    second = blur3(blur3(worse.astype(np.float32))) < 0
    return np.where(second, m1, m0), np.where(second, v1, v0)


def lookup(y: Array, table: Array, start: float, step: float) -> Array:
    """Values of a table at y, linear between its nodes, held at its ends."""
    nodes = start + step * np.arange(table.size)
    return np.interp(y, nodes, table).astype(np.float32)


def picture(y: Array, variance: Array, values: Array, p: Array, sigma: Array, start: float,
            step: float) -> tuple[Array, Array, Array]:
    """(stored values, line integrals, their standard deviation) of a clean picture, from three tables."""
    return (lookup(y, values, start, step), lookup(y, p, start, step),
            (lookup(y, sigma, start, step) * np.sqrt(variance)).astype(np.float32))


def window(p: Array, low: float, high: float) -> Array:
    """Display grey (uint8) of line integrals between low (255) and high (0)."""
    grey = 255.5 - (p - low) * (255 / (high - low))
    return np.clip(grey, 0, 255).astype(np.uint8)
