# SPDX-License-Identifier: Apache-2.0
"""What does a net do that may draw? A gated recurrent net with a bounded residual, the mixing denoiser's competitor.

It sees the change and the fine detail of the mean as 4x4 pixels folded into channels, and its own memory. For every
pixel it gives the weight of the new frame in the mean, and what to add to the mean for the picture: at most BOUND
standard deviations of a frame's noise. One convolutional body, its answers made gates and sums outside, so that the
same exported graph runs on every engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.mixing import Mixed, Noise
from models.networks.operators import blur

FOLD = 4  # pixels a side that become channels
FOLDED = FOLD * FOLD
MEMORY, WIDTH = 24, 48
BOUND = 2.0  # noise units: the most that the net may add
FEATURES, OUTPUTS = 2 * FOLDED + MEMORY, 2 * MEMORY + 2 * FOLDED + 1
SPREAD = 3.0  # of the logarithm of the stated variance, both ways, about 0.1


@dataclass(frozen=True)
class Memory:
    """mean (batch, 1, rows, columns) and what the net keeps for itself (batch, 24, rows / 4, columns / 4)."""

    mean: Tensor
    hidden: Tensor

    def detached(self) -> Memory:
        """Without the gradient's way back."""
        return Memory(self.mean.detach(), self.hidden.detach())


class Recurrent(nn.Module):
    """The whole denoiser: one step a frame; interchangeable with `Mixing` in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(FEATURES, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(WIDTH, OUTPUTS, 1)
        nn.init.zeros_(self.head.weight)
        if self.head.bias is not None:  # to begin with: a recursive filter of weight 0.3, and nothing added
            nn.init.zeros_(self.head.bias)
            with torch.no_grad():
                self.head.bias[2 * MEMORY: 2 * MEMORY + FOLDED] = -0.85

    def start(self, y: Tensor, rested: Tensor | None = None) -> Memory:
        """The state before the second frame; the net is not told how long the picture rested."""
        del rested
        small = y.shape[0], MEMORY, y.shape[2] // FOLD, y.shape[3] // FOLD
        return Memory(y, torch.zeros(small))

    def step(self, state: Memory, y: Tensor, noise: Noise, flow: Tensor | None) -> tuple[Memory, Mixed]:
        """(state, the picture); neither the noise's correlation nor the flow is used."""
        del noise, flow
        hidden, gate, added, variance = answers(self.head(self.body(features(state, y))), state.hidden)
        mean = state.mean + functional.pixel_shuffle(gate, FOLD) * (y - state.mean)
        clean = mean + functional.pixel_shuffle(added, FOLD)
        stated = functional.interpolate(variance, scale_factor=FOLD, mode="bilinear", align_corners=False)
        none = torch.zeros_like(clean)
        return Memory(mean, hidden), Mixed(clean, stated, none, none)


def features(state: Memory, y: Tensor) -> Tensor:
    """(batch, 56, rows / 4, columns / 4): change, fine detail of the mean, memory."""
    change = torch.tanh((y - state.mean) / 3)
    detail = torch.tanh((state.mean - blur(blur(blur(state.mean)))) / 3)
    return torch.cat([functional.pixel_unshuffle(change, FOLD), functional.pixel_unshuffle(detail, FOLD),
                      state.hidden], dim=1)


def answers(out: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(memory, weight of the new frame, what is added, variance), folded, of the network's output."""
    keep, new, gate, added, spread = out.split([MEMORY, MEMORY, FOLDED, FOLDED, 1], dim=1)
    z = torch.sigmoid(keep)
    return ((1 - z) * hidden + z * torch.tanh(new), torch.sigmoid(gate), BOUND * torch.tanh(added / BOUND),
            0.1 * torch.exp(spread.clamp(-SPREAD, SPREAD)))
