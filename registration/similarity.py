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
MEDIUM        gradient, large patches    between GRADIENT and PATCHES, for 128 pixels
============  =========================  =====================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

import registration._similarity as _similarity
from registration.geometry import Array, Float64

_THREADS = 2  # their number changes no bit; small pictures take one


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """Gauss-Newton of the cost: hessian (n, n), gradient (n,); scores (blocks, n) are the
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
        """Value, patch values and, with a jacobian (n, h, w), the normal equations of the cost.

        What is descended is -1/2 sum share log(1 - r^2) over the patches, the mutual information of Gaussian
        pictures: a patch counts by what it explains, so one that a wire or noise spoils hardly pulls.
        """
        value, r, mass, hessian, gradient, scores = _similarity.correlate(
            moving, fixed, weight, jacobian, self.gradient, self.patch_px or 0, self.floor, self.score_px,
            _THREADS)
        by_block = r[mass > 0.2 * mass.mean()]
        if jacobian is None:
            return Likeness(value, by_block)
        return Likeness(value, by_block, NormalEquations(hessian, gradient, scores))

    def robust_weight(self, moving: Array, fixed: Array, weight: Array) -> Array:
        """Redescending weights of what is left after the best scale and offset of each patch."""
        return np.asarray(_similarity.robust(moving, fixed, weight, self.gradient, self.patch_px or 64, self.floor,
                                             _THREADS))

    def agreement(self, moving: Array, fixed: Array, weight: Array, noise: Array) -> tuple[float, float, int]:
        """(median, share, n): over the n patches that show more than noise, the median of their correlation as a share
        of what noise allows, and the share of patches above one half of that.

        noise (h, w) is a picture of the noise in `fixed` alone. Patches less than half seen are left out.
        """
        return _similarity.agreement(moving, fixed, weight, noise, self.gradient, self.patch_px or 0)


NCC = Correlation()
GRADIENT = Correlation(gradient=True)
LOCAL_NCC = Correlation(patch_px=16)
PATCHES = Correlation(gradient=True, patch_px=16)
MEDIUM = Correlation(gradient=True, patch_px=32, floor=0.1)
