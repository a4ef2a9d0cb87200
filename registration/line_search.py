# SPDX-License-Identifier: Apache-2.0
"""Which shift lays projected curves onto a skeleton? All shifts at once, for many turns.

Both are drawn as soft lines that carry their direction as a double angle, exp(2 i theta); the Fourier
transform gives the correlation for all shifts. Lines that fall out of the field are not held against a
shift. Accurate to a cell of the grid: a proposer, not an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft, ndimage

from registration.curve_fit import Curves, Seen
from registration.geometry import Array, Float64, Rigid

CELLS = 64  # of the picture's longer side; doubled for the transform, so that nothing wraps round


def best_shifts(curves: Curves, seen: Seen, poses: Sequence[Float64], most: int) -> list[Float64]:
    """The poses (4x4) with their best shift in the picture's plane, best first, `most` of them."""
    grid = _Grid(seen)
    found = []
    for pose in poses:
        score, shift = grid.best(curves.moved(pose))
        found.append((score, pose, shift))
    found.sort(key=lambda f: -f[0])
    out = []
    for _, pose, shift in found[:most]:
        # the shift in mm at the isocenter is one of the tree at its own depth
        z = Rigid.apply(pose, curves.points.mean(axis=0))[2]
        scale = (seen.carm.sod_mm - z) / seen.carm.sod_mm
        out.append(Rigid.translation(shift[0] * scale, shift[1] * scale, 0) @ pose)
    return out


class _Grid:
    """The skeleton as an image of density and direction, transformed once."""

    def __init__(self, seen: Seen) -> None:
        c = seen.carm
        pitch = np.array(c.pitch_mm_row_col[::-1]) * c.sod_mm / c.sdd_mm
        self.low = (-0.5 - np.array(c.principal_px_u_v)) * pitch
        size = np.array(c.shape[::-1]) * pitch
        self.cell = float(size.max() / CELLS)
        self.n = 2 * CELLS
        self.carm = c
        density, direction = self._drawn(seen.points, seen.tangents, None)
        rows, cols = seen.field.shape
        step = max(rows, cols) / CELLS
        ij = ((np.mgrid[:CELLS, :CELLS] + 0.5) * step).astype(int)
        inside = (ij[0] < rows) & (ij[1] < cols)
        field = np.zeros((self.n, self.n), np.float32)
        field[:CELLS, :CELLS][inside] = seen.field[ij[0][inside], ij[1][inside]]
        self.energy = float(np.sqrt((density**2).sum()))
        self.density, self.direction, self.field = fft.rfft2(density), fft.fft2(direction), fft.rfft2(field)

    def _drawn(self, points: Float64, tangents: Float64, roll: Float64 | None) -> tuple[Array, Array]:
        at = np.floor((points - self.low) / self.cell if roll is None else points / self.cell).astype(int) % self.n
        flat = at[:, 1] * self.n + at[:, 0]
        angle = (tangents[:, 0] + 1j * tangents[:, 1]) ** 2
        count = np.bincount(flat, minlength=self.n**2).astype(np.float32)
        real = np.bincount(flat, angle.real, self.n**2)
        imag = np.bincount(flat, angle.imag, self.n**2)
        total = np.maximum(count, 1)
        # a cell with a line in it counts once, however many points fall there
        line = (count > 0).astype(np.float32).reshape(self.n, self.n)
        direction = ((real + 1j * imag) / total).astype(np.complex64).reshape(self.n, self.n)
        blur = dict(sigma=1.0, mode="wrap", truncate=3.0)
        soft = ndimage.gaussian_filter(line, **blur)
        turned = ndimage.gaussian_filter(direction.real, **blur) + 1j * ndimage.gaussian_filter(direction.imag, **blur)
        return soft, turned

    def best(self, moved: Curves) -> tuple[float, Float64]:
        """The highest score over all shifts and that shift (2,), mm at the isocenter."""
        sod = self.carm.sod_mm
        x = moved.points
        depth = sod - x[:, 2]
        ok = depth > 0.2 * sod
        if ok.sum() < 10:
            return -np.inf, np.zeros(2)
        m = (sod / depth[ok])[:, None]
        flat = x[ok, :2] * m
        t = moved.tangents[ok, :2] + flat / sod * moved.tangents[ok, 2:]
        t /= np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)
        middle = flat.mean(axis=0)
        density, direction = self._drawn(flat - middle, t, middle)
        spectrum = fft.rfft2(density)
        alike = fft.irfft2(self.density * spectrum.conj(), s=(self.n, self.n))
        turned = fft.ifft2(self.direction * fft.fft2(direction).conj()).real
        own = fft.irfft2(self.field * fft.rfft2(density**2).conj(), s=(self.n, self.n))
        # at least half of the tree's energy counts, else a single line in a corner would win
        norm = self.energy * np.sqrt(np.maximum(own, 0.5 * float((density**2).sum())))
        score = (0.5 * alike + 0.5 * turned) / norm
        row, col = np.unravel_index(int(score.argmax()), score.shape)
        shift = np.array([col, row], float)
        shift[shift >= 0.75 * self.n] -= self.n
        return float(score.max()), self.low + shift * self.cell - middle
