# SPDX-License-Identifier: Apache-2.0
"""What does the contrast head raise? Devices and vessels whose truth is known, and what it should leave alone.

Two heads beside each other on the same frames: the fixed law of the kernel (`_contrast`), and the gains that a net
chooses (`_contrast_learned`). Scenes of the test family at a quarter of a full dose, strength 1.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fluoronav.bench.enhance_heads import DOSE, FRAMES, SEEDS, SETTLE, SIDE, frame_of, play, values_of
from fluoronav.bench.enhance_scenes import DARK, SCENES, STEP, Shot, played, shot
from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.wire import DEPTH, across, wire
from fluoronav.enhance import Chain, ChainSettings
from fluoronav.enhance.contrast import unavailable
from fluoronav.enhance.reference import line_best
from fluoronav.imaging.frame import Intensity
from models.training.detector import Detector, detected, signal
from models.training.devices import Device, curve
from registration.geometry import Array

STRENGTH = 1.0
AWAY = 19  # pixels a side about devices and vessels that do not count as elsewhere


def figures(progress: Progress) -> dict[str, Figure]:
    """All figures of contrast."""
    progress(0.0, "contrast")
    why = unavailable()
    told = {} if why is None else {"enhance.cnr_wire_contrast_learned": Figure(None, "share", 0, why)}
    return contrast() | false_lines() | raised() | told


def heads() -> dict[str, ChainSettings]:
    """Suffix to settings: without contrast, and with each head that can run here."""
    found = {"": ChainSettings(), "_contrast": ChainSettings(contrast=STRENGTH, contrast_by="classical")}
    if unavailable() is None:
        found["_contrast_learned"] = ChainSettings(contrast=STRENGTH, contrast_by="learned")
    return found


def raised() -> dict[str, Figure]:
    """In moving scenes: the share of their own contrast that devices, and vessels, get on top (1: doubled), and the RMS
    of what is added elsewhere, in units of one frame's noise."""
    found: dict[str, Figure] = {}
    shots = [shot(seed, DOSE) for seed in SCENES]
    plain = [played(s, Chain(ChainSettings())) for s in shots]
    for suffix, settings in heads().items():
        if not suffix:
            continue
        rows = [_raised(s, k, s.stabilized(values_of(ours[k])) - s.stabilized(values_of(before[k])))
                for s, before in zip(shots, plain, strict=True) for ours in [played(s, Chain(settings))]
                for k in (SETTLE, FRAMES - 1)]
        for name, unit, column in zip(("devices", "vessels", "elsewhere"), ("share", "share", "SD of a frame"),
                                      np.array(rows).T, strict=True):
            found[f"enhance.raised_{name}{suffix}"] = Figure(float(np.nanmean(column)), unit,
                                                             int(np.isfinite(column).sum()))
    return found


def _raised(seen: Shot, k: int, added: Array) -> tuple[float, float, float]:
    s, law = seen.scene, seen.intensity
    assert s.vessels is not None
    detector = Detector(float(law.i0 or 1) / STEP, 2.0, 0.62, 0.02, 0.003, 0.0, 0.2, 0.03)  # as in `shot`
    clean, bare, plain = (seen.stabilized(signal(p[: k + 1], detector)[k] * STEP + DARK)
                          for p in (s.clean, s.bare, s.bare - s.vessels))
    shares = [float(np.sum(added * own) / np.sum(own * own)) if np.abs(own).max() > 1 else float("nan")
              for own in (clean - bare, bare - plain)]
    near = cv2.dilate(((s.device[k] > 0.05) | (s.vessels[k] > 0.01)).astype(np.uint8), np.ones((AWAY, AWAY), np.uint8))
    return shares[0], shares[1], float(np.sqrt(np.mean(added[near == 0] ** 2))) if (near == 0).sum() > 500 else np.nan


def contrast() -> dict[str, Figure]:
    """Contrast to noise of a moving guidewire and a moving stent over that of the raw frames, and the contrast kept.

    Contrast: what the frames with and without the device differ by, in a chain's output, over what was drawn. Noise:
    of the output beside the device, from two runs that differ in nothing but their noise.
    """
    found = {}
    for name, draw in (("wire", _wires), ("stent", _stents)):
        for word, settings in heads().items():
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
        runs[run] = [values_of(e) for e in play(frames, settings)], [f.pixels.astype(np.float32) for f in frames]
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
    """Mean response to lines in a flat field over the output's SD, with each head."""
    mean = np.full((FRAMES, SIDE, SIDE), 100.0, np.float32)
    detector = Detector(1000.0, 2.0, 0.62)
    pixels = np.clip(np.rint(detected(mean, detector, np.random.default_rng(7)) * STEP + DARK), 0, 65535)
    law = Intensity("linear", "dark", 16, i0=1000 * STEP, i0_source="measured", dark=DARK,
                    gain=STEP * detector.noise_sd() ** 2, electronic=2.0 * STEP)
    frames = [frame_of(k, p.astype(np.uint16), law) for k, p in enumerate(pixels)]
    answers, spread = {}, {}
    for suffix, settings in heads().items():
        pictures = [values_of(e) - DARK - 100 * STEP for e in play(frames, settings)[SETTLE:]]
        spread[suffix] = float(np.mean([p.std() for p in pictures]))
        answers[suffix] = float(np.mean([np.abs(line_best((p - p.mean()).astype(np.float32))).mean() / p.std()
                                         for p in pictures]))
    notes = {suffix: f"without contrast {answers['']:.3f}; SD grows by {sd / spread[''] - 1:.1%}"
             for suffix, sd in spread.items()}
    return {f"enhance.false_line{suffix}": Figure(answer, "SD", FRAMES - SETTLE, notes[suffix])
            for suffix, answer in answers.items() if suffix}
