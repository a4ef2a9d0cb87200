# SPDX-License-Identifier: Apache-2.0
"""How much of a pixel is from now, from before, from its surroundings? Two small nets that choose; they draw nothing.

The output is a convex combination of candidates that the data support. In time: the new frame y and the state m
(still, or moved along the flow). In space: the mean m', its value along the local line, its 5x5 and its 13x13
surroundings. Each net sees statistics of 4x4 pixels and gives, for 8x8 pixels, the coefficients of a local law;
the law is applied at full resolution to the evidence of each pixel (as bilateral grids do: Gharbi, ACM TOG
36(4), 2017). The classical filter is the special case of constant coefficients, and training starts there. The
variance of the output follows from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.operators import blur, line_best, moved, widened, wider

UNKNOWN = 30.0  # variance of a pixel that has just changed, in units of the frame's
REMAPPED = 0.15  # variance added where the state was moved: interpolation is not free
POOL, CELL = 4, 8  # pixels a side that a feature and a coefficient stand for
CAP = 12.0  # of evidence: more of it says no more
TIME_FEATURES, TIME_OUTPUTS = 7, 3
SPACE_FEATURES, SPACE_OUTPUTS = 7, 9
CANDIDATES = ("mean", "line", "near", "wide")


@dataclass(frozen=True)
class Noise:
    """What noise alone does in this run: medians of evidence, line and point detail (batch, 1, 1, 1), covariances of
    the CANDIDATES over the variance of the first (batch, 4, 4)."""

    evidence: Tensor
    line: Tensor
    point: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class State:
    """mean, variance (batch, 1, rows, columns); busy, lined (batch, 1, rows / 4, columns / 4): where the last
    frames changed, and where lines stood."""

    mean: Tensor
    variance: Tensor
    busy: Tensor
    lined: Tensor

    def detached(self) -> State:
        """Without the gradient's way back."""
        return State(self.mean.detach(), self.variance.detach(), self.busy, self.lined)


class Mixed(NamedTuple):
    """clean, its variance (batch, 1, rows, columns); weights (batch, 4, rows, columns) in the order of CANDIDATES;
    lined (batch, 1, rows / 4, columns / 4): evidence of lines."""

    clean: Tensor
    variance: Tensor
    weights: Tensor
    lined: Tensor


