# SPDX-License-Identifier: Apache-2.0
"""How often is a volume found with no start at all, how fast, and is anything accepted that is wrong?

Any rotation, the centre up to 100 mm aside and 150 mm nearer or farther: on a detector of 30 cm, on one of 15 cm that
sees a fifth of the chest, and with another patient's CT, where thousands of trials must not make one acceptable.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.real_chest import CARM
from fluoronav.bench.truth import Physics, fluoroscopy, target_errors, targets_around, two_materials
from registration.geometry import CArm, Float64, Rigid, Volume, attenuation_from_hu
from registration.model import Settings, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

COUNT, OTHERS = 100, 50
LATERAL_MM, DEPTH_MM, RIGHT_MM = 100.0, 150.0, 1.0
SMALL = CArm.centered((512, 512), 150 / 512, 1020.0, 765.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One search: seconds from the decoded frame to the result, whether it was accepted, projected error (mm)."""

    seconds: float
    accepted: bool
    projected_mm: float

    @property
    def right(self) -> bool:
        return self.accepted and self.projected_mm < RIGHT_MM


def figures(volume_hu: Volume, other_hu: Volume, progress: Progress, *, count: int = COUNT,
            others: int = OTHERS) -> dict[str, Figure]:
    """`search.*`: right is ACCEPTED and within 1 mm projected, mean of ten points."""
    full = searched(volume_hu, volume_hu, CARM, count, lambda s, t: progress(0.4 * s, t), seed=9)
    small = searched(volume_hu, volume_hu, SMALL, count, lambda s, t: progress(0.4 + 0.4 * s, t), seed=10)
    foreign = searched(volume_hu, other_hu, CARM, others, lambda s, t: progress(0.8 + 0.2 * s, t), seed=11)
    out = {}
    for name, cases in (("search.", full), ("search.small_", small)):
        accepted = [c for c in cases if c.accepted]
        out[f"{name}right"] = Figure(float(np.mean([c.right for c in cases])), "share", len(cases))
        out[f"{name}wrong_accepted"] = Figure(float(sum(not c.right for c in accepted)), "frames", len(cases))
        out[f"{name}s_median"] = Figure(float(np.median([c.seconds for c in cases])), "s", len(cases))
    return {**out, "search.other_accepted": Figure(float(sum(c.accepted for c in foreign)), "frames", len(foreign),
                                                   "pictures of another patient, who must be refused")}


def searched(volume_hu: Volume, seen_hu: Volume, carm: CArm, count: int, progress: Progress, *,
             seed: int) -> list[Case]:
    """Searches for a volume in `count` pictures of another or the same."""
    rng = np.random.default_rng(seed)
    model, materials = VolumeModel(attenuation_from_hu(volume_hu)), two_materials(seen_hu)
    targets, settings, out = targets_around(volume_hu.center_mm, rng), Settings(), []
    for n in range(count):
        true = anywhere(rng, volume_hu.center_mm)
        picture = fluoroscopy(materials, carm, true, Physics(gain=rng.uniform(0.5, 2)), rng)
        view = View(picture, np.ones_like(picture), carm)
        if n == 0:
            model.register(view, model.search(view, None, settings), settings)  # prepares its volumes, before a case
        begun = time.perf_counter()
        found = model.register(view, model.search(view, None, settings), settings)
        seconds = time.perf_counter() - begun
        pose = found.carm_from_patient
        error = np.inf if pose is None else target_errors(carm, pose, true, targets)[1]
        out.append(Case(seconds, found.outcome is Outcome.ACCEPTED, error))
        progress((n + 1) / count, f"search {n + 1} of {count}")
    return out


def anywhere(rng: np.random.Generator, center_mm: Float64) -> Float64:
    """carm_from_patient: a uniform rotation; the centre uniform in a disc of 100 mm and over 150 mm of depth."""
    q = rng.normal(size=4)
    turn = Rigid.exp([*_rotation_vector(q / np.linalg.norm(q)), 0, 0, 0])
    way = rng.normal(size=2)
    x, y = way / np.linalg.norm(way) * LATERAL_MM * np.sqrt(rng.uniform())
    return Rigid.translation(x, y, rng.uniform(-DEPTH_MM, DEPTH_MM)) @ turn @ Rigid.translation(*(-center_mm))


def _rotation_vector(q: Float64) -> Float64:
    """Of a unit quaternion (x, y, z, w)."""
    half = np.arctan2(np.linalg.norm(q[:3]), q[3])
    return np.asarray(q[:3] / max(float(np.linalg.norm(q[:3])), 1e-12) * 2 * half)
