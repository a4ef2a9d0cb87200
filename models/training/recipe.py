# SPDX-License-Identifier: Apache-2.0
"""How are the weights of the mixing denoiser made? `python -m models.training.recipe FOLDER --minutes 40`.

Scenes of models.training.simulate (family `train`), pictures of random detectors, twelve frames in a row with the
gradient cut every four. The loss weighs devices, the places that they have just left and edges, and asks for the
contrast of a device as a whole: a filter that takes a tenth off a wire hardly shows in a mean square. One thread,
one seed; checkpoints every few minutes, and the same command goes on from the last.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.networks.mixing import Mixing, Noise, State
from models.networks.operators import blur, line_best
from models.training.detector import any_detector, detected, signal
from models.training.simulate import Scene, scene
from registration.geometry import Array

MEDIAN_OF_NORMAL = 0.6745
NAMES = ("clean", "bare", "device", "flow")


@dataclass(frozen=True)
class Recipe:
    """What a training is made of. side px, frames a scene, frames between cuts of the gradient."""

    seed: int = 1
    batch: int = 4
    side: int = 128
    frames: int = 12
    cut: int = 4
    rate: float = 2e-3
    scenes: int = 400
    steps: int = 1200
    device: float = 4.0
    ghost: float = 4.0
    edge: float = 1.0
    contrast: float = 1.0
    cache: str | None = None


@dataclass(frozen=True)
class Batch:
    """y, clean, bare (batch, frames, rows, columns) in the scale of unit noise; device profile; flow; noise;
    rested (batch,): variance of the state that the first frame starts from."""

    y: Tensor
    clean: Tensor
    bare: Tensor
    device: Tensor
    flow: Tensor
    noise: Noise
    rested: Tensor


def train(folder: Path, minutes: float, recipe: Recipe) -> Mixing:
    """Trains for so many minutes of wall time at most, or to the recipe's steps; goes on from folder/last.pt."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    net = Mixing()
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.rate)
    step, spent = _resumed(folder, net, optimizer)
    begin = saved = time.monotonic()
    while step < recipe.steps and time.monotonic() - begin < minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = float(recipe.rate * 0.5 * (1 + np.cos(np.pi * step / recipe.steps)) + 1e-5)
        loss = _one(net, optimizer, make_batch(recipe, step), recipe)
        step += 1
        if step % 10 == 0:
            line = {"step": step, "loss": round(loss, 4), "s": round(spent + time.monotonic() - begin)}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if time.monotonic() - saved > 120:
            saved = time.monotonic()
            _save(folder, net, optimizer, step, spent + saved - begin, recipe)
    _save(folder, net, optimizer, step, spent + time.monotonic() - begin, recipe)
    return net


def _one(net: Mixing, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe) -> float:
    """One pass over a batch of scenes, the gradient cut every few frames."""
    state = _begun(net, batch)
    total, part = 0.0, torch.zeros(())
    for k in range(1, recipe.frames):
        flow = batch.flow[:, k] if bool(batch.flow[:, k].any()) else None
        state, clean, _ = net.step(state, batch.y[:, k: k + 1], batch.noise, flow)
        part = part + loss_of(clean, batch, k, recipe)
        if k % recipe.cut == recipe.cut - 1 or k == recipe.frames - 1:
            optimizer.zero_grad()
            part.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            total += float(part.detach())
            part = torch.zeros(())
            state = State(state.mean.detach(), state.variance.detach(), state.busy, state.lined)
    return total / (recipe.frames - 1)


def _begun(net: Mixing, batch: Batch) -> State:
    """The state before the second frame: as after a first one, or (half of the scenes) as after a long rest."""
    first, truth = batch.y[:, :1], batch.clean[:, :1]
    rested = batch.rested.view(-1, 1, 1, 1)
    start = net.start(truth + (first - truth) * torch.sqrt(rested))
    return replace(start, variance=start.variance * rested)


def loss_of(clean: Tensor, batch: Batch, k: int, recipe: Recipe) -> Tensor:
    """Weighted square error, and what a device and its old place lack or keep as a whole."""
    inside = np.s_[..., 6:-6, 6:-6]
    out, truth = clean[inside], batch.clean[:, k: k + 1][inside]
    now = batch.device[:, k: k + 1][inside]
    old = batch.device[:, max(k - 3, 0): k].amax(dim=1, keepdim=True)[inside]
    left = (old - functional.max_pool2d(now, 5, 1, 2)).clamp(min=0)
    around = functional.max_pool2d(now, 5, 1, 2)
    edges = (blur(truth) - blur(blur(blur(truth)))).abs().clamp(max=1)
    weight = 1 + recipe.device * now + 0.3 * recipe.device * around + recipe.ghost * left + recipe.edge * edges
    error = out - truth
    square = (weight * functional.huber_loss(out, truth, reduction="none", delta=2.0) * 2).mean()
    drawn = (batch.clean - batch.bare)[:, k: k + 1][inside]
    lacks = (error * drawn).sum(dim=(1, 2, 3)) / (drawn**2).sum(dim=(1, 2, 3)).clamp(min=20.0)
    before = (batch.clean - batch.bare)[:, max(k - 3, 0): k].mean(dim=1, keepdim=True)[inside] * left
    stays = (error * before).sum(dim=(1, 2, 3)) / (before**2).sum(dim=(1, 2, 3)).clamp(min=20.0)
    return square + recipe.contrast * ((lacks**2).clamp(max=1).mean() + (stays**2).clamp(max=1).mean())


