# SPDX-License-Identifier: Apache-2.0
"""Where did a volume move to since the last frame? The ordinary frame's way, in one native call.

From a view's pixels to what the gate weighs: pictures of coarser pixels, the descent, how well the last picture
explains the frame, the pose's spread and the error at the target. What it computes is said, and computed for all other
frames, by ladder.py, descent.py, gate.py and confidence.py; a frame that is not ordinary is left to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registration.confidence import DOUBTS, IntrinsicPrior, Spread, bound_of, floor_of
from registration.descent import Rest, Rung, level_of, rest_of
from registration.gate import ASKED, Fit
from registration.geometry import Float64
from registration.model import View
from registration.projector import _projector
from registration.projector.renderer import best_path, main_axis
from registration.result import ErrorEstimate

_NONE = np.zeros(6)


@dataclass(frozen=True, slots=True)
class Followed:
    """A frame's pose and what it is judged by."""

    rest: Rest
    fit: Fit
    spread: Spread
    error: ErrorEstimate


class Follower:
    """The rungs of one C-arm's pictures, ready for frames. What it keeps changes speed, never bits."""

    def __init__(self, rungs: Sequence[Rung], binnings: Sequence[int], gate_binning: int) -> None:
        self._rungs = tuple(rungs)
        self._binnings, self._gate_binning = list(binnings), gate_binning
        self._prior = IntrinsicPrior().on(self._rungs[-1].carm)
        self._axes: tuple[int, ...] = ()
        self._native: _projector.Follower | None = None

    def follow(self, view: View, carm_from_patient: Float64, lean: Float64 | None, target_mm: Float64, tissue_mm: float,
               threads: int) -> Followed | None:
        """From a pose near the last one (4, 4); lean: see `descend`; target_mm (3,) in the patient frame.

        None for a frame that is not ordinary: nothing in it, or a pose that the fast renderer does not serve.
        """
        asked = (view.line_integrals, view.weight, not view.relative, carm_from_patient,
                 _NONE if lean is None else lean, target_mm, tissue_mm, max(1, threads))
        found = None if self._native is None else self._native.follow(*asked)
        if found is None and self._turned(carm_from_patient):
            found = None if self._native is None else self._native.follow(*asked)
        if found is None:
            return None
        rest, (agreement, share, patches), pose, slip, in_space, in_plane = found
        error = ErrorEstimate(bound_of(*in_space), bound_of(*in_plane), target_mm)
        return Followed(rest_of(rest), Fit(agreement, share, patches), Spread(pose, slip, self._prior), error)

    def _turned(self, carm_from_patient: Float64) -> bool:
        """Whether rays run along other axes of the volumes than before; then they are laid out for those."""
        axes = tuple(main_axis(r.volume, r.carm, carm_from_patient) for r in self._rungs)
        if axes == self._axes:
            return False
        self._axes, self._native = axes, None
        path = best_path()
        levels = [level_of(r, axis, path) for r, axis in zip(self._rungs, axes, strict=True)]
        if None not in levels:
            self._native = _projector.Follower(levels, self._binnings, self._gate_binning, ASKED, DOUBTS,
                                               floor_of(self._rungs[-1].carm).tolist(), self._prior.tolist(), path)
        return True
