# SPDX-License-Identifier: Apache-2.0
"""What is shown where enhancement is off? The raw picture with plain windowing, in the chain's own words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fluoronav.enhance.enhanced import Enhanced
from fluoronav.imaging.frame import Frame
from fluoronav.imaging.intensity import line_integrals
from registration.geometry import Array, read_only


def untouched(frame: Frame) -> Enhanced:
    """The frame as it came: line integrals as stated by its meaning, sigma 0 where the noise is not known."""
    p, sigma, relative, i0, source = line_integrals(frame)
    inside = p[frame.valid] if frame.valid.any() else p.ravel()
    low, high = (float(x) for x in np.percentile(inside, (0.5, 99.5)))
    grey = np.round(255 * (1 - np.clip((p - low) / max(high - low, 1e-6), 0, 1))).astype(np.uint8)
    return Enhanced(line_integrals=read_only(p), sigma=read_only(np.zeros_like(p) if sigma is None else sigma),
                    display=read_only(grey), raw_display=read_only(grey), flow=None, carm=frame.carm,
                    valid=frame.valid, relative=relative, i0=i0, i0_source=source, badges=("not enhanced",),
                    values=read_only(frame.pixels.astype(np.float32)))


def windowed(enhanced: Enhanced, window: tuple[float, float] | None) -> Enhanced:
    """Display and raw display through a window (level, width) in display grey; None leaves them."""
    if window is None:
        return enhanced
    level, width = window
    ramp = (np.arange(256) - (level - width / 2)) / width * 255
    table: Array = np.round(np.clip(ramp, 0, 255)).astype(np.uint8)
    return replace(enhanced, display=read_only(np.take(table, enhanced.display)),
                   raw_display=read_only(np.take(table, enhanced.raw_display)))
