# SPDX-License-Identifier: Apache-2.0
"""How alike are a computed and a measured picture, and which way is better?

One measure with two switches gives the four that are used: normalized correlation of the picture or
of its gradient, over the whole picture or over patches of it. All allow for an unknown scale and
offset (of each patch), so display pictures and unknown I0 need nothing special.

============  =========================  =====================================================
name          what                       worth
============  =========================  =====================================================
NCC           picture, whole             widest basin; scatter and gain fields bias it by a millimeter
GRADIENT      gradient, whole            no bias from slow fields; medium basin
LOCAL_NCC     picture, patches           precise; small basin
PATCHES       gradient, patches          precise and hardest to fool by one strong edge; small basin
============  =========================  =====================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from registration.geometry import Array, Float64


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """Gauss-Newton of the cost 1 - value: hessian (n, n), gradient (n,); scores (blocks, n) are the
    gradient's summands, from which its scatter is estimated (they sum to the gradient)."""

    hessian: Float64
    gradient: Float64
    scores: Float64


@dataclass(frozen=True, slots=True)
class Likeness:
    """value: at most 1, which is alike up to scale and offset; 0 is unrelated (also where one of the
    pictures is empty). by_block: the values of the patches that say anything. normal: where asked."""

    value: float
    by_block: Float64
    normal: NormalEquations | None = None


class Similarity(Protocol):
    """What the solver asks of a measure."""

    def evaluate(self, moving: Array, fixed: Array, weight: Array, jacobian: Array | None = None) -> Likeness:
        """Compare pictures (h, w); weight (h, w) 0..1; jacobian (n, h, w) of `moving`."""
        ...

    def robust_weight(self, moving: Array, fixed: Array, weight: Array) -> Array:
        """`weight` (h, w) lowered where only one of the pictures has something: wires, clips, contrast."""
        ...


@dataclass(frozen=True, slots=True)
class Correlation:
    """Normalized correlation with offset and scale free in every patch.

    gradient: compare central differences instead of the picture. patch_px: edge of the square patches,
    None for one patch. floor: share of the mean patch energy below which a patch fades out of the sum
    (flat patches have a direction, but no information). score_px: edge of the cells whose summands are
    kept apart for the scatter of the gradient.
    """

    gradient: bool = False
    patch_px: int | None = None
    floor: float = 0.01
    score_px: int = 16

    def evaluate(self, moving: Array, fixed: Array, weight: Array, jacobian: Array | None = None) -> Likeness:
        """Value, patch values and, with a jacobian (n, h, w), the normal equations of 1 - value."""
        a, b, w, channels = self._channels(moving), self._channels(fixed), self._weight(weight), self._count
        cells = _Cells(w.shape, self.patch_px)
        mass = cells.sum(w)
        safe = np.maximum(mass, 1e-12)
        a = a - cells.spread(cells.sum(w * a) / safe)
        b = b - cells.spread(cells.sum(w * b) / safe)
        aa, bb, ab = (cells.sum(w * x).sum(0) for x in (a * a, b * b, a * b))
        norm_a, norm_b = self._norms(aa), self._norms(bb)
        r = ab / np.sqrt(norm_a * norm_b)
        share = mass.reshape(r.shape) / max(float(mass.sum()), 1e-12)
        left = 1.0 - np.minimum(np.maximum(r, 0.0), 0.999) ** 2
        information = float((share * -np.log(left)).sum())
        value = float(np.sqrt(1.0 - np.exp(-information)))
        blocks = r[share > 0.2 / r.size].astype(np.float64)
        if jacobian is None:
            return Likeness(value, blocks)
        j = self._channels(jacobian)  # (channels, n, h, w)
        pull = share * np.maximum(r, 0.0) / left  # d of -1/2 share log(1 - r^2)
        force = w * (cells.spread(pull * r / norm_a) * a - cells.spread(pull / np.sqrt(norm_a * norm_b)) * b)
        return Likeness(value, blocks, _normal_equations(j, force, w, a, cells, mass, pull * np.maximum(r, 0.0), norm_a,
                                                         self.score_px))

    def robust_weight(self, moving: Array, fixed: Array, weight: Array) -> Array:
        """Geman-McClure weights of what is left after the best scale and offset of each patch."""
        a, b, w = self._channels(moving), self._channels(fixed), self._weight(weight)
        cells = _Cells(w.shape, self.patch_px or 64)
        safe = np.maximum(cells.sum(w), 1e-12)
        a = a - cells.spread(cells.sum(w * a) / safe)
        b = b - cells.spread(cells.sum(w * b) / safe)
        aa, ab = cells.sum(w * a * a).sum(0), cells.sum(w * a * b).sum(0)
        residual = np.sqrt(((b - cells.spread(ab / self._norms(aa)) * a) ** 2).sum(0))
        seen = residual[w > 0]
        if not seen.size:
            return weight
        # 2.2 medians: Gaussian noise keeps 85 % of its weight, a wire (10 medians) keeps 0.2 %
        scale = 2.2 * float(np.median(seen)) + 1e-12
        keep = 1.0 / (1.0 + (residual / scale) ** 2) ** 2 if not self.gradient else 1 / (1 + (residual / scale) ** 4)
        out = np.array(weight, np.float32)
        inner = out[1:-1, 1:-1] if self.gradient else out
        inner *= keep.astype(np.float32)
        return out

    def patches(self, moving: Array, fixed: Array, weight: Array, noise: float) -> tuple[Float64, Float64]:
        """Correlation of each patch (n,) and the best that noise of that sigma a pixel allows it (n,).

        Patches less than half seen are left out.
        """
        a, b, w = self._channels(moving), self._channels(fixed), self._weight(weight)
        cells = _Cells(w.shape, self.patch_px)
        mass = cells.sum(w)
        safe = np.maximum(mass, 1e-12)
        a = a - cells.spread(cells.sum(w * a) / safe)
        b = b - cells.spread(cells.sum(w * b) / safe)
        aa, bb, ab = (cells.sum(w * x).sum(0) for x in (a * a, b * b, a * b))
        seen = cells.sum((w > 0.5).astype(np.float32)) > 0.5 * np.outer(*cells.lengths)
        lost = self._count * mass * noise**2 * (2.0 if self.gradient else 1.0)  # a difference doubles the variance
        r = ab / np.sqrt(np.maximum(aa * bb, 1e-30))
        attainable = np.sqrt(np.clip(1 - lost / np.maximum(bb, 1e-30), 0, 1))
        return r[seen].astype(np.float64), attainable[seen].astype(np.float64)

    @property
    def _count(self) -> int:
        return 2 if self.gradient else 1

    def _channels(self, x: Array) -> Array:
        """(channels, ..., h', w'): the picture itself, or its two central differences."""
        if not self.gradient:
            return x[None]
        return np.stack([x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]])

    def _weight(self, weight: Array) -> Array:
        if not self.gradient:
            return weight
        w = weight[1:-1, 1:-1]  # a difference is worth no more than its worse end
        return np.minimum.reduce([w, weight[1:-1, 2:], weight[1:-1, :-2], weight[2:, 1:-1], weight[:-2, 1:-1]])

    def _norms(self, energy: Array) -> Array:
        if energy.size == 1:
            return energy + 1e-12
        return energy + self.floor * energy.mean() + 1e-12


