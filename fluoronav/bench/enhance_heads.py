# SPDX-License-Identifier: Apache-2.0
"""What do the heads of the chain do where the truth is known? Pixels of half the size, a still picture.

Scenes of the test family (other anatomy and detectors than what the nets were trained on), at a quarter of a full dose
unless said. Each head is compared with the chain without it on the same frames.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from fluoronav.bench.enhance_scenes import DARK, STEP
from fluoronav.bench.figure import Figure, Progress
from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.enhance.noise import anscombe
from fluoronav.enhance.superres import unavailable
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.training.detector import Detector, signal
from models.training.fields import plates
from models.training.simulate import scene, warped
from registration.geometry import Array

DOSE = 0.25
SIDE, FRAMES, SETTLE = 256, 14, 6
SEEDS = (100, 101, 102)
SWAYS = range(6)  # seeds of breathing scenes
RATE = 15.0
EDGE = 12


def figures(progress: Progress) -> dict[str, Figure]:
    """All figures of the heads."""
    progress(0.0, "super-resolution")
    found = superres()
    progress(0.7, "stabilisation")
    return found | stabilised()


def play(frames: list[Frame], settings: ChainSettings) -> list[Enhanced]:
    """Every frame through a chain."""
    chain, state, out = Chain(settings), None, []
    for frame in frames:
        state, enhanced = chain.step(state, frame)
        out.append(enhanced)
    return out


def values_of(enhanced: Enhanced) -> Array:
    """The clean picture in stored units."""
    assert enhanced.values is not None
    return enhanced.values


def frame_of(k: int, pixels: Array, law: Intensity) -> Frame:
    """Frame k at 15 frames/s, without geometry."""
    return Frame(pixels, k, round(k / RATE * 1e9), None, None, Exposure(), law, np.ones(pixels.shape, bool), "bench")


# --------------------------------------------------------------------------------------------------
# Super-resolution


def superres() -> dict[str, Figure]:
    """Scenes of a detector of half the pitch, binned 2x2, at full dose and at a quarter: error of the finer pixels over
    that of bicubic ones, where devices are, everywhere, and without the net; distance of the binned answer from the
    noisy input; a star pattern."""
    found: dict[str, Figure] = {}
    note = "" if unavailable() is None else f"interpolation alone: {unavailable()}; "
    for word, dose in (("", 1.0), ("_25", DOSE)):
        answers = [row for seed in SEEDS for row in _finer(seed, dose)]
        base, ours, plain, whole, whole_ours, apart = np.array(answers).T
        gains = {"": base / ours, "_interpolated": base / plain, "_everywhere": whole / whole_ours}
        found |= {f"superres.psnr_over_bicubic{key}{word}": Figure(
            float(np.mean(10 * np.log10(ratio))), "dB", len(answers),
            note + f"at {dose:.0%} dose, {'everywhere' if 'every' in key else 'on devices'}")
            for key, ratio in gains.items()}
        found[f"superres.consistency_sigma{word}"] = Figure(
            float(np.sqrt(np.mean(apart))), "sigma of a frame", len(answers), "binned answer less noisy input")
    return found | {"superres.star_error_over_bicubic": _star()}


def _finer(seed: int, dose: float) -> list[list[float]]:
    """Mean squares of two frames of a scene: on devices bicubic, ours, without the net; everywhere bicubic, ours; of
    the binned answer less the noisy input. In the scale of unit noise."""
    fine, coarse, law, device = _binned(seed, dose)
    frames = [frame_of(k, p, law) for k, p in enumerate(coarse)]
    alone = Chain(ChainSettings(superres=True))
    alone.stages["superres"].why = "interpolation, to compare with"
    plain, ours = play(frames, ChainSettings()), play(frames, ChainSettings(superres=True))
    state, without = None, []
    for frame in frames:
        state, enhanced = alone.step(state, frame)
        without.append(enhanced)
    rows = []
    for k in (SETTLE, FRAMES - 1):
        clean = values_of(plain[k])
        cubic = cv2.resize(clean, (2 * clean.shape[1], 2 * clean.shape[0]), interpolation=cv2.INTER_CUBIC)
        errors = [_stable(x, law) - _stable(fine[k], law) for x in (cubic, values_of(ours[k]), values_of(without[k]))]
        inside = np.zeros(cubic.shape, bool)
        inside[EDGE:-EDGE, EDGE:-EDGE] = True
        near = inside & (cv2.dilate(device[k], np.ones((5, 5), np.uint8)) > 0.1)
        away = _stable(_mean2(values_of(ours[k])), law) - _stable(coarse[k], law)
        rows.append([*(float(np.mean(e[near] ** 2)) for e in errors),
                     *(float(np.mean(e[inside] ** 2)) for e in errors[:2]),
                     float(np.mean(away[EDGE:-EDGE, EDGE:-EDGE] ** 2))])
    return rows


def _binned(seed: int, dose: float) -> tuple[Array, Array, Intensity, Array]:
    """(fine expected counts, coarse noisy counts, their law, device profile on fine pixels) of a scene."""
    s = scene(seed, "test", SIDE, FRAMES)
    quanta = dose * 400.0 / 4 * float(np.exp(np.mean(s.clean[0])))  # of a fine pixel; four make one
    detector = Detector(quanta, 0.0, 0.62, 0.02, 0.003, 0.0, 0.2, 0.03)
    fine = signal(s.clean, detector)
    random = np.random.default_rng([seed, 3])
    coarse = 4 * np.stack([_mean2(x) for x in fine])
    noisy = random.poisson(coarse) + random.normal(0, 2.0, coarse.shape)
    pixels = np.clip(np.rint(noisy * STEP + DARK), 0, 65535).astype(np.uint16)
    law = Intensity("linear", "dark", 16, i0=4 * quanta * STEP, i0_source="measured", dark=DARK, gain=STEP,
                    electronic=2.0 * STEP)
    return 4 * fine * STEP + DARK, pixels, law, s.device.astype(np.float32)


def _star() -> Figure:
    """Error on a star of 36 spokes, where they are 4 to 8 fine pixels apart, over that of bicubic interpolation."""
    v, u = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    fine = (8000 * np.exp(-0.3 * (1 + np.cos(36 * angle)) * (radius > 4))).astype(np.float32)
    law = Intensity("linear", "dark", 16, i0=9000.0, i0_source="measured", gain=4.0, electronic=4.0)
    random = np.random.default_rng(11)
    coarse = _mean2(fine)
    frames = [frame_of(k, np.clip(np.rint(coarse + random.normal(size=coarse.shape) * np.sqrt(4 * coarse + 16)), 0,
                                  65535).astype(np.uint16), law) for k in range(8)]
    clean = values_of(play(frames, ChainSettings())[-1])
    cubic = cv2.resize(clean, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    ours = values_of(play(frames, ChainSettings(superres=True))[-1])
    period = 2 * np.pi * radius / 36
    where = (period > 4) & (period < 8)
    ratio = np.sqrt(np.mean((ours - fine)[where] ** 2) / np.mean((cubic - fine)[where] ** 2))
    return Figure(float(ratio), "ratio", int(where.sum()), "spokes 4 to 8 fine pixels apart, full dose, still")


def _stable(values: Array, law: Intensity) -> Array:
    return anscombe(values, law.gain or 1.0, law.electronic or 0.0, law.dark)


def _mean2(picture: Array) -> Array:
    rows, columns = (n // 2 for n in picture.shape)
    return np.asarray(picture.reshape(rows, 2, columns, 2).mean(axis=(1, 3)), np.float32)


# --------------------------------------------------------------------------------------------------
# Stabilisation


def stabilised() -> dict[str, Figure]:
    """RMS of the motion that is left of breathing that is known, in pixels, its mean place taken away; two wires are
    pushed through the picture and a heart beats in it."""
    left, before = [], []
    for seed in SWAYS:
        frames, path = swaying(seed)
        shifts = np.array([e.shift_px for e in play(frames, ChainSettings(stabilise=True))])
        rest = path + shifts
        left.append(float(np.sqrt(((rest - rest.mean(axis=0)) ** 2).sum(axis=1).mean())))
        before.append(float(np.sqrt(((path - path.mean(axis=0)) ** 2).sum(axis=1).mean())))
    note = f"of {np.mean(before):.1f} px; worst scene {max(left):.2f}"
    return {"stabilise.residual_px": Figure(float(np.mean(left)), "px", len(left), note)}


def swaying(seed: int, side: int = SIDE, count: int = 60) -> tuple[list[Frame], Array]:
    """(frames of a body that breathes, where it lies in each, (frames, 2) px)."""
    random = np.random.default_rng([seed, 9])
    body = plates(side + 80, random)
    t = np.arange(count) / RATE
    reach, rate = random.uniform(4, 9) * side / 256, random.uniform(0.2, 0.35)
    breath = np.sin(2 * np.pi * rate * t) ** 3 + 0.2 * np.sin(4 * np.pi * rate * t)
    path = np.stack([0.3 * reach * np.sin(2 * np.pi * rate * t + 1), reach * breath], axis=1)
    path -= path[0]
    angles = random.uniform(0, np.pi, 2)
    law = Intensity("linear", "dark", 14, i0=4000.0, i0_source="measured", gain=8.0, electronic=6.0)
    frames = []
    for k in range(count):
        matrix = np.array([[1, 0, path[k, 0]], [0, 1, path[k, 1]]], np.float64)
        p = warped(body, matrix, side) + _beating(side, path[k], float(t[k])) + _pushed(side, angles, k)
        mean = 4000 * np.exp(-p)
        noisy = mean + random.normal(size=p.shape) * np.sqrt(8 * mean + 36)
        frames.append(frame_of(k, np.clip(np.rint(noisy), 0, 16383).astype(np.uint16), law))
    return frames, path


def _beating(side: int, at: Array, time_s: float) -> Array:
    """Line integrals of a heart that beats 72 times a minute."""
    v, u = np.indices((side, side), np.float64)
    radius = side * 0.2 * (1 + 0.1 * np.sin(2 * np.pi * 1.2 * time_s))
    return 0.3 / (1 + np.exp((np.hypot(u - side * 0.6 - at[0], v - side * 0.5 - at[1]) - radius) / 2))


def _pushed(side: int, angles: Array, k: int) -> Array:
    """Line integrals of two wires that go their own way."""
    v, u = np.indices((side, side), np.float64)
    total: Any = 0.0
    for angle in angles:
        off = (u - side / 2) * np.cos(angle) + (v - side / 2) * np.sin(angle) + 10 * np.sin(v / 30 + k / 3)
        total = total + 0.5 * np.clip(1.5 - np.abs(off - k * 3 % 80 + 40), 0, 1)
    return np.asarray(total)
