# SPDX-License-Identifier: Apache-2.0
"""Is a breathing patient followed, how fast, and is a loss noticed?"""

from __future__ import annotations

import time

import numpy as np

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.real_chest import chest_volume
from fluoronav.bench.truth import Physics, fluoroscopy, target_errors, targets_around, two_materials
from registration.geometry import CArm, Rigid, attenuation_from_hu, carm_from_patient_at
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.tracker import Tracker
from registration.volume_model import VolumeModel

FRAMES, LOSSES = 300, 10
CARM = CArm.centered((256, 256), 1.2, 1020.0, 765.0)


def figures(progress: Progress) -> dict[str, Figure]:
    """`track.*`: 300 frames of 2 deg / 10 mm breathing with heartbeat, a wire, contrast, changing gain; then
    the beam closes, and the frames until LOST are counted."""
    rng = np.random.default_rng(11)
    chest = chest_volume(progress)
    materials, targets = two_materials(chest), targets_around(chest.center_mm, rng)
    tracker = Tracker(VolumeModel(attenuation_from_hu(chest)), Settings())
    base, state, rows = carm_from_patient_at(12, 6, chest.center_mm), None, []
    for n in range(FRAMES):
        breath, beat = np.sin(2 * np.pi * n / 60), np.sin(2 * np.pi * n / 13)
        xi = [0.035 * breath, 0.005 * beat, 0.01 * breath, 2 * breath + beat, 10 * breath, 3 * breath]
        true = Rigid.exp(xi) @ base
        picture = fluoroscopy(materials, CARM, true, Physics(gain=1 + 0.3 * np.sin(n / 40)), rng)
        picture = picture + contrast(CARM.shape, n)
        view = View(picture, np.ones_like(picture), CARM)
        begun = time.perf_counter()
        state, found = tracker.step(state, view, start=Start(true) if n == 0 else None)
        ms = (time.perf_counter() - begun) * 1e3
        pose = found.carm_from_patient
        if n > 0:
            rows.append((np.inf if pose is None else target_errors(CARM, pose, true, targets)[1], ms,
                         found.outcome is Outcome.ACCEPTED))
        progress((n + 1) / FRAMES, f"frame {n + 1} of {FRAMES}")
    errors, times, accepted = np.array(rows).T
    until = []
    for n in range(LOSSES):
        noise = (-np.log(np.maximum(rng.poisson(20 + 10 * n, CARM.shape), 1) / 20000)).astype(np.float32)
        after, k = state, 0
        while k < 10:
            k += 1
            after, found = tracker.step(after, View(noise, np.ones_like(noise), CARM))
            if found.outcome is not Outcome.ACCEPTED:
                break
        until.append(k)
    return {
        "track.ms": Figure(float(np.median(times)), "ms", len(times)),
        "track.ms_p95": Figure(float(np.quantile(times, 0.95)), "ms", len(times)),
        "track.projected_mm_median": Figure(float(np.median(errors)), "mm", len(errors)),
        "track.projected_mm_p95": Figure(float(np.quantile(errors, 0.95)), "mm", len(errors)),
        "track.accepted": Figure(float(accepted.mean()), "share", len(errors)),
        "track.loss_frames": Figure(float(max(until)), "frames", LOSSES),
    }


def contrast(shape: tuple[int, int], frame: int) -> np.ndarray:
    """Line integrals of a vessel that fills from below, (h, w) float32."""
    v, u = np.mgrid[: shape[0], : shape[1]] * (256.0 / shape[0])
    vessel = 0.5 * np.exp(-(((u - 150 - 25 * np.sin(v / 40)) / 4) ** 2)) * (v > 256 - 3 * (frame - 60))
    return vessel.astype(np.float32)
