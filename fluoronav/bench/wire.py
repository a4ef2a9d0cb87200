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


@dataclass(frozen=True, slots=True)
class WireFigures:
    """kept: contrast of a wire that moves every frame; noise_left where nothing moves (standard deviation of
    the output over that of the input, in time); new_place of the settled contrast in the frame of a jump;
    ghost at the old place three frames later, less the raw run's."""

    kept: float
    noise_left: float
    new_place: float
    ghost: float


def order(frames: int, length: int, random: np.random.Generator) -> list[int]:
    """Numbers of the frames to show, none again within APART."""
    shown: list[int] = []
    for _ in range(length):
        free = [k for k in range(frames) if k not in shown[-APART:]]
        shown.append(int(random.choice(free)))
    return shown


def wire(shape: tuple[int, int], at_px: float, angle: float) -> Array:
    """Profile (rows, columns), 0..1, of a gently bent 2-pixel wire whose middle is `at_px` across from the center."""
    v, u = np.indices(shape, np.float64)
    x, y = u - shape[1] / 2, v - shape[0] / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    off = across - at_px - 8 * np.sin(along / 60)
    return np.clip(WIDTH / 2 + 0.5 - np.abs(off), 0, 1) * (np.abs(along) < shape[1] * 0.4)


def measure(run: Array, method: Filter, seed: int) -> WireFigures:
    """The figures of one filter on one still run (frames, rows, columns) for one seed."""
    random = np.random.default_rng(seed)
    base = run[order(len(run), STILL, random)].astype(np.float32)
    angle, start = random.uniform(0, np.pi), random.uniform(-60, 60)
    step, jump = random.uniform(2, 5) * random.choice([-1, 1]), random.uniform(8, 16) * random.choice([-1, 1])
    shape = (run.shape[1], run.shape[2])
    moving = [start + step * k for k in range(STILL)]
    jumping = [start if k < JUMP_AT else start + jump for k in range(STILL)]
    clean = np.stack(list(method(iter(base))))
    moved = _filtered(base, moving, shape, angle, method)
    kept = np.mean([_contrast(base, clean, moved, wire(shape, moving[k], angle), k) for k in range(SETTLE, STILL)])
    jumped = _filtered(base, jumping, shape, angle, method)
    new, old = wire(shape, jumping[JUMP_AT], angle), wire(shape, start, angle)
    settled = _contrast(base, clean, jumped, old, JUMP_AT - 1)
    ghost = _contrast(base, clean, jumped, old, JUMP_AT + 3)
    still = np.s_[STILL // 3:, shape[0] // 8: -shape[0] // 8, shape[1] // 8: -shape[1] // 8]
    noise = float(np.median(clean[still].std(axis=0)) / np.median(base[still].std(axis=0)))
    return WireFigures(float(kept), noise, _contrast(base, clean, jumped, new, JUMP_AT) / settled, ghost)


def _filtered(base: Array, places: list[float], shape: tuple[int, int], angle: float, method: Filter) -> Array:
    """The run with a wire in it, filtered; 8-bit rounding as the run has it."""
    drawn = (np.rint(base[k] * (1 - DEPTH * wire(shape, places[k], angle))) for k in range(len(base)))
    return np.stack(list(method(np.clip(d, 0, 255).astype(np.float32) for d in drawn)))


def _contrast(base: Array, clean: Array, filtered: Array, profile: Array, k: int) -> float:
    """Share of the drawn wire that the difference with and without it holds at a place."""
    drawn = DEPTH * base[k] * profile
    return float(np.sum((clean[k] - filtered[k]) * profile) / np.sum(drawn * profile))
