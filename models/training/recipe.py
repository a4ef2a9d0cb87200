# SPDX-License-Identifier: Apache-2.0
"""How are the weights of the denoisers made? `python -m models.training.recipe FOLDER --minutes 60`.

The mixing denoiser, and with `--net recurrent` its competitor, each from the same pictures by the same loss.

Scenes of models.training.simulate (family `train`), pictures of random detectors and displays (models.training.
pictures), eighteen frames in a row of which the first few only fill the memory, the gradient cut every five. The loss
weighs devices, the places that they have just left, edges and what stands still, and asks for the contrast of a device
as a whole: a filter that takes a tenth off a wire hardly shows in a mean square. The stated variance is taught by the
likelihood of the error. One thread, one seed; checkpoints every few minutes; the same command goes on from the last.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.networks.mixing import Mixed, Mixing
from models.networks.operators import blur
from models.networks.recurrent import Recurrent
from models.training.pictures import Batch, Recipe, make_batch

Net = Mixing | Recurrent
NETS: dict[str, type[Net]] = {"mixing": Mixing, "recurrent": Recurrent}


def train(folder: Path, minutes: float, recipe: Recipe) -> Net:
    """Trains for so many minutes of wall time at most, or to the recipe's steps; goes on from folder/last.pt."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    net: Net = NETS[recipe.net]()
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


def _one(net: Net, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe) -> float:
    """One pass over a batch of scenes, the gradient cut every few frames."""
    first, truth, rested = batch.y[:, :1], batch.clean[:, :1], batch.rested.view(-1, 1, 1, 1)
    state: Any = net.start(truth + (first - truth) * torch.sqrt(rested), rested)  # as after one frame, or a long rest
    total, part = 0.0, torch.zeros(())
    for k in range(1, recipe.frames):
        flow = batch.flow[:, k] if bool(batch.flow[:, k].any()) else None
        if k < batch.unseen:
            with torch.no_grad():
                state, _ = net.step(state, batch.y[:, k: k + 1], batch.noise, flow)
            continue
        state, mixed = net.step(state, batch.y[:, k: k + 1], batch.noise, flow)
        part = part + loss_of(mixed, batch, k, recipe)
        if (k - batch.unseen) % recipe.cut == recipe.cut - 1 or k == recipe.frames - 1:
            optimizer.zero_grad()
            part.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            total += float(part.detach())
            part = torch.zeros(())
            state = state.detached()
    return total / (recipe.frames - batch.unseen)


def loss_of(mixed: Mixed, batch: Batch, k: int, recipe: Recipe) -> Tensor:
    """Weighted square error, what a device and its old place lack or keep as a whole, and the unlikelihood of the
    error under the stated variance."""
    inside = np.s_[..., 6:-6, 6:-6]
    out, truth = mixed.clean[inside], batch.clean[:, k: k + 1][inside]
    now = batch.device[:, k: k + 1][inside]
    old = batch.device[:, max(k - 3, 0): k].amax(dim=1, keepdim=True)[inside]
    left = (old - functional.max_pool2d(now, 5, 1, 2)).clamp(min=0)
    around = functional.max_pool2d(now, 5, 1, 2)
    edges = (blur(truth) - blur(blur(blur(truth)))).abs().clamp(max=1)
    moved = (batch.clean[:, max(k - 4, 0): k][inside] - truth).abs().amax(dim=1, keepdim=True)
    still = (1 - moved / 0.3).clamp(min=0)
    weight = (1 + recipe.device * now + 0.3 * recipe.device * around + recipe.ghost * left + recipe.edge * edges
              + recipe.rest * still)
    error = out - truth
    square = (weight * functional.huber_loss(out, truth, reduction="none", delta=2.0) * 2).mean()
    drawn = (batch.clean - batch.bare)[:, k: k + 1][inside]
    lacks = (error * drawn).sum(dim=(1, 2, 3)) / (drawn**2).sum(dim=(1, 2, 3)).clamp(min=20.0)
    before = (batch.clean - batch.bare)[:, max(k - 3, 0): k].mean(dim=1, keepdim=True)[inside] * left
    stays = (error * before).sum(dim=(1, 2, 3)) / (before**2).sum(dim=(1, 2, 3)).clamp(min=20.0)
    stated = mixed.variance[inside]
    unlikely = (torch.log(stated) + error.detach() ** 2 / stated).mean()
    return (square + recipe.contrast * ((lacks**2).clamp(max=1).mean() + (stays**2).clamp(max=1).mean())
            + recipe.stated * unlikely)


# --------------------------------------------------------------------------------------------------
# Checkpoints


def _save(folder: Path, net: Net, optimizer: torch.optim.Optimizer, step: int, spent: float,
          recipe: Recipe) -> None:
    part = folder / "last.part"
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": spent,
                "recipe": asdict(recipe)}, part)
    part.replace(folder / "last.pt")


def _resumed(folder: Path, net: Net, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
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
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--net", choices=sorted(NETS), default=Recipe.net)
    given = parser.parse_args()
    train(given.folder, given.minutes, Recipe(net=given.net, seed=given.seed, steps=given.steps,
                                              cache=str(given.folder / "scenes")))


if __name__ == "__main__":
    main()
