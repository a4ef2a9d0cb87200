# SPDX-License-Identifier: Apache-2.0
"""Is a breathing patient followed, how fast, and is a loss noticed?"""

from __future__ import annotations

import time

import numpy as np

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.real_chest import chest_volume
from fluoronav.bench.truth import (
    Physics,
    detected,
    enlarged,
    rtk_line_integrals,
    target_errors,
    targets_around,
    two_materials,
)
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from fluoronav.live.finding import FOLLOWED
from fluoronav.locate.pictures import view_of
from registration.geometry import CArm, Float64, Rigid, Volume, attenuation_from_hu, carm_from_patient_at
from registration.model import Settings, Start
from registration.result import Outcome
from registration.tracker import Tracker
from registration.volume_model import VolumeModel

FRAMES, LOSSES = 1000, 10
CYCLE = 60  # frames of one breath, in which the heart beats five times: the poses of a cycle come back
CARM = CArm.centered((512, 512), 0.6, 1020.0, 765.0)
_COUNTS = Intensity("linear", "dark", 16, i0=20000.0, i0_source="header")


def figures(progress: Progress) -> dict[str, Figure]:
    """`track.*`: 1,000 frames of 512 x 512 counts, 2 deg / 10 mm of breathing with heartbeat, a wire, contrast,
    changing gain; then the beam closes, and the frames until LOST are counted. Times run from the counts to the
    result. Some eight minutes."""
    rng = np.random.default_rng(11)
    chest = chest_volume(progress)
    targets = targets_around(chest.center_mm, rng)
    tracker = Tracker(VolumeModel(attenuation_from_hu(chest)), Settings())
    cycle = _cycle(chest, lambda s, t: progress(0.3 * s, t))
    state, rows = None, []
    for n in range(FRAMES):
        true, soft, bone = cycle[n % CYCLE]
        picture = detected(soft, bone, Physics(gain=1 + 0.3 * np.sin(n / 40)), rng) + contrast(CARM.shape, n)
        counts = np.clip(np.rint(20000 * np.exp(-picture)), 0, 65535).astype(np.uint16)
        frame = _frame(counts, n)
        begun = time.perf_counter()
        state, found = tracker.step(state, view_of(frame, FOLLOWED["volume"]), start=Start(true) if n == 0 else None)
        ms = (time.perf_counter() - begun) * 1e3
        pose = found.carm_from_patient
        if n > 0:
            off = (np.inf,) * 4 if pose is None else (*target_errors(CARM, pose, true, targets),
                                                      *_apart(pose, true, targets))
            rows.append((*off, ms, found.outcome is Outcome.ACCEPTED))
        progress(0.3 + 0.7 * (n + 1) / FRAMES, f"frame {n + 1} of {FRAMES}")
    in_space, errors, in_plane, depth, times, accepted = np.array(rows).T
    until = []
    for n in range(LOSSES):
        noise = rng.poisson(20 + 10 * n, CARM.shape).astype(np.uint16)
        after, k = state, 0
        while k < 10:
            k += 1
            after, found = tracker.step(after, view_of(_frame(noise, k), FOLLOWED["volume"]))
            if found.outcome is not Outcome.ACCEPTED:
                break
        until.append(k)
    tenth, count = len(errors) // 10, len(errors)
    return {
        "track.ms": Figure(float(np.median(times)), "ms", count),
        "track.ms_p95": Figure(float(np.quantile(times, 0.95)), "ms", count),
        "track.projected_mm_median": Figure(float(np.median(errors)), "mm", count),
        "track.projected_mm_p95": Figure(float(np.quantile(errors, 0.95)), "mm", count),
        "track.error_mm_median": Figure(float(np.median(in_space)), "mm", count),
        "track.inplane_mm_median": Figure(float(np.median(in_plane)), "mm", count),
        "track.depth_mm_median": Figure(float(np.median(depth)), "mm", count),
        "track.drift_mm": Figure(float(np.median(errors[-tenth:]) - np.median(errors[:tenth])), "mm", 2 * tenth,
                                 "projected median of the last tenth less that of the first"),
        "track.accepted": Figure(float(accepted.mean()), "share", count),
        "track.loss_frames": Figure(float(max(until)), "frames", LOSSES),
    }


def _cycle(chest: Volume, progress: Progress) -> list[tuple[Float64, np.ndarray, np.ndarray]]:
    """(carm_from_patient, mm of soft tissue, mm of bone) for the poses of one breath."""
    materials, base, out = two_materials(chest), carm_from_patient_at(12, 6, chest.center_mm), []
    for n in range(CYCLE):
        breath, beat = np.sin(2 * np.pi * n / CYCLE), np.sin(2 * np.pi * n / 12)
        xi = [0.035 * breath, 0.005 * beat, 0.01 * breath, 2 * breath + beat, 10 * breath, 3 * breath]
        true = Rigid.exp(xi) @ base
        soft, bone = (enlarged(p, 2) for p in rtk_line_integrals(materials, CARM.binned(2), true))
        out.append((true, soft, bone))
        progress((n + 1) / CYCLE, f"pose {n + 1} of {CYCLE}")
    return out


def _frame(counts: np.ndarray, index: int) -> Frame:
    """A decoded frame (rows, columns) uint16; the live loop's own `view_of` makes the tracker's picture of it."""
    valid = np.ones(counts.shape, bool)
    return Frame(counts, index, index * 66_666_667, CARM, None, Exposure(), _COUNTS, valid, "bench")


def _apart(found: Float64, true: Float64, targets: Float64) -> tuple[float, float]:
    """Mean error over the targets (n, 3) across and along the C-arm's axis, mm."""
    apart = Rigid.apply(found, targets) - Rigid.apply(true, targets)
    return float(np.linalg.norm(apart[:, :2], axis=1).mean()), float(np.abs(apart[:, 2]).mean())


def contrast(shape: tuple[int, int], frame: int) -> np.ndarray:
    """Line integrals of a vessel that fills from below, (h, w) float32."""
    v, u = np.mgrid[: shape[0], : shape[1]] * (256.0 / shape[0])
    vessel = 0.5 * np.exp(-(((u - 150 - 25 * np.sin(v / 40)) / 4) ** 2)) * (v > 256 - 3 * (frame - 60))
    return vessel.astype(np.float32)
