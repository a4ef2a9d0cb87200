# SPDX-License-Identifier: Apache-2.0
"""Where is a vessel tree or an implant in several pictures at once? One pose in the room, from views whose places
in it are known.

One view leaves depth to a few per cent of magnification, and hardly tells a tree from its mirror. Each view is
registered by itself; its answer and its rivals, brought into the room, are refined in all views together. The
rivals that fit in one view are put out by the others: that is what two views are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from registration import edge_fit, implants, vessels
from registration.confidence import IntrinsicPrior
from registration.curve_fit import SINGLE_TURN_DEG, Fit, Seen, _residuals, judged, rivalry
from registration.edge_fit import EdgeFit, Scene
from registration.errors import BadInput
from registration.geometry import CArm, Float64, Rigid
from registration.implants import ImplantModel
from registration.joint import Joint, RoomView
from registration.model import Settings, Start, View
from registration.result import ErrorEstimate, Outcome, Registration
from registration.several import Doubt, Normal, error_in, stated
from registration.solver import adjoint
from registration.vessel_detect import detect_vessels
from registration.vessels import VesselModel

STEPS = 10  # of a stage: the single answers lie within some 15 mm of depth and a degree
# A gantry's angles and its isocenter place a view that well, one standard deviation (four views of one real C-arm
# scatter by 0.3 deg and 0.7 mm): it belongs into the bounds, for the pictures cannot tell it from the patient's pose.
# A view alone takes all that into its own pose, and so what its principal point is off; a common pose cannot. For two
# views of the vessel phantom 2.9 mm is stated in the picture (principal points 2.4, places 1.7, scatter 0.4), where
# each alone states 0.3; in 3D 6 mm instead of 16.
PLACE_DEG, PLACE_MM = 0.3, 0.7
_AS_IT_STANDS = float(np.sqrt(0.9))  # the agreement at which confidence.misfit leaves the scatter alone
_UNSEEN = 1e12  # condition, rad against mm


class _Sight(Protocol):
    """One view, ready to be asked. `residuals`: (k,), (k, 9) and weights (k,) at a stage; `cost`: 0 is perfect;
    `unfit`: why a pose cannot be right, or nothing; `independent`: residuals that err apart from each other."""

    @property
    def carm(self) -> CArm: ...
    @property
    def place(self) -> Float64: ...
    @property
    def stages(self) -> tuple[int, ...]: ...

    def residuals(self, pose: Float64, stage: int) -> tuple[Float64, Float64, Float64] | None: ...
    def fit(self, pose: Float64) -> Fit | EdgeFit: ...
    def unfit(self, pose: Float64) -> str: ...
    def cost(self, pose: Float64) -> float: ...
    def independent(self) -> float: ...


@dataclass(frozen=True, slots=True)
class _TreeSight:
    model: VesselModel
    seen: Seen
    length_mm: float
    carm: CArm
    place: Float64
    stages: tuple[int, ...] = (0, 1, 2, 3)

    def residuals(self, pose: Float64, stage: int) -> tuple[Float64, Float64, Float64] | None:
        scale = (4.0, *vessels.FINE_SCALES_MM)[stage]
        found = _residuals(self.model.curves.every(800), self.seen, pose, scale)
        return None if found is None else found[:3]

    def fit(self, pose: Float64) -> Fit:
        return judged(self.model.curves, self.seen, pose)

    def unfit(self, pose: Float64) -> str:
        return vessels.unfit(self.fit(pose))

    def cost(self, pose: Float64) -> float:
        return self.fit(pose).cost

    def independent(self) -> float:
        return max(1.0, self.length_mm / vessels.CORRELATION_MM)


@dataclass(frozen=True, slots=True)
class _MetalSight:
    model: ImplantModel
    scene: Scene
    carm: CArm
    place: Float64
    stages: tuple[int, ...] = (1, 2, 3)

    def residuals(self, pose: Float64, stage: int) -> tuple[Float64, Float64, Float64] | None:
        found = edge_fit._edges(self.model.contours, self.scene, pose, stage)
        return None if found is None else found[:3]

    def fit(self, pose: Float64) -> EdgeFit:
        return edge_fit.judged_edges(self.model.contours, self.scene, pose)

    def unfit(self, pose: Float64) -> str:
        return implants.unfit(self.fit(pose))

    def cost(self, pose: Float64) -> float:
        return 1 - self.fit(pose).agreement

    def independent(self) -> float:
        return max(6.0, 2 * self.model.outline_mm / implants.CORRELATION_MM)


class JointShape:
    """A vessel tree or an implant, to be found in two or more views at once. Raises BadInput."""

    def __init__(self, model: VesselModel | ImplantModel, *, prior: IntrinsicPrior | None = None) -> None:
        self.model, self.prior = model, prior or IntrinsicPrior()

    def register(self, views: Sequence[RoomView], starts: Sequence[Start], settings: Settings) -> Joint:
        """The gated pose in the room, from starts whose `carm_from_patient` belongs to the first view."""
        if len(views) < 2 or not starts:
            raise BadInput("joint registration", got=f"{len(views)} views, {len(starts)} starts",
                           expected="two or more views and a start", remedy="name more files")
        alone = self._alone(views, starts, settings)
        begun = [(Rigid.inverse(v.carm_from_room) @ p, r.start)
                 for v, r in zip(views, alone, strict=True) if r.carm_from_patient is not None
                 for p in (r.carm_from_patient, *r.alternatives)]
        if not begun:
            return Joint(Outcome.LOST, tuple(alone))
        sights = [self._sight(v) for v in views]
        found = [(fitted(sights, pose), start) for pose, start in begun]
        found.sort(key=lambda f: _cost(sights, f[0]))
        pose, start = found[0]
        rivals = [p for p, _ in found[1:] if Rigid.angle_deg(p @ Rigid.inverse(pose)) > SINGLE_TURN_DEG]
        return self._judged(sights, pose, start, rivals[:1], settings)

    def _alone(self, views: Sequence[RoomView], starts: Sequence[Start], settings: Settings) -> list[Registration]:
        """Each view's own answer, from the starts carried over to it."""
        first = Rigid.inverse(views[0].carm_from_room)
        return [self.model.register(v.view, [Start(v.carm_from_room @ first @ s.carm_from_patient, s.name)
                                             for s in starts], settings) for v in views]

    def _sight(self, room: RoomView) -> _Sight:
        view: View = room.view
        if isinstance(self.model, ImplantModel):
            return _MetalSight(self.model, Scene.of(view), view.carm, room.carm_from_room)
        skeleton = detect_vessels(view, self.model.widest_mm)
        length = len(skeleton) * view.carm.mm_per_px_at_isocenter
        return _TreeSight(self.model, Seen.of(skeleton, view.carm), length, view.carm, room.carm_from_room)

    def _judged(self, sights: Sequence[_Sight], pose: Float64, start: str, rivals: Sequence[Float64],
                settings: Settings) -> Joint:
        faults = [s.unfit(s.place @ pose) for s in sights]
        if any(faults):
            bad = next(k for k, f in enumerate(faults) if f)
            why = (f"view {bad + 1} does not fit the common pose: check that patient and table did not move between "
                   f"the views, their angles, and that the model is not mirrored ({faults[bad]})")
            return _lost(why, len(sights), start)
        doubt = self._doubt(sights, pose)
        if doubt is None:
            return _lost("the views do not fix all six degrees of freedom together: show more, or turn further apart",
                         len(sights), start)
        target = self._target(sights, pose)
        errors = [error_in(doubt, s.carm, s.place, k, pose, target) for k, s in enumerate(sights)]
        why, numbers = self._why_not(sights, pose, rivals, errors, settings)
        outcome = Outcome.AMBIGUOUS if why else Outcome.ACCEPTED
        why = why or f"{len(sights)} views agree on one pose"
        out = []
        for k, s in enumerate(sights):
            covariance = doubt.seen_by(s.place, k)[:6, :6]
            others = tuple(s.place @ r for r in rivals) if outcome is Outcome.AMBIGUOUS else ()
            cost = s.cost(s.place @ pose)
            out.append(Registration(outcome, why, s.place @ pose, covariance, errors[k], -cost, start,
                                    alternatives=others, quality=numbers | {"cost": cost}))
        return Joint(outcome, tuple(out), pose, doubt.covariance[:6, :6], tuple(s.carm for s in sights))

    def _why_not(self, sights: Sequence[_Sight], pose: Float64, rivals: Sequence[Float64],
                 errors: Sequence[ErrorEstimate], settings: Settings) -> tuple[str, dict[str, float]]:
        numbers: dict[str, float] = {}
        if isinstance(self.model, VesselModel):
            mirrored = _mirrored(sights, pose, self.model)
            numbers["reflected_ratio"] = _rivalry(sights, pose, mirrored)
            if numbers["reflected_ratio"] > vessels.REFLECTED_RATIO:
                return ("the mirror image of the tree fits all views as well: check --seen-from and the model's axes",
                        numbers)
        for rival in rivals:
            numbers["mirror_ratio"] = _rivalry(sights, pose, rival)
            if numbers["mirror_ratio"] > vessels.MIRROR_RATIO:
                return "another pose fits all views nearly as well: take a view further round", numbers
        worst = max(e.projected_mm for e in errors)
        if not worst <= settings.tolerance_mm:
            return (f"the expected error {worst:.1f} mm exceeds the tolerance {settings.tolerance_mm:g} mm: show more, "
                    "or turn the views further apart"), numbers
        return "", numbers

    def _doubt(self, sights: Sequence[_Sight], pose: Float64) -> Doubt | None:
        """Scatter of the residuals, what SDD and principal point of each view may be off, and its place."""
        n = len(sights)
        hessian, scatter = np.zeros((6 + 3 * n, 6 + 3 * n)), np.zeros((6 + 3 * n, 6 + 3 * n))
        for k, s in enumerate(sights):
            fit = s.fit(s.place @ pose)
            pitch_v, pitch_u = s.carm.pitch_mm_row_col
            turn = np.zeros((9, 6 + 3 * n))
            turn[:6, :6] = adjoint(s.place)
            turn[6:, 6 + 3 * k:9 + 3 * k] = np.diag([1, 1 / pitch_u, 1 / pitch_v])
            seen = turn.T @ fit.normal @ turn
            hessian += seen
            scatter += seen * (max(fit.residual_mm, 0.1) ** 2 * fit.weights / s.independent())
        if not np.isfinite(hessian).all() or np.linalg.cond(hessian[:6, :6]) > _UNSEEN:
            return None
        doubt = stated(Normal(hessian, np.zeros(len(hessian)), scatter, 1, n), self.prior, _AS_IT_STANDS)
        covariance = doubt.covariance.copy()
        covariance[:6, :6] += np.diag([np.radians(PLACE_DEG) ** 2] * 3 + [PLACE_MM**2] * 3)
        return replace(doubt, covariance=covariance)

    def _target(self, sights: Sequence[_Sight], pose: Float64) -> Float64:
        if isinstance(self.model, ImplantModel) or self.model.target_given:
            return self.model.target_mm
        return vessels.middle_of(self.model.curves, sights[0].place @ pose, sights[0].carm)


