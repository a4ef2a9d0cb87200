# SPDX-License-Identifier: Apache-2.0
"""Which pixels may show contrast in vessels that the CT shows empty?"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from registration.geometry import Array, CArm, Float64

_MARGIN_MM = 2.5  # around the vessels: motion since the CT, and the reach of a gradient


def near_vessels(vessels_mm: Float64, carm: CArm, carm_from_patient: Float64) -> Array:
    """Pixels (rows, columns) near or between the vessels' walls (n, 3), which are in the patient frame; bool."""
    k = max(1, round(max(carm.shape) / 128))
    small = carm.binned(k)
    at = small.project_patient(carm_from_patient, vessels_mm)
    at = np.round(at[np.isfinite(at).all(axis=1)]).astype(int)
    at = at[((at >= 0) & (at < small.shape[::-1])).all(axis=1)]
    mask = np.zeros(small.shape, bool)
    mask[at[:, 1], at[:, 0]] = True
    reach = max(1, round(_MARGIN_MM / small.mm_per_px_at_isocenter))
    # closing fills the lumen between the walls of all but the widest vessels, and those as far as it matters:
    # inside of them contrast is even
    mask = ndimage.binary_dilation(ndimage.binary_closing(np.pad(mask, reach), iterations=reach)[
        reach:-reach, reach:-reach], iterations=reach)
    out = np.zeros(carm.shape, bool)
    large = np.repeat(np.repeat(mask, k, 0), k, 1)
    out[:large.shape[0], :large.shape[1]] = large
    return out