NCC = Correlation()
GRADIENT = Correlation(gradient=True)
LOCAL_NCC = Correlation(patch_px=16)
PATCHES = Correlation(gradient=True, patch_px=16)


def _normal_equations(j: Array, force: Array, w: Array, a: Array, cells: _Cells, mass: Array, share: Array,
                      norm_a: Array, score_px: int) -> NormalEquations:
    channels, n = j.shape[:2]
    flat = j.transpose(1, 0, 2, 3).reshape(n, -1)
    density = np.broadcast_to(w * cells.spread(share / norm_a), (channels, *w.shape)).reshape(-1)
    hessian = (flat * density) @ flat.T
    # less what scale and offset of each patch explain
    mean = cells.sum(w * j.transpose(1, 0, 2, 3)) / np.sqrt(np.maximum(mass, 1e-12))  # (n, channels, p, q)
    m = (mean * np.sqrt(share / norm_a)).reshape(n, -1)
    along = (cells.sum(j.transpose(1, 0, 2, 3) * (w * a)).sum(1) * np.sqrt(share) / norm_a).reshape(n, -1)
    hessian = hessian - m @ m.T - along @ along.T
    scores = _Cells(w.shape, score_px).sum((j.transpose(1, 0, 2, 3) * force).sum(1)).reshape(n, -1).T
    return NormalEquations(hessian.astype(np.float64), scores.sum(0).astype(np.float64), scores.astype(np.float64))


class _Cells:
    """Sums over square cells of a picture and back again; the last cell of a row takes the rest."""

    def __init__(self, shape: tuple[int, ...], edge: int | None) -> None:
        self.shape = shape
        self.starts = [np.arange(max(1, n // edge)) * edge if edge else np.zeros(1, int) for n in shape]
        self.lengths = [np.diff([*s, n]) for s, n in zip(self.starts, shape, strict=True)]

    def sum(self, x: Array) -> Array:
        """(..., h, w) -> (..., p, q)."""
        if len(self.starts[0]) == 1 and len(self.starts[1]) == 1:
            return x.sum((-2, -1), dtype=np.float64)[..., None, None]
        rows = np.add.reduceat(x, self.starts[0], axis=-2)
        return np.add.reduceat(rows, self.starts[1], axis=-1)

    def spread(self, x: Array) -> Array:
        """(..., p, q) -> (..., h, w) or broadcastable to it."""
        if x.shape[-2:] == (1, 1):
            return x.astype(np.float32)
        return np.repeat(np.repeat(x, self.lengths[0], -2), self.lengths[1], -1).astype(np.float32)
