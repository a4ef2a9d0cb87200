# SPDX-License-Identifier: Apache-2.0
"""Scene and pose become pictures: one RGBA image a layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from registration.geometry import Array, CArm


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn over one frame. layers: name -> (rows, columns, 4) uint8 RGBA, premultiplied,
    each at full opacity; `carm` belongs to these pixels. method says who drew it: `vtk`, `lines`
    (no OpenGL was found; said on the screen) or `none` (nothing may be drawn at this outcome)."""

    layers: dict[str, Array]
    carm: CArm | None
    method: Literal["vtk", "lines", "none"]
    badges: tuple[str, ...] = field(default=())
