# SPDX-License-Identifier: Apache-2.0
"""What do two views know that one does not: depth, and the C-arm's own geometry?"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.truth import Physics, fluoroscopy, random_motion, two_materials
from registration.geometry import CArm, Rigid, Volume, attenuation_from_hu, carm_from_room
from registration.joint import Intrinsics, Joint, JointModel, RoomView
from registration.model import Settings, Start, View
from registration.volume_model import VolumeModel

COUNT = 30  # 60 coordinates of principal points: fewer say little about a share of 95 %
CARM = CArm.centered((256, 256), 1.2, 1020.0, 765.0)


def figures(volume_hu: Volume, progress: Progress, *, count: int = COUNT, seed: int = 15) -> dict[str, Figure]:
    """`biplane.*`: two views 60 to 90 deg apart; depth with the geometry as stated, and the geometry found where
    SDD is 1 % and the principal point 3 mm off."""
    rng = np.random.default_rng(seed)
    model = VolumeModel(attenuation_from_hu(volume_hu))
    materials = two_materials(volume_hu)
    depth, off, sdd, covered, sds, times = [], [], [], [], [], []
    for n in range(count):
        views, room, start = _scene(volume_hu, materials, CARM, rng)
        if n == 0:
            _found(model, views, start, "stated")  # the model prepares its volumes once
        begun = time.perf_counter()
        found = _found(model, views, start, "stated")
        times.append((time.perf_counter() - begun) * 1e3)
        depth += _depths(found, views, room, model.target_mm)
        way = rng.uniform(0, 2 * np.pi)
        shift = 3.0 / CARM.pitch_mm_row_col[0] * np.array([np.cos(way), np.sin(way)])
        cu, cv = CARM.principal_px_u_v
        real = replace(CARM, sdd_mm=CARM.sdd_mm * (1 + 0.01 * rng.choice([-1, 1])),
                       principal_px_u_v=(cu + shift[0], cv + shift[1]))
        views, room, start = _scene(volume_hu, materials, real, rng)
        found = _found(model, views, start, "shared")
        off += _depths(found, views, room, model.target_mm)
        if found.carm_sd:
            carm, sd = found.carms[0], found.carm_sd[0]
            sdd.append(100 * abs(carm.sdd_mm / real.sdd_mm - 1))
            error = (np.array(carm.principal_px_u_v) - real.principal_px_u_v) * CARM.pitch_mm_row_col[0]
            covered += list(np.abs(error) < 1.96 * sd[1:])
            sds += list(sd[1:])
        progress((n + 1) / count, f"two views {n + 1} of {count}")
    return {
        "biplane.depth_mm_median": Figure(float(np.median(depth)), "mm", len(depth), "geometry as stated"),
        "biplane.depth_mm_wrong_geometry": Figure(
            float(np.median(off)), "mm", len(off), "SDD 1 % and principal point 3 mm off, estimated along"),
        "biplane.sdd_percent": Figure(float(np.median(sdd)) if sdd else None, "%", len(sdd), "started 1 % off"),
        "biplane.principal_sd_mm": Figure(float(np.median(sds)) if sds else None, "mm", len(sds), "as stated"),
        "biplane.principal_coverage_95": Figure(float(np.mean(covered)) if covered else None, "share", len(covered)),
        "biplane.ms_median": Figure(float(np.median(times)), "ms", len(times)),
    }


def _scene(volume_hu: Volume, materials: tuple[Volume, Volume], carm: CArm,
           rng: np.random.Generator) -> tuple[list[RoomView], np.ndarray, np.ndarray]:
    """Views that are said to be CARM's, room_from_patient, and one that is up to 10 deg / 20 mm off."""
    lying = Rigid.exp(rng.normal(size=6) * (0.05, 0.05, 0.05, 8, 8, 15))
    room = lying @ Rigid.translation(*(-volume_hu.center_mm))
    first = rng.uniform(-45, 0)
    places = [carm_from_room(first, rng.uniform(-15, 15)),
              carm_from_room(first + rng.uniform(60, 90), rng.uniform(-15, 15))]
    views = []
    for place in places:
        picture = fluoroscopy(materials, carm, place @ room, Physics(gain=rng.uniform(0.5, 2)), rng)
        views.append(RoomView(View(picture, np.ones_like(picture), CARM), place))
    return views, room, random_motion(rng, 10.0, 20.0) @ room


def _found(model: VolumeModel, views: list[RoomView], start: np.ndarray, intrinsics: Intrinsics) -> Joint:
    first = Start(views[0].carm_from_room @ start)
    return JointModel(model, intrinsics=intrinsics).register(views, [first], Settings())


def _depths(found: Joint, views: list[RoomView], room: np.ndarray, target: np.ndarray) -> list[float]:
    """Error of the target along each view's axis, mm; infinite where there is no pose."""
    if found.room_from_patient is None:
        return [np.inf] * len(views)
    apart = Rigid.apply(found.room_from_patient, target) - Rigid.apply(room, target)
    return [float(abs(v.carm_from_room[2, :3] @ apart)) for v in views]
