# SPDX-License-Identifier: Apache-2.0
"""Where is the patient in a small picture? A network that knows one patient and says a few poses at once.

What it sees and what its numbers mean stands in models/pose_proposer.py. It gives several hypotheses, since a body from
behind looks nearly like one from the front: the nearest of them is what training improves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.pose_proposer import CHANNELS, HYPOTHESES, NUMBERS, OUTPUTS

WIDTHS = (24, 48, 96)
HIDDEN = 256
PLACE = 1.0  # weight of place and width (half edges, a logarithm) beside the rotation (chord, 0 to 2.83)
REST = 0.05  # share of the other hypotheses in the loss: none of them dies


class PoseRegressor(nn.Module):
    """(batch, 2, 32, 32) pictures to (batch, 36, 1, 1): four times nine numbers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = CHANNELS
        for k, width in enumerate(WIDTHS):
            layers += _block(before, width, stride=2)
            if k == 1:
                layers += _block(width, width, stride=1)
            before = width
        layers += [nn.Conv2d(before, HIDDEN, 4), nn.ReLU(), nn.Conv2d(HIDDEN, HIDDEN, 1), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(HIDDEN, OUTPUTS, 1)

    def forward(self, features: Tensor) -> Tensor:
        """The numbers."""
        return torch.as_tensor(self.head(self.body(features)))

    def folded(self) -> PoseRegressor:
        """The same function without normalization layers: they go into the convolutions before them."""
        out = PoseRegressor()
        merged: list[nn.Module] = []
        for layer in self.body:
            if isinstance(layer, nn.BatchNorm2d):
                conv = merged[-1]
                assert isinstance(conv, nn.Conv2d)
                merged[-1] = torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), layer.eval())
            else:
                merged.append(layer)
        out.body, out.head = nn.Sequential(*merged), self.head
        return out.cpu().eval()


def _block(before: int, after: int, *, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]


def rotations(numbers: Tensor) -> Tensor:
    """(..., 3, 3) of numbers (..., 6 or more): Gram and Schmidt on two columns."""
    x = nn.functional.normalize(numbers[..., :3], dim=-1)
    y = numbers[..., 3:6] - (numbers[..., 3:6] * x).sum(-1, keepdim=True) * x
    y = nn.functional.normalize(y, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def loss_of(answer: Tensor, true: Tensor) -> Tensor:
    """Mean over the batch of the nearest hypothesis's distance from the true numbers (batch, 9)."""
    said = answer.reshape(len(answer), HYPOTHESES, NUMBERS)
    turn = (rotations(said) - rotations(true)[:, None]).square().sum((-1, -2)).add(1e-6).sqrt()
    place = nn.functional.smooth_l1_loss(said[..., 6:], true[:, None, 6:].expand_as(said[..., 6:]), reduction="none",
                                         beta=0.1).sum(-1)
    away = turn + PLACE * place
    return ((1 - REST) * away.amin(1) + REST * away.mean(1)).mean()
