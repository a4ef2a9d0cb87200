# SPDX-License-Identifier: Apache-2.0
"""Where is a CT volume in a picture? Projections of it are compared with the frame, coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from registration import partial, search
from registration.confidence import Spread, error_at, spread_from, with_intrinsics
from registration.contrast import near_vessels
from registration.descent import Rest, Rung, descend
from registration.errors import BadInput
from registration.everywhere import Everywhere
from registration.follower import Follower
from registration.gate import Evidence, Fit, fit_of, judge
from registration.geometry import Array, CArm, Float64, Rigid, Volume, read_only
from registration.ladder import Ladder, binned, binning
from registration.model import Settings, Start, View
from registration.parting import Parts, parts_of, unless_parted
from registration.projector import Prepared, project
from registration.projector.batch import Batch
from registration.result import Registration
from registration.segmentation import Segmentation
from registration.similarity import GRADIENT, MEDIUM, NCC, PATCHES, Correlation
from registration.solver import Problem, Render, Solution, Stage, solve

# Levels are named by the longer edge of their picture. A patch has its own scale and offset, so it should be
# small against scatter and beam hardening, and large enough to be unmistakable: a rib and a half.


@dataclass(frozen=True, slots=True)
class Plan:
    """One stage of a registration: edge of the picture in pixels, measure, iterations, robust weights, and
    the movement of the picture (px of this stage) below which a step is the last."""

    edge_px: int
    similarity: Correlation
    iterations: int
    robust: bool = False
    tolerance_px: float = 0.3


COARSE = (Plan(32, NCC, 10), Plan(64, NCC, 8), Plan(64, GRADIENT, 8))
REFINED = COARSE[-1:]  # for starts that the search has brought there already
FINE = (Plan(128, MEDIUM, 6), Plan(256, PATCHES, 4, robust=True))
# A level of 256 pixels more would give 0.05 in place of 0.08 mm (simulated chest, in the picture) at three times
# the cost, and nothing where tissue moves against the bones.
# Each level costs several times the one before, so each ends where the next one, or the Jacobian, does the rest.
# A tracker knows by how much the coarse level was off before (`Start.lean`), so it need not be exact.
TRACK = (Plan(64, GRADIENT, 4, tolerance_px=0.5), Plan(128, MEDIUM, 3, tolerance_px=0.3))
GATE_EDGE_PX = 128
_ALIKE = 0.05  # in similarity or agreement: poses that explain a picture as well as each other
_GEOMETRIES = 4  # C-arms for which pictures from all sides are kept
# Contrast fills vessels that the CT shows empty. A picture explained less well than this is tried again with the
# vessels left out, and the second answer counts where it explains the rest better by the margin.
_CONTRAST_BELOW, _CONTRAST_MARGIN = 0.85, 0.03
_MOST_HIDDEN = 0.6  # of the picture: more than that left out tells no patient from another


# A picture explained less well than this is tried again as one that shows more than the volume holds. That leaves
# fewer pixels to compare, so more agreement is asked of them: right poses reach 0.9 in simulated pelvis, chest, wrist.
_PARTIAL_BELOW, _PARTIAL_ACCEPT, _PARTIAL_ENDS = 0.85, 0.8, 3


class VolumeModel:
    """A volume of linear attenuation (1/mm) that can be found in pictures.

    target_mm (3,) in the patient frame is where errors are stated; the centre of the volume if None
    (`target_assumed` says so); vessels_mm (n, 3): points on the walls of vessels, patient frame, that contrast
    may fill while the CT shows them empty; segmentation: its bodies that may move by themselves, in place of spine and
    rest. Raises BadInput for a volume without matter.
    """

    kind = "volume"

    def __init__(self, attenuation: Volume, target_mm: Float64 | None = None, *, threads: int = 2,
                 vessels_mm: Float64 | None = None, segmentation: Segmentation | None = None) -> None:
        if float(attenuation.data.min()) < 0 or not float(attenuation.data.max()) > 0:
            raise BadInput("attenuation volume",
                           got=f"values {attenuation.data.min():.3g} to {attenuation.data.max():.3g}",
                           expected="attenuation in 1/mm, nowhere negative and somewhere above 0",
                           remedy="check the CT's rescale slope and intercept")
        self.attenuation = attenuation
        self.target_assumed = target_mm is None
        self.target_mm: Float64 = read_only(attenuation.center_mm if target_mm is None else target_mm, np.float64)
        if self.target_mm.shape != (3,) or not np.isfinite(self.target_mm).all():
            raise BadInput("target", got=self.target_mm, expected="three finite coordinates in mm",
                           remedy="give --target X Y Z in the patient frame")
        self.threads, self.segmentation = threads, segmentation
        self._vessels_mm = None if vessels_mm is None else read_only(vessels_mm, np.float64)
        self.proposers: tuple[search.Proposer, ...] = ()
        self._prepared: dict[int, Prepared] = {}
        self._batches: dict[int, Batch] = {}
        self._everywhere: dict[CArm, Everywhere] = {}
        self._followers: dict[CArm, Follower] = {}
        self._continued: VolumeModel | None = None
        self._parts: list[Parts | None] = []  # shared by all that are aimed elsewhere

    def aimed_at(self, target_mm: Float64) -> VolumeModel:
        """The same volume, what was prepared of it included, with errors stated at another point (3,)."""
        other = copy(self)
        other.target_mm, other.target_assumed = read_only(target_mm, np.float64), False
        other._parts = other._parts if other.segmentation is None else []  # another body may hold it
        return other

    def prepare(self, carm: CArm) -> None:
        """Make the volumes that pictures of this C-arm will ask for: half a second that the first would wait."""
        for edge in {p.edge_px for p in (*COARSE, *FINE, *TRACK)} | {GATE_EDGE_PX}:
            self._at(carm.binned(max(1, round(max(carm.shape) / edge))).mm_per_px_at_isocenter)
        parts = self.parts()
        for part in parts.models.values() if parts is not None else ():
            for edge in (64, 128):
                part._at(carm.binned(max(1, round(max(carm.shape) / edge))).mm_per_px_at_isocenter)
        for edge in {p.edge_px for p in COARSE} if self.continued() is not self else ():
            self.continued()._at(carm.binned(max(1, round(max(carm.shape) / edge))).mm_per_px_at_isocenter)

    def register(self, view: View, starts: Sequence[Start], settings: Settings) -> Registration:
        """The pose of the volume in a view, from one or more starts that may be 20 deg and 40 mm off."""
        ladder = Ladder(view, [p.edge_px for p in (*COARSE, *FINE)])
        fault = ladder.fault()
        if fault:
            return Registration.lost(fault)
        if not starts:
            return Registration.lost("no start was given: give the gantry's angles, or search without a start")
        best = self._best_attempt(ladder, _checked(starts), settings)
        if not best.fit.clear and len(starts) <= 8:
            # The starts led nowhere; once around them before refusing (12 poses, 12 deg and 25 mm away).
            again = self._best_attempt(ladder, search.around(starts[0], 12, seed=settings.seed), settings)
            best = again if again.fit.agreement > best.fit.agreement + 0.05 else best
        return unless_parted(self, view, best, settings)

    def track(self, view: View, start: Start, settings: Settings) -> Registration:
        """The pose near the last one (3 deg, 10 mm), quickly; refused where it does not fit."""
        pose = Rigid.checked(start.carm_from_patient, "start")
        quick = self._follower(view.carm).follow(view, pose, start.lean, self.target_mm, settings.tissue_mm,
                                                 self.threads)
        if quick is not None and quick.fit.agreement >= _PARTIAL_BELOW:
            return judge(Evidence(quick.fit, quick.spread, quick.error, (), start.name, quick.rest.lean,
                                  quick.spread.pose), quick.rest.room_from_body[0], settings)
        ladder = Ladder(view, [p.edge_px for p in TRACK])
        fault = ladder.fault()
        if fault:
            return Registration.lost(fault, start=start.name)
        solution = self.rest(ladder, TRACK, pose, lean=start.lean) if quick is None else quick.rest
        answer = self._answer(ladder, solution, TRACK[-1], start.name, (), settings)
        if answer.fit.agreement < _PARTIAL_BELOW:
            partly = self._partly(ladder, [Start(pose, start.name)], settings, (COARSE[-1:],), FINE[:1])
            if partly.fit.agreement > max(answer.fit.agreement, _PARTIAL_ACCEPT):
                return partly.registration
        answer = self._past_contrast(view, answer, solution, TRACK, settings)
        return replace(answer.registration, lean=solution.lean, scatter=answer.spread.pose)

    def search(self, view: View, hint: Float64 | None, settings: Settings) -> Sequence[Start]:
        """Starts where nothing is known: all rotations are tried, the best refined; a hint and `proposers` lead."""
        ladder = Ladder(view, search.EDGES_PX)
        if ladder.fault():
            return ()
        return search.propose(self, ladder, hint, settings)

    # ------------------------------------------------------------------------------------------------

    def problem(self, ladder: Ladder, plans: Sequence[Plan]) -> Problem:
        """The stages of a plan for one view and this one body."""
        return Problem(tuple(Stage((ladder.sight(p.edge_px),), (self.render(ladder.carm(p.edge_px)),), p.similarity,
                                   p.iterations, p.robust, p.tolerance_px) for p in plans))

    def rest(self, ladder: Ladder, plans: Sequence[Plan], carm_from_patient: Float64, *,
             lean: Float64 | None = None) -> Rest:
        """Where a pose comes to rest, coarse to fine; lean: see `descend`."""
        sights = [ladder.sight(p.edge_px) for p in plans]
        rungs = [self._rung(p, s.carm) for p, s in zip(plans, sights, strict=True)]
        found = descend(rungs, sights, carm_from_patient, lean=lean, threads=self.threads)
        if found is not None:
            return found
        solved = solve(self.problem(ladder, plans), [carm_from_patient])
        normal = plans[-1].similarity.evaluate(solved.moving[0], sights[-1].fixed, solved.weights[0],
                                               with_intrinsics(solved.jacobians[0], sights[-1].carm)).normal
        assert normal is not None
        return Rest(solved.room_from_body, np.zeros(6), solved.values, solved.renders, solved.moving[0], normal)

    def render(self, carm: CArm) -> Render:
        """Projections of the volume at the resolution that suits a C-arm's pixels."""
        prepared = self._at(carm.mm_per_px_at_isocenter)

        def one(c: CArm, carm_from_body: Float64, jacobian: bool) -> tuple[Array, Array | None]:
            if jacobian:
                return project(prepared, c, carm_from_body, jacobian=True, threads=self.threads, fast=True)
            return project(prepared, c, carm_from_body, threads=self.threads, fast=True), None

        return one

    def batch(self, carm: CArm) -> Batch:
        """The volume for many poses at once, at the resolution that suits a C-arm's pixels."""
        step = self._step(carm.mm_per_px_at_isocenter)
        if step not in self._batches:
            self._batches[step] = Batch(self._at(carm.mm_per_px_at_isocenter))
        return self._batches[step]

    def everywhere(self, carm: CArm) -> Everywhere:
        """The volume seen from all sides on a C-arm's (few) pixels; kept for the geometries used last."""
        if carm not in self._everywhere:
            if len(self._everywhere) >= _GEOMETRIES:
                self._everywhere.pop(next(iter(self._everywhere)))
            extent = float(np.ptp(self.attenuation.corners_mm, axis=0).max())
            self._everywhere[carm] = Everywhere(self.batch(carm), self.attenuation.center_mm, extent, carm,
                                                threads=self.threads)
        return self._everywhere[carm]

    def explains(self, ladder: Ladder, pose: Float64) -> bool:
        """Whether the volume at a pose is beyond doubt what the picture shows."""
        return self._fit_at(ladder, pose).clear

    def agreement(self, ladder: Ladder, pose: Float64) -> float:
        """How well the volume at a pose explains the picture, 0..1 (`gate.Fit`)."""
        return self._fit_at(ladder, pose).agreement

    def _fit_at(self, ladder: Ladder, pose: Float64) -> Fit:
        carm = ladder.view.carm.binned(ladder.halved(GATE_EDGE_PX))
        return self._fit(ladder, self.render(carm)(carm, pose, False)[0])

    def _rung(self, plan: Plan, carm: CArm) -> Rung:
        return Rung(carm, self._at(carm.mm_per_px_at_isocenter), plan.similarity, plan.iterations, plan.robust,
                    plan.tolerance_px)

    def _follower(self, carm: CArm) -> Follower:
        """What tracks on a C-arm's pixels; kept for the geometries used last."""
        found = self._followers.get(carm)
        if found is None:
            binnings = [binning(carm, p.edge_px) for p in TRACK]
            rungs = [self._rung(p, carm.binned(k)) for p, k in zip(TRACK, binnings, strict=True)]
            found = Follower(rungs, binnings, max(2, binning(carm, GATE_EDGE_PX)))
            self._followers = dict(list(self._followers.items())[1 - _GEOMETRIES:]) | {carm: found}
        return found

    def _step(self, mm_per_px: float) -> int:
        """The place of a resolution on a geometric grid, so that nearby geometries share their volumes."""
        finest = float(self.attenuation.spacing_mm.max())
        return round(6 * np.log2(max(mm_per_px / 0.6, min(finest, 1.5))))

    def _at(self, mm_per_px: float) -> Prepared:
        """The volume with voxels of 1 / 0.6 of a pixel: finer ones alias in the Jacobian."""
        step = self._step(mm_per_px)
        if step not in self._prepared:
            self._prepared[step] = Prepared(self.attenuation.resampled(2.0 ** (step / 6)))
        return self._prepared[step]

    def continued(self) -> VolumeModel:
        """The volume with the faces continued at which it was cut off; this model, where there are none."""
        if self._continued is None:
            wide = partial.continued(self.attenuation)
            self._continued = self if wide is self.attenuation else VolumeModel(wide, self.target_mm,
                                                                                threads=self.threads)
        return self._continued

    def parts(self) -> Parts | None:
        """The volume in two parts on a coarser grid (`parts_of`); None where it has none."""
        if not self._parts:
            self._parts.append(parts_of(self))
        return self._parts[0]

    def _best_attempt(self, ladder: Ladder, starts: Sequence[Start], settings: Settings) -> Answer:
        """The volume as if there were nothing else; where that explains little, as a part of what is shown."""
        answer = self._attempt(ladder, starts, settings)
        if answer.fit.agreement >= _PARTIAL_BELOW:
            return answer
        partly = self._partly(ladder, starts, settings, (COARSE, COARSE[-1:]), FINE)
        return partly if partly.fit.agreement > max(answer.fit.agreement, _PARTIAL_ACCEPT) else answer

    def _partly(self, ladder: Ladder, starts: Sequence[Start], settings: Settings, coarse: Sequence[Sequence[Plan]],
                fine: Sequence[Plan]) -> Answer:
        """The same with the volume continued where it was cut, and the picture's other pixels left out."""
        wide, ends = self.continued(), []
        for start in starts:
            seen = partial.told_by(self, ladder, start.carm_from_patient, partial.ROUGH)
            if seen.fault():
                continue
            for plans in coarse:
                ends.append((wide.rest(seen, plans, start.carm_from_patient), start.name))
        answers = []
        for found, name in distinct(ends)[:_PARTIAL_ENDS]:
            pose = found.room_from_body[0]
            seen = partial.told_by(self, ladder, pose, partial.FINAL)
            if not seen.fault():
                final = self.rest(seen, fine, pose)
                answers.append(self._answer(seen, final, fine[-1], name, (), settings))
        return max(answers, key=lambda a: a.fit.agreement, default=_NOTHING)

    def _attempt(self, ladder: Ladder, starts: Sequence[Start], settings: Settings) -> Answer:
        """All starts to 64 pixels, the distinct ones on to 128, the best to the end."""
        coarse = distinct([(self.rest(ladder, REFINED if s.refined else COARSE, s.carm_from_patient), s.name)
                           for s in starts])
        middle = distinct([(self.rest(ladder, FINE[:1], s.room_from_body[0]), n) for s, n in coarse[:3]])
        # what looks alike here may differ in the end: a chest from behind and from the front
        close = [m for m in middle if m[0].values[-1] > middle[0][0].values[-1] - _ALIKE]
        ends = [(self.rest(ladder, FINE[1:], s.room_from_body[0]), n) for s, n in close]
        if len(ends) > 1:
            ends = _apart_from_each_other(
                ends, [self._fit(ladder, self._picture(ladder, s, FINE[-1])).agreement for s, _ in ends])
        (final, name), *others = ends
        rivals = tuple(s.room_from_body[0] for s, _ in others)
        answer = self._answer(ladder, final, FINE[-1], name, rivals, settings)
        return self._past_contrast(ladder.view, answer, final, (COARSE[-1], *FINE), settings)

    def _past_contrast(self, view: View, answer: Answer, found: Rest, plans: Sequence[Plan],
                       settings: Settings) -> Answer:
        """The answer, or the one without the pixels of the vessels where those are what is not explained."""
        if self._vessels_mm is None or answer.fit.agreement >= _CONTRAST_BELOW:
            return answer
        pose = found.room_from_body[0]
        weight = view.weight * ~near_vessels(self._vessels_mm, view.carm, pose)
        if float(weight.mean()) < (1 - _MOST_HIDDEN) * float(view.weight.mean()):
            return answer
        ladder = Ladder(View(view.line_integrals, weight, view.carm, view.relative), [p.edge_px for p in plans])
        if ladder.fault():
            return answer
        before = self._fit(ladder, self._picture(ladder, found, plans[-1]))
        if before.agreement < answer.fit.agreement + _CONTRAST_MARGIN / 2:
            return answer  # the misfit is elsewhere
        solution = self.rest(ladder, plans[1:], pose)
        again = self._answer(ladder, solution, plans[-1], answer.start, answer.rivals, settings)
        return again if again.fit.agreement > answer.fit.agreement + _CONTRAST_MARGIN else answer

    def _answer(self, ladder: Ladder, solution: Rest, last: Plan, start: str, rivals: tuple[Float64, ...],
                settings: Settings) -> Answer:
        pose = solution.room_from_body[0]
        carm = ladder.carm(last.edge_px)
        fit = self._fit(ladder, self._picture(ladder, solution, last))
        spread = spread_from(solution.normal, carm, agreement=fit.agreement)
        error = error_at(spread, carm, pose, self.target_mm, tissue_mm=settings.tissue_mm)
        evidence = Evidence(fit, spread, error, rivals, start)
        return Answer(judge(evidence, pose, settings), fit, spread, rivals, start, ladder)

    def _picture(self, ladder: Ladder, solution: Rest, last: Plan) -> Array:
        """The solution's picture at the gate's resolution: its last one, binned, or else a new one."""
        k, gate = ladder.binning(last.edge_px), ladder.halved(GATE_EDGE_PX)
        if gate % k == 0:
            return binned(solution.moving, np.ones_like(solution.moving), gate // k)[0]
        carm = ladder.view.carm.binned(gate)
        return self.render(carm)(carm, solution.room_from_body[0], False)[0]

    def _fit(self, ladder: Ladder, picture: Array) -> Fit:
        """How well a view is explained by a picture at the gate's resolution."""
        sight, noise = ladder.halves(GATE_EDGE_PX)
        return fit_of(picture, sight.fixed, sight.weight, noise)


@dataclass(frozen=True, slots=True)
class Answer:
    """A registration with what it was judged by; ladder: the view in which it was found."""

    registration: Registration
    fit: Fit
    spread: Spread
    rivals: tuple[Float64, ...]
    start: str
    ladder: Ladder | None = None


_NOTHING = Answer(Registration.lost("too little of the picture is told by this volume"), Fit(0.0, 0.0, 0),
                   Spread(np.eye(6), np.zeros((6, 3)), np.zeros(3)), (), "")


def _checked(starts: Sequence[Start]) -> list[Start]:
    return [replace(s, carm_from_patient=Rigid.checked(s.carm_from_patient, f"start ({s.name})")) for s in starts]


Found = TypeVar("Found", Solution, Rest)


def distinct(solutions: Sequence[tuple[Found, str]], *, mm: float = 10.0) -> list[tuple[Found, str]]:
    """Best first; of those within 2 deg and 10 mm (or `mm`) of each other, three times that in depth, only the best."""
    out: list[tuple[Found, str]] = []
    for solution, name in sorted(solutions, key=lambda s: -s[0].values[-1]):
        if all(_apart(solution.room_from_body[0], kept.room_from_body[0], mm) for kept, _ in out):
            out.append((solution, name))
    return out


def _apart_from_each_other(ends: Sequence[tuple[Rest, str]], agreement: Sequence[float]) -> list[tuple[Rest, str]]:
    """The end that explains the picture best, then those elsewhere that explain it as well."""
    order = sorted(range(len(ends)), key=lambda i: -agreement[i])
    out = [ends[order[0]]]
    for i in order[1:]:
        elsewhere = all(_apart(ends[i][0].room_from_body[0], kept.room_from_body[0], 10.0) for kept, _ in out)
        if elsewhere and agreement[i] > agreement[order[0]] - _ALIKE:
            out.append(ends[i])
    return out


def _apart(a: Float64, b: Float64, mm: float) -> bool:
    xi = np.abs(Rigid.log(a @ Rigid.inverse(b)))
    return bool(np.linalg.norm(xi[:3]) > np.radians(2) or xi[3:5].max() > mm or xi[5] > 3 * mm)
