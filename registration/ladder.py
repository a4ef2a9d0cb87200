# SPDX-License-Identifier: Apache-2.0
"""How does a measured picture look at coarser resolutions, and is there anything in it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from registration import _similarity
from registration.geometry import Array, CArm
from registration.model import View
from registration.solver import Sight

_THREADS = 2  # their number changes no bit; small pictures take one


class Ladder:
    """A view at every resolution asked for: pictures, weights and C-arms binned together, each once.

    edges_px: the resolutions that will be wanted; the finest of them is made from the pixels, others from it.
    """

    def __init__(self, view: View, edges_px: Sequence[int] = ()) -> None:
        self.view = view
        self.edges_px = tuple(edges_px)
        self._sums: dict[int, tuple[Array, float]] = {}
        self._sights: dict[int, Sight] = {}
        for k in sorted({self.binning(e) for e in edges_px} - {1}):
            self._summed(k)

    def sight(self, edge_px: int) -> Sight:
        """The view with its longer edge at about that many pixels (never enlarged)."""
        k = self.binning(edge_px)
        if k not in self._sights:
            view = self.view
            fixed, weight = (_of_seen(view), view.weight) if k == 1 else _similarity.block_means(*self._described(k))
            self._sights[k] = Sight(fixed, weight, view.carm.binned(k))
        return self._sights[k]

    def carm(self, edge_px: int) -> CArm:
        return self.sight(edge_px).carm

    def halves(self, edge_px: int) -> tuple[Sight, Array]:
        """The view at a resolution (at most half of its own), and a picture of its noise there.

        The pixels of each block are dealt to two halves like the fields of a chess board; half of the
        difference of their means has the noise of the whole's mean, wherever it is and whatever its law,
        and hardly any structure.
        """
        k = self.halved(edge_px)
        fixed, mass, noise = _similarity.block_halves(*self._described(k))
        return Sight(fixed, mass, self.view.carm.binned(k)), noise

    def fault(self) -> str:
        """Why there is nothing to register in this view, or an empty string."""
        if min(self.view.carm.shape) < 48:
            return (f"the picture has only {self.view.carm.shape[0]} x {self.view.carm.shape[1]} pixels: "
                    "give frames of at least 48 x 48")
        sight = self.sight(64)
        if float(sight.weight.mean()) < 0.05:
            return "less than 5 % of the picture carries signal: open the collimator"
        seen = sight.fixed[sight.weight > 0]
        if not seen.size or float(seen.std()) < 1e-3 * max(1e-3, float(abs(seen).mean())):
            return "the picture is empty or of one grey: check that X-rays were on"
        return ""

    def binning(self, edge_px: int) -> int:
        """How many pixels, along an edge, become one at that resolution."""
        return binning(self.view.carm, edge_px)

    def halved(self, edge_px: int) -> int:
        """The same for `halves`."""
        return max(2, self.binning(edge_px))

    def _described(self, k: int) -> tuple[Array, int, bool, float]:
        sums, least = self._summed(k)
        return sums, k, not self.view.relative, least

    def _summed(self, k: int) -> tuple[Array, float]:
        """Sums over k x k pixels and the smallest line integral: from finer ones where there are some that fit."""
        if k not in self._sums:
            finer = max((f for f in self._sums if k % f == 0), default=0)
            if finer:
                sums, least = self._sums[finer]
                self._sums[k] = _similarity.coarser(sums, k // finer), least
            else:
                self._sums[k] = _similarity.block_sums(self.view.line_integrals, self.view.weight, k,
                                                       not self.view.relative, _THREADS)
        return self._sums[k]


def _of_seen(view: View) -> Array:
    """The picture (rows, columns), each pixel without weight with the smallest value that is seen: what it holds may be
    anything, and must not even round a sum another way."""
    unseen = view.weight <= 0
    if not unseen.any():
        return view.line_integrals
    return np.where(unseen, np.min(view.line_integrals, initial=np.inf, where=~unseen), view.line_integrals)


def binning(carm: CArm, edge_px: int) -> int:
    """How many of a C-arm's pixels, along an edge, become one for a longer edge of about so many (never enlarged)."""
    return max(1, round(max(carm.shape) / edge_px))


def measured(values: Array, valid: Array, k: int, *, dark: float = 0.0, floor: float = -np.inf,
             open_beam: float | None = None) -> tuple[Array, Array]:
    """Stored values (rows, columns), float32 or uint16, as k x k larger pixels, and their weights 0..1: means over the
    valid pixels of max(value - dark, floor); with open_beam (the unattenuated signal) their line integrals
    -ln(mean / open_beam), as a detector with such pixels would have measured them."""
    if values.dtype != np.uint16:
        values = np.asarray(values, np.float32)
    return _similarity.measured(np.ascontiguousarray(values), None if valid.all() else np.ascontiguousarray(valid), k,
                                dark, floor, None if open_beam is None else float(np.log(open_beam)), _THREADS)


def binned(picture: Array, weight: Array, k: int, *, counts: bool = False) -> tuple[Array, Array]:
    """Weighted mean over k x k blocks, and the mean weight; rows and columns cut to k.

    counts: average exp(-p) instead of p, as a detector with larger pixels would. Where only a few photons
    arrive, the mean of logarithms is biased and ruled by the emptiest pixels.
    """
    if k == 1:
        return picture, weight
    sums, least = _similarity.block_sums(picture, weight, k, counts, _THREADS)
    fixed, mass = _similarity.block_means(sums, k, counts, least)
    return fixed, mass
