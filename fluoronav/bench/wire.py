# SPDX-License-Identifier: Apache-2.0
"""What does a filter do to a moving wire in real noise? A 2-pixel wire of 30 % multiplied into still runs.

The same frames go through the filter with and without the wire; what differs is what the filter made of
the wire, free of noise. All measures are shares of the wire that was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fluoronav.bench.observer import APART as PIECES_APART
from fluoronav.bench.observer import HALF, Patches, upright
from registration.geometry import Array

Filter = Callable[[Iterator[Array]], Iterator[Array]]  # frames in stored units to clean ones, float32
DEPTH, WIDTH = 0.30, 2.0
SETTLE, STILL, JUMP_AT = 8, 24, 16  # frames before anything is measured; frames of a run; when the wire jumps
APART = 5  # no frame of the run comes again within
BESIDE = (4.0, 12.0)  # pixels from the wire: where the noise that it is seen in is measured
STAYS = 4  # frames that an inserted wire stays before it is taken out


@dataclass(frozen=True, slots=True)
class WireFigures:
    """Shares of the drawn wire. kept: of one that moves every frame; kept_still: of one at rest; noise_left where
    nothing moves (standard deviation of the output over that of the input, in time); new_place, new_1, new_3 of the
    settled contrast in the frame of a jump and one and three later; ghost_0 and ghost at the old place in that frame
    and three later, less the raw run's; inserted: in its first frame, removed_0 and removed_3: what is left of it;
    beside: noise around the moving wire over the raw run's; patches: what an observer gets to see."""

    kept: float
    kept_still: float
    noise_left: float
    new_place: float
    new_1: float
    new_3: float
    ghost_0: float
    ghost: float
    inserted: float
    removed_0: float
    removed_3: float
    beside: float
    patches: Patches


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


@dataclass(frozen=True, slots=True)
class MovingWire:
    """Of a wire that moves every frame: share kept, noise beside it over the raw run's, what an observer sees."""

    kept: float
    beside: float
    patches: Patches


