# SPDX-License-Identifier: Apache-2.0
"""What must the compiled kernels of the stated uncertainty compute? The same in numpy (see native/stated.cpp)."""

from __future__ import annotations

import cv2
import numpy as np

from registration.geometry import Array

CELL = 8


def cell_statistics(y: Array, m: Array, v: Array, f: Array) -> Array:
    """(7, cells, cells): 8x8 means of d = y - m, d^2, d times its neighbors, m, its gradient squared, v, f."""
    d = y - m
    right, below = np.concatenate([d[:, 1:], d[:, -1:]], axis=1), np.concatenate([d[1:], d[-1:]])
    dx, dy = np.diff(m, axis=1, append=m[:, -1:]), np.diff(m, axis=0, append=m[-1:])
    return np.stack([_pooled(x) for x in (d, d * d, d * (right + below) / 2, m, dx * dx + dy * dy, v, f)])


def _pooled(x: Array) -> Array:
    """Means over cells; those at the border hold what pixels they have."""
    starts = [np.arange(0, n, CELL) for n in x.shape]
    total = np.add.reduceat(np.add.reduceat(x.astype(np.float64), starts[0], axis=0), starts[1], axis=1)
    counts = [np.minimum(CELL, n - s) for n, s in zip(x.shape, starts, strict=True)]
    return np.asarray(total / np.outer(*counts), np.float32)


def three_layers(features: Array, w0: Array, b0: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
    """The network (outputs, cells, cells) of features (inputs, cells, cells): two layers rectified, one plain."""
    x = features.reshape(len(features), -1)
    x = np.maximum(w0 @ x + b0[:, None], 0)
    x = np.maximum(w1 @ x + b1[:, None], 0)
    return np.asarray(w2 @ x + b2[:, None], np.float32).reshape(-1, *features.shape[1:])


def stated_variance(m: Array, v: Array, terms: Array) -> Array:
    """s v + b + k |grad m|^2 of terms (3, cells, cells) = s, b, k, bilinear between the middles of cells."""
    p = np.pad(m, 1, mode="edge")
    dx, dy = (p[1:-1, 2:] - p[1:-1, :-2]) / 2, (p[2:, 1:-1] - p[:-2, 1:-1]) / 2
    size = (terms.shape[2] * CELL, terms.shape[1] * CELL)
    s, b, k = (cv2.resize(t, size, interpolation=cv2.INTER_LINEAR)[: m.shape[0], : m.shape[1]] for t in terms)
    return np.asarray(s * v + b + k * (dx * dx + dy * dy), np.float32)
