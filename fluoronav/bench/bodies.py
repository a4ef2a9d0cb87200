# SPDX-License-Identifier: Apache-2.0
"""Is the spine found while the tissue around it breathes? The truth bends smoothly, which no rigid part does."""

from __future__ import annotations

import time

import numpy as np

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.truth import (
    Physics,
    breathed,
    fluoroscopy,
    random_motion,
    random_view,
    target_errors,
    two_materials,
)
from registration.bodies import spine_and_rest, spine_of
from registration.geometry import CArm, Volume, attenuation_from_hu
from registration.joint import JointModel, RoomView
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

COUNT, BREATH_MM = 10, 12.0
CARM = CArm.centered((256, 256), 1.2, 1020.0, 765.0)


def figures(volume_hu: Volume, progress: Progress, *, count: int = COUNT, seed: int = 14) -> dict[str, Figure]:
    """`bodies.*`: spine error, projected at three points of the spine, with 12 mm of tissue motion; beside it the
    same from one rigid body. Starts are 3 deg / 6 mm off."""
    rng = np.random.default_rng(seed)
    attenuation = attenuation_from_hu(volume_hu)
    spine = spine_of(attenuation)
    targets = spine.middle_mm + np.array([[0, 0, z] for z in (-40.0, 0.0, 40.0)])
    whole = VolumeModel(attenuation, spine.middle_mm)
    model = JointModel({k: VolumeModel(v, spine.middle_mm) for k, v in spine_and_rest(attenuation, spine).items()})
    rows = []
    for n in range(count):
        way = rng.normal(size=3) * (0.2, 0.4, 1.0)  # mostly towards head or feet
        breath = way / np.linalg.norm(way) * BREATH_MM
        true = random_view(rng, spine.middle_mm)
        picture = fluoroscopy(two_materials(breathed(volume_hu, spine, breath)), CARM, true,
                              Physics(gain=rng.uniform(0.5, 2)), rng)
        view = View(picture, np.ones_like(picture), CARM)
        start = [Start(random_motion(rng, 3.0, 6.0) @ true)]
        if n == 0:
            model.register([RoomView(view, np.eye(4))], start, Settings(), whole=whole)  # prepares its volumes once
        begun = time.perf_counter()
        found = model.register([RoomView(view, np.eye(4))], start, Settings(), whole=whole)
        ms = (time.perf_counter() - begun) * 1e3
        one = whole.register(view, start, Settings(bodies="one"))
        error, alone = (np.inf if p is None else target_errors(CARM, p, true, targets)[1]
                        for p in (found.room_from_patient, one.carm_from_patient))
        bound = found.registrations[0].error
        accepted = found.outcome is Outcome.ACCEPTED
        rows.append((error, alone, ms, accepted, accepted and bound is not None and error < bound.projected_mm))
        progress((n + 1) / count, f"breathing {n + 1} of {count}")
    errors, alone_, times, accepted_, inside = np.array(rows, float).T
    return {
        "bodies.projected_mm_median": Figure(float(np.median(errors)), "mm", count),
        "bodies.projected_mm_one_body": Figure(float(np.median(alone_)), "mm", count),
        "bodies.ms_median": Figure(float(np.median(times)), "ms", count),
        "bodies.accepted": Figure(float(accepted_.mean()), "share", count),
        "bodies.coverage_95_projected": Figure(float(inside.sum() / max(1.0, accepted_.sum())), "share",
                                               int(accepted_.sum())),
    }
