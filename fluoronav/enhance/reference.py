# SPDX-License-Identifier: Apache-2.0
"""What must the compiled kernels compute? The same formulas in numpy, slow and plain (see native/denoise.cpp)."""

from __future__ import annotations

import numpy as np

from registration.geometry import Array

UNKNOWN = np.float32(30.0)  # variance of a pixel that has just changed
DIRECTIONS, REACH = 12, 5
PAD = REACH + 1
INNOVATION, DETAIL = (64, 742), (32, 2978)  # steps of a unit, most steps


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


def binomial(picture: Array, apart: int = 1) -> Array:
    """5x5 binomial mean of pixels `apart` from each other, borders repeated."""
    p = np.pad(picture, 2 * apart, mode="edge").astype(np.float32)
    rows, columns = picture.shape
    weights = np.array([0.0625, 0.25, 0.375, 0.25, 0.0625], np.float32)
    down = np.stack([p[k * apart: k * apart + rows] for k in range(5)], axis=-1) @ weights
    across = np.stack([down[:, k * apart: k * apart + columns] for k in range(5)], axis=-1)
    return np.asarray(across @ weights, np.float32)


def stepped(picture: Array, scale: tuple[int, int]) -> Array:
    """Whole steps of a scale, int32, held at its most."""
    steps, most = (np.float32(x) for x in scale)
    return (np.clip(picture * steps, -most, most) + np.float32(4096.5)).astype(np.int32) - 4096


def line_best(picture: Array) -> Array:
    """Mean over 11 pixels along the line, out of twelve directions, in which it is largest in magnitude, signed."""
    p = np.pad(picture, PAD, mode="edge")
    rows, columns = picture.shape

    def at(dx: int, dy: int) -> Array:
        return p[PAD + dy: PAD + dy + rows, PAD + dx: PAD + dx + columns]

    sums = [at(0, 0) + sum(at(dx, dy) + at(-dx, -dy) for dx, dy in taps(k)) for k in range(DIRECTIONS)]
    high, low = np.max(sums, axis=0), np.min(sums, axis=0)
    return np.asarray(np.where(high >= -low, high, low) / np.float32(2 * REACH + 1), np.float32)


def widened(values: Array) -> Array:
    """|values|, or the largest of the four neighbors where that is more."""
    p = np.pad(np.abs(values), 1, mode="edge")
    beside = np.maximum(np.maximum(p[:-2, 1:-1], p[2:, 1:-1]), np.maximum(p[1:-1, :-2], p[1:-1, 2:]))
    return np.maximum(p[1:-1, 1:-1], beside)


def stabilized(pixels: Array, table: Array, cell: int) -> tuple[Array, Array]:
    """Entries of a table (the last one beyond it), and their means over cells."""
    y = np.take(table, np.minimum(pixels, table.size - 1))
    return y, pooled(y, cell)


def pooled(y: Array, cell: int) -> Array:
    """Means over cells of pixels; those at the far borders have fewer."""
    at = [np.arange(0, n, cell) for n in y.shape]
    count = np.outer(*(np.diff(np.append(a, n)) for a, n in zip(at, y.shape, strict=True)))
    return np.asarray(np.add.reduceat(np.add.reduceat(y, at[0], axis=0), at[1], axis=1) / count, np.float32)


def evidence(y: Array, m: Array, v: Array, frame: float) -> Array:
    """Signed line mean of the blurred innovation over its standard deviation a pixel."""
    d = stepped(((y - m) / np.sqrt(np.float32(frame) + v)).astype(np.float32), INNOVATION)
    p = np.pad(d, 1, mode="edge")
    down = p[:-2] + p[2:] + 2 * p[1:-1]
    soft = (down[:, :-2] + down[:, 2:] + 2 * down[:, 1:-1] + 2) >> 2  # sixteen quarters of the 3x3 binomial mean
    return line_best(soft) / np.float32(4 * INNOVATION[0])


def parts(m: Array) -> tuple[Array, Array, Array]:
    """(near: 5x5 mean, along: best line mean of the rest, wide: 13x13 mean)."""
    near = binomial(m)
    return near, line_best(stepped(m - near, DETAIL)) / np.float32(DETAIL[0]), binomial(near, 2)


def denoised(y: Array, m: Array, v: Array, rules: Array, flow: Array | None, trusted: Array | None,
             cell: int) -> tuple[Array, Array, Array, Array]:
    """(mean, variance, clean, its variance): one step of the gated Kalman filter, and the spatial part after it."""
    frame, scale, _, _, low, high, floor, price = (np.float32(x) for x in rules[:8])
    if flow is not None and trusted is not None:
        m, v = followed(y, m, v, float(frame), flow, trusted, cell, float(price))
    g = smoothstep(widened(evidence(y, m, v, float(frame))) * scale, float(low), float(high))
    ignorance = (1 - g) * v + g * UNKNOWN * frame
    a = np.maximum(ignorance / (ignorance + frame), floor / frame)
    mean, variance = m + a * (y - m), (1 - a) ** 2 * ignorance + a * a * frame
    return mean, variance, *spatial(mean, variance, rules)[:2]


