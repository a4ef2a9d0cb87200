# SPDX-License-Identifier: Apache-2.0
"""How are the weights of the super-resolution net made? `python -m fluoronav.bench.finer_recipe FOLDER --minutes 30`.

Scenes of models.training.simulate (family `train`), some of them with the bars of a resolution phantom, as a fine
detector sees them, binned 2x2, go through the chain at 6 to 800 % of a full dose; what the net is shown of a frame is
kept beside what lies between its pixels. The error is taken over that of interpolation, patch by patch, where devices
are and everywhere, so that a dark noisy patch counts as much as a bright one. One thread, one seed; checkpoints; the
same command goes on from the last. `--export` writes the last checkpoint to models/weights.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from fluoronav.bench.recipe_runs import DARK, FULL, STEP, frames_of, kept, law_of
from fluoronav.enhance import Chain, ChainSettings
from fluoronav.enhance.noise import anscombe
from fluoronav.enhance.superres import ARTEFACT, bound_of, features_of, interpolated
from fluoronav.enhance.work import Work
from models.engines import WEIGHTS
from models.networks.superres import FEATURES, OUTPUTS, Finer, consistent
from models.training.detector import Detector, any_detector, detected, signal
from models.training.export import onnx_of
from models.training.simulate import scene
from registration.geometry import Array

FRAMES, SEEN = 12, (1, 3, 6, 9, 11)
RUNS = (("classical", 1.5, False), ("classical", 8.0, False), ("classical", 8.0, True), ("learned", 1.5, False),
        ("none", 1.5, False))  # of a scene: denoiser, most dose, whether bars are drawn in
FIRST_SEED = 5000
BORDER = 8  # fine pixels of a patch without a loss


@dataclass(frozen=True)
class Recipe:
    """What a training is made of. side px of a fine scene, crop px of the coarse patches."""

    seed: int = 1
    scenes: int = 90
    side: int = 256
    crop: int = 48
    batch: int = 16
    rate: float = 2e-3
    steps: int = 3000
    everywhere: float = 0.5  # weight of the error everywhere beside that on devices


@dataclass(frozen=True, slots=True)
class Sample:
    """Of a frame: features (6, rows, columns), away and bound (rows, columns), and on fine pixels what
    interpolation lacks and where devices are (2 rows, 2 columns)."""

    features: Array
    away: Array
    bound: Array
    lacks: Array
    device: Array


class Recorder:
    """A stage that keeps what super-resolution would see."""

    name = "superres"

    def __init__(self) -> None:
        self.found: Work | None = None

    def step(self, state: None, item: Work) -> tuple[None, Work]:
        """Hands its input on."""
        self.found = item
        return state, item


def samples(number: int, recipe: Recipe, cache: Path) -> list[Sample]:
    """Of a scene, kept in the training's folder."""
    made = kept(cache / f"{recipe.side}_{number}.npz", Sample.__slots__,
                lambda: [{name: getattr(s, name) for name in Sample.__slots__}
                         for run in range(len(RUNS)) for s in _of_run(number, run, recipe)])
    return [Sample(**s) for s in made]


def _of_run(number: int, run: int, recipe: Recipe) -> list[Sample]:
    random = np.random.default_rng([FIRST_SEED + number, run])
    denoiser, most, barred = RUNS[run]
    s = scene(FIRST_SEED + number, "train", recipe.side, FRAMES)
    if barred:
        drawn = bars(recipe.side, random)
        s = replace(s, clean=s.clean + drawn, device=np.maximum(s.device, drawn > 0.05))
    quanta = float(np.exp(random.uniform(np.log(0.06), np.log(most)))) * FULL * float(np.exp(np.mean(s.clean[0])))
    seen = replace(any_detector(random, "train"), quanta=quanta / 4, memory=0.0)
    fine = 4 * signal(s.clean, seen)
    spread = seen.blur_px / 2 if random.random() < 0.5 else 0.0  # of the light, in coarse pixels
    noise = Detector(quanta, seen.electronic, spread, 0.0, seen.fixed, seen.dead)
    counts = detected(np.stack([binned(x) for x in fine]), noise, random)
    law = law_of(quanta, noise, seen.electronic)
    chain = Chain(ChainSettings(superres=True, denoise=denoiser != "none",
                                method="learned" if denoiser == "learned" else "classical"))
    recorder, state, out = Recorder(), None, []
    chain.stages["superres"] = recorder
    for k, frame in enumerate(frames_of(counts, law)):
        state, _ = chain.step(state, frame)
        if k in SEEN and (denoiser != "none" or k == SEEN[-1]):
            assert recorder.found is not None
            truth = anscombe(fine[k] * STEP + DARK, law.gain or 1.0, law.electronic or 0.0, law.dark)
            out.append(_sample(recorder.found, truth.astype(np.float32), s.device[k]))
    return out


def bars(side: int, random: np.random.Generator) -> Array:
    """Line integrals of a patch of bars, straight or fanned out, 3 to 12 pixels apart, sharp or soft."""
    v, u = np.indices((side, side), np.float32)
    place, radius = random.uniform(0.2, 0.8, 2) * side, random.uniform(0.15, 0.5) * side
    angle = random.uniform(0, np.pi)
    x, y = u - place[0], v - place[1]
    if random.random() < 0.5:
        phase = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / random.uniform(3, 12)
    else:
        phase = np.arctan2(y, x) * random.integers(12, 60)
    wave = np.clip(0.5 + random.uniform(0.5, 3) * 0.5 * np.cos(phase + random.uniform(0, 6.3)), 0, 1)
    inside = 1 / (1 + np.exp(np.clip((np.hypot(x, y) - radius) / 2, -30, 30)))
    return np.asarray(random.uniform(0.1, 0.6) * wave * inside, np.float32)


