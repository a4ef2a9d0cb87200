# SPDX-License-Identifier: Apache-2.0
"""Where is the vessel tree in a contrast-filled picture? Centerlines in space against dense vessels.

Register: detect the skeleton; propose shifts and turns around each start by correlating oriented
lines; refine the best by least squares, coarse to fine; fit the mirror hypotheses too; then gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from registration.confidence import error_at
from registration.curve_fit import SINGLE_TURN_DEG, Curves, Fit, Seen, fit, judged, rivalry, spread_of_fit
from registration.errors import BadInput
from registration.geometry import CArm, Float64, Rigid, carm_from_patient_at
from registration.line_search import best_shifts
from registration.model import Settings, Start, View
from registration.result import ErrorEstimate, Outcome, Registration
from registration.shapes import Mesh, Polylines
from registration.vessel_detect import Skeleton, detect_vessels

STEP_MM = 0.5  # between model points: half of what the fit resolves
COARSE_SCALES_MM = (8.0, 4.0, 2.0)
FINE_SCALES_MM = (2.0, 1.0, 0.6)
TURN_DEG = 9.0  # of the proposals about a start; the coarse fit closes half of it and more
DEPTH_SHARE = 0.1  # of the proposals along the ray, of the source distance: 10 % of magnification
CORRELATION_MM = 30.0  # a skeleton errs alike along a stretch of vessel (slope of the background, bends): simulated
SHORTEST_SEEN_MM = 25.0  # of vessels in the picture: less does not tell a pose
MIRROR_RATIO = 0.75  # accepted only if the cost is at most this share of the depth-reversed pose's
REFLECTED_RATIO = 0.95  # and of the mirror image's: no motion makes one, so a small lead is enough
FARTHEST_DEG = 30.0  # from the gantry's angles: patients do not lie that much askew
WORST_SEEN_MM = 1.5  # mean distance of a fit that may be accepted
LEAST_EXPLAINED, LEAST_FILLED = 0.7, 0.35
# where half of what is seen is no vessel (catheter, wire): the rest must lie tightly and be nearly whole
CLUTTERED_EXPLAINED, CLUTTERED_FILLED, CLUTTERED_TIGHT = 0.4, 0.55, 0.88


@dataclass(frozen=True, slots=True)
class _Answer:
    fit: Fit
    start: Start


class VesselModel:
    """Centerlines (and the surface, where there is one) of a vessel tree, to be found in a picture.

    centerline: lines in the patient frame, mm; surface: only its extent is used, for the width of the
    vessels where the lines have no radius; target_mm (3,): where errors are stated (default: the
    centroid of the lines). Raises BadInput.
    """

    kind = "vessels"

    def __init__(self, centerline: Polylines, surface: Mesh | None = None,
                 target_mm: Float64 | None = None) -> None:
        if centerline.length_mm < SHORTEST_SEEN_MM:
            raise BadInput("vessel centerline", got=f"{centerline.length_mm:.1f} mm of lines",
                           expected=f"at least {SHORTEST_SEEN_MM:g} mm", remedy="give the whole tree")
        self.curves = _curves(centerline)
        self.center_mm = centerline.points.mean(axis=0)
        self.target_mm = np.asarray(self.center_mm if target_mm is None else target_mm, np.float64)
        self.target_given = target_mm is not None
        self.widest_mm = _widest(centerline, surface)

    # ---- what a tracker and a command call

    def register(self, view: View, starts: Sequence[Start], settings: Settings) -> Registration:
        """The gated pose from starts that may be off by 10 degrees and tens of mm."""
        if not starts:
            raise BadInput("starts", got="none", expected="at least one pose", remedy="use search")
        skeleton = detect_vessels(view, self.widest_mm)
        refusal = _too_little(skeleton, view)
        if refusal:
            return Registration.lost(refusal, start=starts[0].name)
        seen = Seen.of(skeleton, view.carm)
        proposals = [p for start in starts
                     for p in ([start] if start.name == "search" else self._around(start, seen))]
        return self._settled(view, seen, skeleton, proposals, settings)

    def track(self, view: View, start: Start, settings: Settings) -> Registration:
        """The gated pose from the pose of the last frame: one refinement, no proposals around it.

        Whether the tree is seen or its mirror was settled when that pose was accepted, and a tree does not turn
        over between two frames: a pose that stayed near the last one is not asked again.
        """
        skeleton = detect_vessels(view, self.widest_mm)
        refusal = _too_little(skeleton, view)
        if refusal:
            return Registration.lost(refusal, start=start.name)
        seen = Seen.of(skeleton, view.carm)
        if start.name == "last":
            # two frames differ by a shift that a third of the points tells as well; all of them have the last word
            near = fit(self.curves.every(400), seen.thinned(500), start.carm_from_patient, FINE_SCALES_MM[:2], 12)
            followed = self._refined(seen, near, start, FINE_SCALES_MM[2:])
            if _near(followed.fit.pose, start.carm_from_patient):
                return _gated(self, view, seen, skeleton, followed, None, None, settings)
        return self._settled(view, seen, skeleton, [start], settings)

    def search(self, view: View, hint: Float64 | None, settings: Settings) -> Sequence[Start]:
        """Proposals over all directions of view (a hint goes first); `register` refines the best."""
        skeleton = detect_vessels(view, self.widest_mm)
        if _too_little(skeleton, view):
            return [Start(carm_from_patient_at(0, 0, self.center_mm) if hint is None else hint, "search")]
        seen = Seen.of(skeleton, view.carm)
        poses = [carm_from_patient_at(a, b, self.center_mm) for a, b in _directions()]
        poses = [Rigid.exp(np.array([0, 0, r, 0, 0, 0])) @ p
                 for p in poses for r in np.arange(8) * np.pi / 4]
        found = best_shifts(self.curves.every(400), seen, poses, most=12)
        starts = [Start(pose, "search") for pose in found]
        return [Start(hint, "angles"), *starts] if hint is not None else starts

    def distance_mm(self, view: View, pose: Float64) -> float | None:
        """The figure `vessel_mm`: from every skeleton pixel of the dense vessels to the nearest point of
        the projected centerline, the largest 10 % left out, averaged, mm at the isocenter."""
        skeleton = detect_vessels(view, self.widest_mm)
        if len(skeleton) == 0:
            return None
        value = judged(self.curves, Seen.of(skeleton, view.carm, most=len(skeleton)), pose).seen_mm
        return float(value) if np.isfinite(value) else None

    # ---- the way from proposals to an answer

    def _around(self, start: Start, seen: Seen) -> list[Start]:
        """The start, and the best shifts for it and for small turns and depths about it."""
        turns = np.radians(TURN_DEG) * np.array(
            [t for t in product((-1, 0, 1), repeat=3) if abs(t[0]) + abs(t[1]) + abs(t[2]) < 3], float)
        depths = seen.carm.sod_mm * DEPTH_SHARE * np.array([-1.0, 0.0, 1.0])
        center = Rigid.apply(start.carm_from_patient, self.center_mm)
        poses = []
        for turn, depth in product(turns, depths):
            about = Rigid.translation(*center) @ Rigid.exp(np.r_[turn, 0, 0, 0]) @ Rigid.translation(*-center)
            poses.append(Rigid.translation(0, 0, depth) @ about @ start.carm_from_patient)
        found = best_shifts(self.curves.every(400), seen, poses, most=8)
        return [start, *(Start(pose, start.name) for pose in found)]

    def _settled(self, view: View, seen: Seen, skeleton: Skeleton, proposals: Sequence[Start],
                 settings: Settings) -> Registration:
        """Refine coarsely, keep the best, refine finely, try the mirrors, gate."""
        few, thin = self.curves.every(250), seen.thinned(250)
        coarse = []
        for start in proposals:
            pose = fit(few, thin, start.carm_from_patient, COARSE_SCALES_MM, 8)
            coarse.append(_Answer(judged(few, thin, pose), start))
        kept = _distinct(sorted(coarse, key=lambda a: a.fit.cost), 3)
        best = min((self._refined(seen, a.fit.pose, a.start) for a in kept), key=lambda a: a.fit.cost)
        twin = self._mirrored(seen, best.fit.pose, proper=True)
        if twin is not None and twin.cost < best.fit.cost:
            best, twin = _Answer(twin, best.start), best.fit
        reflected = self._mirrored(seen, best.fit.pose, proper=False)
        return _gated(self, view, seen, skeleton, best, twin, reflected, settings)

    def _refined(self, seen: Seen, pose: Float64, start: Start,
                 scales_mm: tuple[float, ...] = FINE_SCALES_MM) -> _Answer:
        pose = fit(self.curves.every(1200), seen, pose, scales_mm, 12)
        return _Answer(judged(self.curves, seen, pose), start)

    def _mirrored(self, seen: Seen, pose: Float64, *, proper: bool) -> Fit | None:
        """The best fit of the other hypothesis about depth that a single view can hardly tell apart.

        proper: the rigid poses that reverse depth and reflect the tree in one of its principal planes
        (a flat tree looks the same); else the tree itself reflected through the picture's plane, which
        no motion does: it fits better only where the picture is not seen from where it was said to be.
        None where the fit falls back into the pose itself.
        """
        moved = self.curves.moved(pose)
        center = moved.points.mean(axis=0)
        flip = np.diag([1.0, 1.0, -1.0])
        _, _, axes = np.linalg.svd(moved.points - center, full_matrices=False)
        turns = [flip @ (np.eye(3) - 2 * np.outer(n, n)) for n in axes[::-1]] if proper else [flip]
        few, thin = self.curves.every(250), seen.thinned(250)
        found: list[Fit] = []
        for turn in turns:
            about = np.eye(4)
            about[:3, :3], about[:3, 3] = turn, center - turn @ center
            for start in tilted(about @ pose, center):
                p = fit(few, thin, start, COARSE_SCALES_MM[1:], 8)
                if not proper or not _same(p, pose):
                    found.append(judged(few, thin, p))
        if not found:
            return None
        fine = fit(self.curves.every(1200), seen, min(found, key=lambda f: f.cost).pose, FINE_SCALES_MM, 12)
        if proper and _same(fine, pose):
            return None
        return judged(self.curves, seen, fine)


# --------------------------------------------------------------------------------------------------
# The gate


def _too_little(skeleton: Skeleton, view: View) -> str:
    length = len(skeleton) * view.carm.mm_per_px_at_isocenter
    if length < SHORTEST_SEEN_MM:
        return (f"only {length:.0f} mm of contrast-filled vessels stand out of the noise (at least "
                f"{SHORTEST_SEEN_MM:g} mm are needed); choose a frame with contrast or inject again")
    return ""


def unfit(f: Fit) -> str:
    """Why a fit cannot be the tree in the picture; empty where it may be."""
    plain = f.seen_mm <= WORST_SEEN_MM and f.explained >= LEAST_EXPLAINED and f.filled >= LEAST_FILLED
    cluttered = (f.explained >= CLUTTERED_EXPLAINED and f.filled >= CLUTTERED_FILLED
                 and f.tight >= CLUTTERED_TIGHT)
    if plain or cluttered:
        return ""
    if not np.isfinite(f.seen_mm):
        return "no vessel seen lies near the tree; check patient, angles and contrast"
    return (f"the tree does not fit the vessels seen: {f.explained:.0%} of them explained, mean distance "
            f"{f.seen_mm:.2f} mm, {f.filled:.0%} of the tree filled; check patient, angles and contrast")


def _gated(model: VesselModel, view: View, seen: Seen, skeleton: Skeleton, best: _Answer, twin: Fit | None,
           reflected: Fit | None, settings: Settings) -> Registration:
    f = best.fit
    numbers = {"tight": f.tight, "seen_mm": f.seen_mm, "explained": f.explained, "filled": f.filled, "cost_mm": f.cost}
    misfit = unfit(f)
    if misfit:
        return Registration.lost(misfit, start=best.start.name, similarity=-f.cost)
    target = model.target_mm if model.target_given else middle_of(model.curves, f.pose, view.carm)
    length = len(skeleton) * view.carm.mm_per_px_at_isocenter
    spread = spread_of_fit(f.normal, f.residual_mm, f.weights, max(1.0, length / CORRELATION_MM), view.carm)
    error = None if spread is None else error_at(spread, view.carm, f.pose, target)
    for name, rival in (("mirror_ratio", twin), ("reflected_ratio", reflected)):
        if rival is not None:
            numbers[name] = rivalry(model.curves, seen, f.pose, model.curves, rival.pose)
    why, others = _doubt(f, twin, reflected, error, best.start, numbers, settings)
    outcome = Outcome.AMBIGUOUS if why else Outcome.ACCEPTED
    why = why or f"{f.explained:.0%} of the vessels seen lie on the tree, {f.seen_mm:.2f} mm away on average"
    covariance = None if spread is None else spread.covariance
    return Registration(outcome, why, f.pose, covariance, error, -f.cost, best.start.name,
                        alternatives=others, quality=numbers)


def _doubt(f: Fit, twin: Fit | None, reflected: Fit | None, error: ErrorEstimate | None,
           start: Start, numbers: dict[str, float], settings: Settings) -> tuple[str, tuple[Float64, ...]]:
    """(why the pose cannot be accepted, other poses); an empty sentence where it can."""
    if reflected is not None and numbers["reflected_ratio"] > REFLECTED_RATIO:
        return ("the mirror image of the tree fits as well "
                f"({reflected.seen_mm:.2f} against {f.seen_mm:.2f} mm): the picture may be seen from the other "
                "side (check --seen-from) or depth be reversed; take a second view", (f.pose,))
    if twin is not None and numbers["mirror_ratio"] > MIRROR_RATIO:
        return (f"a pose with depth reversed fits nearly as well ({twin.seen_mm:.2f} against {f.seen_mm:.2f} mm): "
                "one view does not tell them apart; turn the C-arm by 20 degrees and register again", (twin.pose,))
    askew = Rigid.angle_deg(f.pose @ Rigid.inverse(start.carm_from_patient))
    if start.name == "angles" and askew > FARTHEST_DEG:
        return (f"the tree would lie {askew:.0f} degrees askew from the gantry's angles: check patient, angles and "
                "--angles-in", (f.pose,))
    if error is None:
        return "the vessels seen do not fix all six degrees of freedom; show more of the tree", (f.pose,)
    if not error.projected_mm <= settings.tolerance_mm:
        return (f"the expected error {error.projected_mm:.1f} mm exceeds the tolerance "
                f"{settings.tolerance_mm:g} mm; show more of the tree", (f.pose,))
    return "", ()


# --------------------------------------------------------------------------------------------------
# Small helpers


def _curves(lines: Polylines) -> Curves:
    points, tangents = [], []
    for line in lines.lines:
        p = lines.points[line]
        lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))]
        if lengths[-1] <= 0:
            continue
        s = np.linspace(0, lengths[-1], max(2, int(np.ceil(lengths[-1] / STEP_MM)) + 1))
        q = np.stack([np.interp(s, lengths, p[:, k]) for k in range(3)], -1)
        t = np.gradient(q, axis=0)
        points.append(q)
        tangents.append(t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-12))
    return Curves(np.concatenate(points), np.concatenate(tangents))


def _widest(lines: Polylines, surface: Mesh | None) -> float:
    """Diameter of the widest vessel, mm: from the radii, else from the surface's distance to the lines."""
    if lines.radius_mm is not None and np.isfinite(lines.radius_mm).any():
        radius = float(np.nanpercentile(lines.radius_mm, 95))
    elif surface is not None:
        from scipy.spatial import cKDTree

        radius = float(np.percentile(cKDTree(lines.sampled(STEP_MM)).query(surface.vertices)[0], 95))
    else:
        radius = 4.0
    return float(np.clip(2 * radius, 4.0, 40.0))


