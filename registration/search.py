# SPDX-License-Identifier: Apache-2.0
"""Where to begin when nothing is known? Poses over all rotations, scored small, the best refined.

Angles, where they are known, are one proposal among the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import qmc

from registration.geometry import Float64, Rigid
from registration.model import Settings, Start
from registration.similarity import GRADIENT, NCC
from registration.solver import solve

if TYPE_CHECKING:
    from registration.volume_model import Ladder, VolumeModel

# Over all rotations 2,048 poses leave the nearest some 20 deg off: within the basin of NCC at 32 pixels.
POSES = 2048
REFINED, KEPT = 48, 4
LATERAL_MM, DEPTH_MM = 100.0, 150.0  # how far the volume's centre may be from the isocenter


def propose(model: VolumeModel, ladder: Ladder, hint: Float64 | None, settings: Settings) -> tuple[Start, ...]:
    """The most promising starts for a volume in a view, best first; a hint is refined like the rest."""
    from registration.volume_model import Plan

    sight = ladder.sight(32)
    render = model.render(sight.carm)
    poses = poses_everywhere(POSES, model.attenuation.center_mm, settings.seed)
    scores = [NCC.evaluate(render(sight.carm, p, False)[0], sight.fixed, sight.weight).value for p in poses]
    best = np.argsort(scores)[::-1][:REFINED]
    candidates = [(poses[i], "search") for i in best]
    if hint is not None:
        candidates.insert(0, (Rigid.checked(hint, "hint"), "angles"))
    small = model.problem(ladder, (Plan(32, NCC, 8),))
    refined = [(solve(small, [p]), name) for p, name in candidates]
    refined.sort(key=lambda s: -s[0].values[-1])
    sharper = model.problem(ladder, (Plan(64, NCC, 6), Plan(64, GRADIENT, 4)))
    final = [(solve(sharper, s.room_from_body), name) for s, name in refined[:12]]
    final.sort(key=lambda s: -s[0].values[-1])
    return tuple(Start(s.room_from_body[0], name) for s, name in final[:KEPT])


def poses_everywhere(count: int, center_mm: Float64, seed: int) -> list[Float64]:
    """Poses of a volume spread evenly over all rotations and the shifts above (Sobol points)."""
    u = qmc.Sobol(6, seed=seed).random(count)
    out = []
    for x in u:
        a, b = np.sqrt(1 - x[0]), np.sqrt(x[0])  # Shoemake 1992: uniform unit quaternions
        q = np.array([a * np.sin(2 * np.pi * x[1]), a * np.cos(2 * np.pi * x[1]),
                      b * np.sin(2 * np.pi * x[2]), b * np.cos(2 * np.pi * x[2])])
        shift = (2 * x[3:] - 1) * (LATERAL_MM, LATERAL_MM, DEPTH_MM)
        out.append(Rigid.translation(*shift) @ _rotation(q) @ Rigid.translation(*(-center_mm)))
    return out


def around(start: Start, count: int, *, seed: int, angle_deg: float = 12.0, offset_mm: float = 25.0) -> list[Start]:
    """Starts spread around one: random axes and directions, angles and offsets up to the bounds."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        axis, way = rng.normal(size=3), rng.normal(size=3)
        turn = axis / np.linalg.norm(axis) * np.radians(angle_deg) * rng.uniform(0.3, 1)
        shift = way / np.linalg.norm(way) * offset_mm * rng.uniform(0.3, 1)
        motion = Rigid.translation(*shift) @ Rigid.exp([*turn, 0, 0, 0])
        out.append(Start(motion @ start.carm_from_patient, start.name))
    return out


def _rotation(q: Float64) -> Float64:
    x, y, z, w = q
    out = np.eye(4)
    out[:3, :3] = [[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                   [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                   [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]
    return out
