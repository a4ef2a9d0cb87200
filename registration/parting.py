# SPDX-License-Identifier: Apache-2.0
"""Has tissue moved against the bones since the CT was taken? One pose cannot then be right for both.

A chest at another breath than its CT's is explained well by one pose: that of what shows most, which is some
millimeters off at the spine, and nothing in that fit tells. What tells is that two poses, one for the spine and one
for the rest, explain the picture better. A glance asks whether that may be (one Gauss-Newton step of two bodies, and
some breaths tried on small pictures); where it may, the step is taken, which a small parting needs no more than; where
that gains much, two bodies are fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from registration.apart import NOTHING_MM
from registration.bodies import Spine, spine_of
from registration.confidence import error_at
from registration.errors import BadInput
from registration.following import Breath, rest
from registration.gate import Evidence, judge
from registration.geometry import CArm, Float64, Rigid, Volume
from registration.ladder import Ladder
from registration.model import Settings, Start, View
from registration.result import Outcome, Registration
from registration.segmentation import REST, Body
from registration.similarity import GRADIENT, MEDIUM, NormalEquations, Similarity
from registration.solver import Problem, Render, Sight, Solution, Stage, next_step, solve

if TYPE_CHECKING:
    from registration.volume_model import Answer, VolumeModel

BREATHS_MM = (-14.0, -7.0, 0.0, 7.0, 14.0)  # towards the head, of either part against the other
COARSE_MM, FINE_MM = 3.0, 1.5  # of the parts: as fine as pictures of 128 pixels ask, and of 256 where parts moved
_GLANCE_PX, _FIT_PX = 64, 128
# What two poses gain over one. Suspect, in the cost of one linear step: simulated chests and torsos as their CTs
# (n = 150) 0.0005 in the median, 0.0013 in nineteen of twenty with the collimator open, though 9 of 41 pictures of a
# wider field are above it and cost a closer look. Parted, as a share of what one pose leaves unexplained: of those one
# reaches 0.0055, and a collimated one 0.009, which widens their bounds; breathing chests (4 to 12 mm, n = 12) 0.01 and
# more, by 1.5 mm 0.005.
_SUSPECT, _PARTED = 0.0012, 0.004
# One step is nearly the whole way of a small parting: by 3 mm it gains 0.016 and more, nine tenths of what the fit does
# (n = 4), as its CT 0.005 at most (n = 60; in the step's own cost 0.0022, breathing 0.0038 and more, n = 14). Above
# either of these two bodies are fitted.
_MUCH, _PROMISED = 0.01, 0.004
_LEAST = 0.02  # of a volume's attenuation: a part with less shows nothing of its own
_TRIED = 2  # breaths that are followed
_DAMPING = 1e-3  # of the first step, as in solver.py
# Two rigid bodies tell how far a part is off but for a share, as the truth bends: this much of it is one standard
# deviation along an axis, which bounds 1.6 times of it. Where so much is gained, parts lie farther apart than that.
_OFF_SHARE, _TORN = 1.5, 0.05
_AS_WELL = 0.01  # in agreement


@dataclass(frozen=True, slots=True)
class Parts:
    """A CT in two parts, spine and rest or a body of its segmentation and the rest, each a model at the resolution of
    small pictures, in that order; `fine`: the same for larger ones, made when first asked for."""

    division: Spine | Body
    models: dict[str, VolumeModel]
    fine: dict[str, VolumeModel] = field(default_factory=dict)

    def renders(self, carm: CArm) -> tuple[Render, ...]:
        return tuple(m.render(carm) for m in self.models.values())

    def found_by(self, part: str, whole: VolumeModel, view: View, pose: Float64, settings: Settings) -> Registration:
        """Where that part is, with errors at the whole's target, from a pose of the whole."""
        from registration.joint import JointModel, RoomView  # it is made of such models

        if not self.fine:
            self.fine.update(models_of(whole, self.division.parts(on_grid(whole.attenuation, FINE_MM))))
        order = [part, *(name for name in self.fine if name != part)]
        model = JointModel({name: self.fine[name].aimed_at(whole.target_mm) for name in order})
        one = replace(settings, bodies="one")
        return model.register([RoomView(view, np.eye(4))], [Start(pose, "whole")], one, whole=whole).registrations[0]


@dataclass(frozen=True, slots=True)
class Parting:
    """Parts of a patient that lie apart from where one pose would have them: carm_from_patient by name, and the
    share of what one pose leaves unexplained that they explain."""

    poses: dict[str, Float64]
    gain: float

    def off_mm(self, part: str, carm_from_patient: Float64, target_mm: Float64) -> float:
        """How far a pose takes a target (3,) of that part from its place in the picture's plane, mm."""
        apart = Rigid.apply(self.poses[part], target_mm) - Rigid.apply(carm_from_patient, target_mm)
        return float(np.hypot(*apart[:2]))


