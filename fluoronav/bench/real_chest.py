# SPDX-License-Identifier: Apache-2.0
"""Is a real chest CT found in simulated fluoroscopy of it? The truth comes from another projector."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from fluoronav.bench.figure import Figure, Progress, shared_data
from fluoronav.bench.truth import (
    Physics,
    detected,
    enlarged,
    random_motion,
    random_view,
    rtk_line_integrals,
    target_errors,
    targets_around,
    two_materials,
)
from registration.geometry import CArm, Volume, attenuation_from_hu
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

STARTS, SEED = 20, 6
# a 30 cm detector at usual distances
CARM = CArm.centered((512, 512), 0.6, 1020.0, 765.0)


def figures(progress: Progress) -> dict[str, Figure]:
    """`chest.success_2mm`: share of starts at 10 deg / 20 mm that end within 2 mm of the truth in 3D."""
    volume_hu = chest_volume(progress)
    errors, projected, times, accepted = register_many(volume_hu, STARTS, (10.0, 20.0, None), progress)
    return {
        "chest.success_2mm": Figure(float((errors < 2).mean()), "share", len(errors)),
        "chest.error_mm_median": Figure(float(np.median(errors)), "mm", len(errors)),
        "chest.error_mm_max": Figure(float(errors.max()), "mm", len(errors)),
        "chest.projected_mm_median": Figure(float(np.median(projected)), "mm", len(errors)),
        "chest.accepted": Figure(float(accepted.mean()), "share", len(errors)),
        "chest.ms_median": Figure(float(np.median(times)), "ms", len(errors)),
    }


def chest_volume(progress: Progress) -> Volume:
    """The chest CT in Hounsfield units, through the same door as any case."""
    from fluoronav.case import create_case

    progress(0.0, "reading the chest CT")
    with tempfile.TemporaryDirectory() as folder:
        case = create_case(Path(folder) / "chest", ct=shared_data() / "chest_ct")
        volume = case.volume_hu
    if volume is None:
        raise RuntimeError("a case made from a CT has no volume")
    return volume


def register_many(volume_hu: Volume, count: int, bounds: tuple[float, float, float | None], progress: Progress, *,
                  seed: int = SEED, every: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Errors in 3D and projected (mm), times (ms, from the decoded frame to the result) and whether each
    was ACCEPTED, for `count` starts; a refused one without a pose has an infinite error. every: the other projector
    computes every so many pixels along an edge, and what lies between is interpolated."""
    rng = np.random.default_rng(seed)
    model = VolumeModel(attenuation_from_hu(volume_hu))
    materials = two_materials(volume_hu)
    targets = targets_around(volume_hu.center_mm, rng)
    rows = []
    for n in range(count):
        true = random_view(rng, volume_hu.center_mm)
        soft, bone = (p if every == 1 else enlarged(p, every)
                      for p in rtk_line_integrals(materials, CARM.binned(every), true))
        picture = detected(soft, bone, Physics(gain=rng.uniform(0.5, 2)), rng)
        view = View(picture, np.ones_like(picture), CARM)
        start = Start(random_motion(rng, *bounds) @ true)
        if n == 0:
            model.register(view, [start], Settings())  # the model prepares its volumes once, before the case
        begun = time.perf_counter()
        found = model.register(view, [start], Settings())
        ms = (time.perf_counter() - begun) * 1e3
        both = (np.inf, np.inf) if found.carm_from_patient is None else target_errors(
            CARM, found.carm_from_patient, true, targets)
        rows.append((*both, ms, found.outcome is Outcome.ACCEPTED))
        progress((n + 1) / count, f"chest {n + 1} of {count}")
    errors, projected, times, accepted = np.array(rows).T
    return errors, projected, times, accepted.astype(bool)
