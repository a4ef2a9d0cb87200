# SPDX-License-Identifier: Apache-2.0
"""Where did the parts of a breathing patient move to since the last frame? Both move; their line integrals add.

The part that holds the target has the pose that is answered; the other one is remembered by how it lies against it, so
that it goes along when the C-arm or the table moves. Twelve unknowns in one picture leave depth and tilt of either
part to what misfits, and with them its place in the picture: 0.9 mm for a chest's spine, 1.6 mm with 12 mm of breath.
What is known of breath holds them: tissue slides along the patient's axis and hardly turns. Picture and that knowledge
are weighed as Gaussians, the picture's by its sandwich (several.py), in every step and in the bound: 0.3 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from registration.apart import NOTHING_MM
from registration.confidence import IntrinsicPrior, Spread
from registration.gate import Evidence, Fit, fit_of, judge
from registration.geometry import Float64, Rigid, read_only
from registration.ladder import Ladder
from registration.model import Settings, View
from registration.result import Outcome, Registration
from registration.several import Doubt, Link, Look, error_in, gathered, linked
from registration.similarity import MEDIUM
from registration.solver import adjoint

if TYPE_CHECKING:
    from registration.volume_model import VolumeModel

# Breath moves a part by some 0.5 mm a frame, half of which is foreseen: no smaller picture is needed. A jump is: then
# this finds nothing, and the patient is found as one body again.
EDGE_PX = 128
# Steps at most; of each this much is taken, as a whole one overshoots in depth and tilt, twofold where they are hardly
# seen; the last is that which moves the target by less, and one that still moves it by more has come to no rest.
_STEPS, _TAKEN, _LAST_MM, _UNSETTLED_MM = 4, 0.75, 0.15, 0.5
# Of tissue against the spine in quiet breathing, one standard deviation: about the middle of the CT turned by a degree,
# and moved by so much to the left, to the back, and along the axis (the diaphragm moves 10 to 20 mm from end to end,
# the chest's wall a quarter of that).
_LINK_SD = np.array([np.radians(1.0)] * 3 + [2.0, 3.0, 10.0])
_INERTIA = 0.5  # as tracker.py has it
# No part of a patient moves rigidly: the one asked for is off, along each axis, by such a share of what the other has
# moved against it beyond what its residuals say (as joint.py has it: simulated breathing that fades to the spine).
_SPLIT = 0.06
_MOST_APART_MM = 25.0  # no breath moves tissue so far, but the next vertebra looks like this one
_TOGETHER_FRAMES = 30  # two seconds: breath is held as in the CT, or was none


@dataclass(frozen=True, slots=True)
class Breath:
    """How the other part lies against `part`, the one that holds the target: carm_from_other = carm_from_patient @
    moved (4, 4); motion (6,): of it since the last frame (xi); together: frames in a row that nothing lay between
    them that anybody minds."""

    part: str
    moved: Float64
    motion: Float64 = field(default_factory=lambda: np.zeros(6))
    together: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "moved", read_only(self.moved, np.float64))
        object.__setattr__(self, "motion", read_only(self.motion, np.float64))

    @property
    def over(self) -> bool:
        """Whether both may be followed as one again."""
        return self.together >= _TOGETHER_FRAMES

    @property
    def expected(self) -> Float64:
        """`moved` of the next frame."""
        return Rigid.exp(_INERTIA * self.motion) @ self.moved

    def off_mm(self, carm_from_patient: Float64, target_mm: Float64) -> float:
        """How far apart the parts lie at a point (3,) of the patient frame, in the picture's plane."""
        return _in_plane(carm_from_patient @ self.moved, carm_from_patient, target_mm)

    def after(self, moved: Float64, carm_from_patient: Float64, target_mm: Float64) -> Breath:
        """After a frame in which both were found."""
        now = Breath(self.part, moved, Rigid.log(moved @ Rigid.inverse(self.moved)))
        near = now.off_mm(carm_from_patient, target_mm) < NOTHING_MM
        return replace(now, together=self.together + 1 if near else 0)


def breath_of(found: Registration) -> Breath | None:
    """What a registration of two parts leaves for the next frame; None where it was one of the whole."""
    if len(found.bodies) != 2 or found.carm_from_patient is None:
        return None
    (part, pose), (_, other) = found.bodies.items()
    return Breath(part, Rigid.inverse(pose) @ other)


