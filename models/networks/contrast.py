# SPDX-License-Identifier: Apache-2.0
"""Which of the details that a picture holds should be raised? A small net that chooses gains, and its critic.

The net draws nothing: it says, for every place and level of the pyramid of the contrast kernel, by how much the detail
that is there, and that stands above the noise, is multiplied: 0 to 2 times what the kernel would do by itself. What it
can add is so bounded, and confined to what the data support. The critic tells patches that it raised from patches in
which devices and vessels truly have twice the contrast; it is needed in training alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES, LEVELS, WIDTH = 9, 4, 16
MOST = 2.0  # of a gain; 1 is what the kernel does by itself
CONTEXT = 9  # pixels a side of the mean that the critic does not see


class Gains(nn.Module):
    """(batch, 9, rows / 4, columns / 4) statistics of the bands to (batch, 4, rows / 8, columns / 8): logits of the
    levels' gains."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(FEATURES, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(width, LEVELS, 1)
        nn.init.zeros_(self.head.weight)  # training starts at the kernel's own gains
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits: a gain is MOST times their sigmoid."""
        return torch.as_tensor(self.head(self.body(features)))


class Critic(nn.Module):
    """Patches (batch, 2, rows, columns), raised and as they were, less their surroundings, to scores of places."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1))

    def forward(self, y: Tensor, added: Tensor) -> Tensor:
        """Scores of pictures y (batch, 1, rows, columns) with something added."""
        half = CONTEXT // 2
        around = functional.avg_pool2d(functional.pad(y, (half,) * 4, mode="replicate"), CONTEXT, 1)
        return torch.as_tensor(self.body(torch.cat([y - around + added, y - around], dim=1) / 3))


def added_by(logits: Tensor, details: list[Tensor], low: Tensor, high: Tensor, gain: float) -> Tensor:
    """What is added to a picture (batch, 1, rows, columns): details of each level times their gains, within bounds.

    details: of each level (batch, 1, rows / 2^level, columns / 2^level), times their support; gain: the kernel's own.
    """
    gains = functional.interpolate(MOST * torch.sigmoid(logits), scale_factor=2, mode="bilinear", align_corners=False)
    total: Tensor | None = None
    for level in range(LEVELS - 1, -1, -1):
        g = gains[:, level: level + 1]
        if level == LEVELS - 1:
            g = g[..., ::2, ::2]
        for _ in range(level, LEVELS - 2):
            g = expanded(g)
        own = gain * g * details[level]
        total = own if total is None else own + expanded(total)
    assert total is not None
    return torch.minimum(torch.maximum(total, low), high)


def expanded(x: Tensor) -> Tensor:
    """Twice as many rows and columns, linear between pixels that lie on the even ones, the last one repeated."""
    rows, columns = x.shape[-2:]
    p = functional.pad(x, (0, 1, 0, 1), mode="replicate")
    p = functional.interpolate(p, size=(2 * rows + 1, 2 * columns + 1), mode="bilinear", align_corners=True)
    return p[..., : 2 * rows, : 2 * columns]
