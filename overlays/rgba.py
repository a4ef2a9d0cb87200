# SPDX-License-Identifier: Apache-2.0
"""How are pictures with transparency handled? Premultiplied RGBA uint8: blending, straightening, moving."""

from __future__ import annotations

import numpy as np

from registration.geometry import Array


def used(rgba: Array) -> Array:
    """Flat numbers of the pixels of (rows, columns, 4) uint8 that are not clear."""
    words = np.ascontiguousarray(rgba).view(np.uint32).reshape(-1)
    return np.flatnonzero(words != 0)  # of booleans: ten times quicker than of numbers


def blend_over(below: Array, rgba: Array, opacity: float) -> None:
    """Lay premultiplied rgba over below (rows, columns, 3) uint8, contiguous, in place:
    rgb * opacity + (1 - alpha * opacity) * below, rounded once (Porter and Duff 1984, "over")."""
    at = used(rgba)
    flat = below.reshape(-1, 3)
    part = rgba.reshape(-1, 4)[at].astype(np.float32)
    part *= np.float32(opacity)
    keep = 1 - part[:, 3:] / np.float32(255)
    flat[at] = (part[:, :3] + keep * flat[at] + np.float32(0.5)).astype(np.uint8)


def straight(rgba: Array) -> Array:
    """Premultiplied RGBA (rows, columns, 4) uint8 as straight RGBA, which PNG and web pages expect."""
    out = np.ascontiguousarray(rgba).copy()
    at = used(out)
    flat = out.reshape(-1, 4)
    part = flat[at].astype(np.uint16)
    alpha = part[:, 3:]
    part[:, :3] = np.minimum((part[:, :3] * 255 + alpha // 2) // np.maximum(alpha, 1), 255)
    flat[at] = part
    return out


def moved(rgba: Array, du: int, dv: int) -> Array:
    """The picture moved by whole pixels, (columns, rows); what comes in is clear."""
    out = np.zeros_like(rgba)
    rows, cols = rgba.shape[:2]
    if abs(du) < cols and abs(dv) < rows:
        out[max(dv, 0):rows + min(dv, 0), max(du, 0):cols + min(du, 0)] = \
            rgba[max(-dv, 0):rows + min(-dv, 0), max(-du, 0):cols + min(-du, 0)]
    return out
