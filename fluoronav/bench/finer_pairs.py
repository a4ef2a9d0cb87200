# SPDX-License-Identifier: Apache-2.0
"""What does the super-resolution net get to see? `python -m fluoronav.bench.finer_pairs FOLDER`.

Clean pictures as the chain leaves them, with the truth on pixels of half the size: scenes of models.training.simulate
(family `train`) as a detector of half the pitch sees them, binned 2x2, at 10 to 120 % of a full dose. What is left of
the noise is then what a recursion leaves, where it stands and where it moves; `python -m models.training.finer FOLDER
--pairs FOLDER` goes on from here. One file a scene.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fluoronav.enhance import Chain
from fluoronav.enhance.noise import anscombe
from fluoronav.enhance.work import Work
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.training.detector import Detector, signal
from models.training.simulate import scene
from registration.geometry import Array

SCENES, SIDE, FRAMES, SEEN = 160, 256, 14, (2, 6, 10, 13)
FULL, DARK, STEP = 400.0, 50.0, 8.0


class Recorder:
    """A stage that keeps what the super-resolution would see."""

    name = "recorder"

    def __init__(self) -> None:
        self.item: Work | None = None

    def step(self, state: None, item: Work) -> tuple[None, Work]:
        """Hands its input on."""
        self.item = item
        return state, item


def pairs(seed: int) -> dict[str, Array]:
    """x, sd (frames, rows, columns), truth, profile (frames, 2 rows, 2 columns), in the scale of unit noise."""
    random = np.random.default_rng([seed, 43])
    s = scene(seed, "train", SIDE, FRAMES)
    dose = float(np.exp(random.uniform(np.log(0.1), np.log(1.2))))
    quanta = dose * FULL / 4 * float(np.exp(np.mean(s.clean[0])))
    detector = Detector(quanta, 0.0, float(random.uniform(0.4, 0.75)), float(random.uniform(0, 0.04)), 0.0, 0.0,
                        float(random.uniform(0, 0.5)), float(random.uniform(0, 0.06)))
    fine = signal(s.clean, detector)
    coarse = fine.reshape(FRAMES, SIDE // 2, 2, SIDE // 2, 2).sum(axis=(2, 4))
    electronic = float(random.uniform(0.5, 3))
    noisy = random.poisson(coarse) + random.normal(0, electronic, coarse.shape)
    pixels = np.clip(np.rint(noisy * STEP + DARK), 0, 65535).astype(np.uint16)
    law = Intensity("linear", "dark", 16, i0=4 * quanta * STEP, i0_source="measured", dark=DARK, gain=STEP,
                    electronic=electronic * STEP)
    chain, recorder, state = Chain(), Recorder(), None
    chain.stages["recorder"] = recorder
    out: dict[str, list[Array]] = {"x": [], "sd": [], "truth": [], "profile": []}
    for k in range(FRAMES):
        valid = np.ones(pixels[k].shape, bool)
        state, _ = chain.step(state, Frame(pixels[k], k, k * 66_666_667, None, None, Exposure(), law, valid, "train"))
        if k not in SEEN:
            continue
        item = recorder.item
        assert item is not None and item.clean is not None and item.variance is not None
        out["x"].append(item.clean)
        out["sd"].append(np.sqrt(item.variance))
        out["truth"].append(anscombe(4 * fine[k] * STEP + DARK, STEP, electronic * STEP, DARK))
        out["profile"].append(s.device[k])
    return {name: np.stack(pictures).astype(np.float16 if name in ("sd", "profile") else np.float32)
            for name, pictures in out.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(SCENES):
        np.savez(given.folder / f"pairs_{seed}.npz", **pairs(seed))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
