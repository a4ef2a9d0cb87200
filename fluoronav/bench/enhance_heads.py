# SPDX-License-Identifier: Apache-2.0
"""What do the heads of the chain do where the truth is known? Contrast, pixels of half the size, a still picture.

Scenes of the test family (other anatomy and detectors than what the nets were trained on), at a quarter of a full dose
unless said. Each head is compared with the chain without it on the same frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from fluoronav.bench.enhance_scenes import DARK, STEP, Shot, shot
from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.wire import DEPTH, across, wire
from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.enhance.noise import anscombe
from fluoronav.enhance.reference import line_best
from fluoronav.enhance.superres import unavailable
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.training.detector import Detector, detected, signal
from models.training.devices import Device, curve
from models.training.fields import plates
from models.training.simulate import scene, warped
from registration.geometry import Array

DOSE, STRENGTH = 0.25, 1.0
SIDE, FRAMES, SETTLE = 256, 14, 6
SEEDS = (100, 101, 102)
SWAYS = range(6)  # seeds of breathing scenes
RATE = 15.0
EDGE = 12


def figures(progress: Progress) -> dict[str, Figure]:
    """All figures of the heads."""
    progress(0.0, "contrast")
    found = contrast() | false_lines()
    progress(0.4, "super-resolution")
    found |= superres()
    progress(0.7, "stabilisation")
    return found | stabilised()


def play(frames: list[Frame], settings: ChainSettings) -> list[Enhanced]:
    """Every frame through a chain."""
    chain, state, out = Chain(settings), None, []
    for frame in frames:
        state, enhanced = chain.step(state, frame)
        out.append(enhanced)
    return out


def frame_of(k: int, pixels: Array, law: Intensity) -> Frame:
    """Frame k at 15 frames/s, without geometry."""
    return Frame(pixels, k, round(k / RATE * 1e9), None, None, Exposure(), law, np.ones(pixels.shape, bool), "bench")


# --------------------------------------------------------------------------------------------------
# Contrast


def contrast() -> dict[str, Figure]:
    """Contrast to noise of a moving guidewire and a moving stent over that of the raw frames, and the contrast kept.

    Contrast: what the frames with and without the device differ by, in a chain's output, over what was drawn. Noise:
    of the output beside the device, from two runs that differ in nothing but their noise.
    """
    found = {}
    for name, draw in (("wire", _wires), ("stent", _stents)):
        for word, settings in (("", ChainSettings()), ("_contrast", ChainSettings(contrast=STRENGTH))):
            answers = [_visibility(seed, draw, settings) for seed in SEEDS]
            kept, noise = (float(np.mean([a[i] for a in answers])) for i in range(2))
            note = f"kept {kept:.2f}, noise {noise:.2f} of raw"
            found[f"enhance.cnr_{name}{word}"] = Figure(kept / noise - 1, "share", len(answers), note)
    return found


def _visibility(seed: int, draw: Callable[[int, int], list[tuple[Array, Array]]],
                settings: ChainSettings) -> tuple[float, float]:
    """(contrast kept, noise beside the device over that of the raw frames)."""
    seen = shot(seed, DOSE, still=True, frames=FRAMES)
    drawn = draw(seed, seen.expected.shape[1])
    runs = {}
    for run, (wired, noise_seed) in {"bare": (False, 0), "wired": (True, 0), "other": (True, 1)}.items():
        depth = [DEPTH * profile * wired for profile, _ in drawn]
        frames = [frame_of(k, p, seen.intensity) for k, p in enumerate(_noisy(seen, depth, [seed, noise_seed]))]
        runs[run] = [_values(e) for e in play(frames, settings)], [f.pixels.astype(np.float32) for f in frames]
    kept, out, raw = [], [], []
    for k in range(SETTLE, FRAMES):
        profile, ring = drawn[k]
        bare, with_it, other = (runs[name][0][k] for name in ("bare", "wired", "other"))
        true = DEPTH * profile * (seen.expected[k] - DARK)
        kept.append(float(np.sum((bare - with_it) * profile) / np.sum(true * profile)))
        out.append(float(np.mean((with_it - other)[ring > 0] ** 2)))
        raw.append(float(np.mean((runs["wired"][1][k] - runs["other"][1][k])[ring > 0] ** 2)))
    return float(np.mean(kept)), float(np.sqrt(np.mean(out) / np.mean(raw)))


def _noisy(seen: Shot, depth: list[Array], seed: list[int]) -> Array:
    """Stored counts of a shot whose signal is weakened by `depth`, with noise of its own."""
    quanta = np.stack([(e - DARK) / STEP * (1 - d) for e, d in zip(seen.expected, depth, strict=True)])
    detector = Detector(float(seen.intensity.i0 or 1) / STEP, 2.0, 0.62, 0.02, 0.003, 0.0, 0.2, 0.03)
    counts = detected(quanta.astype(np.float32), detector, np.random.default_rng([*seed, 77]))
    return np.clip(np.rint(counts * STEP + DARK), 0, 65535).astype(np.uint16)


def _values(enhanced: Enhanced) -> Array:
    assert enhanced.values is not None
    return enhanced.values


def _wires(seed: int, side: int) -> list[tuple[Array, Array]]:
    """(profile, ring beside it) in each frame of a bent wire that moves 3 px a frame."""
    angle = float(np.random.default_rng(seed).uniform(0, np.pi))
    out = []
    for k in range(FRAMES):
        at = -20.0 + 3 * k
        off, along = across((side, side), at, angle)
        out.append((wire((side, side), at, angle), _ring(np.abs(off)) * (np.abs(along) < side * 0.35)))
    return out


def _stents(seed: int, side: int) -> list[tuple[Array, Array]]:
    """(profile, ring beside it) in each frame of a stent that sways."""
    random = np.random.default_rng([seed, 5])
    points = curve(side, random, 0.01)
    middle = points[len(points) // 2]
    points = points[np.abs(points - middle).max(axis=1) < side * 0.2] - middle + side / 2
    device = Device("stent", points, 14.0, 1.0)
    out = []
    for k in range(FRAMES):
        _, profile = device.drawn(points + np.array([6 * np.sin(k / 3), 4 * np.cos(k / 4)]), side)
        far = cv2.distanceTransform((profile < 0.05).astype(np.uint8), cv2.DIST_L2, 5)
        out.append((profile, _ring(far)))
    return out


def _ring(distance: Array) -> Array:
    return ((distance > 4) & (distance < 12)).astype(np.float32)


def false_lines() -> dict[str, Figure]:
    """Mean response to lines in a flat field over the output's SD, without and with contrast."""
    mean = np.full((FRAMES, SIDE, SIDE), 100.0, np.float32)
    detector = Detector(1000.0, 2.0, 0.62)
    pixels = np.clip(np.rint(detected(mean, detector, np.random.default_rng(7)) * STEP + DARK), 0, 65535)
    law = Intensity("linear", "dark", 16, i0=1000 * STEP, i0_source="measured", dark=DARK,
                    gain=STEP * detector.noise_sd() ** 2, electronic=2.0 * STEP)
    frames = [frame_of(k, p.astype(np.uint16), law) for k, p in enumerate(pixels)]
    answers, spread = [], []
    for settings in (ChainSettings(), ChainSettings(contrast=STRENGTH)):
        pictures = [_values(e) - DARK - 100 * STEP for e in play(frames, settings)[SETTLE:]]
        spread.append(float(np.mean([p.std() for p in pictures])))
        answers.append(float(np.mean([np.abs(line_best((p - p.mean()).astype(np.float32))).mean() / p.std()
                                      for p in pictures])))
    note = f"without contrast {answers[0]:.3f}; SD grows by {spread[1] / spread[0] - 1:.1%}"
    return {"enhance.false_line_contrast": Figure(answers[1], "SD", FRAMES - SETTLE, note)}


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
        clean = _values(plain[k])
        cubic = cv2.resize(clean, (2 * clean.shape[1], 2 * clean.shape[0]), interpolation=cv2.INTER_CUBIC)
        errors = [_stable(x, law) - _stable(fine[k], law) for x in (cubic, _values(ours[k]), _values(without[k]))]
        inside = np.zeros(cubic.shape, bool)
        inside[EDGE:-EDGE, EDGE:-EDGE] = True
        near = inside & (cv2.dilate(device[k], np.ones((5, 5), np.uint8)) > 0.1)
        away = _stable(_mean2(_values(ours[k])), law) - _stable(coarse[k], law)
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
    clean = _values(play(frames, ChainSettings())[-1])
    cubic = cv2.resize(clean, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    ours = _values(play(frames, ChainSettings(superres=True))[-1])
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