class Chooser(nn.Module):
    """Features (batch, n, rows / 4, columns / 4) to coefficients (batch, outputs, rows / 8, columns / 8)."""

    def __init__(self, features: int, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(width, outputs, 1)
        nn.init.zeros_(self.head.weight)  # the classical filter to begin with
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Coefficients; zero is the classical filter."""
        out: Tensor = self.head(self.body(features))
        return out


class Mixing(nn.Module):
    """The whole denoiser: one step a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Chooser(TIME_FEATURES, TIME_OUTPUTS)
        self.space = Chooser(SPACE_FEATURES, SPACE_OUTPUTS)

    def start(self, y: Tensor, rested: Tensor | None = None) -> State:
        """The state before the second frame; rested (batch, 1, 1, 1): variance of y, 1 where it is one frame."""
        small = functional.avg_pool2d(y, POOL)
        variance = torch.ones_like(y) if rested is None else torch.ones_like(y) * rested
        return State(y, variance, torch.zeros_like(small), torch.zeros_like(small))

    def step(self, state: State, y: Tensor, noise: Noise, flow: Tensor | None) -> tuple[State, Mixed]:
        """(state, the picture)."""
        before = _hypothesis(state, y, flow)
        mean, variance, gate = self.in_time(before, y, noise)
        mixed = self.in_space(mean, variance, gate, noise)
        busy = torch.maximum(functional.avg_pool2d(gate, POOL), 0.8 * before.busy).detach()
        return State(mean, variance, busy, mixed.lined.detach()), mixed

    def in_time(self, before: State, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """(mean, variance, gate): one step of the Kalman filter whose gate and floor the net chooses."""
        m, v = before.mean, before.variance
        with torch.no_grad():
            d = (y - m) / torch.sqrt(1 + v)
            z = line_best(blur(d)).abs() / noise.evidence
            features = time_features(d, z, v, before)
            wide = widened(z).clamp(max=CAP)
        a_low, b_low, f_low = self.time(features).split(1, dim=1)
        slope = _up(5 * torch.exp(b_low.clamp(-2, 2)))
        gate = torch.sigmoid(_up(a_low) + slope * (wide - 3.5))
        floor = _up(0.02 + 0.2 * torch.sigmoid(f_low - 1.1))
        opened = gate**3  # a gate that is ajar must not give back ignorance: 1 % of UNKNOWN is much
        ignorance = (1 - opened) * v + opened * UNKNOWN
        a = torch.maximum(ignorance / (ignorance + 1), floor)
        return m + a * (y - m), (1 - a) ** 2 * ignorance + a * a, gate

    def in_space(self, mean: Tensor, variance: Tensor, gate: Tensor, noise: Noise) -> Mixed:
        """The convex combination and its variance, which teaches nothing."""
        base = blur(blur(mean))
        wide, detail = wider(base), mean - base
        along = line_best(detail)
        with torch.no_grad():
            sd = torch.sqrt(variance)
            line = widened(along / (noise.line * sd)).clamp(max=CAP)
            point = (detail.abs() / (noise.point * sd)).clamp(max=CAP)
            features = space_features(line, point, (base - wide) / sd, variance, gate)
        coefficients = self.space(features)
        weights = space_weights(coefficients, line, point)
        candidates = torch.cat([mean, base + along, base, wide], dim=1)
        left = torch.einsum("bihw,bij,bjhw->bhw", weights, noise.covariance, weights)[:, None]
        return Mixed((weights * candidates).sum(dim=1, keepdim=True), (variance * left).detach(), weights,
                     features[:, :1])


def time_features(d: Tensor, z: Tensor, v: Tensor, before: State) -> Tensor:
    """(batch, 7, rows / 4, columns / 4): evidence (largest, mean), change, its square, ignorance, history."""
    mean = functional.avg_pool2d
    return torch.cat([functional.max_pool2d(z, POOL).clamp(max=CAP) / 4, mean(z, POOL).clamp(max=CAP) / 2,
                      mean(d, POOL).clamp(-4, 4) * 2, torch.log1p(mean(d * d, POOL)),
                      mean(v / (v + 1), POOL), before.busy, before.lined], dim=1)


def space_features(line: Tensor, point: Tensor, scale: Tensor, variance: Tensor, gate: Tensor) -> Tensor:
    """(batch, 7, rows / 4, columns / 4): lines (largest, mean), points, the next scale (size, sign), doubt, gate."""
    mean = functional.avg_pool2d
    return torch.cat([functional.max_pool2d(line, POOL) / 4, mean(line, POOL) / 2, mean(point, POOL) / 2,
                      (4 * mean(scale.abs(), POOL)).clamp(max=CAP) / 4, (4 * mean(scale, POOL)).clamp(-CAP, CAP) / 4,
                      torch.log(mean(variance, POOL)) / 3, mean(gate, POOL)], dim=1)


def space_weights(coefficients: Tensor, line: Tensor, point: Tensor) -> Tensor:
    """(batch, 4, rows, columns), sum 1: softmax of a local law of line and point evidence; `near` has logit 0."""
    c = _up(coefficients)
    start = ((0.0, 2.0, 1.0), (-2.0, 1.0, 0.0), (-1.0, -1.0, -0.5))
    logits = [c[:, 3 * k: 3 * k + 1] + p + (c[:, 3 * k + 1: 3 * k + 2] + q) * (line - 2.1)
              + (c[:, 3 * k + 2: 3 * k + 3] + r) * (point - 2.6) for k, (p, q, r) in enumerate(start)]
    return torch.softmax(torch.cat([logits[0], logits[1], torch.zeros_like(line), logits[2]], dim=1), dim=1)


def _up(coarse: Tensor) -> Tensor:
    return functional.interpolate(coarse, scale_factor=CELL, mode="bilinear", align_corners=False)


def _hypothesis(state: State, y: Tensor, flow: Tensor | None) -> State:
    """The state still or moved, whichever explains the frame better over 5x5 binomial pixels."""
    if flow is None:
        return state
    on = (flow.abs().sum(dim=-1) > 0)[:, None]
    mean = torch.where(on, moved(state.mean, flow), state.mean)
    variance = torch.where(on, moved(state.variance, flow, "nearest") + REMAPPED, state.variance)
    with torch.no_grad():
        worse = (y - mean) ** 2 / (1 + variance) - (y - state.mean) ** 2 / (1 + state.variance)
        second = blur(blur(worse)) < 0
    return replace(state, mean=torch.where(second, mean, state.mean),
                   variance=torch.where(second, variance, state.variance))
