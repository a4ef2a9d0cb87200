# SPDX-License-Identifier: Apache-2.0
"""How noisy is a frame at each level, and in which scale is its noise the same everywhere?

Counts follow var = gain * (mean - dark) + electronic^2 and are stabilized by the generalized Anscombe
transform with its exact unbiased inverse (Makitalo and Foi, IEEE TIP 22(1), 2013). For display data the
law is measured (variance against level) and the transform is the integral of 1 / sigma.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.work import Work
from fluoronav.imaging.frame import Frame, Intensity
from registration.geometry import Array, read_only

NODES = 4096  # of the tables over the stabilized scale; linear between them: error below 1e-4 of a step
BLOCK = 16  # pixels: 256 samples give sigma to 4 %
STATIC_SHARE = 0.25  # of the blocks of a level: the quietest quarter is taken as still
GROUPS = 8  # levels at which the variance is measured
LEARNING_FRAMES = 8
REPEATED = 16  # after learning, every 16th frame is measured again: the dose may have changed
NOISIER = 1.2  # times the usual texture: this frame is noisier than the run
MOST_EXCESS = 25.0
SIDE = 176  # cells at most: flow between them takes 1 ms and their noise is averaged over the pixels joined
LEAST_CELLS = 32  # a side, where the picture has so many pixels
TEXTURED = 128  # places a side at which the texture of a frame is measured: its median is good to 1 %
CHANGED = 0.08  # relative change of sigma that makes new tables worth it


@dataclass(frozen=True, slots=True)
class NoiseLaw:
    """Standard deviation against level, and the transform that makes it 1.

    forward: table over stored values, float32; nodes of the stabilized scale from `start` in `step`s:
    restore (stored units, unbiased) and sigma (stored units) at them. source: `stated` or `measured`.
    """

    forward: Array
    start: float
    step: float
    restore: Array
    sigma: Array
    source: str
    levels: Array
    variances: Array

    def stabilized(self, pixels: Array, cell: int = 1) -> tuple[Array, Array]:
        """Stored pixels (uint8 or uint16) in the scale of unit noise, float32, and means of cells of them."""
        out: tuple[Array, Array] = kernels.stabilized(np.ascontiguousarray(pixels), self.forward, cell)
        return out

    def nodes(self) -> Array:
        """The stabilized values at which the tables stand."""
        return self.start + self.step * np.arange(NODES)


def stated_law(intensity: Intensity) -> NoiseLaw | None:
    """The law that the source states, None where it states none or the data is not linear."""
    if intensity.kind != "linear" or intensity.gain is None or intensity.gain <= 0:
        return None
    gain, electronic, dark = float(intensity.gain), float(intensity.electronic or 0.0), float(intensity.dark)
    x = np.arange(1 << max(intensity.bits, 8), dtype=np.float64)
    forward = anscombe(x, gain, electronic, dark)
    start, step = _nodes_over(forward)
    y = start + step * np.arange(NODES)
    restore = np.maximum(anscombe_inverse(y, gain, electronic, dark), 0)
    sigma = np.sqrt(np.maximum(gain * (restore - dark), 0) + electronic**2)
    levels = np.linspace(dark, x[-1], GROUPS)
    return _law(forward, start, step, restore, np.maximum(sigma, 0.3), "stated", levels,
                np.maximum(gain * (levels - dark), 0) + electronic**2)


def anscombe(x: Array, gain: float, electronic: float, dark: float) -> Array:
    """Generalized Anscombe transform of counts: unit variance for var = gain (mean - dark) + electronic^2."""
    inside = gain * (np.asarray(x, np.float64) - dark) + 0.375 * gain**2 + electronic**2
    return 2 / gain * np.sqrt(np.maximum(inside, 0))


def anscombe_inverse(y: Array, gain: float, electronic: float, dark: float) -> Array:
    """Closed form of its exact unbiased inverse: the mean count whose transform has the mean y."""
    d = np.maximum(np.asarray(y, np.float64), 2 * np.sqrt(0.375 + (electronic / gain) ** 2))
    root = np.sqrt(1.5)
    poisson = d**2 / 4 + root / 4 / d - 11 / 8 / d**2 + 5 / 8 * root / d**3 - 0.125 - (electronic / gain) ** 2
    return gain * np.maximum(poisson, 0) + dark


def measured_law(levels: Array, variances: Array, bits: int) -> NoiseLaw:
    """The law through measured points (level, variance) in stored units; constant beyond them."""
    x = np.arange(1 << max(bits, 8), dtype=np.float64)
    sigma = np.sqrt(np.maximum(np.interp(x, levels, variances), 1 / 12))  # 1/12: rounding to whole steps
    forward = np.concatenate([[0], np.cumsum((1 / sigma[1:] + 1 / sigma[:-1]) / 2)])
    # unbiased: E f(X) = f(mu) + f'' var / 2, and f' = 1 / sigma makes that f(mu) - sigma' / 2
    mean_forward = np.maximum.accumulate(forward - np.gradient(sigma) / 2)
    start, step = _nodes_over(forward)
    restore = np.interp(start + step * np.arange(NODES), mean_forward + 1e-9 * x, x)
    return _law(forward, start, step, restore, np.interp(restore, x, sigma), "measured", levels, variances)


def _nodes_over(forward: Array) -> tuple[float, float]:
    return float(forward[0]), float((forward[-1] - forward[0]) / (NODES - 1))


def _law(forward: Array, start: float, step: float, restore: Array, sigma: Array, source: str, levels: Array,
         variances: Array) -> NoiseLaw:
    return NoiseLaw(read_only(forward, np.float32), start, step, read_only(restore, np.float32),
                    read_only(sigma, np.float32), source, read_only(levels, np.float64),
                    read_only(variances, np.float64))


# --------------------------------------------------------------------------------------------------
# Measuring


def measure(current: Array, previous: Array | None, valid: Array) -> tuple[Array, Array]:
    """(levels, variances) of the noise of a frame, GROUPS points, levels rising.

    From the difference to the previous frame in the quietest blocks of each level; without one from a
    second difference in space, which knows only noise that is not correlated (Immerkaer, CVIU 64(2), 1996).
    """
    picture = current.astype(np.float32)
    if previous is not None:
        change = (picture - previous.astype(np.float32)) / np.float32(np.sqrt(2))
        # less its 5x5 mean: what moves is smooth there, what detectors and displays correlate is narrower
        noise = (change - cv2.blur(change, (5, 5))) / np.float32(np.sqrt(1 - 1 / 25))
    else:
        rows = picture[2:] - 2 * picture[1:-1] + picture[:-2]
        noise = np.zeros_like(picture)
        noise[1:-1, 1:-1] = (rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2]) / 6
    level, variance, whole = _blocks(picture), _blocks(noise**2) - _blocks(noise) ** 2, _blocks(valid) > 0.99
    level, variance = level[whole], variance[whole]
    if level.size < GROUPS * 4:
        spread = float(np.var(noise[valid])) if valid.any() else 1.0
        return np.array([0.0, float(picture.max(initial=1))]), np.full(2, max(spread, 1 / 12))
    order = np.argsort(level, kind="stable")
    levels, variances = [], []
    for part in np.array_split(order, GROUPS):
        levels.append(float(np.mean(level[part])))
        quiet = np.partition(variance[part], int(len(part) * STATIC_SHARE))[int(len(part) * STATIC_SHARE)]
        variances.append(max(float(quiet) * 1.06, 1 / 12))  # 1.06: a quarter from below of 256 samples' variance
    return np.maximum.accumulate(np.array(levels) + 1e-6 * np.arange(GROUPS)), np.array(variances)


def quiet_median(picture: Array, valid: Array) -> float:
    """Median magnitude in the quietest blocks of a picture of differences: what noise alone does there."""
    blocks = _open_blocks(picture, valid)
    if not len(blocks):
        return 0.0
    return float(np.quantile(np.median(np.abs(blocks), axis=1), STATIC_SHARE))


def quiet_mean(picture: Array, valid: Array) -> float:
    """Mean of a picture in a block of the quieter half; its tails count, so less is cut than of medians."""
    blocks = _open_blocks(picture, valid)
    return float(np.quantile(blocks.mean(axis=1), 0.4)) if len(blocks) else 0.0


def _open_blocks(picture: Array, valid: Array) -> Array:
    """At most about 128 whole blocks (n, BLOCK * BLOCK) within the open field, spread over it."""
    rows, columns = (n // BLOCK for n in picture.shape)
    whole = np.argwhere(_cut(valid).reshape(rows, BLOCK, columns, BLOCK).all(axis=(1, 3)))
    picks = whole[:: max(1, len(whole) // 128)]
    cut = _cut(picture).reshape(rows, BLOCK, columns, BLOCK)
    return cut[picks[:, 0], :, picks[:, 1], :].reshape(len(picks), BLOCK * BLOCK)


def _cut(picture: Array) -> Array:
    return picture[: picture.shape[0] // BLOCK * BLOCK, : picture.shape[1] // BLOCK * BLOCK]


def _blocks(picture: Array) -> Array:
    cut = _cut(np.asarray(picture, np.float32))
    if not cut.size:
        return np.zeros((0, 0), np.float32)
    return cv2.resize(cut, (cut.shape[1] // BLOCK, cut.shape[0] // BLOCK), interpolation=cv2.INTER_AREA)


# --------------------------------------------------------------------------------------------------
# The stage


@dataclass(frozen=True, slots=True)
class NoiseState:
    """Law in use, the variances measured so far (each at `levels`), frames seen, the last raw frame, and the
    usual fine texture of a frame in the scale of unit noise."""

    law: NoiseLaw
    levels: Array
    seen: tuple[Array, ...]
    frames: int
    previous: Array
    texture: float


class Noise:
    """Stage: the frame in the scale of unit noise, by a law that is stated or learned from the run."""

    name = "noise"

    def step(self, state: NoiseState | None, item: Work) -> tuple[NoiseState, Work]:
        """Adds `stabilized`, `small`, `cell`, `law`, `excess` and, where the law changed, `law_before` to the item."""
        frame = item.frame
        before = state.law if state is not None else None
        law, levels, seen = _law_for(state, frame)
        changed = before is not None and law is not before
        cell = cell_of(frame.pixels.shape)
        y, small = law.stabilized(frame.pixels, cell)
        now = texture(y)
        usual = now if state is None or changed else state.texture
        excess = (now / usual) ** 2 if now > NOISIER * usual > 0 else 1.0
        usual += (min(now, NOISIER * usual) - usual) * (0.1 if now > usual else 0.5)
        new = NoiseState(law, levels, seen, (state.frames if state else 0) + 1, frame.pixels, usual)
        return new, replace(item, law=law, law_before=before if changed else None, stabilized=y,
                            small=small, cell=cell, excess=min(excess, MOST_EXCESS))


def cell_of(shape: tuple[int, ...]) -> int:
    """Pixels a side of the cells between which motion is looked for."""
    return max(1, min(-(-max(shape) // SIDE), min(shape) // LEAST_CELLS))


def texture(y: Array) -> float:
    """Median magnitude of the second difference along and across, at places spread evenly: mostly noise."""
    if min(y.shape) < 3:
        return 0.0  # no pixel has neighbors on all sides
    down, across = (max(n // TEXTURED, 2) for n in y.shape)
    c = y[1:-1:down, 1:-1:across]
    rows, columns = c.shape
    above, below = y[0::down, 1:-1:across][:rows], y[2::down, 1:-1:across][:rows]
    left, right = y[1:-1:down, 0::across][:, :columns], y[1:-1:down, 2::across][:, :columns]
    return float(np.median(np.abs(4 * c - above - below - left - right)))


def _law_for(state: NoiseState | None, frame: Frame) -> tuple[NoiseLaw, Array, tuple[Array, ...]]:
    """(law, levels, variances seen): stated, or measured on the first frames and on every 16th after them."""
    if state is None:
        stated = stated_law(frame.intensity)
        if stated is not None:
            return stated, stated.levels, ()
    elif state.law.source == "stated" or (state.frames > LEARNING_FRAMES and state.frames % REPEATED):
        return state.law, state.levels, state.seen
    levels, variances = measure(frame.pixels, state.previous if state else None, frame.valid)
    if state is None:
        return measured_law(levels, variances, frame.intensity.bits), levels, ()
    at = state.levels if state.seen else levels
    seen = (*state.seen, np.interp(at, levels, variances))[-LEARNING_FRAMES:]
    # below the median: a first frame of a pulse train, or one with motion everywhere, is noisier than the rest
    variances = np.quantile(np.stack(seen), 0.4, axis=0, method="lower")
    if _change(state.law, at, variances) <= CHANGED:
        return state.law, at, seen
    return measured_law(at, variances, frame.intensity.bits), at, seen


def _change(law: NoiseLaw, levels: Array, variances: Array) -> float:
    """Largest relative change of sigma against a law."""
    return float(np.abs(np.sqrt(variances / np.interp(levels, law.levels, law.variances)) - 1).max())
