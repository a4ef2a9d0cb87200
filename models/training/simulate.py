# SPDX-License-Identifier: Apache-2.0
"""Which clean moving scenes is everything learned trained and tested on, and what is true in them?

`scene(seed, family)` gives clean line integrals frame by frame with the flow, the device masks and the same
scene without its devices; `models.training.detector` makes pictures of it. Layers move through each other as
projections do: what lies behind (spine, ribs), what beats (heart, vessels, devices), what is moved by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.training.anatomy import projected
from models.training.devices import Device, any_device, vessels
from models.training.fields import plates, tissue
from registration.errors import BadInput
from registration.geometry import Array

Random = np.random.Generator
FAMILIES = ("train", "test")
MARGIN = 40  # pixels that a layer has beyond the picture, so that motion brings nothing unknown in


@dataclass(frozen=True, slots=True)
class Scene:
    """clean, bare: (frames, rows, columns) float32 line integrals with and without devices; device: profile 0..1
    of what was put in; flow (frames, rows, columns, 2) px from the last frame to this one, of the layer that
    shows most (frame 0: zero); vessels (frames, rows, columns): line integrals of contrast agent, which bare holds
    too, or None where nobody kept them."""

    clean: Array
    bare: Array
    device: Array
    flow: Array
    vessels: Array | None = None


@dataclass(frozen=True, slots=True)
class Motion:
    """Shifts (frames, 2) px, turns (frames,) rad and scales (frames,) of a layer about the middle of the picture."""

    shift: Array
    turn: Array
    scale: Array

    def matrix(self, k: int, middle: float) -> Array:
        """2x3: where a point (u, v) of frame 0 lies in frame k."""
        c, s = self.scale[k] * np.cos(self.turn[k]), self.scale[k] * np.sin(self.turn[k])
        linear = np.array([[c, -s], [s, c]])
        origin = np.array([middle, middle])
        return np.column_stack([linear, origin - linear @ origin + self.shift[k]])


def scene(seed: int, family: str = "train", side: int = 192, frames: int = 12) -> Scene:
    """The scene of a seed. Raises BadInput for an unknown family."""
    if family not in FAMILIES:
        raise BadInput("family of scenes", got=family, expected=" or ".join(FAMILIES), remedy="name one of them")
    random = np.random.default_rng([seed, FAMILIES.index(family)])
    canvas = side + 2 * MARGIN
    behind, heart = (_body(canvas, random, family) for _ in range(2))
    share = random.uniform(0.15, 0.5) * _heart_mask(canvas, random)
    heart = share * (heart - heart.mean())
    slow, beat = _slow(frames, random), _beat(frames, random, family)
    tree = vessels(side, random) if random.random() < 0.6 else None
    front = random.uniform(0, side * 0.6) + np.arange(frames) * random.uniform(3, 20)
    tail = front - random.uniform(0.3, 3) * side
    devices = [any_device(side, random, family) for _ in range(random.integers(1, 4))]
    paths = [_handled(device, frames, random, family) for device in devices]
    clean, bare, profile, flow, agent = [], [], [], [], []
    clock = _clock(frames, random) if family == "train" else list(range(frames))
    for i, k in enumerate(clock):
        a, b = slow.matrix(k, side / 2), beat.matrix(k, side / 2)
        picture = warped(behind, a, side) + warped(heart, b, side)
        agent.append(np.zeros_like(picture))
        if tree is not None:
            agent[-1] = tree.drawn([_moved(p, b) for p in tree.branches], front[k], tail[k], side)
            picture = picture + agent[-1]
        bare.append(picture)
        drawn = [d.drawn(_moved(path[k], b), side) for d, path in zip(devices, paths, strict=True)]
        clean.append(picture + np.sum([d[0] for d in drawn], axis=0))
        profile.append(np.max([d[1] for d in drawn], axis=0))
        stands = i == 0 or clock[i - 1] == k
        flow.append(flow_of(slow, beat, warped(share.astype(np.float32), b, side) > 0.1, 0 if stands else k, side))
    return Scene(*(np.asarray(x, np.float32) for x in (clean, bare, profile, flow, agent)))


def _body(canvas: int, random: Random, family: str) -> Array:
    """What lies in the beam: drawn tissue or a projected patient to train on, other matter to be tested on."""
    if family == "test":
        return plates(canvas, random)
    return tissue(canvas, random) if random.random() < 0.6 else projected(canvas, random)


def _clock(frames: int, random: Random) -> list[int]:
    """Which moment each frame shows: all of them, or a rest before, after or instead of the motion."""
    k, at, kind = np.arange(frames), int(random.integers(frames)), random.random()
    if kind < 0.4:
        shown = k
    elif kind < 0.65:
        shown = np.maximum(k - at, 0)
    elif kind < 0.8:
        shown = np.minimum(k, at)
    else:
        shown = np.zeros_like(k)
    return [int(moment) for moment in shown]


def _heart_mask(canvas: int, random: Random) -> Array:
    """1 within a soft ellipse, 0 outside; everywhere 1 in a third of the scenes."""
    if random.random() < 0.33:
        return np.ones((canvas, canvas), np.float32)
    v, u = np.indices((canvas, canvas), np.float32)
    c, r = random.uniform(0.3, 0.7, 2) * canvas, random.uniform(0.2, 0.5, 2) * canvas
    return np.asarray(1 / (1 + np.exp(np.clip(8 * (np.hypot((u - c[0]) / r[0], (v - c[1]) / r[1]) - 1), -30, 30))),
                      np.float32)


def _slow(frames: int, random: Random) -> Motion:
    """Breathing, a panned table, or nothing at all (half of the scenes)."""
    k = np.arange(frames)
    shift = np.zeros((frames, 2))
    kind = random.random()
    if kind > 0.5:
        shift[:, 1] = random.uniform(0.5, 8) * np.sin(2 * np.pi * k / random.uniform(30, 70) + random.uniform(0, 6))
    if kind > 0.85:
        shift += np.outer(np.maximum(k - random.integers(0, frames), 0), random.normal(0, 1.5, 2))
    return Motion(np.clip(shift - shift[0], -MARGIN + 8, MARGIN - 8), np.zeros(frames), np.ones(frames))


def _beat(frames: int, random: Random, family: str) -> Motion:
    """A heartbeat of 5 to 15 frames: sharp systole, slow return; a quarter of the scenes are still."""
    if random.random() < 0.25:
        return Motion(np.zeros((frames, 2)), np.zeros(frames), np.ones(frames))
    period, start = random.uniform(5, 15), random.uniform(0, 1)
    phase = (np.arange(frames) / period + start) % 1
    pulse = np.exp(-((phase - 0.3) / 0.12) ** 2) if family == "train" else 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    pulse = pulse - pulse[0]
    return Motion(np.outer(pulse, random.normal(0, 6, 2)), pulse * random.normal(0, 0.03),
                  1 + pulse * random.normal(0, 0.03))


def _handled(device: Device, frames: int, random: Random, family: str) -> list[Array]:
    """The curve of a device frame by frame: at rest, pushed along, swept across, or jumping."""
    points, kind = device.points, random.random()
    across = random.normal(0, 2.5 if family == "train" else 3.5, 2)
    out = []
    jump = int(random.integers(2, max(frames, 3)))
    for k in range(frames):
        if kind < 0.3:
            moved = points
        elif kind < 0.5:  # pushed: the tip advances
            moved = points[: max(12, int(len(points) * (0.4 + 0.6 * k / frames)))]
        elif kind < 0.85:
            moved = points + across * k + 2 * np.sin(k / 2 + points[:, ::-1] / 40)
        else:
            moved = points + (across * 4 if k >= jump else 0)
        out.append(moved)
    return out


def _moved(points: Array, matrix: Array) -> Array:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


def warped(layer: Array, matrix: Array, side: int) -> Array:
    """The part (side, side) of a canvas with MARGIN around it, moved by a matrix of picture coordinates."""
    whole = matrix.copy()
    # canvas point c lies at picture point c - MARGIN
    whole[:, 2] = matrix[:, 2] - matrix[:, :2] @ np.full(2, float(MARGIN))
    return cv2.warpAffine(layer, whole, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def flow_of(slow: Motion, beat: Motion, inside: Array, k: int, side: int) -> Array:
    """Flow from frame k - 1 to k at the pixels of frame k: of the heart where it lies, else of what is behind."""
    if k == 0:
        return np.zeros((side, side, 2), np.float32)
    v, u = np.indices((side, side), np.float64)
    here = np.stack([u, v, np.ones_like(u)], axis=-1)
    flows = []
    for motion in (slow, beat):
        now, last = (np.vstack([motion.matrix(j, side / 2), [0, 0, 1]]) for j in (k, k - 1))
        flows.append((here - here @ (last @ np.linalg.inv(now)).T)[..., :2])
    return np.where(inside[..., None], flows[1], flows[0]).astype(np.float32)
