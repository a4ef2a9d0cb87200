# SPDX-License-Identifier: Apache-2.0
"""How much of a picture is scatter? Told by the volume that explains it, and taken away.

Scatter flattens dense places more than others, which moves edges towards the thin side: nothing for a pose within
its picture, but as much as a millimeter of magnification, which is what tells SDD and principal point.
"""

from __future__ import annotations

import numpy as np

from registration.geometry import Array, Float64

_HARDENING = np.arange(0.7, 1.31, 0.05)  # tried factors on the computed line integrals: beam and CT differ
_LEAST = 0.2  # of the signal is primary, at least: what would be left of less is noise


def without_scatter(line_integrals: Array, weight: Array, computed: Array) -> Array:
    """Measured line integrals (h, w) with a smooth scatter field taken away, up to an offset.

    computed (h, w): the line integrals of the volume at (nearly) the right pose, 0 where there is none. Fitted is
    signal = gain exp(-a computed) + a quadratic field in rows and columns, least squares relative to the noise of
    counts. Returned as it came where the fit finds no gain.
    """
    least = float(line_integrals.min())
    signal = np.exp(least - line_integrals.astype(np.float64))
    v, u = (np.linspace(-1, 1, n) for n in signal.shape)
    field = np.stack([np.broadcast_to(f, signal.shape) for f in
                      (np.ones((1, 1)), u[None, :], v[:, None], u[None, :] ** 2, v[:, None] ** 2, np.outer(v, u))])
    use = (weight > 0.5) & (computed > 0)
    if use.sum() < 200:
        return line_integrals
    trust = np.sqrt(weight[use] / np.maximum(signal[use], 1e-6))
    best: tuple[float, Float64] | None = None
    for a in _HARDENING:
        columns = np.vstack([np.exp(-a * computed[use])[None], field[:, use]]) * trust
        factors, *_ = np.linalg.lstsq(columns.T, signal[use] * trust, rcond=None)
        left = float(((columns.T @ factors - signal[use] * trust) ** 2).sum())
        if factors[0] > 0 and (best is None or left < best[0]):
            best = left, factors
    if best is None:
        return line_integrals
    scatter = np.clip(np.tensordot(best[1][1:], field, 1), 0.0, (1 - _LEAST) * signal)
    return np.asarray(least - np.log(signal - scatter), np.float32)
