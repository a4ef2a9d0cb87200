# SPDX-License-Identifier: Apache-2.0
"""Where did it move to since the last frame? One pure step: (state, view) -> (state, Registration)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from registration.apart import NOTHING_MM, Apart
from registration.depth import Depth, filtered
from registration.geometry import Float64, Rigid, read_only
from registration.model import Model, Settings, Start, View
from registration.parting import allowing
from registration.result import Outcome, Registration

# Breathing is smooth over frames, a hand is not: half of the last motion is expected again.
_INERTIA = 0.5
# Of what coarse pictures miss in one frame, this share is believed: the rest is that frame's noise.
_NEW = 0.3
# After a loss the wide registration is tried at these frames, then at every 16th: it costs several times a
# tracked frame, and a picture that showed nothing a moment ago seldom does now.
_WIDE_AT = frozenset({1, 2, 4, 8})
_WIDE_EVERY = 16


@dataclass(frozen=True, slots=True)
class TrackerState:
    """What one frame leaves for the next: the last accepted pose, its motion per frame (xi, C-arm frame),
    frames missed since, frames accepted in a row, by how much (xi) coarse pictures missed it of late, the target's
    filtered depth, and how far it may be off as parts of the patient have moved against each other."""

    carm_from_patient: Float64
    motion: Float64 = field(default_factory=lambda: np.zeros(6))
    missed: int = 0
    streak: int = 0
    lean: Float64 = field(default_factory=lambda: np.zeros(6))
    depth: Depth | None = None
    apart: Apart = field(default_factory=Apart)

    def __post_init__(self) -> None:
        object.__setattr__(self, "carm_from_patient", read_only(self.carm_from_patient, np.float64))
        object.__setattr__(self, "motion", read_only(self.motion, np.float64))
        object.__setattr__(self, "lean", read_only(self.lean, np.float64))

    @property
    def predicted(self) -> Float64:
        """Where the patient is expected in the next frame."""
        return Rigid.exp(_INERTIA * self.motion) @ self.carm_from_patient


@runtime_checkable
class Divisible(Protocol):
    """A model whose parts may move against each other: see `VolumeModel.off_mm`."""

    def off_mm(self, view: View, carm_from_patient: Float64) -> float: ...


class Tracker:
    """Follows a model from frame to frame. Holds no state: equal inputs give equal outputs, bit for bit.

    wide: after a loss the wide registration is tried within the step; False where it runs beside it.
    """

    def __init__(self, model: Model, settings: Settings | None = None, *, wide: bool = True) -> None:
        self.model = model
        self.settings = settings or Settings()
        self.wide = wide

    def step(self, state: TrackerState | None, view: View, *, start: Start | None = None) -> tuple[
            TrackerState | None, Registration]:
        """One frame. `start` (angles, search, a person's nudge, a moved C-arm) overrides the state.

        The state is None until something was accepted; LOST keeps the last accepted pose in the state, so
        that the patient is found again where he was, but never hands it out.
        """
        if start is not None:
            return self._settled(state, view, self.model.register(view, [start], self.settings), fresh=True)
        if state is None:
            return None, Registration.lost("nothing was registered yet: give the gantry's angles or search")
        state, result = self._tracked(state, view)
        if self.wide and result.outcome is not Outcome.ACCEPTED and self._wide(state.missed + 1):
            wide = self.model.register(view, [Start(state.carm_from_patient, "last")], self.settings)
            if wide.outcome is Outcome.ACCEPTED or result.outcome is Outcome.LOST:
                return self._settled(state, view, wide, fresh=True)
        return self._settled(state, view, result, fresh=state.missed > 0)

    def _tracked(self, state: TrackerState, view: View) -> tuple[TrackerState, Registration]:
        """The model followed as one body, its bounds with what its parts may be apart; where a look finds more than
        was allowed for, the frame is answered again."""
        result = self._followed(state, view, state.predicted)
        pose, agreement = result.carm_from_patient, result.similarity or 0.0
        if pose is None or not isinstance(self.model, Divisible):
            return state, result
        if not state.apart.due(agreement):
            return replace(state, apart=state.apart.unseen()), result
        after = replace(state, apart=state.apart.seen(self.model.off_mm(view, pose), agreement))
        more = after.apart.allowed_mm > state.apart.allowed_mm
        return after, self._followed(after, view, pose) if more else result

    def _followed(self, state: TrackerState, view: View, pose: Float64) -> Registration:
        off = state.apart.allowed_mm
        result = self.model.track(view, Start(pose, "last", lean=state.lean), allowing(self.settings, off))
        if off < NOTHING_MM:
            return result
        why = f"{result.why}; spine and tissue move against each other, as in breathing: {off:.1f} mm at the target"
        return replace(result, why=why, quality=(result.quality or {}) | {"parted_mm": off})

    @staticmethod
    def _wide(missed: int) -> bool:
        return missed in _WIDE_AT or missed % _WIDE_EVERY == 0

    def _settled(self, state: TrackerState | None, view: View, result: Registration, *, fresh: bool) -> tuple[
            TrackerState | None, Registration]:
        """The state that follows; a pose found anew has no motion yet."""
        if result.outcome is not Outcome.ACCEPTED or result.carm_from_patient is None:
            if state is None:
                return None, result
            return TrackerState(state.carm_from_patient, np.zeros(6), state.missed + 1, 0, apart=state.apart), result
        if fresh or state is None:
            apart = Apart() if state is None else state.apart
            return TrackerState(result.carm_from_patient, np.zeros(6), 0, 1, apart=apart), result
        depth = None
        if result.scatter is not None:
            depth, pose = filtered(state.depth, result.carm_from_patient, result.scatter, self.model.target_mm,
                                   view.carm.sod_mm)
            result = replace(result, carm_from_patient=pose)
        assert result.carm_from_patient is not None
        motion = Rigid.log(result.carm_from_patient @ Rigid.inverse(state.carm_from_patient))
        lean = state.lean if result.lean is None else state.lean + _NEW * (result.lean - state.lean)
        return TrackerState(result.carm_from_patient, motion, 0, state.streak + 1, lean, depth, state.apart), result
