# SPDX-License-Identifier: Apache-2.0
"""How are the weights of the stated uncertainty made? `python -m fluoronav.bench.stated_recipe classical FOLDER`.

The chain runs over scenes of models.training.simulate (family `train`: drawn tissue and projected patients) with
random detectors, at 7 to 200 % of a full dose, a third of them with a noise law that is measured instead of stated, a
quarter with noise that lasts from frame to frame. What the clean pictures are off is held against the variance by the
Gaussian likelihood. `--leave tissue|projected` keeps one generator out of the training, to judge on what was not seen.
One thread, seeded: some 4 minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from fluoronav.enhance import Chain, ChainSettings
from fluoronav.enhance.noise import anscombe
from fluoronav.enhance.stated import FEATURES, GREATEST, LEAST, MOST, TERMS, StatedState, features, file_of
from fluoronav.enhance.work import Work
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.engines import WEIGHTS
from models.training import simulate
from models.training.anatomy import projected
from models.training.detector import any_detector, detected, signal
from models.training.fields import tissue
from registration.geometry import Array

GENERATORS = {"tissue": (tissue, 2000, 60), "projected": (projected, 3000, 60)}  # body, first seed, scenes
SIDE, FRAMES, SEEN = 256, 20, (1, 2, 4, 6, 8, 10, 13, 16, 19)
MOVING = 0.7  # share of the scenes that never rest: where nothing moves there is little to learn
FULL, DARK, STEP = 400.0, 50.0, 8.0  # quanta a pixel of a full dose, stored offset, stored steps a quantum
PIXELS = 10  # of the 64 of a cell that are held against the variance
WIDTH, STEPS, BATCH, RATE, SEED = 16, 6000, 4096, 3e-3, 1


@dataclass(frozen=True, slots=True)
class Sample:
    """features (n, 16) of cells; errors, variances, squared gradients (n, 10) of pixels in them."""

    features: Array
    errors: Array
    variances: Array
    steep: Array


class Recorder:
    """A stage that keeps what the stated uncertainty would see."""

    name = "uncertainty"

    def __init__(self) -> None:
        self.found: tuple[Array, Work] | None = None

    def step(self, state: StatedState | None, item: Work) -> tuple[StatedState, Work]:
        """Hands its input on."""
        state, found = features(state, item)
        self.found = found, item
        return state, item


def samples(denoiser: str, generator: str) -> list[Sample]:
    """Of all scenes of a generator."""
    body, first, scenes = GENERATORS[generator]
    clock = simulate._clock

    def mostly_moving(frames: int, random: np.random.Generator) -> list[int]:
        return list(range(frames)) if random.random() < MOVING else clock(frames, random)

    with mock.patch.multiple(simulate, _body=lambda canvas, random, family: body(canvas, random), _clock=mostly_moving):
        return [sample for seed in range(first, first + scenes) for sample in _of_scene(denoiser, seed)]


def _of_scene(denoiser: str, seed: int) -> list[Sample]:
    random = np.random.default_rng([seed, 41])
    scene = simulate.scene(seed, "train", SIDE, FRAMES)
    dose = float(np.exp(random.uniform(np.log(0.07), np.log(2.0))))
    quanta = dose * FULL * float(np.exp(np.mean(scene.clean[0])))
    lasts = float(random.uniform(0.05, 0.5)) if random.random() < 0.25 else 0.0
    detector = replace(any_detector(random, "train"), quanta=quanta, memory=lasts)
    expected = signal(scene.clean, detector)
    counts = detected(expected, detector, np.random.default_rng([seed, 5]))
    electronic, measured = STEP * max(detector.electronic, 0.3), random.random() < 0.3
    law = Intensity("linear", "dark", 16, i0=quanta * STEP, i0_source="measured", dark=DARK,
                    gain=None if measured else STEP * detector.noise_sd() ** 2, electronic=electronic)
    pixels = np.clip(np.rint(counts * STEP + DARK), 0, 65535).astype(np.uint16)
    chain = Chain(ChainSettings(uncertainty=False, method=denoiser))  # type: ignore[arg-type]
    recorder, state, out = Recorder(), None, []
    chain.stages["uncertainty"] = recorder
    for k in range(FRAMES):
        valid = np.ones(pixels[k].shape, bool)
        frame = Frame(pixels[k], k, k * 66_666_667, None, None, Exposure(), law, valid, "train")
        state, _ = chain.step(state, frame)
        if k in SEEN:
            out.append(_sample(recorder, expected[k] * STEP + DARK, law, random))
    return out


def _sample(recorder: Recorder, expected: Array, law: Intensity, random: np.random.Generator) -> Sample:
    """Cells of a frame, without those at the border."""
    assert recorder.found is not None
    found, item = recorder.found
    assert item.law is not None and item.clean is not None and item.variance is not None
    if law.gain is None:
        truth = np.interp(expected, np.arange(item.law.forward.size), item.law.forward)
    else:
        truth = anscombe(expected, law.gain, law.electronic or 0.0, law.dark)
    p = np.pad(item.clean, 1, mode="edge")
    steep = ((p[1:-1, 2:] - p[1:-1, :-2]) ** 2 + (p[2:, 1:-1] - p[:-2, 1:-1]) ** 2) / 4
    pick = random.permutation(64)[:PIXELS]

    def cells(picture: Array) -> Array:
        n = SIDE // 8
        inside = picture.reshape(n, 8, n, 8).transpose(0, 2, 1, 3)[1:-1, 1:-1].reshape(-1, 64)
        return inside[:, pick].astype(np.float32)

    return Sample(found[:, 1:-1, 1:-1].reshape(FEATURES, -1).T, cells(item.clean - truth), cells(item.variance),
                  cells(steep))


class Net(nn.Module):
    """Features (n, 16), normalized, to the logarithms of s, b and k (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Linear(WIDTH, TERMS)
        with torch.no_grad():  # training starts near what the denoiser states
            last.weight.zero_()
            last.bias[:] = torch.tensor([0.0, -3.0, -3.0])
        self.layers = nn.ModuleList([nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH), last])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return torch.clamp(self.layers[-1](x), torch.tensor(LEAST), torch.tensor(GREATEST))


def train(parts: list[Sample]) -> dict[str, Array]:
    """The arrays of models/weights/stated_*.npz."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    x, e, v, g = (torch.from_numpy(np.concatenate([getattr(p, name) for p in parts])) for name in Sample.__slots__)
    mean, spread = x.mean(dim=0), x.std(dim=0) + 1e-6
    x = ((x - mean) / spread).clamp(-MOST, MOST)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = float(RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS)) + 1e-5)
        pick = torch.randint(len(x), (BATCH,))
        s, b, k = torch.exp(net(x[pick])).T[:, :, None]
        variance = s * v[pick] + b + k * g[pick]
        loss = (torch.log(variance) + e[pick] ** 2 / variance).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = {"mean": mean.numpy(), "spread": spread.numpy()}
    for number, layer in enumerate(net.layers):
        assert isinstance(layer, nn.Linear)
        out |= {f"w{number}": layer.weight.detach().numpy(), f"b{number}": layer.bias.detach().numpy()}
    return out


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("denoiser", choices=("classical", "learned"))
    parser.add_argument("folder", type=Path, nargs="?", default=WEIGHTS)
    parser.add_argument("--leave", choices=tuple(GENERATORS), help="the generator that is not trained on")
    given = parser.parse_args()
    parts = [s for name in GENERATORS if name != given.leave for s in samples(given.denoiser, name)]
    given.folder.mkdir(parents=True, exist_ok=True)
    np.savez(given.folder / file_of(given.denoiser), **train(parts))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
