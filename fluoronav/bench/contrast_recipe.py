# SPDX-License-Identifier: Apache-2.0
"""How is the net made that chooses gains of contrast? `python -m fluoronav.bench.contrast_recipe FOLDER --minutes 30`.

Scenes of models.training.simulate (family `train`) go through the chain at 8 to 150 % of a full dose. What is wanted is
added truth: the contrast of devices and of vessels once more, of everything else nothing. The loss is the distance from
it, in units of noise, where devices and vessels are weighed; beside it a critic learns to tell raised patches from
patches with the true addition (least squares: Mao et al., ICCV 2017), and its opinion is ADVERSE of the loss. One
thread, one seed; checkpoints; the same command goes on from the last. `--export` writes it to models/weights.
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

from fluoronav.bench.recipe_runs import FULL, frames_of, kept, law_of
from fluoronav.enhance import Chain, ChainSettings
from fluoronav.enhance.contrast import ARTEFACT, Contrast, ContrastState, features_of
from fluoronav.enhance.reference_contrast import GAIN, bands_of
from fluoronav.enhance.work import Work
from models.engines import WEIGHTS
from models.networks.contrast import FEATURES, LEVELS, Critic, Gains, added_by
from models.training.detector import any_detector, detected, signal
from models.training.export import onnx_of
from models.training.simulate import scene
from registration.geometry import Array

SIDE, FRAMES, SEEN = 256, 9, (3, 8)
RUNS = ("classical", "classical", "learned")  # denoisers of the runs of a scene
FIRST_SEED = 7000
BORDER = 8
ADVERSE = 0.1


@dataclass(frozen=True)
class Recipe:
    """What a training is made of; adverse: weight of the critic's opinion."""

    seed: int = 1
    scenes: int = 70
    crop: int = 96
    batch: int = 8
    rate: float = 2e-3
    steps: int = 2500
    device: float = 4.0
    adverse: float = ADVERSE


class Recorder:
    """A stage that keeps what contrast would see, and the floors that it would use."""

    name = "contrast"

    def __init__(self) -> None:
        self.stage = Contrast(1.0, learned=False)
        self.found: tuple[Work, ContrastState] | None = None

    def step(self, state: ContrastState | None, item: Work) -> tuple[ContrastState, Work]:
        """Hands its input on."""
        new, _ = self.stage.step(state, item)
        self.found = item, state or new
        return new, item


NAMES = ("y", "wanted", "weight", "low", "high", "d0", "d1", "d2", "d3", "features")


def samples(number: int, cache: Path) -> list[dict[str, Array]]:
    """Of a scene, kept in the training's folder."""
    return kept(cache / f"{SIDE}_{number}.npz", NAMES,
                lambda: [s for run in range(len(RUNS)) for s in _of_run(number, run)])


def _of_run(number: int, run: int) -> list[dict[str, Array]]:
    random = np.random.default_rng([FIRST_SEED + number, run])
    s = scene(FIRST_SEED + number, "train", SIDE, FRAMES)
    assert s.vessels is not None
    plain = s.bare - s.vessels
    quanta = float(np.exp(random.uniform(np.log(0.08), np.log(1.5)))) * FULL * float(np.exp(np.mean(s.clean[0])))
    detector = replace(any_detector(random, "train"), quanta=quanta, memory=0.0)
    expected, without = (signal(p, detector) for p in (s.clean, plain))
    counts = detected(expected, detector, random)
    law = law_of(quanta, detector, detector.electronic)
    chain = Chain(ChainSettings(contrast=1.0, method=RUNS[run]))  # type: ignore[arg-type]
    recorder, state, out = Recorder(), None, []
    chain.stages["contrast"] = recorder
    for k, frame in enumerate(frames_of(counts, law)):
        state, _ = chain.step(state, frame)
        if k in SEEN:
            assert recorder.found is not None
            truths = [2 * np.sqrt(np.maximum(q[k] / detector.noise_sd() ** 2, 0)) for q in (expected, without)]
            out.append(_sample(*recorder.found, truths[0] - truths[1], s.device[k]))
    return out


def _sample(item: Work, state: ContrastState, wanted: Array, device: Array) -> dict[str, Array]:
    assert item.clean is not None and item.variance is not None
    floors = np.array(state.floors, np.float32)
    bands = bands_of(item.clean, item.variance, floors)
    high = np.minimum(np.maximum(bands.most, 0), np.maximum(bands.high, 0))
    low = np.maximum(np.minimum(bands.most, 0), np.minimum(bands.low, 0))
    details = {f"d{level}": x for level, x in enumerate(bands.details)}
    features = features_of(bands.fine, bands.coarse, floors, item.frame.intensity.dense)[0]
    return details | {"y": item.clean - item.clean.mean(), "wanted": wanted, "weight": device, "low": low, "high": high,
                      "features": features}


