# SPDX-License-Identifier: Apache-2.0
"""Which filters does a denoiser choose between? The operators of the enhancement kernels, on torch tensors.

The same formulas as fluoronav/enhance/native/rows.cpp (which sums lines of whole steps), differentiable where training
needs it; a test holds one to the other. Pictures are (batch, 1, rows, columns) float32 in the scale of unit noise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

DIRECTIONS, REACH = 12, 5


def _line_kernels() -> Tensor:
    """(12, 1, 11, 11): means over 11 pixels along twelve directions."""
    size = 2 * REACH + 1
    out = np.zeros((DIRECTIONS, 1, size, size), np.float32)
    for direction in range(DIRECTIONS):
        angle = np.pi * direction / DIRECTIONS
        c, s = np.cos(angle), np.sin(angle)
        longer = max(abs(c), abs(s))
        for i in range(-REACH, REACH + 1):
            dx, dy = (int(np.sign(i)) * round(abs(i) * x / longer) for x in (c, s))
            out[direction, 0, REACH + dy, REACH + dx] += 1 / size
    return torch.from_numpy(out)


LINES = _line_kernels()


def blur(picture: Tensor, step: int = 1, taps: tuple[float, ...] = (0.25, 0.5, 0.25)) -> Tensor:
    """Separable mean with taps `step` pixels apart, borders repeated (sums of slices: quicker to go back through)."""
    reach = step * (len(taps) // 2)
    rows, columns = picture.shape[-2:]
    p = functional.pad(picture, (reach, reach, reach, reach), mode="replicate")
    p = sum(w * p[..., i * step: i * step + rows, :] for i, w in enumerate(taps))  # type: ignore[assignment]
    out: Tensor = sum(w * p[..., i * step: i * step + columns] for i, w in enumerate(taps))  # type: ignore[assignment]
    return out


def wider(picture: Tensor) -> Tensor:
    """Binomial mean of 5x5 taps two pixels apart: the next scale (a trous)."""
    return blur(picture, 2, (0.0625, 0.25, 0.375, 0.25, 0.0625))


@torch.no_grad()
def line_best(picture: Tensor) -> Tensor:
    """Mean over 11 pixels along the line, out of twelve directions, in which it is largest in magnitude, signed.

    Without a gradient: it is evidence and candidate, and half of the time of a training step would go into it.
    """
    padded = functional.pad(picture, (REACH, REACH, REACH, REACH), mode="replicate")
    means = functional.conv2d(padded, LINES)
    high, low = means.amax(dim=1, keepdim=True), means.amin(dim=1, keepdim=True)
    return torch.where(high >= -low, high, low)


def widened(picture: Tensor) -> Tensor:
    """|picture|, or the largest of the four neighbors where that is more."""
    p = functional.pad(picture.abs(), (1, 1, 1, 1), mode="replicate")
    beside = torch.maximum(torch.maximum(p[..., :-2, 1:-1], p[..., 2:, 1:-1]),
                           torch.maximum(p[..., 1:-1, :-2], p[..., 1:-1, 2:]))
    return torch.maximum(p[..., 1:-1, 1:-1], beside)


def moved(picture: Tensor, flow: Tensor, mode: str = "bicubic") -> Tensor:
    """The picture moved along a flow (batch, rows, columns, 2) px from its own frame to the next."""
    rows, columns = picture.shape[-2:]
    v, u = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    grid = torch.stack([(u - flow[..., 0]) * 2 / (columns - 1) - 1, (v - flow[..., 1]) * 2 / (rows - 1) - 1], dim=-1)
    return functional.grid_sample(picture, grid.to(picture.dtype), mode=mode, padding_mode="border",
                                  align_corners=True)
