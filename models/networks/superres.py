# SPDX-License-Identifier: Apache-2.0
"""What lies between the pixels of a binned picture? A small net for what interpolation and the denoiser leave out.

The picture twice as fine is F = bicubic(x) + net, and then every 2x2 block is moved so that its mean lies within a
bound of the pixel x that it came from: binned, it is x again within what is not known of it, whatever the net says.
Beside the clean picture the net sees what went into it: the frame itself and the mean in time before its spatial part.
At a low dose most of what is wrong between the pixels was taken away with the noise, and stands there.
Pixel centers at integers: fine pixel 2 i + a lies at i + (a - 1/2) / 2 of the coarse grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES, OUTPUTS, WIDTH = 6, 4, 24
DILATIONS = (1, 1, 2, 2, 1)  # of the layers of the body: 17 pixels are seen
CONTEXT = 9  # pixels a side whose mean is taken away: what is flat and how bright says nothing


class Finer(nn.Module):
    """(batch, 6, rows, columns) features to (batch, 4, rows, columns), the 2x2 fine pixels row by row.

    Features, in the scale of unit noise: the clean picture less its surroundings, the mean in time and the new frame
    less the clean picture, standard deviations of the clean picture, of the mean in time, and the stated one.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, step in enumerate(DILATIONS):
            layers += [nn.Conv2d(width if k else FEATURES, width, 3, padding=step, dilation=step), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, OUTPUTS, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # training starts at the interpolation
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """What is added to the four fine pixels."""
        return torch.as_tensor(self.head(self.body(features)))


def consistent(added: Tensor, away: Tensor, bound: Tensor) -> Tensor:
    """What is added to the fine pixels (batch, 1, 2 rows, 2 columns), moved so that no block is off by more than bound.

    away (batch, 1, rows, columns): block means of the interpolated picture less the coarse one.
    """
    off = functional.avg_pool2d(added, 2) + away
    over = off - torch.maximum(torch.minimum(off, bound), -bound)
    return added - functional.interpolate(over, scale_factor=2, mode="nearest")
