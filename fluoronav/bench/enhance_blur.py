# SPDX-License-Identifier: Apache-2.0
"""What does deblurring give back of what the X-ray pulse smeared? A body and wires that move while the tube is on.

A pulse is the mean of SUBFRAMES pictures (of the signal, not of line integrals) of a body of plates and five wires that
move together by STEP_PX a frame, through half of the frame's time; noise as in `bench.enhance_heads.swaying`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from fluoronav.bench.enhance_heads import RATE, frame_of, play, values_of
from fluoronav.bench.figure import Figure
from fluoronav.enhance import ChainSettings
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.training.fields import plates
from models.training.simulate import warped
from registration.geometry import Array

SIDE, FRAMES, SETTLE = 256, 12, 6
SUBFRAMES, SHARE, STEP_PX = 8, 0.5, 8.0
DEPTH, WIDTH = 0.8, 3.0  # line integral and pixels of a dense catheter: a thin wire's blur is lost in the noise
SEEDS = range(3)
LAW = Intensity("linear", "dark", 14, i0=4000.0, i0_source="measured", gain=8.0, electronic=6.0)


def deblurred() -> dict[str, Figure]:
    """Contrast of the moving wires in the middle of their pulse, as a share of what they have without blur, without and
    with deblurring; and the noise with it over that without, in the whole picture."""
    kept: dict[bool, list[float]] = {False: [], True: []}
    noise = []
    for seed in SEEDS:
        pictures = {(on, n): values(seed, n, on) for on in (False, True) for n in (0, 1)}
        for on in kept:
            kept[on] += [share(seed, k, pictures[on, 0][k]) for k in range(SETTLE, FRAMES)]
        spread = [float(np.std(np.stack(pictures[on, 0][SETTLE:]) - np.stack(pictures[on, 1][SETTLE:])))
                  for on in (False, True)]
        noise.append(spread[1] / spread[0])
    note = f"{STEP_PX:g} px a frame, tube on for {SHARE:.0%} of it; without deblurring {np.mean(kept[False]):.3f}"
    return {"enhance.deblur_kept": Figure(float(np.mean(kept[True])), "share", len(kept[True]), note),
            "enhance.deblur_kept_off": Figure(float(np.mean(kept[False])), "share", len(kept[False]), "not deblurred"),
            "enhance.deblur_noise": Figure(float(np.mean(noise)), "ratio", len(noise), "noise with over without")}


def values(seed: int, noise: int, deblur: bool) -> list[Array]:
    """The clean pictures of a scene with one noise or another."""
    return [values_of(e) for e in play(blurred_run(seed, noise), ChainSettings(deblur=deblur))]


def share(seed: int, k: int, found: Array) -> float:
    """Of the contrast of the wires in frame k without blur, how much a picture in stored units shows."""
    sharp, bare = (mean_at(seed, k, 0.0, wires) for wires in (True, False))
    pattern = (bare - sharp) * inside()
    pattern -= pattern.mean()
    return float(np.sum((bare - found) * pattern) / np.sum((bare - sharp) * pattern))


def inside() -> Array:
    """1 away from the border, where the run shows all of what moves."""
    mask = np.zeros((SIDE, SIDE))
    mask[24:-24, 24:-24] = 1
    return mask


def blurred_run(seed: int, noise: int) -> list[Frame]:
    """Frames whose pulse took SHARE of the time between them."""
    random = np.random.default_rng([seed, noise, 12])
    frames = []
    for k in range(FRAMES):
        parts = (np.arange(SUBFRAMES) + 0.5) / SUBFRAMES - 0.5
        mean = np.mean([mean_at(seed, k, SHARE * float(s), True) for s in parts], axis=0)
        noisy = mean + random.normal(size=mean.shape) * np.sqrt(8 * mean + 36)
        taken = frame_of(k, np.clip(np.rint(noisy), 0, 16383).astype(np.uint16), LAW)
        frames.append(replace(taken, exposure=Exposure(ms=1000 * SHARE / RATE)))
    return frames


def mean_at(seed: int, k: int, later: float, wires: bool) -> Array:
    """Expected counts (rows, columns) of frame k, `later` frames after the middle of its pulse."""
    body, angle = scene_of(seed)
    way = STEP_PX * (k + later - FRAMES / 2)
    du, dv = way * np.cos(angle), way * np.sin(angle)
    p = warped(body, np.array([[1, 0, du], [0, 1, dv]], np.float64), SIDE)
    v, u = np.indices((SIDE, SIDE), np.float64)
    for number in range(5 * wires):
        turn = angle + (number - 2) * 0.25  # across the motion, more or less: along it nothing blurs
        off = (u - SIDE / 2 - du) * np.cos(turn) + (v - SIDE / 2 - dv) * np.sin(turn) + 36 * (number - 2)
        p = p + DEPTH * np.clip(WIDTH / 2 + 0.5 - np.abs(off), 0, 1)
    return np.asarray(4000 * np.exp(-p))


@lru_cache(maxsize=4)
def scene_of(seed: int) -> tuple[Array, float]:
    """(line integrals of the body, direction in which it moves)."""
    random = np.random.default_rng([seed, 21])
    return plates(SIDE + 2 * round(STEP_PX * FRAMES), random), float(random.uniform(0, 2 * np.pi))