def fitted(sights: Sequence[_Sight], room_from_patient: Float64) -> Float64:
    """The pose (4, 4) in the room after Gauss-Newton steps in all views together, coarse to fine."""
    pose = room_from_patient
    for stage in sights[0].stages:
        for _ in range(STEPS):
            hessian, gradient = np.zeros((6, 6)), np.zeros(6)
            for s in sights:
                found = s.residuals(s.place @ pose, stage)
                if found is None:
                    return pose
                r, jacobian, weight = found
                pull = jacobian[:, :6] @ adjoint(s.place)
                share = weight / max(float(weight.sum()), 1e-9)  # every view counts alike
                hessian += (pull.T * share) @ pull
                gradient += pull.T @ (share * r)
            scale = np.diag(hessian) + 1e-9 * np.trace(hessian) + 1e-12
            xi = -np.linalg.solve(hessian + 1e-3 * np.diag(scale), gradient)
            xi = xi / max(1.0, float(np.linalg.norm(xi[:3])) / 0.15, float(np.linalg.norm(xi[3:])) / 40)
            pose = Rigid.exp(xi) @ pose
            if np.linalg.norm(xi[:3]) < 2e-4 and np.linalg.norm(xi[3:]) < 0.02:
                break
    return pose


def _mirrored(sights: Sequence[_Sight], pose: Float64, model: VesselModel) -> Float64:
    """The best joint fit of the tree reflected through the first picture's plane (an improper 4x4)."""
    place = sights[0].place
    seen = place @ pose
    center = Rigid.apply(seen, model.curves.points.mean(axis=0))
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[:3, 3] = center - flip[:3, :3] @ center
    starts = [Rigid.inverse(place) @ p for p in vessels.tilted(flip @ seen, center)]
    return min((fitted(sights, p) for p in starts), key=lambda p: _cost(sights, p))


def _cost(sights: Sequence[_Sight], pose: Float64) -> float:
    return float(np.mean([s.cost(s.place @ pose) for s in sights]))


def _rivalry(sights: Sequence[_Sight], pose: Float64, other: Float64) -> float:
    """Cost of a pose as a share of another's: the geometric mean over the views, so that one clear view tells."""
    shares = []
    for s in sights:
        a, b = s.place @ pose, s.place @ other
        if isinstance(s, _TreeSight):
            shares.append(rivalry(s.model.curves, s.seen, a, s.model.curves, b))
        else:
            shares.append(s.cost(a) / max(s.cost(b), 1e-9))
    return float(np.exp(np.mean(np.log(np.maximum(shares, 1e-9)))))


def _lost(why: str, n: int, start: str) -> Joint:
    return Joint(Outcome.LOST, tuple(Registration.lost(why, start=start) for _ in range(n)))