def spatial(m: Array, v: Array, rules: Array) -> tuple[Array, Array, Array]:
    """(clean, its variance, share of its own detail that each pixel kept)."""
    line_scale, point_scale = (np.float32(x) for x in rules[2:4])
    low, high, least, left, kept = (float(x) for x in rules[8:])
    near, along, _ = parts(m)
    detail, sd = m - near, np.sqrt(v)
    s_line = smoothstep(widened(along) * line_scale / sd, low, high)
    s_point = smoothstep(np.abs(detail) * point_scale / sd, low, high + 1)
    s = np.maximum(np.maximum(s_line, s_point), np.float32(least))
    return near + s * detail, v * share_left(s, left, kept), s


def share_left(kept: Array, noise_left: float, noise_kept: float) -> Array:
    """Share of the variance that the spatial part left, from the detail kept by some 10x10 pixels around each: between
    what it leaves of noise alone and all of it, where structure made it keep everything."""
    rows, columns = kept.shape
    p = np.pad(pooled(kept, 2), 2, mode="edge")
    high, wide = p.shape[0] - 4, p.shape[1] - 4
    around = np.mean([p[i: i + high, j: j + wide] for i in range(5) for j in range(5)], axis=0)
    structure = np.clip((around - noise_kept) / max(1 - noise_kept, 1e-3), 0, 1)
    left = (noise_left + (1 - noise_left) * structure).astype(np.float32)
    return _spread(_spread(left, rows, 2, 0), columns, 2, 1)


def followed(y: Array, m: Array, v: Array, frame: float, flow: Array, trusted: Array, cell: int,
             price: float) -> tuple[Array, Array]:
    """The state as it was, or moved along the flow (Catmull-Rom; its variance from the nearest pixel) where that
    is trusted and explains the frame better over 5x5 binomial pixels."""
    rows, columns = m.shape
    on = np.kron(trusted, np.ones((cell, cell), np.uint8))[:rows, :columns].astype(bool)
    r, c = np.indices(m.shape, np.float32)
    fx, fy = (_spread(_spread(flow[..., k], rows, cell, 0), columns, cell, 1) for k in range(2))
    x, y1 = np.clip(c - fx, 0, columns - 1), np.clip(r - fy, 0, rows - 1)
    ix, iy = x.astype(int), y1.astype(int)
    wx, wy = _cubic(x - ix), _cubic(y1 - iy)
    total = np.zeros_like(m)
    for b in range(4):
        line = np.clip(iy + b - 1, 0, rows - 1)
        total += wy[b] * sum(wx[a] * m[line, np.clip(ix + a - 1, 0, columns - 1)] for a in range(4))
    near = v[np.minimum((y1 + 0.5).astype(int), rows - 1), np.minimum((x + 0.5).astype(int), columns - 1)]
    m1, v1 = np.where(on, total, m).astype(np.float32), np.where(on, near + np.float32(price), v).astype(np.float32)
    worse = (y - m1) ** 2 / (np.float32(frame) + v1) - (y - m) ** 2 / (np.float32(frame) + v)
    second = binomial(worse.astype(np.float32)) < 0
    return np.where(second, m1, m), np.where(second, v1, v)


def _spread(cells: Array, n: int, cell: int, axis: int) -> Array:
    """Cells along an axis at full resolution, linear between their middles."""
    last = cells.shape[axis] - 1
    at = np.clip((np.arange(n) + 0.5) / cell - 0.5, 0, last)
    i = at.astype(int)
    t = np.expand_dims((at - i).astype(np.float32), 1 - axis)
    return np.asarray((1 - t) * np.take(cells, i, axis) + t * np.take(cells, np.minimum(i + 1, last), axis), np.float32)


def _cubic(t: Array) -> tuple[Array, Array, Array, Array]:
    """Catmull-Rom weights of four neighbors at a fraction t."""
    return (t * (-0.5 + t * (1 - 0.5 * t)), 1 + t * t * (-2.5 + 1.5 * t), t * (0.5 + t * (2 - 1.5 * t)),
            t * t * (-0.5 + 0.5 * t))


def lookup(y: Array, table: Array, start: float, step: float) -> Array:
    """Values of a table at y, linear between its nodes, held at its ends."""
    nodes = start + step * np.arange(table.size)
    return np.interp(y, nodes, table).astype(np.float32)


def picture(y: Array, variance: Array, shown: Array, values: Array, p: Array, sigma: Array, start: float, step: float,
            low: float, high: float) -> tuple[Array, Array, Array, Array]:
    """(stored values of `shown`, line integrals of y and their standard deviation, grey of `shown`), from tables."""
    return (lookup(shown, values, start, step), lookup(y, p, start, step),
            (lookup(y, sigma, start, step) * np.sqrt(variance)).astype(np.float32),
            window(lookup(shown, p, start, step), low, high))


def taken(pixels: Array, table: Array) -> Array:
    """Entries of a table (the last one beyond it)."""
    return np.asarray(np.take(table, np.minimum(pixels, table.size - 1)))


def window(p: Array, low: float, high: float) -> Array:
    """Display grey (uint8) of line integrals between low (255) and high (0)."""
    grey = 255.5 - (p - low) * (255 / (high - low))
    return np.clip(grey, 0, 255).astype(np.uint8)