def train(folder: Path, minutes: float, recipe: Recipe) -> Gains:
    """Trains for so many minutes of wall time at most, or to the recipe's steps; goes on from folder/last.pt."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    nets = (Gains(), Critic())
    optimizers = tuple(torch.optim.Adam(net.parameters(), lr=recipe.rate * share, betas=(0.5, 0.99))
                       for net, share in zip(nets, (1.0, 0.25), strict=True))
    step, begin = 0, time.monotonic()
    if (folder / "last.pt").exists():
        kept = torch.load(folder / "last.pt", weights_only=True)
        for part, name in zip((*nets, *optimizers), ("net", "critic", "optimizer", "critics"), strict=True):
            part.load_state_dict(kept[name])  # type: ignore[attr-defined]
        step = int(kept["step"])
    pool = [s for number in range(recipe.scenes) for s in samples(number, folder / "scenes")]
    saved = time.monotonic()
    while step < recipe.steps and time.monotonic() - begin < minutes * 60:
        for group in (*optimizers[0].param_groups, *optimizers[1].param_groups):
            group.setdefault("whole", group["lr"])
            group["lr"] = float(group["whole"] * 0.5 * (1 + np.cos(np.pi * step / recipe.steps)) + 1e-5)
        told = _one(nets, optimizers, _batch(pool, recipe, step), recipe)
        step += 1
        if step % 50 == 0:
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, **told, "s": round(time.monotonic() - begin)}) + "\n")
        if time.monotonic() - saved > 60 or step == recipe.steps:
            saved = time.monotonic()
            _save(folder, nets, optimizers, step, recipe)
    _save(folder, nets, optimizers, step, recipe)
    return nets[0]


def _one(nets: tuple[Gains, Critic], optimizers: tuple[torch.optim.Optimizer, ...], batch: dict[str, Tensor],
         recipe: Recipe) -> dict[str, float]:
    """One step of the net, and one of its critic."""
    net, critic = nets
    details = [batch[f"d{level}"] for level in range(LEVELS)]
    added = added_by(net(batch["features"]), details, batch["low"], batch["high"], GAIN)
    inside = np.s_[..., BORDER:-BORDER, BORDER:-BORDER]
    sought = torch.maximum(batch["weight"], (batch["wanted"].abs() / 2).clamp(max=1))  # devices, and vessels that show
    weight = 1 + recipe.device * functional.max_pool2d(sought, 5, 1, 2)
    off = (weight * functional.huber_loss(added, batch["wanted"], reduction="none", delta=1.0))[inside].mean()
    loss = off + recipe.adverse * ((critic(batch["y"], added) - 1) ** 2).mean()
    optimizers[0].zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizers[0].step()
    # what can be reached: the true addition within the bounds, so that the critic does not judge by them
    reached = torch.minimum(torch.maximum(batch["wanted"], batch["low"]), batch["high"])
    seen = (((critic(batch["y"], reached) - 1) ** 2).mean() + (critic(batch["y"], added.detach()) ** 2).mean()) / 2
    optimizers[1].zero_grad()
    seen.backward()
    optimizers[1].step()
    return {"off": round(float(off.detach()), 4), "critic": round(float(seen.detach()), 4)}


def _batch(pool: list[dict[str, Array]], recipe: Recipe, step: int) -> dict[str, Tensor]:
    """Patches of a step, transposed by chance, all on the grid of the coarsest level."""
    random = np.random.default_rng([recipe.seed, step])
    parts = [_patch(pool[int(random.integers(len(pool)))], random, recipe.crop) for _ in range(recipe.batch)]
    return {name: torch.from_numpy(np.stack([p[name] for p in parts])) for name in NAMES}


def _patch(s: dict[str, Array], random: np.random.Generator, crop: int) -> dict[str, Array]:
    r, c = (8 * int(random.integers((SIDE - crop) // 8 + 1)) for _ in range(2))
    turn = bool(random.integers(2))  # not mirrored: the pixels of a level lie on the even ones of the finer

    def cut(x: Array) -> Array:
        x = x if x.ndim == 3 else x[None]
        step = SIDE // x.shape[-1]
        x = x[:, r // step: (r + crop) // step, c // step: (c + crop) // step]
        return np.ascontiguousarray(x.swapaxes(1, 2) if turn else x, np.float32)

    return {name: cut(x) for name, x in s.items()}


def _save(folder: Path, nets: tuple[Gains, Critic], optimizers: tuple[torch.optim.Optimizer, ...], step: int,
          recipe: Recipe) -> None:
    part = folder / "last.part"
    torch.save({"net": nets[0].state_dict(), "critic": nets[1].state_dict(), "optimizer": optimizers[0].state_dict(),
                "critics": optimizers[1].state_dict(), "step": step, "recipe": asdict(recipe)}, part)
    part.replace(folder / "last.pt")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--adverse", type=float, default=ADVERSE, help="weight of the critic's opinion")
    parser.add_argument("--export", action="store_true", help="write the last checkpoint to models/weights and stop")
    given = parser.parse_args()
    if given.export:
        net = Gains()
        net.load_state_dict(torch.load(given.folder / "last.pt", weights_only=True)["net"])
        (WEIGHTS / ARTEFACT).write_bytes(onnx_of(net.eval(), "contrast", FEATURES, LEVELS))
        return
    train(given.folder, given.minutes, Recipe(steps=given.steps, adverse=given.adverse))


if __name__ == "__main__":
    main()
