# SPDX-License-Identifier: Apache-2.0
"""Which pictures does a denoiser learn from? Scenes through random detectors and displays, in the scale of unit noise.

What the noise stage cannot know is in them: laws that are wrong by some 15 %, by more where the noise lasts from
frame to frame, and differently at each level; eight bits; displays that sharpen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.networks.mixing import Noise
from models.networks.operators import blur, line_best, wider
from models.training.detector import any_detector, detected, signal
from models.training.simulate import Scene, scene
from registration.geometry import Array

MEDIAN_OF_NORMAL = 0.6745
NAMES = ("clean", "bare", "device", "flow")


@dataclass(frozen=True)
class Recipe:
    """What a training is made of. net: `mixing` or `recurrent`; side px; frames of a scene, of which up to `unseen`
    come before the first loss; frames between cuts of the gradient; weights of the loss; folder of drawn scenes."""

    net: str = "mixing"
    seed: int = 1
    batch: int = 3
    side: int = 112
    frames: int = 18
    unseen: int = 8
    cut: int = 5
    rate: float = 2e-3
    scenes: int = 300
    steps: int = 1000
    device: float = 4.0
    ghost: float = 4.0
    edge: float = 1.0
    rest: float = 2.0
    contrast: float = 1.0
    stated: float = 0.05
    cache: str | None = None


@dataclass(frozen=True)
class Batch:
    """y, clean, bare (batch, frames, rows, columns) in the scale of unit noise; device profile; flow; noise;
    rested (batch,): variance of the state that the first frame starts from; unseen: first frame with a loss."""

    y: Tensor
    clean: Tensor
    bare: Tensor
    device: Tensor
    flow: Tensor
    noise: Noise
    rested: Tensor
    unseen: int


@dataclass(frozen=True)
class Display:
    """What is done to stabilized pictures: a scale (laws that are wrong), a bend (wrong differently at each level:
    a sine of so many noise units, its slope), sharpening (share of the detail finer than 1.5 px), steps of rounding."""

    scale: float
    period: float
    slope: float
    phase: float
    sharpen: float
    step: float

    @classmethod
    def drawn(cls, random: np.random.Generator, memory: float) -> Display:
        """One at random; noise that lasts makes differences of frames smaller than the noise, and the law with them."""
        return cls(float(random.uniform(0.85, 1.15) / np.sqrt(1 - memory)), float(random.uniform(25, 90)),
                   float(random.choice([0, random.uniform(0, 0.15)])), float(random.uniform(0, 6.3)),
                   float(random.choice([0, 0, random.uniform(0.2, 0.8)])),
                   float(random.choice([0, random.uniform(0.3, 1.2)])))

    def shown(self, pictures: Array) -> Array:
        """Of (..., rows, columns), without rounding."""
        x = torch.from_numpy(np.ascontiguousarray(pictures, np.float32)).reshape(-1, 1, *pictures.shape[-2:])
        if self.sharpen > 0:
            x = x + self.sharpen * (x - blur(blur(x)))
        angle = 2 * np.pi / self.period
        x = self.scale * (x + self.slope / angle * torch.sin(angle * x + self.phase))
        return np.asarray(x.reshape(pictures.shape).numpy())


def make_batch(recipe: Recipe, step: int, family: str = "train") -> Batch:
    """The batch of a step: scenes come again every `scenes`, each time turned, and with other noise and dose."""
    random = np.random.default_rng([recipe.seed, step])
    parts = [_sequence(int(random.integers(recipe.scenes)), random, recipe, family) for _ in range(recipe.batch)]
    y, clean, bare, device, flow = (torch.from_numpy(np.stack([p[0][i] for p in parts])) for i in range(5))
    levels = torch.tensor([p[1] for p in parts], dtype=torch.float32)
    evidence, line, point = (levels[:, i].view(-1, 1, 1, 1) for i in range(3))
    rested = np.where(random.random(recipe.batch) < 0.75, 1.0, random.choice([0.04, 0.07, 0.2], recipe.batch))
    return Batch(y, clean, bare, device, flow, Noise(evidence, line, point, torch.stack([p[2] for p in parts])),
                 torch.from_numpy(rested.astype(np.float32)), int(random.integers(1, recipe.unseen + 1)))


def _sequence(seed: int, random: np.random.Generator, recipe: Recipe,
              family: str) -> tuple[tuple[Array, ...], tuple[float, ...], Tensor]:
    """((y, clean, bare, device, flow as the chain would guess it), noise medians, covariances) of one scene."""
    s = _turned(_cached(seed, family, recipe), random)
    detector = any_detector(random, family)
    display = Display.drawn(random, detector.memory)
    expected = signal(s.clean, detector)
    sd = detector.noise_sd()
    electronic = detector.electronic / sd  # the law of a file says what is measured: noise after the blur
    y, clean, bare = (_stabilized(x, electronic) / sd
                      for x in (detected(expected, detector, random), expected, signal(s.bare, detector)))
    flat = np.full((1, 128, 128), float(np.median(expected)), np.float32)
    alone = (_stabilized(detected(flat, detector, random), electronic) / sd)
    y, clean, bare, alone = (display.shown(x) for x in (y, clean, bare, alone))
    alone = alone - alone.mean()
    if display.sharpen > 0:  # the law is measured on what is shown
        louder = max(float(alone.std()) / display.scale, 1e-3)
        y, clean, bare, alone = (x / np.float32(louder) for x in (y, clean, bare, alone))
    if display.step > 0:  # eight bits: steps of up to 1.2 of the noise's standard deviation
        y = np.rint(y / display.step) * np.float32(display.step)
    jitter = random.uniform(0.92, 1.08, 3)
    levels = tuple(float(a * b) for a, b in zip(noise_medians(alone[0]), jitter, strict=True))
    pictures = (y, clean, bare, s.device, _guessed(s.flow, random))
    return tuple(np.ascontiguousarray(x, np.float32) for x in pictures), levels, noise_covariance(alone[0])


def _cached(seed: int, family: str, recipe: Recipe) -> Scene:
    """The scene of a seed, from the folder of this training where it was drawn before (float16: steps of 1e-3)."""
    if recipe.cache is None:
        return scene(seed, family, recipe.side, recipe.frames)
    path = Path(recipe.cache) / f"{family}_{recipe.side}_{recipe.frames}_{seed}.npz"
    if not path.exists():
        s = scene(seed, family, recipe.side, recipe.frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.stem}.{os.getpid()}.npz")
        np.savez(part, **{name: getattr(s, name).astype(np.float16) for name in NAMES})
        part.replace(path)  # whole or not at all: two trainings may share the folder
    with np.load(path) as kept:
        return Scene(*(kept[name].astype(np.float32) for name in NAMES))


def _turned(s: Scene, random: np.random.Generator) -> Scene:
    """The scene mirrored and transposed at random, its flow with it."""
    across, down, over = random.random(3) < 0.5
    pictures, flow = [s.clean, s.bare, s.device], s.flow
    if across:
        pictures, flow = [x[..., ::-1] for x in pictures], flow[:, :, ::-1] * np.array([-1, 1], np.float32)
    if down:
        pictures, flow = [x[:, ::-1] for x in pictures], flow[:, ::-1] * np.array([1, -1], np.float32)
    if over:
        pictures, flow = [x.swapaxes(1, 2) for x in pictures], flow.swapaxes(1, 2)[..., ::-1]
    return Scene(*(np.ascontiguousarray(x) for x in (*pictures, flow)))


def _stabilized(quanta: Array, electronic: float) -> Array:
    """Generalized Anscombe transform of quanta (gain 1)."""
    return np.asarray(2 * np.sqrt(np.maximum(quanta + 0.375 + electronic**2, 0)), np.float32)


def noise_medians(alone: Array) -> tuple[float, float, float]:
    """Median magnitudes of evidence, line and point detail of noise alone, over its standard deviation."""
    y = torch.from_numpy(np.ascontiguousarray(alone, np.float32))[None, None]
    y = y / (y.abs().median() / MEDIAN_OF_NORMAL).clamp(min=1e-3)
    detail = y - blur(blur(y))
    return tuple(float(x.abs().median()) for x in (line_best(blur(y)), line_best(detail), detail))  # type: ignore[return-value]


def noise_covariance(alone: Array) -> Tensor:
    """(4, 4) covariances of the candidates (mean, line, near, wide) of noise alone, over its variance."""
    y = torch.from_numpy(np.ascontiguousarray(alone, np.float32))[None, None]
    base = blur(blur(y))
    found = torch.stack([y, base + line_best(y - base), base, wider(base)]).flatten(1)
    return found @ found.T / found.shape[1] / (y**2).mean().clamp(min=1e-6)


def _guessed(flow: Array, random: np.random.Generator) -> Array:
    """The flow with the errors of an estimate; in a third of the scenes none, as where nothing explains it."""
    if random.random() < 0.33:
        return np.zeros_like(flow)
    wrong = random.normal(0, 0.25, (len(flow), 1, 1, 2)) + flow * random.normal(0, 0.06)
    short = np.hypot(flow[..., 0], flow[..., 1]) < 0.3
    return np.where(short[..., None], 0, flow + wrong).astype(np.float32)
