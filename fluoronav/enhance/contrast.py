# SPDX-License-Identifier: Apache-2.0
"""How do guidewires, stents and vessel borders show better, and nothing else? Supported detail is raised.

A pyramid of four levels over the clean picture in the scale of unit noise (native/contrast.cpp): a detail is raised
only where its local energy stands above the noise that the denoiser states, no pixel passes the range of its
surroundings unless it lies on a line, and contrast to the wide surroundings grows by 1 to 1 + strength times. Line
integrals and their standard deviation stay as measured: this is for the eye.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.work import Work
from registration.errors import BadInput

LEVELS = 4
QUARTILE = 0.60  # lower quartile of the energy of noise alone (10^6 samples; a test repeats it)
LEAST_FLOOR, MOST_FLOOR = 0.5, 16.0  # of the noise measured on a level over the noise stated
PACE = 0.2  # share of a new frame in the floors: what is supported does not flicker
STRONGEST = 2.0


@dataclass(frozen=True, slots=True)
class ContrastState:
    """Energy of the noise on each level over what white noise of the stated variance would have."""

    floors: tuple[float, ...]


class Contrast:
    """Stage: `shown`, the clean picture with its supported details raised. Strength 0 is not a stage: leave it out."""

    name = "contrast"

    def __init__(self, strength: float) -> None:
        self.strength = checked_strength(strength)

    def step(self, state: ContrastState | None, item: Work) -> tuple[ContrastState, Work]:
        """Adds `shown` to the item."""
        assert item.clean is not None and item.variance is not None
        if state is None:
            state = ContrastState(_floors(kernels.contrast(item.clean, item.variance, np.ones(LEVELS, np.float32),
                                                           self.strength)[1:]))
        shown, *found = kernels.contrast(item.clean, item.variance, np.array(state.floors, np.float32), self.strength)
        floors = tuple(a + PACE * (b - a) for a, b in zip(state.floors, _floors(found), strict=True))
        return ContrastState(floors), replace(item, shown=shown)


def checked_strength(strength: float) -> float:
    """The strength, 0 to 2. Raises BadInput."""
    if not 0 <= strength <= STRONGEST:
        raise BadInput("contrast", got=strength, expected=f"a strength from 0 (off) to {STRONGEST:g}",
                       remedy="1 doubles the contrast of lines")
    return float(strength)


def _floors(quartiles: tuple[float, ...] | list[float]) -> tuple[float, ...]:
    return tuple(min(max(q / QUARTILE, LEAST_FLOOR), MOST_FLOOR) for q in quartiles)
