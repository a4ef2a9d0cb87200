# SPDX-License-Identifier: Apache-2.0
"""The definition of vessel detection and of matching, written down with scipy and numpy: what the compiled loops are
held to."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from registration.curve_fit import ALONG, ANGLE_MM, EMPTY_WEIGHT, Curves, Seen
from registration.model import View
from registration.vessel_detect import (
    ALONG_MM,
    BACKGROUND_MM,
    BORDER_MM,
    FAINTEST_SHARE,
    NOISE_SIGMAS,
    SHORTEST_MM,
)


def field_of(view: View) -> np.ndarray:
    padded = np.pad(view.weight > 0, 1)
    return ndimage.distance_transform_edt(padded)[1:-1, 1:-1] * view.carm.mm_per_px_at_isocenter > BORDER_MM


def vessel_mask(view: View, widest_mm: float) -> np.ndarray:
    mm = view.carm.mm_per_px_at_isocenter
    at = ndimage.distance_transform_edt(view.weight <= 0, return_distances=False, return_indices=True)
    picture = np.asarray(view.line_integrals[tuple(at)], float)
    width = max(BACKGROUND_MM, 3 * widest_mm)
    step = max(1, round(width / mm / 15))
    rows, cols = (-n % step for n in picture.shape)
    p = np.pad(picture, ((0, rows), (0, cols)), mode="edge")
    blocks = p.reshape(p.shape[0] // step, step, p.shape[1] // step, step).mean((1, 3))
    median = ndimage.median_filter(blocks, max(3, round(width / mm / step) | 1), mode="nearest")
    low = ndimage.affine_transform(median, [1 / step] * 2, [(1 / step - 1) / 2] * 2, output_shape=picture.shape,
                                   order=1, mode="nearest")
    wider = ndimage.grey_opening(ndimage.gaussian_filter(picture, 1.0), max(3, round(1.5 * widest_mm / mm) | 1))
    contrast = ndimage.gaussian_filter(picture - np.maximum(low, wider), 1.0)
    inside = contrast[field_of(view)]
    middle = np.median(inside)
    noise = 1.4826 * np.median(middle - inside[inside < middle])
    typical = np.percentile(inside[inside > middle + NOISE_SIGMAS * noise], 75) - middle
    mask = (contrast > middle + max(NOISE_SIGMAS * noise, FAINTEST_SHARE * typical)) & field_of(view)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    for k, box in enumerate(ndimage.find_objects(labels), start=1):
        extent = np.hypot(*(s.stop - s.start for s in box)) * mm
        if not (extent > SHORTEST_MM and (labels[box] == k).sum() * mm * mm > 2 * SHORTEST_MM):
            mask[labels == k] = False
    return mask


def tangents_of(mask: np.ndarray, pixels: np.ndarray, mm: float) -> np.ndarray:
    soft = ndimage.gaussian_filter(mask.astype(float), 1.0)
    gy, gx = (ndimage.sobel(soft, axis) for axis in (0, 1))
    xx, xy, yy = (ndimage.gaussian_filter(a, ALONG_MM / mm)[pixels[:, 1], pixels[:, 0]]
                  for a in (gx * gx, gx * gy, gy * gy))
    across = 0.5 * np.arctan2(2 * xy, xx - yy)
    return np.stack([-np.sin(across), np.cos(across)], axis=-1)


def with_angle(points: np.ndarray, tangents: np.ndarray) -> np.ndarray:
    x, y = tangents.T
    return np.concatenate([points, ANGLE_MM * np.stack([x * x - y * y, 2 * x * y], -1)], axis=1)


def robust_cost(curves: Curves, seen: Seen, pose: np.ndarray, scale: float) -> tuple[float, float]:
    """(robust cost, weighted sum of squared residuals), every pair of points looked at."""
    sod = seen.carm.sod_mm
    moved = curves.moved(pose)
    x, t = moved.points, moved.tangents
    m = (sod / (sod - x[:, 2]))[:, None]
    flat = x[:, :2] * m
    along = m * t[:, :2] + flat * m / sod * t[:, 2:]
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = np.where(length > 0.1, along / length, 0.0)
    c, to_px = seen.carm, seen.carm.sdd_mm / seen.carm.sod_mm
    uv = np.round(flat * to_px / np.array(c.pitch_mm_row_col[::-1]) + c.principal_px_u_v).astype(int)
    inside = ((uv >= 0) & (uv < np.array(c.shape[::-1]))).all(1)
    inside[inside] = seen.field[uv[inside, 1], uv[inside, 0]]
    a, b = with_angle(seen.points, seen.tangents), with_angle(flat, along)
    far = np.linalg.norm(a[:, None] - b[None], axis=2)
    cost, squares = 0.0, 0.0
    k1, k2 = far.argmin(1), far[:, inside].argmin(0)
    there = np.flatnonzero(inside)
    for share, d, curve, point, way in (
            (1 / len(a), far.min(1), k1, np.arange(len(a)), along[k1]),
            (EMPTY_WEIGHT / len(there), far[:, inside].min(0), there, k2, seen.tangents[k2])):
        hit = d < 6 * scale + ANGLE_MM
        cost += float(share * np.where(hit, d**2 / (scale**2 + d**2), 1.0).sum())
        delta = (flat[curve] - seen.points[point])[hit]
        way = way[hit]
        weight = share * (scale**2 / (scale**2 + d[hit] ** 2)) ** 2
        normal = np.stack([-way[:, 1], way[:, 0]], -1)
        end_on = (way == 0).all(1)
        normal[end_on] = delta[end_on] / np.maximum(np.linalg.norm(delta[end_on], axis=1, keepdims=True), 1e-9)
        squares += float((weight * ((normal * delta).sum(1) ** 2 + ALONG * (way * delta).sum(1) ** 2)).sum())
    return cost, squares
