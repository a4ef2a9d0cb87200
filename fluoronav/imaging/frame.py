# SPDX-License-Identifier: Apache-2.0
"""What is one picture of a run? Its pixels, when and how they were made, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from registration.errors import BadPixels
from registration.geometry import Array, CArm, read_only

Kind = Literal["linear", "log", "display", "subtracted"]


@dataclass(frozen=True, slots=True)
class Angles:
    """Gantry angles in degrees: + primary is LAO, + secondary is cranial."""

    primary_deg: float
    secondary_deg: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the tube was told, None where not stated. dose_ugy: kerma of this frame, as stated."""

    kvp: float | None = None
    ma: float | None = None
    ms: float | None = None
    dose_ugy: float | None = None


@dataclass(frozen=True, slots=True)
class Intensity:
    """What the stored numbers mean.

    kind: `linear` (proportional to detector signal), `log`, `display` (after an unknown curve) or
    `subtracted`. dense: whether dense matter (bone, contrast) has low (`dark`) or high (`bright`) stored
    numbers. bits: bits stored. i0: unattenuated signal above dark in stored units, where known; dark: offset
    of zero signal, so that p = -ln((I - dark) / i0); gain and electronic: noise law
    var = gain * (mean - dark) + electronic^2, where known.
    i0_source says where i0 comes from; `assumed` lists what was taken for granted.
    """

    kind: Kind
    dense: Literal["dark", "bright"] = "dark"
    bits: int = 8
    i0: float | None = None
    i0_source: Literal["measured", "header", "estimated", "none"] = "none"
    dark: float = 0.0
    gain: float | None = None
    electronic: float | None = None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture as it came, read-only, seen from the detector.

    pixels (rows, columns) unsigned integers (uint8 or uint16); index counts from 0 in its run;
    time_ns int64 since the Unix epoch or since the start of the run; carm None where the geometry is
    not known (then `geometry_fault` says why, in one sentence); angles None where not stated;
    table_in_room_mm (x left, y posterior, z head); valid: bool mask of pixels that carry signal
    (shutters, blanking and dead pixels are False).
    Raises BadPixels.
    """

    pixels: Array
    index: int
    time_ns: int
    carm: CArm | None
    angles: Angles | None
    exposure: Exposure
    intensity: Intensity
    valid: Array
    source_name: str
    table_in_room_mm: tuple[float, float, float] | None = None
    geometry_fault: str | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        p = np.ascontiguousarray(self.pixels)
        if p.ndim != 2 or p.dtype not in (np.uint8, np.uint16):
            raise BadPixels(f"frame {self.index} of {self.source_name}", got=f"{p.dtype} {p.shape}",
                            expected="a uint8 or uint16 matrix", remedy="export grey scale frames")
        if self.valid.shape != p.shape or self.valid.dtype != np.bool_:
            raise BadPixels(f"mask of frame {self.index} of {self.source_name}",
                            got=f"{self.valid.dtype} {self.valid.shape}",
                            expected=f"bool {p.shape}", remedy="give one flag a pixel")
        if self.carm is not None and self.carm.shape != p.shape:
            raise BadPixels(f"frame {self.index} of {self.source_name}", got=p.shape,
                            expected=f"the C-arm's matrix {self.carm.shape}",
                            remedy="give the geometry of these pixels")
        object.__setattr__(self, "pixels", read_only(p))
        object.__setattr__(self, "valid", read_only(self.valid))