def _sample(item: Work, truth: Array, device: Array) -> Sample:
    assert item.clean is not None
    smooth = interpolated(item.clean)
    near = (cv2.dilate(device, np.ones((5, 5), np.uint8)) > 0.1).astype(np.float32)
    return Sample(features_of(item)[0], binned(smooth) - item.clean, bound_of(item), truth - smooth, near)


def binned(picture: Array) -> Array:
    """Means of 2x2 pixels."""
    rows, columns = (n // 2 for n in picture.shape)
    return np.asarray(picture.reshape(rows, 2, columns, 2).mean(axis=(1, 3)), np.float32)


def train(folder: Path, minutes: float, recipe: Recipe) -> Finer:
    """Trains for so many minutes of wall time at most, or to the recipe's steps; goes on from folder/last.pt."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    net = Finer()
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.rate)
    step, begin = 0, time.monotonic()
    if (folder / "last.pt").exists():
        kept = torch.load(folder / "last.pt", weights_only=True)
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        step = int(kept["step"])
    pool = [s for number in range(recipe.scenes) for s in samples(number, recipe, folder / "scenes")]
    saved = time.monotonic()
    while step < recipe.steps and time.monotonic() - begin < minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = float(recipe.rate * 0.5 * (1 + np.cos(np.pi * step / recipe.steps)) + 1e-5)
        loss = loss_of(net, _batch(pool, recipe, step), recipe)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": round(float(loss.detach()), 4),
                                      "s": round(time.monotonic() - begin)}) + "\n")
        if time.monotonic() - saved > 60:
            saved = time.monotonic()
            _save(folder, net, optimizer, step, recipe)
    _save(folder, net, optimizer, step, recipe)
    return net


def loss_of(net: Finer, batch: tuple[Tensor, ...], recipe: Recipe) -> Tensor:
    """Squared error over that of interpolation, of each patch, where devices are and everywhere."""
    features, away, bound, lacks, device = batch
    added = consistent(torch.nn.functional.pixel_shuffle(net(features), 2), away, bound)
    inside = np.s_[..., BORDER:-BORDER, BORDER:-BORDER]
    left, before, device = ((added - lacks)[inside] ** 2, lacks[inside] ** 2, device[inside])
    area = device.sum(dim=(1, 2, 3))
    on = (left * device).sum(dim=(1, 2, 3)) / ((before * device).sum(dim=(1, 2, 3)) + 0.02 * area + 1.0)
    weight = (area / 200).clamp(max=1)
    whole = left.mean(dim=(1, 2, 3)) / (before.mean(dim=(1, 2, 3)) + 0.01)
    devices = (weight * torch.log(on + 0.05)).sum() / weight.sum().clamp(min=1)  # decibels: a mean of logarithms
    return devices + recipe.everywhere * torch.log(whole).mean()


def _batch(pool: list[Sample], recipe: Recipe, step: int) -> tuple[Tensor, ...]:
    """(features, away, bound, lacks, device) of a step, turned and mirrored; every second patch about a device."""
    random = np.random.default_rng([recipe.seed, step])
    parts = [_patch(pool[int(random.integers(len(pool)))], random, recipe.crop, i % 2 == 0)
             for i in range(recipe.batch)]
    return tuple(torch.from_numpy(np.stack(x)) for x in zip(*parts, strict=True))


def _patch(s: Sample, random: np.random.Generator, crop: int, aimed: bool) -> list[Array]:
    rows, columns = s.away.shape
    r, c = int(random.integers(rows - crop + 1)), int(random.integers(columns - crop + 1))
    places = np.argwhere(s.device[::4, ::4] > 0) if aimed else np.empty((0, 2))
    if len(places):
        r, c = (int(np.clip(2 * x - crop // 2, 0, n - crop))
                for x, n in zip(places[random.integers(len(places))], (rows, columns), strict=True))
    turns, flip = int(random.integers(4)), bool(random.integers(2))

    def cut(picture: Array, factor: int) -> Array:
        x = picture if picture.ndim == 3 else picture[None]
        x = np.rot90(x[:, factor * r: factor * (r + crop), factor * c: factor * (c + crop)], turns, (1, 2))
        return np.ascontiguousarray(x[:, :, ::-1] if flip else x, np.float32)

    return [cut(s.features, 1), cut(s.away, 1), cut(s.bound, 1), cut(s.lacks, 2), cut(s.device, 2)]


def _save(folder: Path, net: Finer, optimizer: torch.optim.Optimizer, step: int, recipe: Recipe) -> None:
    part = folder / "last.part"
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                "recipe": asdict(recipe)}, part)
    part.replace(folder / "last.pt")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--export", action="store_true", help="write the last checkpoint to models/weights and stop")
    given = parser.parse_args()
    if given.export:
        net = Finer()
        net.load_state_dict(torch.load(given.folder / "last.pt", weights_only=True)["net"])
        (WEIGHTS / ARTEFACT).write_bytes(onnx_of(net.eval(), "superres", FEATURES, OUTPUTS))
        return
    train(given.folder, given.minutes, Recipe(steps=given.steps))


if __name__ == "__main__":
    main()
