# SPDX-License-Identifier: Apache-2.0
"""How are the weights of the super-resolution net made? `python -m models.training.finer FOLDER --minutes 25`.

Scenes of models.training.simulate (family `train`) as a fine detector sees them, binned 2x2, with the noise that a
filter in time leaves; the coarse picture then goes through the spatial part of the classical denoiser, so that the
net sees what that does to lines and to noise, and is told what noise it leaves. The error is weighed where devices are.
One thread, one seed; checkpoints, and the same command goes on from the last.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.engines import WEIGHTS
from models.networks.operators import blur, line_best, widened
from models.networks.superres import FEATURES, OUTPUTS, Finer
from models.training.detector import any_detector, signal
from models.training.simulate import scene
from registration.geometry import Array

ARTEFACT = "superres.onnx"
# what white noise of unit variance does to the spatial filter (fluoronav/enhance/denoise.py)
WHITE_LINE, WHITE_POINT, WHITE_LEFT, WHITE_KEPT = 0.4440, 0.6017, 0.45, 0.30


@dataclass(frozen=True)
class Recipe:
    """What a training is made of. side px of a fine scene, crop px of the coarse patches."""

    seed: int = 1
    scenes: int = 240
    side: int = 256
    crop: int = 64
    batch: int = 16
    rate: float = 2e-3
    steps: int = 2000
    device: float = 4.0


def train(folder: Path, minutes: float, recipe: Recipe) -> Finer:
    """Trains for so many minutes of wall time at most, or to the recipe's steps; goes on from folder/last.pt."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    net = Finer()
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.rate)
    step = 0
    if (folder / "last.pt").exists():
        kept = torch.load(folder / "last.pt", weights_only=True)
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        step = int(kept["step"])
    begin = saved = time.monotonic()
    while step < recipe.steps and time.monotonic() - begin < minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = float(recipe.rate * 0.5 * (1 + np.cos(np.pi * step / recipe.steps)) + 1e-5)
        x, sd, truth, weight = make_batch(recipe, step, folder / "scenes")
        x, sd = denoised(x, sd)
        optimizer.zero_grad()
        error = (net.finer(x, sd) - truth)[..., 8:-8, 8:-8]
        loss = (weight[..., 8:-8, 8:-8] * torch.sqrt(error**2 + 1e-2)).mean()
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