def tilted(pose: Float64, center: Float64) -> list[Float64]:
    """The pose and four turned about the axes of the picture's plane (15 degrees)."""
    out = [pose]
    for rx, ry in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        turn = Rigid.exp(np.radians(15) * np.array([rx, ry, 0, 0, 0, 0]))
        out.append(Rigid.translation(*center) @ turn @ Rigid.translation(*-center) @ pose)
    return out


def _same(a: Float64, b: Float64) -> bool:
    """Whether two poses are one for a person: closer in rotation than SINGLE_TURN_DEG (any shift in depth follows)."""
    return Rigid.angle_deg(a @ Rigid.inverse(b)) < SINGLE_TURN_DEG


def _near(a: Float64, b: Float64) -> bool:
    """Whether a pose lies as near to another as a tree moves between two frames: 3 deg, 15 mm, 40 mm in depth."""
    xi = np.abs(Rigid.log(a @ Rigid.inverse(b)))
    return bool(np.linalg.norm(xi[:3]) < np.radians(3) and xi[3:5].max() < 15 and xi[5] < 40)


def _distinct(answers: Sequence[_Answer], most: int) -> list[_Answer]:
    kept: list[_Answer] = []
    for a in answers:
        r = a.fit.pose
        if all(Rigid.angle_deg(r @ Rigid.inverse(k.fit.pose)) > 1.0 for k in kept):
            kept.append(a)
        if len(kept) == most:
            break
    return kept


def middle_of(curves: Curves, pose: Float64, carm: CArm) -> Float64:
    """Centroid (3,) of the tree inside the field of view, patient frame."""
    uv = carm.project_patient(pose, curves.points)
    rows, cols = carm.shape
    inside = ((uv >= 0) & (uv < [cols, rows])).all(1)
    return np.asarray((curves.points[inside] if inside.any() else curves.points).mean(axis=0))


def _directions() -> list[tuple[float, float]]:
    """Primary and secondary angles (deg) all over the sphere, about 20 degrees apart."""
    out = []
    for b in np.arange(-80, 81, 20.0):
        n = max(1, round(18 * np.cos(np.radians(b))))
        out += [(float(a), float(b)) for a in np.arange(n) * 360 / n - 180]
    return out
