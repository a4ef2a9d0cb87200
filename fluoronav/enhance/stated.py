# SPDX-License-Identifier: Apache-2.0
"""How far may a clean pixel be from the truth? The noise that is left, and what the filter may have missed.

The denoiser states what its weights leave of the noise. What it cannot state is where it is wrong: at edges that moved
by less than it noticed, where structure was taken for noise, where a detector's fixed pattern stays. All of that shows
in the innovation (the new frame less the clean picture): its mean over 8x8 pixels now and over some frames, its square,
its correlation from pixel to pixel; and where the clean picture changes and is steep. A small network (16 statistics of
a cell of 8x8 pixels, twice 16 units) says three numbers of the cell, and variance = s v + b + k |gradient|^2: noise, a
bias, an unnoticed motion in pixels squared. Trained by the likelihood of the errors of training scenes
(fluoronav.bench.stated_recipe); models/weights/README.md is its card.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.work import Work
from models.engines import WEIGHTS
from registration.geometry import Array

FEATURES, TERMS = 16, 3
CELL_PIXELS = 64
RECENT, LASTING, CHANGING = 0.5, 0.8, 0.7  # of the running means that a frame leaves
MOST = 4.0  # standard deviations of a feature in training: beyond it nothing was learned
LEAST = (-1.5, -8.0, -8.0)  # logarithms of s, b, k, and the most that they may be
GREATEST = (1.5, 3.0, 2.0)
BOX = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class StatedState:
    """Of cells (rows / 8, columns / 8), in the scale of unit noise: running means of the innovation (`recent` over
    some two frames, `lasting` over five) and of the squared change of the clean picture; its mean in the last frame."""

    recent: Array
    lasting: Array
    changing: Array
    mean: Array


@dataclass(frozen=True, slots=True)
class Judge:
    """The network: mean and spread of the features in training, weights and biases of three layers."""

    mean: Array
    spread: Array
    layers: tuple[tuple[Array, Array], ...]

    def terms(self, features: Array) -> Array:
        """(3, cells, cells) s, b, k of features (16, cells, cells)."""
        x = features - self.mean[:, None, None]
        x /= self.spread[:, None, None]
        np.clip(x, -MOST, MOST, out=x)
        out = kernels.three_layers(x, *(array for layer in self.layers for array in layer))
        low, high = (np.array(bound, np.float32)[:, None, None] for bound in (LEAST, GREATEST))
        return np.exp(np.clip(out, low, high))


class Stated:
    """Stage: the variance with which the clean picture is stated. denoiser: the one that made it."""

    name = "uncertainty"

    def __init__(self, denoiser: str) -> None:
        self.judge = judge_of(denoiser)

    def step(self, state: StatedState | None, item: Work) -> tuple[StatedState | None, Work]:
        """Adds `stated` to the item; nothing where nothing was denoised."""
        if item.clean is None or item.variance is None or item.fresh is None:
            return None, item
        state, found = features(state, item)
        return state, replace(item, stated=kernels.stated_variance(item.clean, item.variance, self.judge.terms(found)))


def features(state: StatedState | None, item: Work) -> tuple[StatedState, Array]:
    """(state after this frame, (16, cells, cells) float32 of what tells errors from noise), most as logarithms."""
    y, clean, law = item.stabilized, item.clean, item.law
    assert y is not None and clean is not None and item.variance is not None and item.fresh is not None
    a, b, beside, mean, steep, v, fresh = kernels.cell_statistics(y, clean, item.variance, item.fresh)
    if item.excess != 1:
        scale = np.float32(item.excess)
        a, b, beside = a / np.sqrt(scale), b / scale, beside / scale
    if state is None or state.mean.shape != mean.shape or item.law_before is not None:
        state = StatedState(np.zeros_like(a), np.zeros_like(a), np.zeros_like(a), mean)
    change = CELL_PIXELS * (mean - state.mean) ** 2
    new = StatedState(_running(state.recent, a, RECENT), _running(state.lasting, a, LASTING),
                      _running(state.changing, change, CHANGING), mean)
    correlated = float(np.median(beside[::2, ::2])) / max(float(np.median(b[::2, ::2])), 1e-3)
    own, recent, lasting = (CELL_PIXELS * x * x for x in (a, new.recent, new.lasting))
    level = mean - np.float32(law.start if law is not None else 0.0)
    logs = (v, fresh, b, steep, cv2.dilate(steep, BOX), cv2.dilate(fresh, BOX), own, _around(own), recent,
            _around(recent), _around(lasting), _around(change), _around(new.changing), np.maximum(level, 0.5))
    found = np.empty((FEATURES, *mean.shape), np.float32)
    for at, x in enumerate(logs):
        np.log(np.maximum(x, np.float32(1e-3)), out=found[at])
    found[-2], found[-1] = beside, correlated
    return new, found


def _running(before: Array, now: Array, kept: float) -> Array:
    return np.asarray(np.float32(kept) * before + np.float32(1 - kept) * now)


def _around(x: Array) -> Array:
    return np.asarray(cv2.blur(x, (3, 3), borderType=cv2.BORDER_REPLICATE))


@lru_cache(maxsize=4)
def judge_of(denoiser: str) -> Judge:
    """The network for a denoiser, `classical` or `learned`."""
    with np.load(WEIGHTS / file_of(denoiser), allow_pickle=False) as kept:
        return Judge(kept["mean"], kept["spread"], tuple((kept[f"w{k}"], kept[f"b{k}"]) for k in range(3)))


def file_of(denoiser: str) -> str:
    """The name of its weights."""
    return f"stated_{denoiser}.npz"


def fingerprint(denoiser: str) -> str:
    """What the stated bits depend on beside the kernels: sha256 of the weights."""
    return hashlib.sha256((WEIGHTS / file_of(denoiser)).read_bytes()).hexdigest()
