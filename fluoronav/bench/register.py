# SPDX-License-Identifier: Apache-2.0
"""How often, how well and how fast is a volume found? From starts near and far, from none, apart from tissue that
breathes, and in two views."""

from __future__ import annotations

import time

import numpy as np

from fluoronav.bench import biplane, bodies, recipe
from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.real_chest import CARM, chest_volume, register_many
from fluoronav.bench.truth import Physics, fluoroscopy, random_view, target_errors, targets_around
from fluoronav.bench.truth import two_materials as materials_of
from registration.geometry import Rigid, Volume, attenuation_from_hu
from registration.model import Settings, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

STARTS, SEARCHES = 30, 20


def figures(progress: Progress) -> dict[str, Figure]:
    """`register.*` from 10 deg / 20 mm and 20 deg / 40 mm / 100 mm depth; `search.*` from no start; `bodies.*`,
    `biplane.*`. Some six minutes."""
    chest = chest_volume(progress)
    near, _, times, _ = register_many(chest, STARTS, (10.0, 20.0, None), lambda s, t: progress(0.25 * s, t), seed=7)
    far, _, _, _ = register_many(chest, STARTS, (20.0, 40.0, 100.0),
                                 lambda s, t: progress(0.25 + 0.25 * s, t), seed=8)
    return {
        "register.success_10_20": Figure(float((near < 1).mean()), "share", STARTS),
        "register.success_20_40": Figure(float((far < 1).mean()), "share", STARTS),
        "register.error_mm_median": Figure(float(np.median(near)), "mm", STARTS),
        "register.ms_median": Figure(float(np.median(times)), "ms", STARTS),
        "register.ms_p95": Figure(float(np.quantile(times, 0.95)), "ms", STARTS),
        **recipe.figures(chest, float(np.median(times)), lambda s, t: progress(0.5 + 0.05 * s, t)),
        **search(chest, SEARCHES, lambda s, t: progress(0.55 + 0.15 * s, t)),
        **bodies.figures(chest, lambda s, t: progress(0.7 + 0.15 * s, t)),
        **biplane.figures(chest, lambda s, t: progress(0.85 + 0.15 * s, t)),
    }


def search(volume_hu: Volume, count: int, progress: Progress, *, seed: int = 9) -> dict[str, Figure]:
    """No start: any rotation, 100 mm aside, 150 mm in depth. Right is ACCEPTED and within 1 mm projected."""
    rng = np.random.default_rng(seed)
    model, materials = VolumeModel(attenuation_from_hu(volume_hu)), materials_of(volume_hu)
    targets, settings = targets_around(volume_hu.center_mm, rng), Settings()
    right, wrong, seconds = 0, 0, []
    for n in range(count):
        turn = Rigid.exp([*(random_axis(rng) * rng.uniform(0, np.pi)), 0, 0, 0])
        shift = np.append(rng.uniform(-30, 30, 2), rng.uniform(-100, 100))
        true = Rigid.translation(*shift) @ turn @ random_view(rng, volume_hu.center_mm)
        picture = fluoroscopy(materials, CARM, true, Physics(gain=rng.uniform(0.5, 2)), rng)
        view = View(picture, np.ones_like(picture), CARM)
        begun = time.perf_counter()
        found = model.register(view, model.search(view, None, settings), settings)
        seconds.append(time.perf_counter() - begun)
        if found.outcome is Outcome.ACCEPTED and found.carm_from_patient is not None:
            good = target_errors(CARM, found.carm_from_patient, true, targets)[1] < 1.0
            right, wrong = right + good, wrong + (not good)
        progress((n + 1) / count, f"search {n + 1} of {count}")
    return {
        "search.right": Figure(right / count, "share", count),
        "search.wrong_accepted": Figure(float(wrong), "frames", count),
        "search.s_median": Figure(float(np.median(seconds)), "s", count),
    }


def random_axis(rng: np.random.Generator) -> np.ndarray:
    """A direction, uniform over the sphere, (3,)."""
    way = rng.normal(size=3)
    return way / np.linalg.norm(way)


