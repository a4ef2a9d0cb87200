# SPDX-License-Identifier: Apache-2.0
"""How does a network say where a patient is? What it sees, its numbers as poses, and a proposer for the search.

Any C-arm, any field: the picture is laid onto a square of 32 pixels that spans its longer edge. A pose is given as
that square sees it: the place of the volume's center in half edges, the logarithm of the field's width there, and the
rotation against the ray through the center, as the first two columns of its matrix (6 numbers without a jump; Zhou et
al., CVPR 2019). So a shift of the picture changes only the place, whatever the perspective.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from models.engines import Engine, open_engine
from registration.everywhere import about_source
from registration.geometry import Array, CArm, Float64, Rigid
from registration.ladder import Ladder
from registration.model import Start, View
from registration.search import Proposer

EDGE, CHANNELS = 32, 2
HYPOTHESES, NUMBERS = 4, 9
OUTPUTS = HYPOTHESES * NUMBERS
# Width of the field at the isocenter below which the network is not asked: of 20 simulated chest pictures from usual
# angles it led 18 right on 225 mm and 6 on 110 mm, and the search that follows a wrong lead has lost 0.5 s.
LEAST_FIELD_MM = 180.0
FIELD_MM = 250.0  # width of the field at the patient at which the last number is 0


def numbers_of(carm: CArm, poses: Float64, center_mm: Float64) -> Float64:
    """(n, 9): rotation (6), place (2), ln width (1) of carm_from_patient (n, 4, 4) in a C-arm's pictures."""
    at = poses[:, :3, :3] @ center_mm + poses[:, :3, 3]
    slopes = at[:, :2] / (carm.sod_mm - at[:, 2])[:, None]
    middle, half = _field(carm)
    distance = np.linalg.norm(at - carm.source, axis=1)
    straight = np.linalg.inv(about_source(carm, slopes)) @ poses
    return np.concatenate([straight[:, :3, 0], straight[:, :3, 1], (slopes - middle) / half,
                           np.log(2 * half * distance / FIELD_MM)[:, None]], 1)


def poses_of(carm: CArm, numbers: Float64, center_mm: Float64) -> Float64:
    """carm_from_patient (n, 4, 4) of numbers (n, 9)."""
    middle, half = _field(carm)
    x = numbers[:, :3] / np.linalg.norm(numbers[:, :3], axis=1, keepdims=True)
    y = numbers[:, 3:6] - (numbers[:, 3:6] * x).sum(1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    out = np.tile(np.eye(4), (len(numbers), 1, 1))
    out[:, :3, :3] = np.stack([x, y, np.cross(x, y)], 2)
    out[:, :3, 3] = -out[:, :3, :3] @ center_mm
    out[:, 2, 3] += carm.sod_mm - np.exp(numbers[:, 8]) * FIELD_MM / (2 * half)
    return np.asarray(about_source(carm, middle + half * numbers[:, 6:8]) @ out)


def features_of(view: View) -> Array:
    """(1, 2, 32, 32) float32: the picture, its mean taken away and in units of its spread, and the weight."""
    sight = Ladder(view, (2 * EDGE,)).sight(2 * EDGE)
    (rows, cols), (pitch_v, pitch_u) = sight.carm.shape, sight.carm.pitch_mm_row_col
    _, half = _field(sight.carm)
    at = (np.arange(EDGE) + 0.5) / EDGE * 2 - 1
    v = (rows - 1) / 2 + at * half * sight.carm.sdd_mm / pitch_v
    u = (cols - 1) / 2 + at * half * sight.carm.sdd_mm / pitch_u
    grid = np.meshgrid(v, u, indexing="ij")
    weighted = np.stack([sight.fixed * sight.weight, sight.weight])
    # two pixels of the view, or about as many, become one: a mean of as many
    smooth = ndimage.uniform_filter(weighted, (0, 2, 2), origin=(0, -1, -1))
    total, mass = (ndimage.map_coordinates(p, [g - 0.5 for g in grid], order=1, cval=0.0) for p in smooth)
    return normalized(total / np.maximum(mass, 1e-6), mass)[None]


def normalized(picture: Array, weight: Array) -> Array:
    """(2, rows, columns) float32 of a picture and its weight (rows, columns)."""
    seen = np.clip(weight, 0, 1)
    mass = max(float(seen.sum()), 1e-6)
    mean = float((picture * seen).sum()) / mass
    spread = np.sqrt(float(((picture - mean) ** 2 * seen).sum()) / mass)
    return np.stack([(picture - mean) / max(spread, 1e-6) * seen, seen]).astype(np.float32)


def proposer(artefact: Path, center_mm: Float64, *, threads: int = 2, engine: str | None = None) -> Proposer:
    """What `VolumeModel.proposers` takes: the network's hypotheses for a view, each a Start named `network`.

    center_mm (3,): that of the volume it was trained on. Raises BadInput where no engine is installed.
    """
    net: Engine = open_engine(artefact, (1, CHANNELS, EDGE, EDGE), engine, threads)
    center = np.asarray(center_mm, np.float64)

    def propose(view: View) -> Sequence[Start]:
        if 2 * _field(view.carm)[1] * view.carm.sod_mm < LEAST_FIELD_MM:
            return ()
        numbers = net.run(features_of(view)).reshape(HYPOTHESES, NUMBERS).astype(np.float64)
        good = np.isfinite(numbers).all(1) & (np.abs(numbers[:, 6:]) < 5).all(1)
        # two columns that are one or nothing make no rotation
        good &= np.linalg.norm(np.cross(numbers[:, :3], numbers[:, 3:6]), axis=1) > 1e-3
        return [Start(Rigid.checked(p, "pose of the network"), "network")
                for p in poses_of(view.carm, numbers[good], center)]

    return propose


def _field(carm: CArm) -> tuple[Float64, float]:
    """The slopes (x, y) of the ray through the picture's middle, and half the longer edge as a slope."""
    (rows, cols), (pitch_v, pitch_u), (cu, cv) = carm.shape, carm.pitch_mm_row_col, carm.principal_px_u_v
    middle = np.array([((cols - 1) / 2 - cu) * pitch_u, ((rows - 1) / 2 - cv) * pitch_v]) / carm.sdd_mm
    return middle, max(rows * pitch_v, cols * pitch_u) / 2 / carm.sdd_mm
