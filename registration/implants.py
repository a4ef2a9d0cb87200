# SPDX-License-Identifier: Apache-2.0
"""Where is a metal implant in a picture? The mesh's outline against the edges of metal.

Register: propose shifts, turns and depths around each start by correlating outline normals with image
gradients; refine the best along the normals, coarse to fine; fit the mirror and half-turn hypotheses
(a tibial tray turned half round shows nearly the same outline); then gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from registration.confidence import error_at
from registration.contours import Contours
from registration.curve_fit import SINGLE_TURN_DEG, spread_of_fit
from registration.edge_fit import EdgeFit, Scene, ShiftSearch, fit_edges, judged_edges
from registration.errors import BadInput
from registration.geometry import Float64, Rigid, carm_from_patient_at
from registration.model import Settings, Start, View
from registration.result import Outcome, Registration
from registration.shapes import Mesh
from registration.voxelize import implant_volume

__all__ = ["ImplantModel", "implant_volume"]

ROUGH_MM = 1.5  # cells of the mesh for proposals and coarse fits: edges are sought blurred as much
TURN_DEG = 6.0  # of the proposals about a start
DEPTHS = (-0.03, 0.0, 0.03)  # of the source distance
FARTHEST_MM = 40.0  # shifts proposed about a start
CORRELATION_MM = 4.0  # edge errors along an outline are alike over this length
LEAST_AGREEMENT, LEAST_SEEN = 0.45, 0.6
TWIN_MARGIN = 0.03  # of agreement: a twin closer than that cannot be told apart
LEAST_CONTRAST = 3.0  # of the noise: an outline needs an edge


@dataclass(frozen=True, slots=True)
class _Answer:
    fit: EdgeFit
    start: str


class ImplantModel:
    """A metal implant's surface, to be found where it is dense in a picture.

    mesh: triangles in the patient frame, mm; need not be closed; target_mm (3,): where errors are
    stated (default: the mean of the vertices). Raises BadInput.
    """

    kind = "implant"

    def __init__(self, mesh: Mesh, target_mm: Float64 | None = None) -> None:
        self.mesh = mesh
        self.contours = Contours(mesh)
        self.rough = Contours(mesh, ROUGH_MM)
        self.center_mm = mesh.vertices.mean(axis=0)
        self.target_mm = np.asarray(self.center_mm if target_mm is None else target_mm, np.float64)
        spread = self.contours.vertices - self.contours.vertices.mean(axis=0)
        self.axes = np.linalg.svd(spread, full_matrices=False)[2]
        self.outline_mm = float(np.linalg.norm(np.ptp(self.contours.vertices, axis=0)))

    def register(self, view: View, starts: Sequence[Start], settings: Settings) -> Registration:
        """The gated pose from starts that may be off by 10 degrees and 20 mm."""
        if not starts:
            raise BadInput("starts", got="none", expected="at least one pose", remedy="use search")
        scene = Scene.of(view)
        search = ShiftSearch(scene, FARTHEST_MM)
        proposals = [p for start in starts
                     for p in ([start] if start.name == "search" else self._around(start, scene, search))]
        return self._settled(scene, proposals, settings)

    def track(self, view: View, start: Start, settings: Settings) -> Registration:
        """The gated pose from the pose of the last frame: one refinement."""
        scene = Scene.of(view)
        return self._settled(scene, [start], settings)

    def search(self, view: View, hint: Float64 | None, settings: Settings) -> Sequence[Start]:
        """Proposals over all directions of view and all places in the picture; a hint goes first."""
        scene = Scene.of(view)
        search = ShiftSearch(scene, np.inf)
        poses = []
        for a, b in _directions():
            for roll in np.arange(12) * np.pi / 6:
                pose = carm_from_patient_at(a, b, self.center_mm)
                poses.append(Rigid.exp(np.array([0, 0, roll, 0, 0, 0])) @ pose)
        starts = [Start(p, "search") for p in self._shifted(scene, search, poses, 10)]
        return [Start(hint, "angles"), *starts] if hint is not None else starts

    def _around(self, start: Start, scene: Scene, search: ShiftSearch) -> list[Start]:
        turns = [np.radians(TURN_DEG) * np.array(t, float) for t in product((-1, 0, 1), repeat=3)
                 if sum(map(abs, t)) < 3]
        depths = np.array(DEPTHS) * scene.carm.sod_mm
        poses = [self._turned(start.carm_from_patient, turn, depth) for turn, depth in product(turns, depths)]
        return [start, *(Start(p, start.name) for p in self._shifted(scene, search, poses, 5))]

    def _turned(self, pose: Float64, turn: Float64, depth: float = 0.0) -> Float64:
        center = Rigid.apply(pose, self.center_mm)
        about = Rigid.translation(*center) @ Rigid.exp(np.r_[turn, 0, 0, 0]) @ Rigid.translation(*-center)
        return np.asarray(Rigid.translation(0, 0, depth) @ about @ pose)

    def _shifted(self, scene: Scene, search: ShiftSearch, poses: Sequence[Float64], most: int) -> list[Float64]:
        found = []
        for pose in poses:
            score, shift = search.best(self.rough.outline(scene.carm, pose))
            found.append((score, pose, shift))
        found.sort(key=lambda f: -f[0])
        out = []
        pitch = np.array(scene.carm.pitch_mm_row_col[::-1])
        for score, pose, shift in found[:most]:
            if np.isfinite(score):
                z = Rigid.apply(pose, self.center_mm)[2]
                dx, dy = shift * pitch * (scene.carm.sod_mm - z) / scene.carm.sdd_mm
                out.append(Rigid.translation(dx, dy, 0) @ pose)
        return out

    def _settled(self, scene: Scene, proposals: Sequence[Start], settings: Settings) -> Registration:
        """Refine coarsely, keep the best, refine finely, try the twins, gate."""
        coarse = [_Answer(judged_edges(self.rough, scene, fit_edges(
            self.rough, scene, s.carm_from_patient, (0, 1))), s.name) for s in proposals]
        coarse.sort(key=lambda a: -a.fit.agreement)
        kept: list[_Answer] = []
        for a in coarse:
            if all(_turned(a.fit.pose, k.fit.pose) > 0.7 for k in kept):
                kept.append(a)
        best = max((self._fine(scene, a.fit.pose, a.start) for a in kept[:3]), key=lambda a: a.fit.agreement)
        misfit = unfit(best.fit)
        if misfit:
            return Registration.lost(misfit, start=best.start, similarity=best.fit.agreement)
        twins = self._twins(scene, best.fit.pose)
        if twins and twins[0].agreement > best.fit.agreement - TWIN_MARGIN:
            # where a twin is near, the answer may itself be one: its twin's twins are looked at too
            near = [best.fit, twins[0], *twins[1:], *self._twins(scene, twins[0].pose)]
            near.sort(key=lambda f: -f.agreement)
            twins = [f for f in near[1:] if _turned(f.pose, near[0].pose) > SINGLE_TURN_DEG]
            best = _Answer(near[0], best.start)
        return self._gated(scene, best, twins, settings)

    def _fine(self, scene: Scene, pose: Float64, start: str) -> _Answer:
        pose = fit_edges(self.contours, scene, pose, (1, 2, 3))
        return _Answer(judged_edges(self.contours, scene, pose), start)

    def _twins(self, scene: Scene, pose: Float64) -> list[EdgeFit]:
        """Fits of the poses that a mesh with a plane or an axis of symmetry could be taken for, the best
        first: depth reversed and reflected in a principal plane, or half a turn about a principal axis."""
        rotation = pose[:3, :3]
        flip = np.diag([1.0, 1.0, -1.0])
        center = Rigid.apply(pose, self.center_mm)
        found = []
        for n in self.axes @ rotation.T:
            half = 2 * np.outer(n, n) - np.eye(3)
            for turn in (flip @ -half, half):
                about = np.eye(4)
                about[:3, :3], about[:3, 3] = turn, center - turn @ center
                other = fit_edges(self.rough, scene, about @ pose, (1,))
                rough = judged_edges(self.rough, scene, other)
                if _turned(other, pose) > SINGLE_TURN_DEG:
                    found.append(rough)
        found.sort(key=lambda f: -f.agreement)
        fine = [self._fine(scene, f.pose, "twin").fit for f in found[:2]]
        fine = [f for f in fine if _turned(f.pose, pose) > SINGLE_TURN_DEG]
        return sorted(fine, key=lambda f: -f.agreement)

    def _gated(self, scene: Scene, best: _Answer, twins: Sequence[EdgeFit], settings: Settings) -> Registration:
        f = best.fit
        numbers = {"agreement": f.agreement, "seen": f.seen, "residual_mm": f.residual_mm, "in_field": f.in_field}
        if twins:
            numbers["twin_agreement"] = twins[0].agreement
        independent = max(6.0, 2 * self.outline_mm / CORRELATION_MM)
        spread = spread_of_fit(f.normal, max(f.residual_mm, 0.1), f.weights, independent, scene.carm)
        others = tuple(t.pose for t in twins)
        if spread is None:
            return Registration(Outcome.AMBIGUOUS, "the outline seen does not fix all six degrees of freedom; "
                                "turn the C-arm", f.pose, similarity=f.agreement, start=best.start,
                                alternatives=others, quality=numbers)
        error = error_at(spread, scene.carm, f.pose, self.target_mm)
        why = ""
        if twins and twins[0].agreement > f.agreement - TWIN_MARGIN:
            why = (f"the implant turned by {_turned(twins[0].pose, f.pose):.0f} degrees fits "
                   f"nearly as well (agreement {twins[0].agreement:.2f} against {f.agreement:.2f}): take a second view")
        elif not error.projected_mm <= settings.tolerance_mm:
            why = (f"the expected error {error.projected_mm:.1f} mm exceeds the tolerance "
                   f"{settings.tolerance_mm:g} mm; show more of the implant")
        outcome = Outcome.AMBIGUOUS if why else Outcome.ACCEPTED
        why = why or f"{f.seen:.0%} of the outline lies on edges of metal, {f.residual_mm:.2f} mm away on average"
        return Registration(outcome, why, f.pose, spread.covariance, error, f.agreement, best.start,
                            alternatives=others if outcome is Outcome.AMBIGUOUS else (),
                            quality=numbers)


def unfit(f: EdgeFit) -> str:
    """Why a fit cannot be the implant in the picture; empty where it may be."""
    if f.agreement >= LEAST_AGREEMENT and f.seen >= LEAST_SEEN:
        return ""
    return (f"the implant's outline does not lie on edges of metal: {f.seen:.0%} of it has one, agreement "
            f"{f.agreement:.2f}; check implant, side and start")


def _turned(a: Float64, b: Float64) -> float:
    """Rotation between two poses, degrees."""
    return Rigid.angle_deg(a @ Rigid.inverse(b))


def _directions() -> list[tuple[float, float]]:
    """Primary and secondary angles (deg) all over the sphere, about 30 degrees apart."""
    out = []
    for b in np.arange(-75, 76, 30.0):
        n = max(1, round(12 * np.cos(np.radians(b))))
        out += [(float(a), float(b)) for a in np.arange(n) * 360 / n - 180]
    return out
