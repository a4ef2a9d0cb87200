# SPDX-License-Identifier: Apache-2.0
"""What did a moving part look like that the X-ray pulse smeared? Its blur along the flow is undone once, within bounds.

What moves by f pixels a frame moves by b = f * pulse / interval while the tube is on: the picture is the mean along b
(a box). With P that mean, one step of Van Cittert's inverse, y + (y - P y), gives back twice the transfer less its
square (a box that leaves 0.6 leaves 0.84), and at most doubles the noise. It is added with a weight from 0 to 1: only
where the flow is trusted and longer than a pixel within the pulse, and what it would add stands above the noise that
the denoiser states. Where nothing moves so fast the bits stay. Source: van Cittert, Z. Physik 69, 1931.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.work import Work
from registration.geometry import Array

LEAST_PX = 1.0  # within the pulse: a shorter blur is below the detector's own
MOST_PX = 12.0  # a longer one is not undone: few pixels of it are data
BOX = np.ones((3, 3), np.uint8)  # a line's flanks belong to it
SAMPLES = 7  # of the mean along the blur
# line mean of y - P y over its SD: noise alone passes 0.30 in one of a hundred pixels, 0.42 in less than one of a
# thousand (flat fields through the chain)
LOW, HIGH = 0.30, 0.42


class Deblur:
    """Stage: the clean picture with the blur of its own motion undone where that is safe; its variance grows."""

    name = "deblur"

    def step(self, state: int | None, item: Work) -> tuple[int, Work]:
        """Changes `clean`, `variance` and `stated`; the state is the time of the last frame, ns."""
        now = item.frame.time_ns
        if item.clean is None or item.variance is None:
            return now, item
        pulse_ms = item.frame.exposure.ms
        if pulse_ms is None:
            return now, replace(item, badges=(*item.badges, "not deblurred: the length of the pulse is not stated"))
        if state is None or item.flow is None or now <= state:
            return now, item
        blur = item.flow * np.float32(min(pulse_ms * 1e6 / (now - state), 1.0))
        length = np.hypot(blur[..., 0], blur[..., 1])
        if not (length > LEAST_PX).any():
            return now, item
        clean, growth = deblurred(item.clean, item.variance, blur, item.cell)
        stated = None if item.stated is None else item.stated * growth
        return now, replace(item, clean=clean, variance=item.variance * growth, stated=stated)


def deblurred(clean: Array, variance: Array, blur: Array, cell: int) -> tuple[Array, Array]:
    """(the picture with its blur undone, factor of its variance, 1 to 4), both (rows, columns) float32. blur: px within
    the pulse of cells (cells down, cells across, 2) of `cell` x `cell` pixels."""
    rows, columns = clean.shape
    size = (blur.shape[1] * cell, blur.shape[0] * cell)
    full = cv2.resize(blur, size, interpolation=cv2.INTER_LINEAR)[:rows, :columns]
    length = np.hypot(full[..., 0], full[..., 1])
    missing = clean - along(clean, full)
    none = np.zeros_like(clean)  # along twelve lines of eleven pixels, as the denoiser looks for change
    lines = np.abs(kernels.evidence(np.ascontiguousarray(missing / np.sqrt(variance)), none, none, 1.0))
    t = np.clip((cv2.dilate(lines, BOX) - LOW) / (HIGH - LOW), 0, 1)
    long = np.clip(length / LEAST_PX - 1, 0, 1) * np.clip(MOST_PX + 1 - length, 0, 1)  # fades in from 1 to 2 px
    weight = (t * t * (3 - 2 * t) * long).astype(np.float32)
    return clean + weight * missing, np.square(1 + weight)


def along(picture: Array, blur: Array) -> Array:
    """Mean of a picture along the blur (rows, columns, 2) px, half of it on either side; the border repeats."""
    v, u = np.indices(picture.shape, np.float32)
    total = np.zeros_like(picture)
    for k in range(SAMPLES):
        s = np.float32((k + 0.5) / SAMPLES - 0.5)
        total += cv2.remap(picture, u + s * blur[..., 0], v + s * blur[..., 1], cv2.INTER_CUBIC,
                           borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(total / np.float32(SAMPLES))