# --------------------------------------------------------------------------------------------------
# Data


def make_batch(recipe: Recipe, step: int, family: str = "train") -> Batch:
    """The batch of a step: scenes come again every `scenes`, each time turned, and with other noise and dose."""
    random = np.random.default_rng([recipe.seed, step])
    parts = [_sequence(int(random.integers(recipe.scenes)), random, recipe, family) for _ in range(recipe.batch)]
    y, clean, bare, device, flow = (torch.from_numpy(np.stack([p[i] for p in parts])) for i in range(5))
    levels = torch.tensor([p[5] for p in parts], dtype=torch.float32)
    evidence, line, point = (levels[:, i].view(-1, 1, 1, 1) for i in range(3))
    rested = np.where(random.random(recipe.batch) < 0.5, 1.0, random.choice([0.05, 0.1, 0.3], recipe.batch))
    return Batch(y, clean, bare, device, flow, Noise(evidence, line, point),
                 torch.from_numpy(rested.astype(np.float32)))


def _sequence(seed: int, random: np.random.Generator, recipe: Recipe,
              family: str) -> tuple[Array, Array, Array, Array, Array, tuple[float, float, float]]:
    """(y, clean, bare, device, flow as the chain would guess it, noise medians) of one scene."""
    s = _cached(seed, family, recipe)
    detector = any_detector(random, family)
    expected = signal(s.clean, detector)
    quanta = detected(expected, detector, random)
    sd = detector.noise_sd()
    electronic = detector.electronic / sd  # the law of a file says what is measured: noise after the blur
    y, clean, bare = (_stabilized(x, electronic) / sd for x in (quanta, expected, signal(s.bare, detector)))
    y = clean + np.float32(random.uniform(0.85, 1.15)) * (y - clean)  # laws are measured to some 10 %
    if random.random() < 0.5:  # eight bits: steps of up to 1.2 of the noise's standard deviation
        step = np.float32(random.uniform(0.3, 1.2))
        y = np.rint(y / step) * step
    flat = np.full((1, 128, 128), float(np.median(expected)), np.float32)
    alone = (_stabilized(detected(flat, detector, random), electronic) / sd)[0]
    levels = noise_medians(alone - alone.mean())
    jitter = random.uniform(0.92, 1.08, 3)
    flow = _guessed(s.flow, random)
    return (*(np.ascontiguousarray(x, np.float32) for x in (y, clean, bare, s.device, flow)),
            tuple(float(a * b) for a, b in zip(levels, jitter, strict=True)))  # type: ignore[return-value]


def _cached(seed: int, family: str, recipe: Recipe) -> Scene:
    """The scene of a seed, from the folder of this training where it was drawn before (float16: steps of 1e-3)."""
    if recipe.cache is None:
        return scene(seed, family, recipe.side, recipe.frames)
    path = Path(recipe.cache) / f"{family}_{recipe.side}_{recipe.frames}_{seed}.npz"
    if not path.exists():
        s = scene(seed, family, recipe.side, recipe.frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: getattr(s, name).astype(np.float16) for name in NAMES})
    with np.load(path) as kept:
        return Scene(*(kept[name].astype(np.float32) for name in NAMES))


def _stabilized(quanta: Array, electronic: float) -> Array:
    """Generalized Anscombe transform of quanta (gain 1)."""
    return np.asarray(2 * np.sqrt(np.maximum(quanta + 0.375 + electronic**2, 0)), np.float32)


def noise_medians(alone: Array) -> tuple[float, float, float]:
    """Median magnitudes of evidence, line and point detail of noise alone, over its standard deviation."""
    y = torch.from_numpy(np.ascontiguousarray(alone, np.float32))[None, None]
    y = y / (y.abs().median() / MEDIAN_OF_NORMAL).clamp(min=1e-3)
    detail = y - blur(blur(y))
    return tuple(float(x.abs().median()) for x in (line_best(blur(y)), line_best(detail), detail))  # type: ignore[return-value]


def _guessed(flow: Array, random: np.random.Generator) -> Array:
    """The flow with the errors of an estimate; in a third of the scenes none, as where nothing explains it."""
    if random.random() < 0.33:
        return np.zeros_like(flow)
    wrong = random.normal(0, 0.25, (len(flow), 1, 1, 2)) + flow * random.normal(0, 0.06)
    short = np.hypot(flow[..., 0], flow[..., 1]) < 0.3
    return np.where(short[..., None], 0, flow + wrong).astype(np.float32)


# --------------------------------------------------------------------------------------------------
# Checkpoints


def _save(folder: Path, net: Mixing, optimizer: torch.optim.Optimizer, step: int, spent: float,
          recipe: Recipe) -> None:
    part = folder / "last.part"
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": spent,
                "recipe": asdict(recipe)}, part)
    part.replace(folder / "last.pt")


def _resumed(folder: Path, net: Mixing, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """(step, seconds spent so far) of the last checkpoint, loaded; zeros where there is none."""
    if not (folder / "last.pt").exists():
        return 0, 0.0
    kept = torch.load(folder / "last.pt", weights_only=True)
    net.load_state_dict(kept["net"])
    optimizer.load_state_dict(kept["optimizer"])
    return int(kept["step"]), float(kept["seconds"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    train(given.folder, given.minutes, Recipe(seed=given.seed, steps=given.steps, cache=str(given.folder / "scenes")))


if __name__ == "__main__":
    main()