@torch.no_grad()
def denoised(x: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
    """(picture, standard deviation it is told) after the spatial part of the classical denoiser.

    Source: fluoronav/enhance/reference.py, `spatial` and `share_left`, with the settings of denoise.py.
    """
    base = blur(blur(x))
    detail = x - base
    line = _step(widened(line_best(detail)) / (sd * WHITE_LINE), 1.6, 2.6)
    point = _step(detail.abs() / (sd * WHITE_POINT), 1.6, 3.6)
    kept = torch.maximum(line, point).clamp(min=0.25)
    around = functional.avg_pool2d(functional.pad(kept, (4, 4, 4, 4), mode="replicate"), 9, 1)
    left = WHITE_LEFT + (1 - WHITE_LEFT) * ((around - WHITE_KEPT) / (1 - WHITE_KEPT)).clamp(0, 1)
    return base + kept * detail, sd * torch.sqrt(left)


def _step(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def make_batch(recipe: Recipe, step: int, cache: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(coarse pictures with noise, its level, fine truth, weight) of a step, each (batch, 1, rows, columns)."""
    random = np.random.default_rng([recipe.seed, step])
    parts = [_pair(int(random.integers(recipe.scenes)), random, recipe, cache) for _ in range(recipe.batch)]
    x, sd, truth, weight = (torch.from_numpy(np.stack([p[i] for p in parts])[:, None]) for i in range(4))
    return x, sd, truth, weight


def _pair(seed: int, random: np.random.Generator, recipe: Recipe, cache: Path) -> tuple[Array, Array, Array, Array]:
    fine, profile = _drawn(seed, recipe, cache)
    side = 2 * recipe.crop
    r, c = (2 * int(random.integers(0, (recipe.side - side) // 2 + 1)) for _ in range(2))
    turns, flip = int(random.integers(4)), bool(random.integers(2))

    def cut(picture: Array) -> Array:
        piece = np.rot90(picture[r: r + side, c: c + side], turns)
        return np.ascontiguousarray(piece[:, ::-1] if flip else piece, np.float32)

    truth = cut(fine) * np.float32(np.exp(random.uniform(np.log(0.25), np.log(2.0))))  # other doses
    x = cv2.resize(truth, (recipe.crop, recipe.crop), interpolation=cv2.INTER_AREA)
    level = float(np.exp(random.uniform(np.log(0.15), np.log(1.0))))  # still for long, to all new
    noise: Array = np.asarray(random.normal(size=x.shape), np.float32)
    if random.random() < 0.5:  # a scintillator's or a display's correlation
        noise = cv2.GaussianBlur(noise, (0, 0), float(random.uniform(0.3, 0.6)))
    noise *= np.float32(level / max(float(noise.std()), 1e-6))
    return x + noise, np.full_like(x, level), truth, 1 + np.float32(recipe.device) * cut(profile)


def _drawn(seed: int, recipe: Recipe, cache: Path) -> tuple[Array, Array]:
    """(fine picture in the scale of unit noise, device profile) of a scene, kept in the training's folder."""
    path = cache / f"{recipe.side}_{seed}.npz"
    if not path.exists():
        s = scene(seed, "train", recipe.side, 2)
        detector = any_detector(np.random.default_rng([seed, 7]), "train")
        quanta = signal(s.clean[1:], detector)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, fine=(2 * np.sqrt(quanta + 0.375)).astype(np.float32), profile=s.device[1].astype(np.float16))
    with np.load(path) as kept:
        return kept["fine"], kept["profile"].astype(np.float32)


def _save(folder: Path, net: Finer, optimizer: torch.optim.Optimizer, step: int, recipe: Recipe) -> None:
    part = folder / "last.part"
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                "recipe": asdict(recipe)}, part)
    part.replace(folder / "last.pt")


def export(net: Finer, path: Path) -> None:
    """Writes the net as ONNX, node by node: features (1, 2, rows, columns) to residuals (1, 4, rows, columns)."""
    from onnx import TensorProto, checker, helper, numpy_helper
    from torch import nn

    nodes, constants, last = [], [], "features"
    for k, layer in enumerate([*net.body, net.head]):
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            for name, value in ((f"w{k}", layer.weight), (f"b{k}", layer.bias)):
                constants.append(numpy_helper.from_array(value.detach().numpy().copy(), name))
            nodes.append(helper.make_node("Conv", [last, f"w{k}", f"b{k}"], [f"x{k}"], kernel_shape=[3, 3],
                                          strides=[1, 1], pads=[1] * 4, dilations=[1, 1]))
        else:
            nodes.append(helper.make_node("Relu", [last], [f"x{k}"]))
        last = f"x{k}"
    nodes[-1].output[0] = "residuals"
    graph = helper.make_graph(
        nodes, "superres", [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, FEATURES, "h", "w"])],
        [helper.make_tensor_value_info("residuals", TensorProto.FLOAT, [1, OUTPUTS, "h", "w"])], constants)
    model = helper.make_model(graph, producer_name="fluoronav", opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    checker.check_model(model)
    path.write_bytes(bytes(model.SerializeToString(deterministic=True)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--export", action="store_true", help="write the last checkpoint to models/weights and stop")
    given = parser.parse_args()
    if given.export:
        net = Finer()
        net.load_state_dict(torch.load(given.folder / "last.pt", weights_only=True)["net"])
        export(net.eval(), WEIGHTS / ARTEFACT)
        return
    train(given.folder, given.minutes, Recipe(steps=given.steps))


if __name__ == "__main__":
    main()
