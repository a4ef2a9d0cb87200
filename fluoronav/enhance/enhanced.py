# SPDX-License-Identifier: Apache-2.0
"""What comes out of the enhancement chain: line integrals with their noise, and a picture to see."""

from __future__ import annotations

from dataclasses import dataclass

from registration.geometry import Array, CArm


@dataclass(frozen=True, slots=True)
class Enhanced:
    """One enhanced frame; `carm` belongs to these pixels (stabilising moves both).

    line_integrals (rows, columns) float32, no unit, higher = denser; `relative` where they are only
    defined up to scale and offset (display, log and subtracted data). sigma (rows, columns) float32:
    standard deviation of the line integrals. display (rows, columns) uint8 after window/level,
    dense = dark. raw_display: the same window on the untouched frame. flow (rows, columns, 2)
    float32, px, (du, dv) from the previous frame to this one, or None. valid: bool mask.
    i0: unattenuated signal used (above dark), i0_source where it is from. badges: what is degraded, in words.
    values (rows, columns) float32: the clean signal in the frame's stored units, unbiased.
    """

    line_integrals: Array
    sigma: Array
    display: Array
    raw_display: Array
    flow: Array | None
    carm: CArm | None
    valid: Array
    relative: bool
    i0: float | None
    i0_source: str
    badges: tuple[str, ...] = ()
    values: Array | None = None
