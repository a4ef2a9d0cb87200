# SPDX-License-Identifier: Apache-2.0
"""Does the gate let a wrong pose through, refuse a right one, or state bounds that do not hold?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, stats

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.real_chest import chest_volume
from fluoronav.bench.truth import Physics, fluoroscopy, random_motion, random_view, two_materials
from registration.geometry import Array, CArm, Float64, Rigid, Volume, attenuation_from_hu
from registration.model import Settings, Start, View
from registration.result import Outcome, Registration
from registration.volume_model import VolumeModel

EACH = 375  # times eight conditions: 3,000
CONDITIONS = ("plain", "other_patient", "wrong_side", "moved_carm", "collimated", "low_dose", "breathing",
              "sdd_1_percent")
CARM = CArm.centered((256, 256), 1.2, 1020.0, 765.0)


@dataclass(frozen=True, slots=True)
class Trial:
    """One registration against its truth: whether the patient was right, errors and bounds at the target."""

    condition: str
    right_patient: bool
    accepted: bool
    error_mm: float
    projected_mm: float
    bound_mm: float
    bound_projected_mm: float


def figures(progress: Progress, each: int = EACH) -> dict[str, Figure]:
    """`gate.*` over all conditions; a bound is held against the truth of every accepted one."""
    trials = simulate(chest_volume(progress), each, progress)
    return summary(trials)


def summary(trials: list[Trial]) -> dict[str, Figure]:
    """The figures of section 5 of the gate's specification, with the 95 % interval of the first."""
    accepted = [t for t in trials if t.accepted]
    false = [t for t in accepted if not t.right_patient or t.projected_mm > 5]
    # LOST shows no pose; it counts as refused whatever the pose would have been, which is the stricter reading
    refusable = [t for t in trials if t.right_patient and (t.projected_mm < 2 or np.isinf(t.projected_mm))]
    refused = [t for t in refusable if not t.accepted]
    interval = stats.binomtest(len(false), max(1, len(accepted))).proportion_ci(method="exact")
    inside = [t.error_mm < t.bound_mm for t in accepted if t.right_patient]
    inside_2d = [t.projected_mm < t.bound_projected_mm for t in accepted if t.right_patient]
    return {
        "gate.false_accept": Figure(len(false) / max(1, len(accepted)), "share", len(accepted),
                                    f"95 % interval {interval.low:.4f} to {interval.high:.4f}"),
        "gate.false_refuse": Figure(len(refused) / max(1, len(refusable)), "share", len(refusable)),
        "gate.coverage_95": Figure(float(np.mean(inside)), "share", len(inside)),
        "gate.coverage_95_projected": Figure(float(np.mean(inside_2d)), "share", len(inside_2d)),
    }


def simulate(volume_hu: Volume, each: int, progress: Progress, *, seed: int = 12) -> list[Trial]:
    """`each` trials of every condition. SDD and principal point are off in all of them, as the prior says."""
    rng = np.random.default_rng(seed)
    coarse = volume_hu.resampled(2.0)
    people = {"right": volume_hu, "side": Volume(coarse.data[:, :, ::-1], coarse.patient_from_index),
              "other": other_patient(coarse, 12.0, 0.94, seed), "breathing": other_patient(coarse, 2.0, 1.0, seed + 1)}
    models = {k: VolumeModel(attenuation_from_hu(v)) for k, v in people.items() if k != "breathing"}
    materials = {k: two_materials(people[k]) for k in ("right", "breathing")}
    trials = []
    for n in range(each * len(CONDITIONS)):
        condition = CONDITIONS[n % len(CONDITIONS)]
        true = random_view(rng, volume_hu.center_mm)
        physics = Physics(photons=3000.0 if condition == "low_dose" else 20000.0, gain=rng.uniform(0.5, 2))
        real = real_carm(rng, 0.01 if condition == "sdd_1_percent" else None)
        matter = materials["breathing" if condition == "breathing" else "right"]
        picture = fluoroscopy(matter, real, true, physics, rng)
        weight = collimated(rng) if condition == "collimated" else np.ones_like(picture)
        bounds = (25.0, 60.0, 150.0) if condition == "moved_carm" else (6.0, 15.0, None)
        model = models[{"other_patient": "other", "wrong_side": "side"}.get(condition, "right")]
        found = model.register(View(picture, weight, CARM), [Start(random_motion(rng, *bounds) @ true)], Settings())
        trials.append(trial(condition, found, true, real, model.target_mm))
        progress((n + 1) / (each * len(CONDITIONS)), condition)
    return trials


def trial(condition: str, found: Registration, true: Float64, real: CArm, target_mm: Float64) -> Trial:
    """Errors at the target: in 3D, and of its place in the overlay against its place in the picture."""
    right = condition not in ("other_patient", "wrong_side")
    pose = found.carm_from_patient
    if pose is None or found.error is None:
        return Trial(condition, right, False, np.inf, np.inf, 0.0, 0.0)
    at, meant = Rigid.apply(pose, target_mm), Rigid.apply(true, target_mm)
    scale = (real.sod_mm - meant[2]) / real.sdd_mm * CARM.pitch_mm_row_col[0]
    projected = float(np.linalg.norm(CARM.project(at) - real.project(meant)) * scale)
    return Trial(condition, right, found.outcome is Outcome.ACCEPTED, float(np.linalg.norm(at - meant)), projected,
                 found.error.target_mm, found.error.projected_mm)


def real_carm(rng: np.random.Generator, sdd_share: float | None) -> CArm:
    """The C-arm as it is, when CARM is what the header says: SDD 1 %, principal point 2 mm (one sigma)."""
    share = rng.choice([-1, 1]) * sdd_share if sdd_share is not None else 0.01 * rng.normal()
    shift = 2.0 * rng.normal(size=2) / CARM.pitch_mm_row_col[0]
    cu, cv = CARM.principal_px_u_v
    return replace(CARM, sdd_mm=CARM.sdd_mm * (1 + share), principal_px_u_v=(cu + shift[0], cv + shift[1]))


def collimated(rng: np.random.Generator) -> Array:
    """A weight (h, w) that is open over a random 45 to 70 % of each side."""
    out = np.zeros(CARM.shape, np.float32)
    (h, w), open_ = CARM.shape, rng.uniform(0.45, 0.7, 2)
    top, left = (int(rng.uniform(0.3, 0.7) * n * (1 - o)) for n, o in zip((h, w), open_, strict=True))
    out[top:top + int(h * open_[0]), left:left + int(w * open_[1])] = 1
    return out


def other_patient(volume_hu: Volume, amplitude_mm: float, scale: float, seed: int) -> Volume:
    """The same kind of anatomy in another shape: scaled, and bent smoothly by that many mm (standard deviation)."""
    rng = np.random.default_rng(seed)
    shape = volume_hu.data.shape
    index = np.indices(shape, np.float32)
    for axis, n in enumerate(shape):
        bend = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 12)
        bend *= amplitude_mm / float(volume_hu.spacing_mm[2 - axis]) / max(float(bend.std()), 1e-9)
        index[axis] = (index[axis] - (n - 1) / 2) / scale + (n - 1) / 2 + bend
    return Volume(ndimage.map_coordinates(volume_hu.data, index, order=1, mode="nearest"), volume_hu.patient_from_index)
