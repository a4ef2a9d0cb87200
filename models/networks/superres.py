# SPDX-License-Identifier: Apache-2.0
"""What lies between the pixels of a binned picture? A small net for what bicubic interpolation leaves out.

The picture twice as fine is F = bicubic(x) + net(x), and then every 2x2 block is moved so that its mean lies within one
standard deviation of the pixel x that it came from: binned, it is x again within its noise, whatever the net says.
Pixel centers at integers: fine pixel 2 i + a lies at i + (a - 1/2) / 2 of the coarse grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES, OUTPUTS, WIDTH = 2, 4, 20
CONTEXT = 9  # pixels a side whose mean is taken away: what is flat and how bright says nothing


class Finer(nn.Module):
    """(batch, 2, rows, columns) detail and noise to (batch, 4, rows, columns), the 2x2 fine pixels row by row."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(FEATURES, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(width, OUTPUTS, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # training starts at the interpolation
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """What is added to the four fine pixels."""
        return torch.as_tensor(self.head(self.body(features)))

    def finer(self, x: Tensor, sd: Tensor) -> Tensor:
        """The picture (batch, 1, 2 rows, 2 columns) of x (batch, 1, rows, columns) with noise sd, in its unit."""
        added = functional.pixel_shuffle(self(features_of(x, sd)), 2)
        smooth = functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return consistent(smooth + added, x, sd)


def features_of(x: Tensor, sd: Tensor) -> Tensor:
    """(batch, 2, rows, columns): x less its surroundings, and its noise."""
    half = CONTEXT // 2
    around = functional.avg_pool2d(functional.pad(x, (half, half, half, half), mode="replicate"), CONTEXT, 1)
    return torch.cat([x - around, sd.expand_as(x)], dim=1)


def consistent(fine: Tensor, x: Tensor, sd: Tensor) -> Tensor:
    """The fine picture with the mean of each 2x2 block moved to within sd of x."""
    away = functional.avg_pool2d(fine, 2) - x
    over = away - torch.maximum(torch.minimum(away, sd), -sd)
    return fine - functional.interpolate(over, scale_factor=2, mode="nearest")
