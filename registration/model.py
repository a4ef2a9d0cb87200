# SPDX-License-Identifier: Apache-2.0
"""What is registered, to what? One picture (`View`), settings, and what every model can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from registration.errors import BadPixels
from registration.geometry import Array, CArm, Float64, read_only
from registration.result import Registration


@dataclass(frozen=True, slots=True)
class View:
    """One picture to be explained.

    line_integrals (rows, columns) float32, higher = denser, finite; weight (rows, columns) float32
    in 0..1, 0 = ignore (shutters, dead pixels, burnt-in text); carm: the geometry of these pixels;
    relative: line integrals known only up to scale and offset. Raises BadPixels.
    """

    line_integrals: Array
    weight: Array
    carm: CArm
    relative: bool = False

    def __post_init__(self) -> None:
        image = np.ascontiguousarray(self.line_integrals, np.float32)
        weight = np.ascontiguousarray(self.weight, np.float32)
        if image.shape != self.carm.shape or weight.shape != image.shape:
            raise BadPixels("view", got=f"picture {image.shape}, weight {weight.shape}",
                            expected=f"the C-arm's matrix {self.carm.shape}",
                            remedy="bin or crop picture, weight and C-arm together")
        if not np.isfinite(image).all() or not np.isfinite(weight).all():
            raise BadPixels("view", got="NaN or infinite pixels", expected="finite line integrals",
                            remedy="mask dead pixels and give them a finite value")
        object.__setattr__(self, "line_integrals", read_only(image))
        object.__setattr__(self, "weight", read_only(weight))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may choose. tolerance_mm: the gate's bound on the projected 95 % error;
    threads: changes speed, never bits; seed: of every random draw; tissue_mm: standard deviation, along each
    axis, of the target's own motion (breathing, pulse) against the body that is registered: no picture of the
    bones tells it, so it is stated, and belongs into the bounds of a CT (0: the target is part of the bones);
    bodies: where spine and tissue of a CT have moved against each other, answer for the one that holds the target
    (`auto`), or for the CT as one body with what it is off in the bounds (`one`)."""

    tolerance_mm: float = 5.0
    threads: int = 2
    seed: int = 0
    tissue_mm: float = 0.0
    bodies: Literal["auto", "one"] = "auto"


@dataclass(frozen=True, slots=True)
class Start:
    """A pose to begin from and the proposer it came from (`angles`, `search`, `landmarks`, `file`, `last`).

    refined: it has been refined to pictures of 64 pixels, so coarser ones have nothing to add. lean (6,): by how much
    (xi) coarse pictures misled the last frame (`Registration.lean`), so that they need not mislead this one.
    """

    carm_from_patient: Float64
    name: str = field(default="file")
    refined: bool = False
    lean: Float64 | None = None


class Model(Protocol):
    """Something that can be found in a picture: a CT volume, a vessel tree, an implant.

    `register` starts from poses that may be off by 10 deg and 20 mm or more, and gates its answer;
    `track` starts from the pose of the last frame, is quick, and gates its answer too.
    `search` proposes starts where nothing is known (angles, if known, only lead).
    """

    kind: str
    target_mm: Float64  # (3,) in the patient frame: where errors are stated

    def register(self, view: View, starts: Sequence[Start], settings: Settings) -> Registration: ...

    def track(self, view: View, start: Start, settings: Settings) -> Registration: ...

    def search(self, view: View, hint: Float64 | None, settings: Settings) -> Sequence[Start]: ...
