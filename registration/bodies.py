# SPDX-License-Identifier: Apache-2.0
"""Which part of a CT is the spine, and which moves with the breath? A coarse split by a smooth mask.

The parts add up to the CT, so their line integrals do too. The spine is where bone stands over bone: along the
patient's axis vertebrae pile up, ribs and breastbone spread out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from registration.errors import BadInput
from registration.geometry import Array, Float64, Volume, read_only, water_attenuation_per_mm

_CELL_MM = 3.0
_BONE = 1.25  # of water's attenuation: above muscle and most contrast, below spongy bone
_MOST = 0.5  # more than that above it counts no more: metal, contrast and dense bone are no more spine than spongy bone
_STEP_MM = 3.0  # aside, from one layer of 3 mm to the next
RADIUS_MM, SOFT_MM = 36.0, 10.0  # of the mask: vertebra with its processes; from whole to nothing in twice that


@dataclass(frozen=True, slots=True)
class Spine:
    """Where the spine runs: heads_mm (n,) along +z of the patient frame, ascending; at_mm (n, 2) its x and y there."""

    heads_mm: Float64
    at_mm: Float64

    @property
    def middle_mm(self) -> Float64:
        """The point (3,) halfway along."""
        n = len(self.heads_mm) // 2
        return np.array([*self.at_mm[n], self.heads_mm[n]])

    def distance_mm(self, points: Float64) -> Float64:
        """How far points (..., 3) of the patient frame are from it, in their transverse plane."""
        x, y = (np.interp(points[..., 2], self.heads_mm, self.at_mm[:, a]) for a in (0, 1))
        return np.asarray(np.hypot(points[..., 0] - x, points[..., 1] - y))

    def parts(self, attenuation: Volume) -> dict[str, Volume]:
        """`spine` and `rest`: see `spine_and_rest`."""
        return spine_and_rest(attenuation, self)

    def holding(self, point_mm: Float64) -> str:
        """The name of the part that a point (3,) of the patient frame belongs to."""
        return "spine" if self.distance_mm(point_mm) < RADIUS_MM else "rest"


def spine_of(attenuation: Volume) -> Spine:
    """The course of the spine in a volume of attenuation (1/mm). Raises BadInput where no bone stands."""
    coarse = attenuation.resampled(_CELL_MM)
    water = water_attenuation_per_mm(60.0)
    dense = np.clip(coarse.data / water - _BONE, 0, _MOST).astype(np.float64)
    # +y is posterior: vessels and heart full of contrast lie in front of the middle of the body
    k, j, i = np.nonzero(dense)
    behind = np.stack([i, j, k], 1) @ coarse.patient_from_index[1, :3] + coarse.patient_from_index[1, 3]
    k, j, i = (x[behind > _middle_y(coarse, water)] for x in (k, j, i))
    if len(k) < 50:
        raise BadInput("spine", got="hardly any bone in the CT", expected="a CT that shows the spine",
                       remedy="register the CT as one body")
    points = np.stack([i, j, k], 1) @ coarse.patient_from_index[:3, :3].T + coarse.patient_from_index[:3, 3]
    mass = dense[k, j, i]
    low = points.min(0)
    cells = np.round((points - low) / _CELL_MM).astype(int)
    grid = np.zeros(cells.max(0) + 1)
    np.add.at(grid, tuple(cells.T), mass)
    blurred = ndimage.gaussian_filter(grid, np.array([12.0, 12.0, 15.0]) / _CELL_MM, mode="constant")
    course = ndimage.gaussian_filter1d(_ridge(blurred).astype(float), 20.0 / _CELL_MM, axis=0, mode="nearest")
    heads = low[2] + _CELL_MM * np.arange(grid.shape[2])
    return Spine(read_only(heads, np.float64), read_only(low[:2] + _CELL_MM * course, np.float64))


def _ridge(blurred: Float64) -> Array:
    """Indices (n, 2) of the densest place in each layer of (x, y, n), followed up and down from where most stands."""
    nx, ny, n = blurred.shape
    piled = blurred.sum(2)
    begin = tuple(int(x) for x in np.unravel_index(int(piled.argmax()), piled.shape))
    # the layer where the pile's own place is densest is surely spine
    first = int(blurred[begin].argmax())
    out = np.zeros((n, 2), int)
    reach = round(_STEP_MM / _CELL_MM)
    for layers in (range(first, n), range(first, -1, -1)):
        at = begin
        for k in layers:
            x0, y0 = max(at[0] - reach, 0), max(at[1] - reach, 0)
            part = blurred[x0:min(at[0] + reach + 1, nx), y0:min(at[1] + reach + 1, ny), k]
            dx, dy = np.unravel_index(int(part.argmax()), part.shape)
            at = (x0 + int(dx), y0 + int(dy)) if part.max() > 0 else at
            out[k] = at
    return out


def _middle_y(volume: Volume, water: float) -> float:
    """The y (posterior) of the middle of the body, mm."""
    body = np.argwhere(volume.data > 0.7 * water)[:, ::-1]
    return float(np.median(body @ volume.patient_from_index[1, :3])) + float(volume.patient_from_index[1, 3])


def spine_and_rest(attenuation: Volume, spine: Spine | None = None) -> dict[str, Volume]:
    """`spine` and `rest`, two volumes on the same grid that add up to the given one. Raises BadInput."""
    course = spine or spine_of(attenuation)
    part = np.empty_like(attenuation.data)
    for k in range(len(part)):
        part[k] = attenuation.data[k] * _mask(attenuation, course, k)
    return {"spine": Volume(part, attenuation.patient_from_index),
            "rest": Volume(attenuation.data - part, attenuation.patient_from_index)}


def _mask(volume: Volume, spine: Spine, k: int) -> Array:
    """1 in the spine, 0 away from it, smooth between, for one slice (rows, columns)."""
    j, i = np.indices(volume.data.shape[1:])
    affine = volume.patient_from_index
    points = np.stack([i, j, np.full_like(i, k)], -1) @ affine[:3, :3].T + affine[:3, 3]
    t = np.clip((RADIUS_MM + SOFT_MM - spine.distance_mm(points)) / (2 * SOFT_MM), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
