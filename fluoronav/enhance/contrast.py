# SPDX-License-Identifier: Apache-2.0
"""How do guidewires, stents and vessel borders show better, and nothing else? Supported detail is raised.

A pyramid of four levels over the clean picture in the scale of unit noise (native/contrast.cpp): a detail is raised
only where its local energy stands above the noise that the denoiser states, no pixel passes the range of its
surroundings unless it lies on a line, and contrast to the wide surroundings grows by 1 to 1 + strength times. Line
integrals and their standard deviation stay as measured: this is for the eye.

Learned, a small net (models/networks/contrast.py) multiplies what each level would add by a gain from 0 to 2: trained
against a critic to raise devices and vessels, and nothing else. The bounds are the same: it can add nothing that the
kernel could not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.precision import open_chosen
from fluoronav.enhance.work import Work
from models.engines import WEIGHTS, Engine, installed
from registration.errors import BadInput
from registration.geometry import Array

LEVELS = 4
QUARTILE = 0.60  # lower quartile of the energy of noise alone (10^6 samples; a test repeats it)
LEAST_FLOOR, MOST_FLOOR = 0.5, 16.0  # of the noise measured on a level over the noise stated
PACE = 0.2  # share of a new frame in the floors: what is supported does not flicker
STRONGEST = 2.0
ARTEFACT = "contrast.onnx"
MOST_GAIN = 2.0


@dataclass(frozen=True, slots=True)
class ContrastState:
    """Energy of the noise on each level over what white noise of the stated variance would have."""

    floors: tuple[float, ...]


class Contrast:
    """Stage: `shown`, the clean picture with its supported details raised. Strength 0 is not a stage: leave it out."""

    name = "contrast"

    def __init__(self, strength: float, learned: bool = False) -> None:
        self.strength, self.learned = checked_strength(strength), learned
        self.opened = partial(open_chosen)
        self._engines: dict[tuple[int, ...], Engine] = {}

    def step(self, state: ContrastState | None, item: Work) -> tuple[ContrastState, Work]:
        """Adds `shown` to the item."""
        assert item.clean is not None and item.variance is not None
        if state is None:
            state = ContrastState(_floors(kernels.contrast(item.clean, item.variance, np.ones(LEVELS, np.float32),
                                                           self.strength)[1:]))
        floors = np.array(state.floors, np.float32)
        choose = partial(self._gains, floors, item.frame.intensity.dense) if self.learned else None
        shown, *found = kernels.contrast(item.clean, item.variance, floors, self.strength, choose)
        after = tuple(a + PACE * (b - a) for a, b in zip(state.floors, _floors(found), strict=True))
        return ContrastState(after), replace(item, shown=shown)

    def _gains(self, floors: Array, dense: str, fine: Array, coarse: Array) -> Array:
        features = features_of(fine, coarse, floors, dense)
        if features.shape not in self._engines:
            self._engines.clear()
            self._engines[features.shape] = self.opened("contrast", features.shape)
        return gains_of(self._engines[features.shape].run(features)[0], fine.shape[1:])


def unavailable() -> str | None:
    """Why the net cannot run here, None where it can."""
    if not installed():
        return "no engine for networks is installed"
    return None if (WEIGHTS / ARTEFACT).is_file() else "its weights are missing"


def features_of(fine: Array, coarse: Array, floors: Array, dense: str) -> Array:
    """(1, 9, rows / 4, columns / 4) float32 of what the kernel tells (reference_contrast.Bands): energies of the levels
    over their noise, how much denser and lighter than their surroundings pixels are, and details, in standard
    deviations of the clean picture; its variance. dense: `dark` or `bright`."""
    sign = np.float32(1.0 if dense == "dark" else -1.0)
    sd = np.sqrt(fine[6])
    small = cv2.resize(sd, coarse.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
    up, down = (fine[4], -fine[5]) if sign > 0 else (-fine[5], fine[4])
    size = fine.shape[:0:-1]
    out = [np.log1p(fine[level] / np.float32(floors[level])) for level in range(3)]
    out += [_squeezed(sign * fine[3] / sd), _squeezed(up / sd), _squeezed(down / sd), np.log(fine[6])]
    out += [cv2.resize(x, size, interpolation=cv2.INTER_LINEAR)
            for x in (np.log1p(coarse[0] / np.float32(floors[3])), _squeezed(sign * coarse[1] / small))]
    return np.ascontiguousarray(np.stack(out)[None], np.float32)


def _squeezed(x: Array) -> Array:
    return np.asarray(np.copysign(np.log1p(np.abs(x)), x))


def gains_of(logits: Array, shape: tuple[int, int]) -> Array:
    """(4, rows, columns) float32 of a shape, 0 to MOST_GAIN, of the net's answer on a grid half as fine."""
    gains = (MOST_GAIN / (1 + np.exp(-np.clip(logits, -20, 20)))).astype(np.float32)
    return np.stack([cv2.resize(g, shape[::-1], interpolation=cv2.INTER_LINEAR) for g in gains])


def checked_strength(strength: float) -> float:
    """The strength, 0 to 2. Raises BadInput."""
    if not 0 <= strength <= STRONGEST:
        raise BadInput("contrast", got=strength, expected=f"a strength from 0 (off) to {STRONGEST:g}",
                       remedy="1 doubles the contrast of lines")
    return float(strength)


def _floors(quartiles: tuple[float, ...] | list[float]) -> tuple[float, ...]:
    return tuple(min(max(q / QUARTILE, LEAST_FLOOR), MOST_FLOOR) for q in quartiles)
