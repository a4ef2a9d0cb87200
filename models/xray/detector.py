# SPDX-License-Identifier: Apache-2.0
"""What does the detector make of the radiation? Scatter, blur, quanta, electronics, counts.

    mean  = blur(primary + scatter)           in quanta a pixel
    count = dark + gain * (blur(quantum noise) + mean) + electronic noise, rounded
The quantum noise passes the scintillator's blur like the signal, so that var = gain * mean * sum(kernel^2):
`Detector.gain` is that product, the slope a user of the counts measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from registration.geometry import Array, Float64


@dataclass(frozen=True, slots=True)
class Detector:
    """A flat panel: counts a quantum, dark level, electronic noise (standard deviation, counts), bits, widths of
    the focal spot's and the scintillator's blur (standard deviations, pixels)."""

    counts_per_quantum: float = 3.2
    dark: float = 96.0
    electronic: float = 5.0
    bits: int = 14
    spot_px: float = 0.30  # focal spot of 0.6 mm, magnified by 0.47, on pixels of 0.6 mm
    scintillator_px: float = 0.40  # CsI: MTF 0.46 at the Nyquist frequency, pixel aperture apart

    @property
    def kernel(self) -> Float64:
        """The scintillator's blur along one axis, sum 1."""
        x = np.arange(-2, 3)
        k = np.exp(-(x**2) / (2 * self.scintillator_px**2))
        return k / k.sum()

    @property
    def gain(self) -> float:
        """Slope of variance over mean in counts, as measured in even regions."""
        return float(self.counts_per_quantum * (self.kernel**2).sum() ** 2)

    def read_out(self, quanta: Array, rng: np.random.Generator) -> Array:
        """Counts (rows, columns) uint16 for mean quanta a pixel (float32), before any blur but the spot's."""
        k = self.kernel.astype(np.float32)
        noise = rng.standard_normal(quanta.shape, np.float32)
        noise *= np.sqrt(quanta)
        few = quanta < 25  # where a normal distribution would be too symmetric
        if few.any():
            noise[few] = rng.poisson(quanta[few]) - quanta[few]
        signal = cv2.sepFilter2D(quanta + noise, cv2.CV_32F, k, k, borderType=cv2.BORDER_REFLECT_101)
        counts = signal * np.float32(self.counts_per_quantum) + np.float32(self.dark)
        counts += np.float32(self.electronic) * rng.standard_normal(quanta.shape, np.float32)
        return np.rint(np.clip(counts, 0, (1 << self.bits) - 1)).astype(np.uint16)

    def spot_blur(self, transmission: Array) -> Array:
        """The picture of a focal spot that is no point."""
        return cv2.GaussianBlur(transmission, (3, 3), self.spot_px, borderType=cv2.BORDER_REFLECT_101)


# Scatter behind an anti-scatter grid: single scatter arises where radiation meets matter, in proportion to p exp(-p)
# (the forward scatter potential of Ohnesorge, Flohr and Klingenbeck-Regn, Eur. Radiol. 9:563, 1999), and spreads widely
# (two Gaussians). Behind 20 cm of tissue (p = 4) it is a third of the primary radiation, as with a grid.
SCATTER_TO_PRIMARY_PER_P = 0.35 / 4
SCATTER_MM = ((0.65, 26.0), (0.35, 70.0))  # weight, standard deviation at the detector
_CELL = 16  # pixels: scatter holds no detail, so it is computed on this grid


def scatter(transmission: Array, pitch_mm: float) -> Array:
    """Scattered radiation (rows, columns) float32 in the unit of the primary: low-frequency, made from the primary."""
    rows, columns = transmission.shape
    small = cv2.resize(transmission, (max(2, columns // _CELL), max(2, rows // _CELL)), interpolation=cv2.INTER_AREA)
    small = np.clip(small, 1e-6, 1.0)
    potential = np.float32(-SCATTER_TO_PRIMARY_PER_P) * small * np.log(small)
    cells = 1.0 / (pitch_mm * _CELL)
    parts = [np.float32(weight) * cv2.GaussianBlur(potential, (0, 0), mm * cells, borderType=cv2.BORDER_REFLECT_101)
             for weight, mm in SCATTER_MM]
    out = np.asarray(np.sum(parts, axis=0, dtype=np.float32))
    return cv2.resize(out, (columns, rows), interpolation=cv2.INTER_CUBIC)
