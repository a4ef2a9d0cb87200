# SPDX-License-Identifier: Apache-2.0
"""What moved since the last frame? DIS optical flow at reduced size, believed only where it explains the change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fluoronav.enhance.work import Work
from registration.geometry import Array

LEAST_CELLS = 16  # a side: in a smaller picture there is nothing to follow
EXPLAINS = 0.6  # the moved picture must leave less than this share of the change
LEAST_PX = 0.3  # shorter flow is standing still: moving the state would only blur it
NOTICED = 2.0  # a change below this many standard deviations is noise and needs no flow


@dataclass(frozen=True, slots=True)
class MotionState:
    """Means of cells of the last frame, in the scale of unit noise, a little blurred."""

    small: Array


class Motion:
    """Stage: flow in pixels from the last frame to this one of cells of pixels, and where to believe it."""

    name = "motion"

    def step(self, state: MotionState | None, item: Work) -> tuple[MotionState, Work]:
        """Adds `flow` and `trusted` to the item; None where nothing moved or nothing is known."""
        assert item.small is not None
        small = cv2.GaussianBlur(item.small, (0, 0), 1.0)
        new = MotionState(small)
        if (state is None or state.small.shape != small.shape or item.law_before is not None
                or min(small.shape) < LEAST_CELLS):
            return new, item
        flow, trusted = believed(state.small, small, noise=0.4 / item.cell)
        if not trusted.any():
            return new, item
        shift = flow * (trusted[..., None] * np.float32(item.cell))
        return new, replace(item, flow=shift, trusted=trusted.astype(np.uint8))


def believed(before: Array, now: Array, noise: float) -> tuple[Array, Array]:
    """(flow (rows, columns, 2) px from `before` to `now`, mask of where it explains a change above the noise)."""
    low, high = np.percentile(now[::4, ::4], (0.5, 99.5))
    scale = 255 / max(float(high - low), 1e-6)
    a, b = (np.clip((picture - low) * scale, 0, 255).astype(np.uint8) for picture in (before, now))
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    back = flow.calc(b, a, None)  # type: ignore[call-overload]  # from now to before
    rows, columns = np.indices(now.shape, np.float32)
    moved = cv2.remap(before, columns + back[..., 0], rows + back[..., 1], cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)
    left = cv2.blur(np.square(now - moved), (9, 9))
    change = cv2.blur(np.square(now - before), (9, 9))
    square = np.square(back[..., 0]) + np.square(back[..., 1])
    trusted = (left < EXPLAINS * change) & (change > (NOTICED * noise) ** 2) & (square > LEAST_PX**2)
    return -back, trusted
