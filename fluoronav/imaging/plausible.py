# SPDX-License-Identifier: Apache-2.0
"""Can a stated geometry be that of a real detector? Asked at the doors, so that a slip of the unit is told there."""

from __future__ import annotations

from registration.errors import BadGeometry
from registration.geometry import CArm

PITCH_MM = (0.005, 10.0)  # the finest detectors of micro-CT; a 30 cm image intensifier on 64 pixels has 5 mm
SIDE_MAX = 8192  # pixels; twice what detectors have


def plausible(carm: CArm, name: str) -> CArm:
    """The same C-arm. Raises BadGeometry where no detector has such pixels."""
    low, high = PITCH_MM
    if not all(low <= pitch <= high for pitch in carm.pitch_mm_row_col):
        raise BadGeometry(f"pixel pitch of {name}", got=" x ".join(f"{p:g} mm" for p in carm.pitch_mm_row_col),
                          expected=f"{low:g} to {high:g} mm at the detector",
                          remedy="correct it, or give --pixel-spacing MM")
    if max(carm.shape) > SIDE_MAX:
        raise BadGeometry(f"detector matrix of {name}", got=f"{carm.shape[0]} x {carm.shape[1]} pixels",
                          expected=f"at most {SIDE_MAX} a side", remedy="correct it: rows, columns")
    return carm