def parts_of(model: VolumeModel) -> Parts | None:
    """The parts of a model's volume: the body of its segmentation that holds the target and the rest, or spine and
    rest; None where no bone stands, or all of it lies in one of them."""
    coarse = on_grid(model.attenuation, COARSE_MM)
    try:
        division = spine_of(coarse) if model.segmentation is None else model.segmentation.body_at(model.target_mm)
    except BadInput:
        return None
    volumes = division.parts(coarse)
    total = sum(float(v.data.sum()) for v in volumes.values())
    if min(float(v.data.sum()) for v in volumes.values()) < _LEAST * total:
        return None
    return Parts(division, models_of(model, volumes))


def on_grid(attenuation: Volume, grid_mm: float) -> Volume:
    """A volume on voxels of that size, its own where they are larger."""
    return attenuation.resampled(max(grid_mm, float(attenuation.spacing_mm.max())))


def models_of(model: VolumeModel, volumes: dict[str, Volume]) -> dict[str, VolumeModel]:
    """A model of the same kind for each part."""
    return {name: type(model)(part, threads=model.threads) for name, part in volumes.items()}


def unless_parted(model: VolumeModel, view: View, answer: Answer, settings: Settings) -> Registration:
    """The answer; where tissue has moved against the bones, that of the part which holds the target, or the same
    with what it is off at the target in its bounds."""
    found, parts = answer.registration, model.parts()
    pose = found.carm_from_patient
    if found.outcome is not Outcome.ACCEPTED or answer.ladder is None or pose is None or parts is None:
        return found
    apart = parting(model, answer.ladder, pose)
    if apart is None:
        return found
    part = parts.division.holding(model.target_mm)
    off = apart.off_mm(part, pose, model.target_mm)
    quality = {"parted_mm": off, "parted_gain": apart.gain}
    torn = apart.gain > _TORN  # as one body the answer is refused
    if settings.bodies == "auto" and (torn or off > NOTHING_MM):
        own = parts.found_by(part, model, view, pose, settings)
        if _better(own, answer, np.inf if torn else off):
            why = f"{own.why}; {said(parts)} have moved against each other: the pose is that of the part at the target"
            return replace(own, why=why, start=answer.start, quality=own.quality | quality)
        # a fine picture that both explain worse, and a target that neither moves, contradict what the coarse one gained
        torn = torn and (off > NOTHING_MM or own.similarity is None or _explains(own, answer))
    error = error_at(answer.spread, answer.ladder.view.carm, pose, model.target_mm,
                     tissue_mm=allowing(settings, off).tissue_mm)
    judged = judge(Evidence(answer.fit, answer.spread, error, answer.rivals, answer.start), pose, settings)
    if judged.outcome is Outcome.ACCEPTED and torn:
        judged = replace(judged, outcome=Outcome.AMBIGUOUS)
    if judged.outcome is not Outcome.ACCEPTED:
        judged = replace(judged, why=(
            f"{said(parts)} have moved against each other since the CT, as in breathing: as one body the CT is off "
            f"by some {off:.0f} mm at the target: take a picture at the CT's state of breath, or another view"))
    return replace(judged, quality=judged.quality | quality)


def said(parts: Parts) -> str:
    """Both parts, in words."""
    return " and ".join("tissue" if name == REST else name for name in parts.models)


def allowing(settings: Settings, off_mm: float) -> Settings:
    """Settings under which bounds hold that the target may be so far off."""
    return replace(settings, tissue_mm=float(np.hypot(settings.tissue_mm, off_mm / _OFF_SHARE)))


def look(model: VolumeModel, view: View, carm_from_patient: Float64) -> tuple[float, Float64, Breath | None]:
    """How far a pose of the whole takes the target from its place in the picture's plane, mm, the target's own part's
    pose, and how the other lies against it; 0, the pose and None: nothing has parted. Costs as much as several tracked
    frames."""
    parts, apart = model.parts(), parting(model, Ladder(view, (_GLANCE_PX, _FIT_PX)), carm_from_patient)
    if parts is None or apart is None:
        return 0.0, carm_from_patient, None
    part = parts.division.holding(model.target_mm)
    pose, other = apart.poses[part], next(p for name, p in apart.poses.items() if name != part)
    return apart.off_mm(part, carm_from_patient, model.target_mm), pose, Breath(part, Rigid.inverse(pose) @ other)


def _better(own: Registration, answer: Answer, off_mm: float) -> bool:
    """Whether a part's own pose explains the picture as well as the whole's, and is surer than that is off."""
    if own.outcome is not Outcome.ACCEPTED or own.error is None:
        return False
    return _explains(own, answer) and own.error.projected_mm < off_mm


def _explains(own: Registration, answer: Answer) -> bool:
    """Whether the parts explain the picture as well as the whole does."""
    return own.similarity is not None and own.similarity > answer.fit.agreement - _AS_WELL


