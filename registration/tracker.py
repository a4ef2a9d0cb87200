# SPDX-License-Identifier: Apache-2.0
"""Where did it move to since the last frame? One pure step: (state, view) -> (state, Registration)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from registration.apart import NOTHING_MM, Apart
from registration.depth import Depth, filtered
from registration.following import Breath, breath_of, followed
from registration.geometry import Float64, Rigid, read_only
from registration.model import Model, Settings, Start, View
from registration.parting import allowing, look
from registration.result import Outcome, Registration
from registration.volume_model import VolumeModel

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
    filtered depth, how far it may be off as parts of the patient have moved against each other, and, where they are
    followed each by itself, how they lie: the pose is then that of the target's part."""

    carm_from_patient: Float64
    motion: Float64 = field(default_factory=lambda: np.zeros(6))
    missed: int = 0
    streak: int = 0
    lean: Float64 = field(default_factory=lambda: np.zeros(6))
    depth: Depth | None = None
    apart: Apart = field(default_factory=Apart)
    breath: Breath | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "carm_from_patient", read_only(self.carm_from_patient, np.float64))
        object.__setattr__(self, "motion", read_only(self.motion, np.float64))
        object.__setattr__(self, "lean", read_only(self.lean, np.float64))

    @property
    def predicted(self) -> Float64:
        """Where the patient is expected in the next frame."""
        return Rigid.exp(_INERTIA * self.motion) @ self.carm_from_patient


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
            return self._registered(state, view, self.model.register(view, [start], self.settings))
        if state is None:
            return None, Registration.lost("nothing was registered yet: give the gantry's angles or search")
        parted = state.breath is not None
        after, result = self._tracked(state, view)
        if self.wide and result.outcome is not Outcome.ACCEPTED and self._wide(state.missed + 1):
            wide = self.model.register(view, [Start(state.carm_from_patient, "last")], self.settings)
            if wide.outcome is Outcome.ACCEPTED or result.outcome is Outcome.LOST:
                return self._registered(after, view, wide)
        return self._settled(after, view, result, fresh=state.missed > 0 or parted != (after.breath is not None))

    def _tracked(self, state: TrackerState, view: View) -> tuple[TrackerState, Registration]:
        """The parts of the model followed each by itself where they are known to lie apart, else as one body, its
        bounds with what they may be apart; where a look finds more than was allowed for, the frame is answered again.
        """
        if state.breath is not None and isinstance(self.model, VolumeModel):
            after, result = self._as_parts(self.model, state, view, state.predicted, state.breath)
            if result.outcome is Outcome.ACCEPTED:
                return after, result
        result = self._followed(state, view, state.predicted)
        pose, agreement = result.carm_from_patient, result.similarity or 0.0
        if pose is None or not isinstance(self.model, VolumeModel):
            return state, result
        if result.outcome is Outcome.ACCEPTED and state.breath is not None:
            state = replace(state, breath=None)
        x, y, _ = Rigid.apply(pose, self.model.target_mm).tolist()
        if not state.apart.due(agreement, (x, y)):
            return replace(state, apart=state.apart.unseen()), result
        off, own_pose, breath = look(self.model, view, pose)
        after = replace(state, apart=state.apart.seen(off, agreement, (x, y)))
        if after.apart.allowed_mm > state.apart.allowed_mm:
            result = self._followed(after, view, pose)
        if breath is not None and off > NOTHING_MM and self.settings.bodies == "auto":
            parted, own = self._as_parts(self.model, after, view, own_pose, breath)
            if own.outcome is Outcome.ACCEPTED and _surer(own, result):
                return parted, own
        return after, result

    def _as_parts(self, model: VolumeModel, state: TrackerState, view: View, pose: Float64,
                  breath: Breath) -> tuple[TrackerState, Registration]:
        """The target's part and the other one from where they are expected."""
        result, after = followed(model, view, pose, breath, self.settings)
        if result.carm_from_patient is None:
            return state, result
        off = after.off_mm(result.carm_from_patient, model.target_mm)
        return replace(state, apart=Apart.followed(off, result.similarity or 0.0),
                       breath=None if after.over else after), result

    def _followed(self, state: TrackerState, view: View, pose: Float64) -> Registration:
        off = state.apart.allowed_mm
        result = self.model.track(view, Start(pose, "last", lean=state.lean), allowing(self.settings, off))
        if off < NOTHING_MM:
            return result
        why = f"{result.why}; parts of the patient move against each other, as in breathing: {off:.1f} mm at the target"
        return replace(result, why=why, quality=(result.quality or {}) | {"parted_mm": off})

    @staticmethod
    def _wide(missed: int) -> bool:
        return missed in _WIDE_AT or missed % _WIDE_EVERY == 0

    def _registered(self, state: TrackerState | None, view: View, result: Registration) -> tuple[
            TrackerState | None, Registration]:
        """The state after a registration, which may have found parts."""
        after, result = self._settled(state, view, result, fresh=True)
        if after is not None and result.outcome is Outcome.ACCEPTED:
            after = replace(after, breath=breath_of(result))
        return after, result

    def _settled(self, state: TrackerState | None, view: View, result: Registration, *, fresh: bool) -> tuple[
            TrackerState | None, Registration]:
        """The state that follows; a pose found anew has no motion yet."""
        if result.outcome is not Outcome.ACCEPTED or result.carm_from_patient is None:
            if state is None:
                return None, result
            return replace(state, motion=np.zeros(6), missed=state.missed + 1, streak=0, lean=np.zeros(6),
                           depth=None), result
        if fresh or state is None:
            apart, breath = (Apart(), None) if state is None else (state.apart, state.breath)
            return TrackerState(result.carm_from_patient, streak=1, apart=apart, breath=breath), result
        depth = None
        if result.scatter is not None:
            depth, pose = filtered(state.depth, result.carm_from_patient, result.scatter, self.model.target_mm,
                                   view.carm.sod_mm)
            result = replace(result, carm_from_patient=pose)
        assert result.carm_from_patient is not None
        motion = Rigid.log(result.carm_from_patient @ Rigid.inverse(state.carm_from_patient))
        lean = state.lean if result.lean is None else state.lean + _NEW * (result.lean - state.lean)
        return replace(state, carm_from_patient=result.carm_from_patient, motion=motion, missed=0,
                       streak=state.streak + 1, lean=lean, depth=depth), result


def _surer(own: Registration, whole: Registration) -> bool:
    """Whether the parts say where the target is within a narrower bound than the whole."""
    return own.error is not None and (whole.error is None or own.error.projected_mm < whole.error.projected_mm)