def measure(run: Array, method: Filter, seed: int, top: int = 255, depth: float = DEPTH) -> WireFigures:
    """The figures of one filter on one still run (frames, rows, columns; stored units up to `top`) for one seed;
    depth: share of the signal that the wire takes."""
    course = _Course.drawn(run, seed)
    base, angle, start = course.base, course.angle, course.start
    shape = (run.shape[1], run.shape[2])
    jumping = [start if k < JUMP_AT else start + course.jump for k in range(STILL)]
    clean = np.stack(list(method(iter(base))))
    drawn = _Drawn(base, clean, method, top, depth)
    moving = _moving(run, course, drawn)
    new, old = wire(shape, jumping[JUMP_AT], angle), wire(shape, start, angle)
    jumped = drawn.filtered([wire(shape, at, angle) for at in jumping])
    settled = drawn.contrast(jumped, old, JUMP_AT - 1)
    placed = [drawn.contrast(jumped, new, JUMP_AT + k) / settled for k in (0, 1, 3)]
    ghosts = [drawn.contrast(jumped, old, JUMP_AT + k) for k in (0, 3)]
    there = [SETTLE <= k < SETTLE + STAYS for k in range(STILL)]
    put = drawn.filtered([old * on for on in there])
    taken = [drawn.contrast(put, old, k) for k in (SETTLE, SETTLE + STAYS, SETTLE + STAYS + 3)]
    still = np.s_[STILL // 3:, shape[0] // 8: -shape[0] // 8, shape[1] // 8: -shape[1] // 8]
    noise = float(np.median(clean[still].std(axis=0)) / np.median(base[still].std(axis=0)))
    return WireFigures(moving.kept, settled, noise, placed[0], placed[1], placed[2], ghosts[0], ghosts[1],
                       taken[0] / settled, taken[1], taken[2], moving.beside, moving.patches)


def measure_moving(run: Array, method: Filter, seed: int, top: int = 255, depth: float = DEPTH) -> MovingWire:
    """The part of `measure` that takes two runs of the filter instead of four."""
    course = _Course.drawn(run, seed)
    return _moving(run, course, _Drawn(course.base, np.stack(list(method(iter(course.base)))), method, top, depth))


@dataclass(frozen=True, slots=True)
class _Course:
    """Frames to show (STILL, rows, columns), direction of the wire, where it is (px across from the center), its step
    a frame and its jump."""

    base: Array
    angle: float
    start: float
    step: float
    jump: float

    @classmethod
    def drawn(cls, run: Array, seed: int) -> _Course:
        """Of a seed; in a picture of less than 256 pixels the wire starts nearer to the middle."""
        random = np.random.default_rng(seed)
        base = run[order(len(run), STILL, random)].astype(np.float32)
        angle, start = random.uniform(0, np.pi), random.uniform(-60, 60)
        step, jump = random.uniform(2, 5) * random.choice([-1, 1]), random.uniform(8, 16) * random.choice([-1, 1])
        return cls(base, float(angle), float(start * min(1.0, min(run.shape[1:]) / 256)), float(step), float(jump))

    def places(self) -> list[float]:
        """Where the moving wire is in each frame: it turns back at the border."""
        reach = 0.45 * min(self.base.shape[1:])
        return [float(reach - abs((self.start + self.step * k + reach) % (4 * reach) - 2 * reach))
                for k in range(STILL)]


def _moving(run: Array, course: _Course, drawn: _Drawn) -> MovingWire:
    shape, places, angle = (run.shape[1], run.shape[2]), course.places(), course.angle
    moved = drawn.filtered([wire(shape, at, angle) for at in places])
    kept = np.mean([drawn.contrast(moved, wire(shape, places[k], angle), k) for k in range(SETTLE, STILL)])
    truth = run.mean(axis=0, dtype=np.float64)
    return MovingWire(float(kept), _beside(course.base, moved, truth, (places, angle)),
                      _patches((drawn.clean, moved), truth, (places, angle), drawn.depth))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A run, what the filter makes of it, and the same with wires in it."""

    base: Array
    clean: Array
    method: Filter
    top: int
    depth: float

    def filtered(self, profiles: list[Array]) -> Array:
        """The run with a wire in it, filtered; rounding as the run has it."""
        drawn = (np.rint(x * (1 - self.depth * profile)) for x, profile in zip(self.base, profiles, strict=True))
        return np.stack(list(self.method(np.clip(d, 0, self.top).astype(np.float32) for d in drawn)))

    def contrast(self, filtered: Array, profile: Array, k: int) -> float:
        """Share of the drawn wire that the difference with and without it holds at a place."""
        drawn = self.depth * self.base[k] * profile
        return float(np.sum((self.clean[k] - filtered[k]) * profile) / np.sum(drawn * profile))


def _beside(base: Array, moved: Array, truth: Array, wired: tuple[list[float], float]) -> float:
    """Noise beside the moving wire over the raw run's."""
    (places, angle), shape = wired, (base.shape[1], base.shape[2])
    noise = []
    for k in range(SETTLE, STILL):
        off, along = across(shape, places[k], angle)
        ring = (np.abs(off) > BESIDE[0]) & (np.abs(off) < BESIDE[1]) & (np.abs(along) < shape[1] * 0.35)
        noise.append([float(((x[k] - truth)[ring] ** 2).mean()) for x in (moved, base)])
    out, raw = np.sqrt(np.mean(noise, axis=0))
    return float(out / raw)


def _patches(pictures: tuple[Array, Array], truth: Array, wired: tuple[list[float], float], depth: float) -> Patches:
    """Pieces of the moving wire, and the same places without it, in contrast to the known background."""
    (places, angle), (rows, columns) = wired, truth.shape
    along = np.arange(-0.35 * columns, 0.35 * columns, PIECES_APART)
    found: tuple[list[Array], list[Array]] = ([], [])
    for k in range(SETTLE, STILL):
        off = places[k] + 8 * np.sin(along / 60)
        u = columns / 2 + along * np.cos(angle) - off * np.sin(angle)
        v = rows / 2 + along * np.sin(angle) + off * np.cos(angle)
        inside = (np.minimum(u, v) > HALF) & (u < columns - HALF) & (v < rows - HALF)
        for kept, picture in zip(found, pictures, strict=True):
            relative = ((picture[k] - truth) / np.maximum(truth, 1)).astype(np.float32)
            kept.append(upright([relative], np.stack([u, v], axis=1)[inside], angle))
    profile = np.clip(WIDTH / 2 + 0.5 - np.abs(np.arange(-HALF, HALF + 1)), 0, 1)
    without, with_it = (np.concatenate(x) for x in found)
    return Patches(with_it, without, np.broadcast_to(-depth * profile, (2 * HALF + 1,) * 2))
