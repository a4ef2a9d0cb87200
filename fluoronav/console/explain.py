# SPDX-License-Identifier: Apache-2.0
"""Where is a pixel from, and how sure is it? Two pictures in color for the page, each with its legend there."""

from __future__ import annotations

import cv2
import numpy as np

from fluoronav.enhance.enhanced import Enhanced
from fluoronav.enhance.stabilise import shifted
from registration.geometry import Array

# blue, green, red of: now, surroundings, before; style.css has the same
COLORS = np.array([[255, 255, 255], [255, 144, 74], [16, 36, 56]], np.float32)


def weights(enhanced: Enhanced) -> Array | None:
    """(rows, columns, 3) uint8, blue first: the mixture of colors by the weights; None where nothing was denoised."""
    if enhanced.shares is None:
        return None
    mixed = np.tensordot(enhanced.shares.parts(), COLORS, (0, 0))
    return _placed(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), enhanced)


def uncertainty(enhanced: Enhanced) -> Array | None:
    """(rows, columns, 3) uint8, blue first: the standard deviation of each clean pixel, from dark (0) to yellow (that
    of one raw frame, or more); None where nothing was denoised."""
    if enhanced.shares is None:
        return None
    scale = np.clip(np.rint(255 * np.sqrt(enhanced.shares.variance)), 0, 255).astype(np.uint8)
    return _placed(np.asarray(cv2.applyColorMap(scale, cv2.COLORMAP_CIVIDIS)), enhanced)


def _placed(picture: Array, enhanced: Enhanced) -> Array:
    """Where the pixels are shown; the page stretches it where pixels were divided."""
    du, dv = enhanced.shift_px
    return picture if du == 0 and dv == 0 else shifted(picture, du, dv)
