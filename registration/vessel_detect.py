# SPDX-License-Identifier: Apache-2.0
"""Where are the contrast-filled vessels in a picture? Their skeleton, from contrast over a local background.

The method is the definition of the figure `vessel_mm`: dense structures that are narrower than the
widest vessel and stand out of the noise are segmented and thinned to one pixel. Nothing is tuned to a
detector: lengths are mm at the isocenter, thresholds follow the measured noise and contrast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from registration.geometry import Array, Float64, read_only
from registration.model import View

BACKGROUND_MM = 20.0  # the local background is the median over so much: five coronary diameters
BORDER_MM = 6.0  # beside the shutter's edge the background is not known
SHORTEST_MM = 8.0  # shorter pieces are clips, calcium, noise
NOISE_SIGMAS = 5.0  # a pixel of 260,000 passes by chance once in 3.5 million
FAINTEST_SHARE = 0.3  # of the typical vessel's contrast: below it a branch is drained, its walls unsure


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Center pixels of dense vessels. points (n, 2) in mm at the isocenter, relative to the principal
    point (+x right, +y down); pixels (n, 2) as (u, v); tangent (n, 2) unit vectors (sign free);
    half_width_mm (n,); contrast and noise in the unit of the picture; field: bool (rows, columns),
    where vessels could have been seen."""

    points: Float64
    pixels: Float64
    tangent: Float64
    half_width_mm: Float64
    contrast: float
    noise: float
    field: Array

    def __post_init__(self) -> None:
        for name in ("points", "pixels", "tangent", "half_width_mm", "field"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.points)


def detect_vessels(view: View, widest_mm: float = 8.0) -> Skeleton:
    """The skeleton of dense vessels up to `widest_mm` across (at the isocenter) in a picture.

    An empty skeleton says that nothing stands out; no error is raised.
    """
    mm = view.carm.mm_per_px_at_isocenter
    field = _field(view.weight, mm)
    picture = _filled(view.line_integrals, view.weight > 0)
    contrast = ndimage.gaussian_filter(picture - _background(picture, mm, widest_mm), 1.0)
    mask, typical, noise = _segmented(contrast, field, mm)
    skeleton = thinned(mask)
    rows, cols = np.nonzero(skeleton)
    if len(rows) == 0:
        none = np.zeros((0, 2))
        return Skeleton(none, none, none, np.zeros(0), 0.0, noise, field)
    pixels = np.stack([cols, rows], axis=-1).astype(np.float64)
    half = ndimage.distance_transform_edt(mask)[rows, cols] * mm
    return Skeleton(mm_of_pixels(view, pixels), pixels, _tangents(mask, rows, cols, 2.0 / mm), half,
                    typical, noise, field)


def mm_of_pixels(view: View, pixels_u_v: Float64) -> Float64:
    """Pixels (..., 2) as mm at the isocenter, relative to the principal point."""
    c = view.carm
    pitch = np.array(c.pitch_mm_row_col[::-1])
    return (pixels_u_v - np.array(c.principal_px_u_v)) * pitch * (c.sod_mm / c.sdd_mm)


def _field(weight: Array, mm: float) -> Array:
    """Pixels far enough from everything that carries no signal."""
    padded = np.pad(weight > 0, 1)
    return ndimage.distance_transform_edt(padded)[1:-1, 1:-1] * mm > BORDER_MM


def _filled(picture: Array, valid: Array) -> Array:
    """Pixels without signal take the value of the nearest one that has some."""
    if valid.all() or not valid.any():
        return np.asarray(picture, np.float32)
    at = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return np.asarray(picture[tuple(at)], np.float32)


def _background(picture: Array, mm: float, widest_mm: float) -> Array:
    """What the picture would be without vessels: a wide median, raised to whatever is too wide for one."""
    width = max(BACKGROUND_MM, 3 * widest_mm)
    step = max(1, round(width / mm / 15))  # the median is taken on blocks: same answer, 1/step^4 of the work
    blocks = _block_means(picture, step)
    size = max(3, round(width / mm / step) | 1)
    median = _enlarged(ndimage.median_filter(blocks, size, mode="nearest"), picture.shape, step)
    smooth = ndimage.gaussian_filter(picture, 1.0)
    opened = ndimage.grey_opening(smooth, max(3, round(1.5 * widest_mm / mm) | 1))
    return np.maximum(median, opened)


