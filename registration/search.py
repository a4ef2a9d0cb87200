# SPDX-License-Identifier: Apache-2.0
"""Where to begin when nothing is known? Poses from everywhere, from angles, or from a proposer; the best go on.

All proposals climb the same way, coarse to fine, and only the best distinct ones are carried further. A picture
from behind looks nearly like one from the front: which is right shows first at 64 pixels, so both get there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registration.everywhere import EDGE_PX
from registration.gate import REFUSE
from registration.geometry import Float64, Rigid
from registration.model import Settings, Start, View

if TYPE_CHECKING:
    from registration.ladder import Ladder
    from registration.volume_model import VolumeModel

# Starts for a picture, from whatever knows something about it; may be none.
Proposer = Callable[[View], Sequence[Start]]

# Of some 13,000 combinations of direction, depth and roll the right one is among the first ten of nearly all pictures
# (simulated chest, any rotation); others are its neighbours and mirror images.
PROMISING = 48
# So a quarter of them climbs by itself first, and where that explains the picture beyond doubt, the others need not.
FIRST = 12
KEPT = 4
# Where the gate would refuse the best of those, so many more are tried from a second look in all directions. (At 64
# pixels right ones explain 0.86 and more, simulated chest, wrong ones 0.27 at most.)
SECOND = 96
EDGES_PX = (EDGE_PX, 32, 64)


@dataclass(frozen=True, slots=True)
class Rung:
    """Every pose climbs `iterations` on pictures of `edge_px`, by the picture or its gradient; the best `kept`
    distinct ones go on."""

    edge_px: int
    gradient: bool
    iterations: int
    kept: int


# The picture's correlation has the widest basin, but scatter displaces its maximum by up to 20 deg: four steps are
# enough to come near, and the gradient, which scatter does not move, goes on from there and ranks.
NEAR = (Rung(32, False, 4, PROMISING), Rung(32, True, 8, 12))
# The gradient's basin is half as wide: once more around the best, then all that differ go on to be told apart.
SPREAD, SPREAD_EACH, SPREAD_DEG, SPREAD_MM = 3, 10, 18.0, 20.0
FINER = (Rung(32, True, 8, 12), Rung(64, True, 12, KEPT))


def propose(model: VolumeModel, ladder: Ladder, hint: Float64 | None, settings: Settings) -> tuple[Start, ...]:
    """The most promising starts for a volume in a view, best first, refined to 64 pixels.

    A hint or what the model's proposers say leads: where it is beyond doubt at once, nothing else is tried. The work
    is bounded by the constants above, never by a clock.
    """
    known = [Start(Rigid.checked(hint, "hint"), "angles")] if hint is not None else []
    known += [s for proposer in model.proposers for s in proposer(ladder.view)]
    if known:
        led = climbed(model, ladder, known, settings)
        if model.explains(ladder, led[0].carm_from_patient):
            return led
    small = ladder.sight(EDGE_PX)
    everywhere = model.everywhere(small.carm)
    poses = everywhere.promising(small.fixed, small.weight, PROMISING, threads=model.threads)
    looked = [*known, *(Start(p, "search") for p in poses)]
    first = climbed(model, ladder, looked[:len(known) + FIRST], settings)
    if model.explains(ladder, first[0].carm_from_patient):
        return first
    first = climbed(model, ladder, looked, settings)
    if model.agreement(ladder, first[0].carm_from_patient) >= REFUSE:
        return first
    poses = everywhere.promising(small.fixed, small.weight, SECOND, quick=True, threads=model.threads)
    return climbed(model, ladder, [*first, *(Start(p, "search") for p in poses)], settings)


def climbed(model: VolumeModel, ladder: Ladder, starts: Sequence[Start], settings: Settings) -> tuple[Start, ...]:
    """The starts after all rungs, the best first, at most `KEPT`."""
    near = _up(model, ladder, starts, NEAR)
    wider = [s for k, best in enumerate(near[:SPREAD]) for s in around(
        best, SPREAD_EACH, seed=settings.seed + k, angle_deg=SPREAD_DEG, offset_mm=SPREAD_MM)]
    return tuple(replace(s, refined=True) for s in _up(model, ladder, [*near, *wider], FINER))


def _up(model: VolumeModel, ladder: Ladder, starts: Sequence[Start], rungs: Sequence[Rung]) -> list[Start]:
    poses, names = np.stack([s.carm_from_patient for s in starts]), [s.name for s in starts]
    for rung in rungs:
        sight = ladder.sight(rung.edge_px)
        poses, values = model.batch(sight.carm).climb(
            sight.carm, sight.fixed, sight.weight, poses, gradient=rung.gradient, iterations=rung.iterations,
            threads=model.threads)
        kept = distinct(poses, values, model.attenuation.center_mm)[:rung.kept]
        poses, names = poses[kept], [names[i] for i in kept]
    return [Start(p, n) for p, n in zip(poses, names, strict=True)]


def distinct(poses: Float64, values: Float64, center_mm: Float64, *, angle_deg: float = 4.0, mm: float = 12.0,
             depth_mm: float = 50.0) -> list[int]:
    """Indices of poses (n, 4, 4), the highest value (n,) first; of those within the bounds of a better one, none."""
    center = poses[:, :3, :3] @ center_mm + poses[:, :3, 3]
    rotations = poses[:, :3, :3].reshape(-1, 9)
    near = rotations @ rotations.T > 1 + 2 * np.cos(np.radians(angle_deg))
    for axis, bound in enumerate((mm, mm, depth_mm)):
        near &= np.abs(center[:, None, axis] - center[None, :, axis]) < bound
    out: list[int] = []
    for i in np.argsort(-values, kind="stable"):
        if not near[i, out].any():
            out.append(int(i))
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