def parting(model: VolumeModel, ladder: Ladder, pose: Float64) -> Parting | None:
    """The parts' own poses where they lie apart, else None; pose: where the whole was found in this view."""
    parts = model.parts()
    if parts is None:
        return None
    small, sight = ladder.sight(_GLANCE_PX), ladder.sight(_FIT_PX)
    renders = parts.renders(sight.carm)
    breaths = likely_breaths(parts.renders(small.carm), (small,), GRADIENT, pose)
    begins = [] if all(p is pose for p in breaths[0]) else breaths[:_TRIED]
    step = _one_step(renders, sight, pose)
    if not begins and step.promised < _SUSPECT:
        return None
    poses, gain = step.poses, _gained(renders, sight, _value(renders, sight, step.poses), step.together)
    if begins or gain > _MUCH or step.promised > _PROMISED:
        poses, gain = _fitted(model, parts, sight, pose, begins)
    if gain <= _PARTED:
        return None
    held = rest(list(parts.models.values()), ladder, (poses[0], poses[1]), model)  # as breath may have moved them
    return Parting(dict(zip(parts.models, poses if held is None else held.poses, strict=True)), gain)


def _fitted(model: VolumeModel, parts: Parts, sight: Sight, pose: Float64,
            begins: Sequence[tuple[Float64, ...]]) -> tuple[tuple[Float64, ...], float]:
    """Poses of the parts that explain the picture best, and what they gain over the whole's."""
    renders = parts.renders(sight.carm)
    one = solve(Problem((Stage((sight,), (model.render(sight.carm),), MEDIUM, 4, tolerance_px=0.3),)), [pose])
    two = Stage((sight,), renders, MEDIUM, 4, tolerance_px=0.3)
    ends: list[Solution] = [solve(Problem((two,)), begin) for begin in ((pose, pose), *begins)]
    best = max(ends, key=lambda s: s.values[-1])
    return best.room_from_body, _gained(renders, sight, best.values[-1], one.room_from_body[0])


def _gained(renders: Sequence[Render], sight: Sight, value: float, pose: Float64) -> float:
    """What a value gains over that of the same parts at one pose (a coarser grid blurs both alike), as a share."""
    alike = _value(renders, sight, (pose,) * len(renders))
    return (value - alike) / max(1 - alike, 1e-6)


def _value(renders: Sequence[Render], sight: Sight, poses: Sequence[Float64]) -> float:
    pictures = [r(sight.carm, p, False)[0] for r, p in zip(renders, poses, strict=True)]
    return MEDIUM.evaluate(sum(pictures[1:], pictures[0]), sight.fixed, sight.weight).value


def likely_breaths(renders: Sequence[Render], sights: Sequence[Sight], similarity: Similarity,
                   pose: Float64) -> list[tuple[Float64, ...]]:
    """Poses of all bodies, the likeliest first: the first, or all others, moved by breath from a common pose.

    Line integrals add, so a few pictures of either part make all pairs. A body that did not move keeps `pose` itself.
    """
    poses = [pose if mm == 0 else pose @ Rigid.translation(0, 0, mm) for mm in BREATHS_MM]
    middle = BREATHS_MM.index(0.0)
    pairs = [(k, middle) for k in range(len(poses))] + [(middle, k) for k in range(len(poses)) if k != middle]
    values = np.zeros(len(pairs))
    for sight in sights:
        placed = [sight.carm_from_room @ p for p in poses]
        first = [renders[0](sight.carm, p, False)[0] for p in placed]
        others = [sum(r(sight.carm, p, False)[0] for r in renders[1:]) for p in placed]
        values += [similarity.evaluate(first[a] + others[b], sight.fixed, sight.weight).value for a, b in pairs]
    return [(poses[a], *(poses[b],) * (len(renders) - 1)) for a, b in (pairs[k] for k in np.argsort(-values))]


@dataclass(frozen=True, slots=True)
class _Step:
    """One Gauss-Newton step: poses of the bodies each on its own, the pose of all together, and what the former
    promise to gain over the latter, in the measure's cost."""

    poses: tuple[Float64, ...]
    together: Float64
    promised: float


def _one_step(renders: Sequence[Render], sight: Sight, pose: Float64) -> _Step:
    pictures, jacobians = zip(*(r(sight.carm, pose, True) for r in renders), strict=True)
    normal = MEDIUM.evaluate(sum(pictures[1:], pictures[0]), sight.fixed, sight.weight,
                           np.concatenate(jacobians)).normal
    if normal is None or not np.isfinite(normal.hessian).all():
        return _Step((pose,) * len(renders), pose, 0.0)
    alike = np.tile(np.eye(6), (len(renders), 1))
    common = NormalEquations(alike.T @ normal.hessian @ alike, alike.T @ normal.gradient, normal.scores)
    own, together = (next_step(n, _DAMPING).reshape(-1, 6) for n in (normal, common))
    poses = tuple(Rigid.exp(xi) @ pose for xi in own)
    return _Step(poses, Rigid.exp(together[0]) @ pose, _gain(normal) - _gain(common))


def _gain(normal: NormalEquations) -> float:
    """g' H^-1 g / 2, what is not seen at all left where it is."""
    scale = np.diag(normal.hessian)
    h = normal.hessian + np.diag(1e-6 * scale + 1e-12)
    return float(normal.gradient @ np.linalg.solve(h, normal.gradient)) / 2
