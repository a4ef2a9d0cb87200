# SPDX-License-Identifier: Apache-2.0
"""What does a filter do to a moving wire in real noise? A 2-pixel wire of 30 % multiplied into still runs.

The same frames go through the filter with and without the wire; what differs is what the filter made of
the wire, free of noise. All measures are shares of the wire that was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from registration.geometry import Array

Filter = Callable[[Iterator[Array]], Iterator[Array]]  # frames in stored units to clean ones, float32
DEPTH, WIDTH = 0.30, 2.0
SETTLE, STILL, JUMP_AT = 8, 24, 16  # frames before anything is measured; frames of a run; when the wire jumps
APART = 5  # no frame of the run comes again within
BESIDE = (4.0, 12.0)  # pixels from the wire: where the noise that it is seen in is measured
WINDOW = 4.0  # pixels: standard deviation of an observer's window along the wire


@dataclass(frozen=True, slots=True)
class WireFigures:
    """kept: contrast of a wire that moves every frame; noise_left where nothing moves (standard deviation of
    the output over that of the input, in time); new_place of the settled contrast in the frame of a jump;
    ghost_0 and ghost at the old place in that frame and three frames later, less the raw run's; beside: noise
    around the moving wire over the raw run's; detectability of a piece of the moving wire (see `observed`)."""

    kept: float
    noise_left: float
    new_place: float
    ghost_0: float
    ghost: float
    beside: float
    detectability: float


def order(frames: int, length: int, random: np.random.Generator) -> list[int]:
    """Numbers of the frames to show, none again within APART."""
    shown: list[int] = []
    for _ in range(length):
        free = [k for k in range(frames) if k not in shown[-APART:]]
        shown.append(int(random.choice(free)))
    return shown


def across(shape: tuple[int, int], at_px: float, angle: float) -> tuple[Array, Array]:
    """(distance from, place along) a gently bent wire whose middle is `at_px` across from the center, in pixels."""
    v, u = np.indices(shape, np.float64)
    x, y = u - shape[1] / 2, v - shape[0] / 2
    along, off = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    return off - at_px - 8 * np.sin(along / 60), along


def wire(shape: tuple[int, int], at_px: float, angle: float) -> Array:
    """Profile (rows, columns), 0..1, of the wire of `across`, 2 pixels wide."""
    off, along = across(shape, at_px, angle)
    return np.clip(WIDTH / 2 + 0.5 - np.abs(off), 0, 1) * (np.abs(along) < shape[1] * 0.4)


def measure(run: Array, method: Filter, seed: int, top: int = 255) -> WireFigures:
    """The figures of one filter on one still run (frames, rows, columns; stored units up to `top`) for one seed."""
    random = np.random.default_rng(seed)
    base = run[order(len(run), STILL, random)].astype(np.float32)
    angle, start = random.uniform(0, np.pi), random.uniform(-60, 60)
    step, jump = random.uniform(2, 5) * random.choice([-1, 1]), random.uniform(8, 16) * random.choice([-1, 1])
    shape = (run.shape[1], run.shape[2])
    moving = [start + step * k for k in range(STILL)]
    jumping = [start if k < JUMP_AT else start + jump for k in range(STILL)]
    clean = np.stack(list(method(iter(base))))
    moved = _filtered(base, moving, shape, angle, method, top)
    kept = np.mean([_contrast(base, clean, moved, wire(shape, moving[k], angle), k) for k in range(SETTLE, STILL)])
    jumped = _filtered(base, jumping, shape, angle, method, top)
    new, old = wire(shape, jumping[JUMP_AT], angle), wire(shape, start, angle)
    settled = _contrast(base, clean, jumped, old, JUMP_AT - 1)
    ghost_0, ghost = (_contrast(base, clean, jumped, old, JUMP_AT + k) for k in (0, 3))
    still = np.s_[STILL // 3:, shape[0] // 8: -shape[0] // 8, shape[1] // 8: -shape[1] // 8]
    noise = float(np.median(clean[still].std(axis=0)) / np.median(base[still].std(axis=0)))
    truth = run.mean(axis=0, dtype=np.float64)
    beside, seen = _around(base, clean, moved, truth, (moving, angle))
    placed = _contrast(base, clean, jumped, new, JUMP_AT) / settled
    return WireFigures(float(kept), noise, placed, ghost_0, ghost, beside, seen)


def _filtered(base: Array, places: list[float], shape: tuple[int, int], angle: float, method: Filter,
              top: int) -> Array:
    """The run with a wire in it, filtered; rounding as the run has it."""
    drawn = (np.rint(base[k] * (1 - DEPTH * wire(shape, places[k], angle))) for k in range(len(base)))
    return np.stack(list(method(np.clip(d, 0, top).astype(np.float32) for d in drawn)))


def _contrast(base: Array, clean: Array, filtered: Array, profile: Array, k: int) -> float:
    """Share of the drawn wire that the difference with and without it holds at a place."""
    drawn = DEPTH * base[k] * profile
    return float(np.sum((clean[k] - filtered[k]) * profile) / np.sum(drawn * profile))


def _around(base: Array, clean: Array, moved: Array, truth: Array,
            wired: tuple[list[float], float]) -> tuple[float, float]:
    """(noise beside the moving wire over the raw run's, detectability of a piece of it)."""
    (places, angle), shape = wired, base.shape[1:]
    noise: list[tuple[float, float]] = []
    signals: list[float] = []
    nothing: list[float] = []
    for k in range(SETTLE, STILL):
        off, along = across((shape[0], shape[1]), places[k], angle)
        ring = (np.abs(off) > BESIDE[0]) & (np.abs(off) < BESIDE[1]) & (np.abs(along) < shape[1] * 0.35)
        noise.append((float(((moved[k] - truth)[ring] ** 2).mean()), float(((base[k] - truth)[ring] ** 2).mean())))
        wired_truth = truth * (1 - DEPTH * wire((shape[0], shape[1]), places[k], angle))
        with_it, without = observed(clean[k] - moved[k], moved[k] - wired_truth, off, along)
        signals += with_it
        nothing += without
    out, raw = np.sqrt(np.mean(noise, axis=0))
    return float(out / raw), float(np.mean(signals) / max(float(np.std(nothing)), 1e-9))


def observed(signal: Array, noise: Array, off: Array, along: Array) -> tuple[list[float], list[float]]:
    """Answers of an observer at pieces of the wire 12 pixels apart, to the wire and to the noise where it is.

    Non-prewhitening: a template of the wire less its surroundings (2 pixels against 8), under a window of
    standard deviation WINDOW along it: as much of a wire as is judged at a glance. Their mean over their standard
    deviation is the detectability d'.
    """
    with_it, without = [], []
    middle = 0.3 * signal.shape[1]
    near = np.abs(off) < 4
    core = np.clip(WIDTH / 2 + 0.5 - np.abs(off), 0, 1)
    for place in np.arange(-middle, middle, 12.0):
        window = np.exp(-0.5 * ((along - place) / WINDOW) ** 2) * near
        pick = window > 0.01
        if pick.sum() < 20:
            continue
        w, c = window[pick], core[pick]
        template = w * (c - np.sum(w * c) / np.sum(w))
        with_it.append(float(np.sum(template * signal[pick])))
        without.append(float(np.sum(template * noise[pick])))
    return with_it, without