def _block_means(picture: Array, step: int) -> Array:
    rows, cols = (-n % step for n in picture.shape)
    p = np.pad(picture, ((0, rows), (0, cols)), mode="edge")
    return p.reshape(p.shape[0] // step, step, p.shape[1] // step, step).mean((1, 3))


def _enlarged(blocks: Array, shape: tuple[int, ...], step: int) -> Array:
    offset = (1 / step - 1) / 2
    return ndimage.affine_transform(blocks, [1 / step] * 2, [offset] * 2, output_shape=shape, order=1,
                                    mode="nearest")


def _segmented(contrast: Array, field: Array, mm: float) -> tuple[Array, float, float]:
    """Mask of vessels, their typical contrast, and the noise it was told from (half of the field is
    free of vessels, so the lower half of the distribution tells the noise)."""
    inside = contrast[field]
    if inside.size < 100:
        return np.zeros_like(field), 0.0, 0.0
    middle = float(np.median(inside))
    below = inside[inside < middle]
    noise = float(1.4826 * np.median(middle - below)) if below.size else 0.0
    sure = inside[inside > middle + NOISE_SIGMAS * noise]
    if noise <= 0 or sure.size * mm * mm < SHORTEST_MM:
        return np.zeros_like(field), 0.0, noise
    typical = float(np.percentile(sure, 75)) - middle
    mask = (contrast > middle + max(NOISE_SIGMAS * noise, FAINTEST_SHARE * typical)) & field
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    if n == 0:
        return mask, typical, noise
    keep = np.zeros(n + 1, bool)
    for k, box in enumerate(ndimage.find_objects(labels), start=1):
        extent = np.hypot(*(s.stop - s.start for s in box)) * mm
        keep[k] = extent > SHORTEST_MM and np.count_nonzero(labels[box] == k) * mm * mm > 2 * SHORTEST_MM
    return keep[labels], typical, noise


def _tangents(mask: Array, rows: Array, cols: Array, sigma: float) -> Float64:
    """Direction of the vessel at each center pixel: the smaller axis of the mask's structure tensor."""
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 1.0)
    gy, gx = (ndimage.sobel(soft, axis) for axis in (0, 1))
    xx, xy, yy = (ndimage.gaussian_filter(a, sigma)[rows, cols] for a in (gx * gx, gx * gy, gy * gy))
    across = 0.5 * np.arctan2(2 * xy, xx - yy)
    return np.stack([-np.sin(across), np.cos(across)], axis=-1).astype(np.float64)


# --------------------------------------------------------------------------------------------------
# Thinning


def _thinning_tables() -> tuple[Array, Array]:
    """Which 3 x 3 neighborhoods lose their middle in each half step.
    Source: Zhang, Suen, Commun. ACM 27(3), 1984, conditions (a) to (d)."""
    codes = np.arange(256)
    p = [(codes >> k) & 1 for k in range(8)]  # p2 ... p9: clockwise from the pixel above
    count = sum(p)
    turns = sum((p[k] == 0) & (p[(k + 1) % 8] == 1) for k in range(8))
    simple = (count >= 2) & (count <= 6) & (turns == 1)
    north, east, south, west = p[0], p[2], p[4], p[6]
    first = simple & (north * east * south == 0) & (east * south * west == 0)
    second = simple & (north * east * west == 0) & (north * south * west == 0)
    return first, second


_TABLES = _thinning_tables()


def thinned(mask: Array) -> Array:
    """The one-pixel skeleton (bool) of a bool mask (rows, columns)."""
    padded = np.pad(np.asarray(mask, bool), 1).astype(np.uint8)
    width = padded.shape[1]
    around = np.array([-width, 1 - width, 1, 1 + width, width, width - 1, -1, -1 - width])
    flat = padded.ravel()
    at = np.flatnonzero(flat)
    bits = (1 << np.arange(8)).astype(np.int64)
    while True:
        before = len(at)
        for table in _TABLES:
            gone = table[flat[at[:, None] + around] @ bits]
            flat[at[gone]] = 0
            at = at[~gone]
        if len(at) == before:
            return padded[1:-1, 1:-1].astype(bool)
