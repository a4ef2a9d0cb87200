# SPDX-License-Identifier: Apache-2.0
"""Where is a patient in several pictures at once? One pose in the room for views whose places in it are known.

What is depth for one view lies in the picture of the other. A CT may also be given in parts that move each by
its own pose (spine and breathing tissue): their line integrals add, in one view or in several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from registration import search
from registration.confidence import IntrinsicPrior, Spread
from registration.errors import BadInput
from registration.gate import Evidence, Fit, fit_of, judge
from registration.geometry import Array, CArm, Float64, Rigid, read_only
from registration.model import Settings, Start, View
from registration.parting import likely_breaths
from registration.result import Outcome, Registration
from registration.scatter import without_scatter
from registration.several import Doubt, Look, changed, error_in, estimated, gathered, stated
from registration.similarity import Correlation
from registration.solver import Problem, Render, Solution, Stage, solve
from registration.volume_model import COARSE, FINE, GATE_EDGE_PX, Ladder, Plan, VolumeModel, distinct

Intrinsics = Literal["stated", "shared", "each"]
# Bodies part from each other where one pose for all has ended at 64 pixels, 12 mm of breathing off.
PARTED = (Plan(64, COARSE[-1].similarity, 4), Plan(128, FINE[0].similarity, 4), Plan(256, FINE[1].similarity, 1))
_TRIED, _NEAR = 2, 0.05  # of those, and how far below the best one after a descent at 64 pixels may lie
# No part of a patient moves rigidly: the part asked for is off, along each axis, by such a share of what the others
# have moved against it beyond what its residuals say (simulated breathing that fades towards the spine).
_SPLIT = 0.06
_MOST_APART_MM = 25.0  # at the target: no breath moves tissue so far, but the next vertebra looks like this one
# SDD and principal point are told by edges all over the picture. No robust weights: noise gives them a slope, and
# they follow a wrong geometry (simulated chests: 0.4 % of SDD and 4 mm off, 0.05 % and 0.5 mm without).
# 256 pixels leave 0.47 of 0.60 mm of the principal point that 128 leave.
CARMS = Plan(256, Correlation(gradient=True, patch_px=32), 6)
_TOLERANCE_PX = 0.06  # what one view does not see is told by small differences between two
_ROUNDS, _WIDER = 10, 10.0
_SETTLED_MM = 0.05  # of the principal point, and of SDD in units of its thousandth


@dataclass(frozen=True, slots=True)
class RoomView:
    """A picture and where its C-arm stands: carm_from_room, rigid (4, 4)."""

    view: View
    carm_from_room: Float64

    def __post_init__(self) -> None:
        object.__setattr__(self, "carm_from_room", read_only(Rigid.checked(self.carm_from_room, "carm_from_room")))


@dataclass(frozen=True, slots=True)
class Joint:
    """One answer for all views. `registrations`: one a view, with carm_from_patient, covariance and projected error
    in that view; the 3D error is the same in all. `room_from_patient` and `covariance` (6, 6), room frame, are None
    where the outcome is LOST. `carms`: of each view, as used at last; `carm_sd`: (3,) a C-arm, standard deviations
    of (ln SDD, principal point u mm, v mm), empty where they were taken as stated; `which`: the C-arm of each view."""

    outcome: Outcome
    registrations: tuple[Registration, ...]
    room_from_patient: Float64 | None = None
    covariance: Float64 | None = None
    carms: tuple[CArm, ...] = ()
    carm_sd: tuple[Float64, ...] = ()
    which: tuple[int, ...] = ()


class JointModel:
    """A CT volume, or its parts by name (the first is the one whose pose is the answer), in one view or several.

    intrinsics: `stated` takes SDD and principal point as they are and carries the prior into the bounds; `shared`
    estimates them for one C-arm that made all views; `each` for every view its own. Raises BadInput.
    """

    def __init__(self, bodies: VolumeModel | Mapping[str, VolumeModel], *, intrinsics: Intrinsics = "stated",
                 prior: IntrinsicPrior | None = None) -> None:
        self.bodies = {"patient": bodies} if isinstance(bodies, VolumeModel) else dict(bodies)
        if not self.bodies or intrinsics not in ("stated", "shared", "each"):
            raise BadInput("joint registration", got=f"{len(self.bodies)} bodies, intrinsics {intrinsics}",
                           expected="a volume; stated, shared or each", remedy="choose one of them")
        self.intrinsics, self.prior = intrinsics, prior or IntrinsicPrior()
        self._models = tuple(self.bodies.values())
        self.target_mm = self._models[0].target_mm

    def register(self, views: Sequence[RoomView], starts: Sequence[Start], settings: Settings, *,
                 whole: VolumeModel | None = None) -> Joint:
        """The pose in the room, from starts whose `carm_from_patient` belongs to the first view.

        whole: the undivided volume, found first where there are several bodies.
        """
        if not views or (self.intrinsics != "stated" and len(views) < 2):
            raise BadInput("joint registration", got=f"{len(views)} views",
                           expected="one or more; two or more to estimate a C-arm's geometry",
                           remedy="give more views, or take the geometry as stated")
        if len(self._models) > 1 and whole is None:
            raise BadInput("joint registration", got="several bodies without the whole", expected="the undivided CT",
                           remedy="give `whole`")
        ladders = [Ladder(v.view) for v in views]
        faults = [ladder.fault() for ladder in ladders]
        if any(faults):
            return _lost([f or "another view has nothing to register: leave it out" for f in faults])
        if not starts:
            return _lost(["no start was given: give the gantry's angles, or search without a start"] * len(views))
        base = _Views(tuple(ladders), tuple(v.carm_from_room for v in views), (np.zeros(3),) * len(views))
        room_from_carm = Rigid.inverse(views[0].carm_from_room)
        begun = [(room_from_carm @ Rigid.checked(s.carm_from_patient, f"start ({s.name})"), s.name) for s in starts]
        best = self._attempt(base, begun, settings, whole)
        if len(starts) <= 8 and not all(f.clear for f in best.fits):
            around = search.around(Start(begun[0][0], begun[0][1]), 12, seed=settings.seed)
            again = self._attempt(base, [(s.carm_from_patient, s.name) for s in around], settings, whole)
            if min(f.agreement for f in again.fits) > min(f.agreement for f in best.fits) + 0.05:
                best = again
        return self._answer(best, settings)

    # ------------------------------------------------------------------------------------------------

    def _attempt(self, views: _Views, starts: Sequence[tuple[Float64, str]], settings: Settings,
                 whole: VolumeModel | None) -> _Found:
        """All starts to 64 pixels, the distinct ones on to 128, the best to the end; then parts, then C-arms."""
        one = self._models if whole is None else (whole,)
        coarse = distinct([(solve(_problem(one, views, COARSE), [p]), n) for p, n in starts])
        name = coarse[0][1]
        if len(self._models) > 1:
            final, rivals = self._parted(views, coarse[0][0].room_from_body[0])
        else:
            middle = distinct([(solve(_problem(one, views, FINE[:1]), s.room_from_body), n) for s, n in coarse[:3]])
            solution, name = middle[0]
            rivals = tuple(s.room_from_body[0] for s, _ in middle[1:] if s.values[-1] > solution.values[-1] - 0.05)
            final = solve(_problem(one, views, FINE[1:]), solution.room_from_body)
        which = tuple(range(len(views.ladders))) if self.intrinsics == "each" else self._alike(views)
        fits = self._fits(views, final.room_from_body)
        doubt = None
        if self.intrinsics != "stated":
            moved, final, doubt = self._with_carms(views, final, which, min(f.agreement for f in fits))
            views = replace(views, moved=moved.moved)
            fits = self._fits(views, final.room_from_body)
        else:
            normal = gathered(_looks(views, final, which), max(which) + 1)
            if normal is not None:
                doubt = stated(normal, self.prior, min(f.agreement for f in fits))
        return _Found(views, final.room_from_body, fits, doubt, which, rivals, name)

    def _parted(self, views: _Views, pose: Float64) -> tuple[Solution, tuple[Float64, ...]]:
        """Every body's own pose, from the one they had together; and other poses of the first that fit as well.

        The common pose lies with the part that shows most, so either may be the one that is off; vertebrae look
        alike, so a descent alone may end at the neighbor.
        """
        coarse = distinct([(solve(_problem(self._models, views, PARTED[:1]), s), "")
                           for s in self._breaths(views, pose)[:_TRIED]], mm=3.0)
        near = [s.room_from_body for s, _ in coarse if s.values[-1] > coarse[0][0].values[-1] - _NEAR]
        middle = distinct([(solve(_problem(self._models, views, PARTED[1:2]), s), "") for s in near], mm=3.0)
        best = middle[0][0]
        rivals = tuple(s.room_from_body[0] for s, _ in middle[1:] if s.values[-1] > best.values[-1] - 0.01)
        return solve(_problem(self._models, views, PARTED[2:]), best.room_from_body), rivals

    def _breaths(self, views: _Views, pose: Float64) -> list[tuple[Float64, ...]]:
        """Poses of all bodies, the likeliest first, breathed from a common one (`parting.likely_breaths`)."""
        stage = _problem(self._models, views, PARTED[:1]).stages[0]
        return likely_breaths(stage.renders, stage.sights, stage.similarity, pose)

    def _alike(self, views: _Views) -> tuple[int, ...]:
        """Which C-arm made each view: one for all if `shared`, else views stated alike are taken for one."""
        if self.intrinsics == "shared":
            return (0,) * len(views.ladders)
        stated_as = [(c.sdd_mm, c.sod_mm) for c in (ladder.view.carm for ladder in views.ladders)]
        order = list(dict.fromkeys(stated_as))
        return tuple(order.index(s) for s in stated_as)

    def _with_carms(self, views: _Views, solution: Solution, which: tuple[int, ...],
                    agreement: float) -> tuple[_Views, Solution, Doubt | None]:
        """Poses and C-arms together by Gauss-Newton steps: first to where the pictures want them, with hardly any
        prior, for how much they say is only known there; then one step that weighs it against the prior."""
        count, k = max(which) + 1, 6 * len(self._models)
        moved, poses, doubt = np.zeros(3 * count), solution.room_from_body, None
        views = self._without_scatter(views, poses)
        wide = IntrinsicPrior(_WIDER * self.prior.sdd_share, _WIDER * self.prior.principal_mm)
        last = False
        for n in range(_ROUNDS):
            solution = solve(_problem(self._models, views, (replace(CARMS, iterations=0),)), poses)
            normal = gathered(_looks(views, solution, which, CARMS), count)
            if normal is None:
                return views, solution, None
            step, doubt = estimated(normal, self.prior if last else wide, agreement, moved)
            moved = moved + step[k:]
            poses = tuple(Rigid.exp(step[6 * b:6 * b + 6]) @ p for b, p in enumerate(poses))
            views = replace(views, moved=tuple(moved[3 * w:3 * w + 3] for w in which))
            if last:
                break
            last = n == _ROUNDS - 2 or np.abs(step[k:] * np.tile([1000, 1, 1], count)).max() < _SETTLED_MM
        solution = replace(solution, room_from_body=poses)
        return views, solution, doubt

    def _without_scatter(self, views: _Views, poses: Sequence[Float64]) -> _Views:
        """The views as they would be with primary radiation only, where their line integrals are known."""
        ladders = []
        for ladder, place in zip(views.ladders, views.places, strict=True):
            view, sight = ladder.view, ladder.sight(FINE[-1].edge_px)
            if not view.relative:
                clean = without_scatter(sight.fixed, sight.weight, self._picture(sight.carm, place, poses))
                ladder = Ladder(View(clean, sight.weight, sight.carm))
            ladders.append(ladder)
        return replace(views, ladders=tuple(ladders))

    def _picture(self, carm: CArm, place: Float64, poses: Sequence[Float64]) -> Array:
        """The sum of all bodies, (h, w) float32."""
        pictures = [_renderer(m)(carm, place @ p, False)[0] for m, p in zip(self._models, poses, strict=True)]
        return np.asarray(sum(pictures[1:], pictures[0]), np.float32)

    def _fits(self, views: _Views, poses: Sequence[Float64]) -> tuple[Fit, ...]:
        """How well each view is explained by all bodies together."""
        out = []
        for ladder, place, moved in zip(views.ladders, views.places, views.moved, strict=True):
            sight, noise = ladder.halves(GATE_EDGE_PX)
            picture = self._picture(changed(sight.carm, moved), place, poses)
            out.append(fit_of(picture, sight.fixed, sight.weight, noise))
        return tuple(out)

    def _answer(self, found: _Found, settings: Settings) -> Joint:
        """Every view judged by itself with the common pose; a view that does not fit takes the others with it."""
        views, pose = found.views, found.poses[0]
        if found.doubt is None:
            return _lost(["the pictures say nothing where the volume would be: check patient and gantry angles"]
                         * len(views.ladders))
        at = [Rigid.apply(p, self.target_mm) for p in found.poses]
        apart_mm = max((float(np.linalg.norm(other - at[0])) for other in at[1:]), default=0.0)
        own_mm = float(np.hypot(settings.tissue_mm, _SPLIT * apart_mm))
        judged, carms = [], []
        for n, (ladder, place) in enumerate(zip(views.ladders, views.places, strict=True)):
            carm = changed(ladder.view.carm, views.moved[n])
            error = error_in(found.doubt, carm, place, found.which[n], pose, self.target_mm,
                             tissue_mm=own_mm)
            spread = Spread(found.doubt.seen_by(place, found.which[n])[:6, :6], np.zeros((6, 3)), np.zeros(3))
            rivals = tuple(place @ r for r in found.rivals)
            evidence = Evidence(found.fits[n], spread, error, rivals, found.start)
            verdict = judge(evidence, place @ pose, settings)
            if verdict.outcome is Outcome.ACCEPTED and apart_mm > _MOST_APART_MM:
                verdict = replace(verdict, outcome=Outcome.AMBIGUOUS, why=(
                    f"the parts of the CT would lie {apart_mm:.0f} mm apart, more than a breath moves them: start "
                    "nearer, or take another view"))
            if verdict.carm_from_patient is not None and len(self.bodies) > 1:
                verdict = replace(verdict, bodies=dict(zip(self.bodies, found.poses, strict=True)))
            judged.append(verdict)
            carms.append(carm)
        judged = _together(judged)
        if judged[0].outcome is Outcome.LOST:
            return Joint(Outcome.LOST, tuple(judged))
        k = 6 * len(self._models)
        sd = np.sqrt(np.diag(found.doubt.covariance))[k:].reshape(-1, 3)
        return Joint(judged[0].outcome, tuple(judged), pose, found.doubt.covariance[:6, :6], tuple(carms),
                     () if self.intrinsics == "stated" else tuple(sd), found.which)


@dataclass(frozen=True, slots=True)
class _Views:
    """Ladders, carm_from_room, and changes of the intrinsics (ln SDD, u mm, v mm), one each a view."""

    ladders: tuple[Ladder, ...]
    places: tuple[Float64, ...]
    moved: tuple[Float64, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    views: _Views
    poses: tuple[Float64, ...]
    fits: tuple[Fit, ...]
    doubt: Doubt | None
    which: tuple[int, ...]
    rivals: tuple[Float64, ...]
    start: str


def _problem(models: Sequence[VolumeModel], views: _Views, plans: Sequence[Plan]) -> Problem:
    """The stages of a plan for all views and bodies."""
    stages = []
    for p in plans:
        sights = []
        for ladder, place, moved in zip(views.ladders, views.places, views.moved, strict=True):
            sight = ladder.sight(p.edge_px)
            sights.append(replace(sight, carm=changed(sight.carm, moved), carm_from_room=place))
        stages.append(Stage(tuple(sights), tuple(_renderer(m) for m in models), p.similarity, p.iterations, p.robust,
                            min(p.tolerance_px, _TOLERANCE_PX)))
    return Problem(tuple(stages))


def _renderer(model: VolumeModel) -> Render:
    """Views of different resolution take each the volume that suits their pixels."""
    return lambda carm, pose, jacobian: model.render(carm)(carm, pose, jacobian)


def _looks(views: _Views, solution: Solution, which: tuple[int, ...], plan: Plan = FINE[-1]) -> list[Look]:
    """Each view at the solution's last stage, which was of that plan."""
    out = []
    for n, (ladder, place, moved) in enumerate(zip(views.ladders, views.places, views.moved, strict=True)):
        sight = ladder.sight(plan.edge_px)
        out.append(Look(plan.similarity, solution.moving[n], sight.fixed, solution.weights[n], solution.jacobians[n],
                        changed(sight.carm, moved), place, which[n]))
    return out


def _together(judged: Sequence[Registration]) -> list[Registration]:
    """The verdicts of all views, none better than the worst allows."""
    worst = next((o for o in (Outcome.LOST, Outcome.AMBIGUOUS) if any(r.outcome is o for r in judged)), None)
    if worst is None or len(judged) == 1:
        return list(judged)
    bad = next(n for n, r in enumerate(judged) if r.outcome is worst)
    said = (f"view {bad + 1} does not fit the common pose: check that patient and table did not move between the "
            f"views, and their angles ({judged[bad].why})")
    out = []
    for r in judged:
        if r.outcome is worst:
            out.append(r)
        elif worst is Outcome.LOST:
            out.append(Registration.lost(said, start=r.start, similarity=r.similarity))
        else:
            out.append(replace(r, outcome=Outcome.AMBIGUOUS, why=said))
    return out


def _lost(why: Sequence[str]) -> Joint:
    return Joint(Outcome.LOST, tuple(Registration.lost(w) for w in why))
