# SPDX-License-Identifier: Apache-2.0
"""What do the stages of the chain hand to each other? One item a frame, filled stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluoronav.imaging.frame import Frame
from registration.geometry import Array, CArm

if TYPE_CHECKING:
    from fluoronav.enhance.noise import NoiseLaw


@dataclass(frozen=True, slots=True)
class Work:
    """One frame on its way. Arrays are (rows, columns) float32 in the scale of unit noise unless said.

    noise: law, law_before (where the law changed with this frame), stabilized, small (means of its cells of `cell` x
    `cell` pixels, fewer at the far borders), excess (this frame's variance where it is noisier than the run, else 1);
    motion: flow (cells down, cells across, 2) px or None, trusted (uint8 flags of cells) where it explains a change;
    denoise: clean, variance (of clean, in units of one frame's noise), mean (in time, before its spatial part), fresh
    (share of this frame in it), weights (3, rows, columns; of the pixel, its line, its wide surroundings; its near
    surroundings have the rest) where they were mixed; uncertainty: stated, the variance of clean with what the filter
    may have missed, from which sigma follows; contrast: shown, clean with more contrast, for display and
    values alone; display: line_integrals, sigma, display, raw_display, i0, i0_source, relative, values (stored
    units), p_table (line integrals at the nodes of the law), window (line integrals shown as white and black), carm
    and valid, which belong to these pixels; superres and stabilise change all of these together; stabilise: shift_px
    (du, dv) by which the content was moved.
    """

    frame: Frame
    law: NoiseLaw | None = None
    law_before: NoiseLaw | None = None
    stabilized: Array | None = None
    small: Array | None = None
    cell: int = 1
    excess: float = 1.0
    flow: Array | None = None
    trusted: Array | None = None
    clean: Array | None = None
    variance: Array | None = None
    mean: Array | None = None
    fresh: Array | None = None
    weights: Array | None = None
    stated: Array | None = None
    shown: Array | None = None
    values: Array | None = None
    line_integrals: Array | None = None
    sigma: Array | None = None
    display: Array | None = None
    raw_display: Array | None = None
    relative: bool = True
    p_table: Array | None = None
    window: tuple[float, float] = (0.0, 1.0)
    carm: CArm | None = None
    valid: Array | None = None
    shift_px: tuple[float, float] = (0.0, 0.0)
    i0: float | None = None
    i0_source: str = "none"
    badges: tuple[str, ...] = ()
