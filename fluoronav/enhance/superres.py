# SPDX-License-Identifier: Apache-2.0
"""What lies between the pixels of a binned mode or a small matrix? Pixels of half the size that bin to the input.

Bicubic interpolation, to which a small net (models/networks/superres.py) adds what it and the denoiser leave out of
lines and edges; then every 2x2 block is moved so that its mean lies within one stated standard deviation of the clean
pixel that it came from. So the finer picture, binned, is the clean picture within what is not known of it, whatever the
net says. Without engine or weights the interpolation stands alone, under the same constraint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.precision import open_chosen
from fluoronav.enhance.work import Work
from models.engines import WEIGHTS, Engine, installed
from registration.geometry import Array, read_only

FACTOR = 2
ARTEFACT = "superres.onnx"
FEATURES = 6
CONTEXT = 9  # pixels a side whose mean is taken away, as in training
BADGE = "super-resolution is interpolation alone"


@dataclass(frozen=True, slots=True)
class SuperresState:
    """Nothing is remembered: each frame is divided by itself."""


class Superres:
    """Stage: everything that is shown on pixels of half the size, and the C-arm of those pixels."""

    name = "superres"

    def __init__(self, engine: str | None = None) -> None:
        self.why = unavailable() if engine is None else None
        self.opened = partial(open_chosen, engine=engine)
        self._engines: dict[tuple[int, ...], Engine] = {}

    def step(self, state: SuperresState | None, item: Work) -> tuple[SuperresState, Work]:
        """Divides line_integrals, sigma, values, display, raw_display, valid, flow and carm. Sigma is that of the
        pixel divided: what was interpolated inside it is not part of it."""
        law = item.law
        assert law is not None and item.p_table is not None
        fine, out = self.finer(item), self.plain(item)
        values = kernels.lookup(fine, law.restore, law.start, law.step)
        seen = kernels.lookup(fine, item.p_table, law.start, law.step)
        badges = item.badges if self.why is None else (*item.badges, f"{BADGE}: {self.why}")
        return SuperresState(), replace(
            out, values=values, line_integrals=seen, display=kernels.window(seen, *item.window), badges=badges)

    def finer(self, item: Work) -> Array:
        """The picture (2 rows, 2 columns) of what is shown, in the scale of unit noise."""
        clean = item.clean if item.shown is None else item.shown
        assert clean is not None
        rows, columns = clean.shape
        fine = interpolated(clean)
        if self.why is None:
            added = self._run(features_of(item))[0]
            blocks = fine.reshape(rows, FACTOR, columns, FACTOR)
            blocks += added.reshape(FACTOR, FACTOR, rows, columns).transpose(2, 0, 3, 1)
        return consistent(fine, clean, bound_of(item))

    def plain(self, item: Work) -> Work:
        """Each pixel four times: the grid of the stage without what it knows."""
        def repeated(picture: Array | None) -> Array | None:
            return None if picture is None else repeat(picture)

        flow = None if item.flow is None else item.flow * np.float32(FACTOR)
        assert item.valid is not None
        return replace(item, values=repeated(item.values), line_integrals=repeated(item.line_integrals),
                       sigma=repeated(item.sigma), display=repeated(item.display), flow=flow, cell=item.cell * FACTOR,
                       raw_display=repeated(item.raw_display), valid=read_only(repeat(item.valid)),
                       carm=None if item.carm is None else item.carm.divided(FACTOR))

    def _run(self, features: Array) -> Array:
        if features.shape not in self._engines:
            self._engines.clear()
            self._engines[features.shape] = self.opened("superres", features.shape)
        return self._engines[features.shape].run(features)


def unavailable() -> str | None:
    """Why the net cannot run here, None where it can."""
    if not installed():
        return "no engine for networks is installed"
    return None if (WEIGHTS / ARTEFACT).is_file() else "its weights are missing"


def features_of(item: Work) -> Array:
    """(1, 6, rows, columns) float32 of what the net sees (models/networks/superres.py says what)."""
    x, sd = item.clean, item.variance
    assert x is not None and sd is not None and item.stabilized is not None
    around = cv2.blur(x, (CONTEXT, CONTEXT), borderType=cv2.BORDER_REPLICATE)
    out = np.zeros((1, FEATURES, *x.shape), np.float32)
    out[0, 0] = x - around
    if item.mean is not None:
        out[0, 1] = item.mean - x
    out[0, 2] = item.stabilized - x
    for at, v in enumerate((sd, item.fresh, item.stated), start=3):
        out[0, at] = np.sqrt(sd if v is None else v)
    return out


def bound_of(item: Work) -> Array:
    """How far the mean of a block may lie from its pixel: one stated standard deviation."""
    assert item.variance is not None
    return np.asarray(np.sqrt(item.variance if item.stated is None else item.stated))


def interpolated(x: Array) -> Array:
    """The picture (2 rows, 2 columns), bicubic."""
    return cv2.resize(x, (FACTOR * x.shape[1], FACTOR * x.shape[0]), interpolation=cv2.INTER_CUBIC)


def repeat(picture: Array) -> Array:
    """Each pixel as a block of FACTOR x FACTOR."""
    return np.ascontiguousarray(picture.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1))


def consistent(fine: Array, x: Array, bound: Array) -> Array:
    """The fine picture (changed in place) with the mean of every 2x2 block moved to within a bound of x."""
    rows, columns = x.shape
    blocks = fine.reshape(rows, FACTOR, columns, FACTOR)
    mean = (blocks[:, 0, :, 0] + blocks[:, 0, :, 1] + blocks[:, 1, :, 0] + blocks[:, 1, :, 1]) / np.float32(FACTOR**2)
    away = mean - x
    blocks -= (away - np.clip(away, -bound, bound))[:, None, :, None]
    return fine
