# SPDX-License-Identifier: Apache-2.0
"""How sure is each pixel? Its standard deviation in stored units, as whole numbers of a stated step.

A picture of 16 bits with steps of 2^(bits - 18) stored units of the enhanced run: fine enough for the noise that a
denoiser leaves, wide enough for a quarter of the range. 0 stands where nothing is known (outside the open field).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from fluoronav.enhance.enhanced import Enhanced
from fluoronav.imaging.frame import Frame
from registration.geometry import Array

BITS = 16


def step_of(bits: int) -> float:
    """Stored units a step, for pictures of so many bits."""
    return float(2.0 ** (bits - 18))


def is_unusable(enhanced: Enhanced) -> bool:
    """Whether a frame came back as it was, because nothing could be learned from it."""
    return any(badge.endswith("not enhanced") for badge in enhanced.badges)


def stored_sigma(frame: Frame, enhanced: Enhanced) -> Array:
    """Standard deviation of the clean signal in stored units (rows, columns) float32; 0 outside the open field."""
    assert enhanced.values is not None
    law = frame.intensity
    if law.kind == "linear":  # p = -ln((I - dark) / I0): an SD of p is an SD of I over I - dark
        sigma = enhanced.sigma * np.maximum(enhanced.values - np.float32(law.dark), 0.5)
    else:
        sigma = enhanced.sigma * np.float32((1 << law.bits) - 1)
    return np.where(enhanced.valid, sigma, np.float32(0)).astype(np.float32)


@dataclass(slots=True)
class Spool:
    """Pictures of standard deviations, kept on disk until the enhanced run is written."""

    step: float = 0.0
    shape: tuple[int, int] = (0, 0)
    sizes: list[int] = field(default_factory=list)
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def add(self, frame: Frame, enhanced: Enhanced, flipped: bool) -> None:
        """One frame more, in stored orientation; a frame that was not enhanced is unknown: 0."""
        self.step = step_of(frame.intensity.bits)
        unknown = is_unusable(enhanced)
        sigma = np.zeros(frame.pixels.shape, np.float32) if unknown else stored_sigma(frame, enhanced)
        whole = np.clip(np.rint(sigma / np.float32(self.step)), 0, (1 << BITS) - 1).astype("<u2")
        self.shape = (whole.shape[0], whole.shape[1])
        self.sizes.append(whole.size)
        self.file.write(np.ascontiguousarray(whole[:, ::-1] if flipped else whole).tobytes())

    def pictures(self) -> Iterator[Array]:
        """The pictures in order, uint16."""
        self.file.seek(0)
        for size in self.sizes:
            yield np.frombuffer(self.file.read(2 * size), "<u2").reshape(self.shape).astype(np.uint16)

    def described(self) -> str:
        """What the numbers are."""
        return (f"standard deviation of each pixel of the enhanced picture in its stored units: stored number x "
                f"{self.step:g}; 0 where nothing is known")
