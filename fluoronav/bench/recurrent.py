# SPDX-License-Identifier: Apache-2.0
"""What does the net that may draw make of a run? The recurrent competitor as a stage of the chain, for the bench.

It does not ship: models/networks/recurrent.py says what it is, the bench what it is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from fluoronav.enhance import Chain, ChainSettings
from fluoronav.enhance.denoise import Denoise, exposure_followed
from fluoronav.enhance.reference import blur3
from fluoronav.enhance.work import Work
from models.engines import WEIGHTS, Engine, installed, open_engine
from registration.geometry import Array

FOLD, MEMORY, BOUND, SPREAD = 4, 24, 2.0, 3.0  # of models.networks.recurrent
FOLDED = FOLD * FOLD
WEIGHTS_FILE = WEIGHTS / "recurrent.onnx"


def available() -> str | None:
    """None where it can run here, else why not."""
    if "openvino" not in installed():
        return "OpenVINO is not installed"
    return None if WEIGHTS_FILE.is_file() else "its weights are missing"


def recurrent_chain() -> Chain:
    """The chain with this denoiser."""
    chain = Chain(ChainSettings(method="classical", uncertainty=False))  # it states its own
    chain.stages["denoise"] = RecurrentStage()
    return chain


@dataclass(frozen=True, slots=True)
class RecurrentState:
    """mean and variance of every pixel (see `Remembered`), the net's own memory."""

    mean: Array
    variance: Array
    hidden: Array


class RecurrentStage:
    """Stage: interchangeable with `Denoise` and `Mix`; sizes are padded to whole blocks by repeating borders."""

    name = "denoise"

    def __init__(self) -> None:
        self._classical = Denoise()
        self._engines: dict[tuple[int, ...], Engine] = {}

    def step(self, state: RecurrentState | None, item: Work) -> tuple[RecurrentState, Work]:
        """Adds `clean` and `variance` to the item."""
        y = item.stabilized
        assert y is not None
        if state is None:
            small = tuple(-(-n // FOLD) for n in y.shape)
            first = np.full_like(y, item.excess)
            return (RecurrentState(y, first, np.zeros((MEMORY, *small), np.float32)),
                    replace(item, clean=y, variance=first, fresh=first))
        before, _ = self._classical.before(state, item)
        before, stepped = exposure_followed(before, y, item.frame.valid)
        badges = (*item.badges, "exposure step followed") if stepped else item.badges
        change, detail = np.tanh((y - before) / 3), np.tanh((before - blur3(blur3(blur3(before)))) / 3)
        out = self._run(np.concatenate([folded(change), folded(detail), state.hidden]))
        keep, new, gate, added, spread = np.split(out, np.cumsum([MEMORY, MEMORY, FOLDED, FOLDED]))
        z = _sigmoid(keep)
        hidden = ((1 - z) * state.hidden + z * np.tanh(new)).astype(np.float32)
        mean = before + unfolded(_sigmoid(gate), y.shape) * (y - before)
        clean = mean + unfolded(BOUND * np.tanh(added / BOUND), y.shape)
        variance = 0.1 * np.exp(np.clip(spread[0], -SPREAD, SPREAD))
        size = (variance.shape[1] * FOLD, variance.shape[0] * FOLD)
        variance = cv2.resize(variance, size, interpolation=cv2.INTER_LINEAR)[: y.shape[0], : y.shape[1]]
        variance = np.ascontiguousarray(variance, np.float32)
        return (RecurrentState(mean, variance, hidden),
                replace(item, clean=clean, variance=variance, fresh=variance, badges=badges))

    def _run(self, features: Array) -> Array:
        shape = (1, *features.shape)
        if shape not in self._engines:
            self._engines[shape] = open_engine(WEIGHTS_FILE, shape, "openvino")
        return self._engines[shape].run(np.ascontiguousarray(features, np.float32)[None])[0]


def folded(picture: Array) -> Array:
    """(16, rows / 4, columns / 4) of a picture, as torch's pixel_unshuffle orders it."""
    rows, columns = (-(-n // FOLD) for n in picture.shape)
    whole = np.pad(picture, ((0, rows * FOLD - picture.shape[0]), (0, columns * FOLD - picture.shape[1])), "edge")
    return whole.reshape(rows, FOLD, columns, FOLD).transpose(1, 3, 0, 2).reshape(FOLDED, rows, columns)


def unfolded(channels: Array, shape: tuple[int, ...]) -> Array:
    """The picture of its folded channels, cut to a shape."""
    _, rows, columns = channels.shape
    whole = channels.reshape(FOLD, FOLD, rows, columns).transpose(2, 0, 3, 1).reshape(rows * FOLD, columns * FOLD)
    return np.asarray(whole[: shape[0], : shape[1]], np.float32)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))