def followed(model: VolumeModel, view: View, carm_from_patient: Float64, breath: Breath,
             settings: Settings) -> tuple[Registration, Breath]:
    """Both parts of a model near where they are expected, as `VolumeModel.track` does with one body: the pose of the
    part that holds the target, `bodies` with both, judged by the sum of both; and the breath that it leaves."""
    parts = model.parts()
    ladder = Ladder(view, [EDGE_PX])
    fault = ladder.fault()
    if parts is None or fault:
        return Registration.lost(fault or "the CT has no parts", start="last"), breath
    names = (breath.part, *(name for name in parts.models if name != breath.part))
    expected = (carm_from_patient, carm_from_patient @ breath.expected)
    end = rest([parts.models[name] for name in names], ladder, expected, model)
    if end is None:
        return Registration.lost("the picture does not show where the parts of the CT are", start="last"), breath
    pose, other = end.poses
    apart = float(np.linalg.norm(Rigid.apply(other, model.target_mm) - Rigid.apply(pose, model.target_mm)))
    error = error_in(end.doubt, view.carm, np.eye(4), 0, pose, model.target_mm,
                     tissue_mm=float(np.hypot(settings.tissue_mm, _SPLIT * apart)))
    spread = Spread(end.doubt.seen_by(np.eye(4), 0)[:6, :6], np.zeros((6, 3)), np.zeros(3))
    result = judge(Evidence(end.fit, spread, error, (), "last"), pose, settings)
    if result.outcome is Outcome.LOST:
        return result, breath
    after = breath.after(Rigid.inverse(pose) @ other, pose, model.target_mm)
    off = after.off_mm(pose, model.target_mm)
    why = f"{result.why}; parts of the patient are followed each by itself, {off:.1f} mm apart at the target"
    if result.outcome is Outcome.ACCEPTED and apart > _MOST_APART_MM:
        result, why = replace(result, outcome=Outcome.AMBIGUOUS), (
            f"parts of the patient would lie {apart:.0f} mm apart, more than a breath moves them: register again")
    return replace(result, why=why, bodies=dict(zip(names, end.poses, strict=True)),
                   quality=result.quality | {"parted_mm": off}), after


@dataclass(frozen=True, slots=True)
class End:
    """Where both parts come to rest, how well their sum explains the picture, and how sure they are."""

    poses: tuple[Float64, Float64]
    fit: Fit
    doubt: Doubt


def rest(models: Sequence[VolumeModel], ladder: Ladder, poses: tuple[Float64, Float64],
          whole: VolumeModel) -> End | None:
    """Steps to where picture and what is known of breath agree best; None where the picture says nothing, or where
    no rest is found."""
    sight = ladder.sight(EDGE_PX)
    renders = [m.render(sight.carm) for m in models]
    for _ in range(_STEPS):
        (a, by_a), (b, by_b) = (r(sight.carm, p, True) for r, p in zip(renders, poses, strict=True))
        assert by_a is not None and by_b is not None
        look = Look(MEDIUM, a + b, sight.fixed, sight.weight, np.concatenate([by_a, by_b]), sight.carm, np.eye(4))
        normal = gathered([look], 1)
        if normal is None:
            return None
        fit = _fit(models, ladder, look, poses)
        step, doubt = linked(normal, _link(poses, whole.attenuation.center_mm), IntrinsicPrior(), fit.agreement)
        after = (Rigid.exp(_TAKEN * step[:6]) @ poses[0], Rigid.exp(_TAKEN * step[6:]) @ poses[1])
        moved = max(_in_plane(p, q, whole.target_mm) for p, q in zip(after, poses, strict=True))
        poses = after
        if moved < _LAST_MM:
            break
    return End(poses, fit, doubt) if moved < _UNSETTLED_MM else None


def _in_plane(pose: Float64, other: Float64, point_mm: Float64) -> float:
    """How far apart two poses put a point (3,), in the picture's plane, mm."""
    return float(np.hypot(*(Rigid.apply(pose, point_mm) - Rigid.apply(other, point_mm))[:2]))


def _fit(models: Sequence[VolumeModel], ladder: Ladder, look: Look, poses: Sequence[Float64]) -> Fit:
    """How well the sum of both explains the picture at the gate's resolution."""
    sight, noise = ladder.halves(EDGE_PX)
    picture = look.moving
    if picture.shape != sight.fixed.shape:  # a picture of 128 pixels has no halves of its own
        a, b = (m.render(sight.carm)(sight.carm, p, False)[0] for m, p in zip(models, poses, strict=True))
        picture = a + b
    return fit_of(picture, sight.fixed, sight.weight, noise)


def _link(poses: Sequence[Float64], middle_mm: Float64) -> Link:
    """What is known of how the second lies against the first, from where they are now."""
    middle = Rigid.translation(*middle_mm)
    back = Rigid.inverse(poses[0] @ middle)
    turn = adjoint(back)
    return Link(np.hstack([-turn, turn]), Rigid.log(back @ poses[1] @ middle), _LINK_SD)
