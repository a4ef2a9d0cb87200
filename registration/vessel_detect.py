# SPDX-License-Identifier: Apache-2.0
"""Where are the contrast-filled vessels in a picture? Their skeleton, from contrast over a local background.

The method is the definition of the figure `vessel_mm`: dense structures that are narrower than the
widest vessel and stand out of the noise are segmented and thinned to one pixel. Nothing is tuned to a
detector: lengths are mm at the isocenter, thresholds follow the measured noise and contrast. The loops
are compiled (native/vessel_picture.hpp, native/skeleton.hpp).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration import _vessels
from registration.geometry import Array, Float64, read_only
from registration.model import View

BACKGROUND_MM = 20.0  # the local background is the median over so much: five coronary diameters
BORDER_MM = 6.0  # beside the shutter's edge the background is not known
SHORTEST_MM = 8.0  # shorter pieces are clips, calcium, noise
NOISE_SIGMAS = 5.0  # a pixel of 260,000 passes by chance once in 3.5 million
FAINTEST_SHARE = 0.3  # of the typical vessel's contrast: below it a branch is drained, its walls unsure
ALONG_MM = 2.0  # sigma of the window in which a vessel's direction is measured


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Center pixels of dense vessels. points (n, 2) in mm at the isocenter, relative to the principal
    point (+x right, +y down); pixels (n, 2) as (u, v); tangent (n, 2) unit vectors (sign free);
    field: bool (rows, columns), where vessels could have been seen."""

    points: Float64
    pixels: Float64
    tangent: Float64
    field: Array

    def __post_init__(self) -> None:
        for name in ("points", "pixels", "tangent", "field"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.points)


def detect_vessels(view: View, widest_mm: float = 8.0) -> Skeleton:
    """The skeleton of dense vessels up to `widest_mm` across (at the isocenter) in a picture.

    An empty skeleton says that nothing stands out; no error is raised.
    """
    mm = view.carm.mm_per_px_at_isocenter
    at, tangent, field = _vessels.detect(
        view.line_integrals, view.weight, BORDER_MM / mm, max(BACKGROUND_MM, 3 * widest_mm) / mm,
        max(3, round(1.5 * widest_mm / mm) | 1), ALONG_MM / mm, mm, SHORTEST_MM, NOISE_SIGMAS, FAINTEST_SHARE)
    pixels = np.stack([at % view.carm.shape[1], at // view.carm.shape[1]], axis=-1).astype(np.float64)
    return Skeleton(mm_of_pixels(view, pixels), pixels, tangent, field.astype(bool))


def mm_of_pixels(view: View, pixels_u_v: Float64) -> Float64:
    """Pixels (..., 2) as mm at the isocenter, relative to the principal point."""
    c = view.carm
    pitch = np.array(c.pitch_mm_row_col[::-1])
    return (pixels_u_v - np.array(c.principal_px_u_v)) * pitch * (c.sod_mm / c.sdd_mm)


def thinned(mask: Array) -> Array:
    """The one-pixel skeleton (bool) of a bool mask (rows, columns).
    Source: Zhang, Suen, Commun. ACM 27(3), 1984."""
    return np.asarray(_vessels.thinned(np.ascontiguousarray(mask, np.uint8)), bool)
