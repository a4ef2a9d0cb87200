# SPDX-License-Identifier: Apache-2.0
"""The measures once more, plainly, in float64: what the compiled ones are held to."""

import numpy as np


def correlation(measure, moving, fixed, weight, jacobian):
    """value, hessian, gradient of registration.similarity.Correlation, written as the formulas are."""
    def channels(x):
        x = np.asarray(x, np.float64)
        if not measure.gradient:
            return x[None]
        return np.stack([x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]])

    a, b, g, w = channels(moving), channels(fixed), channels(jacobian), np.asarray(weight, np.float64)
    if measure.gradient:
        w = np.minimum.reduce([w[1:-1, 1:-1], w[1:-1, 2:], w[1:-1, :-2], w[2:, 1:-1], w[:-2, 1:-1]])
    edge = measure.patch_px
    cuts = [[*range(0, max(1, n // edge) * edge, edge), n] if edge else [0, n] for n in w.shape]
    boxes = [(slice(*r), slice(*c)) for r in zip(cuts[0], cuts[0][1:], strict=False)
             for c in zip(cuts[1], cuts[1][1:], strict=False)]
    parts = []
    for rows, cols in boxes:
        m, x, y, j = w[rows, cols], a[:, rows, cols], b[:, rows, cols], g[:, :, rows, cols]
        mass = max(m.sum(), 1e-12)
        x, y = (z - (m * z).sum((1, 2), keepdims=True) / mass for z in (x, y))
        parts.append((m, x, y, j, mass, (m * x * x).sum(), (m * y * y).sum(), (m * x * y).sum()))
    lift = measure.floor if len(parts) > 1 else 0.0
    mean_a, mean_b = np.mean([p[5] for p in parts]), np.mean([p[6] for p in parts])
    total, n = sum(p[4] for p in parts), jacobian.shape[0]
    information, gradient, hessian = 0.0, np.zeros(n), np.zeros((n, n))
    for m, x, y, j, mass, aa, bb, ab in parts:
        aa, bb = aa + lift * mean_a + 1e-12, bb + lift * mean_b + 1e-12
        r = ab / np.sqrt(aa * bb)
        q = max(r, 0) / (1 - min(max(r, 0), 0.999) ** 2) * mass / total
        information -= mass / total * np.log(1 - min(max(r, 0), 0.999) ** 2)
        along, across = (np.einsum("chw,cnhw->n", m * z, j) for z in (x, y))
        gradient += q * (r / aa * along - across / np.sqrt(aa * bb))
        mean = (m * j).sum((2, 3)) / np.sqrt(mass)
        hessian += q * max(r, 0) / aa * (np.einsum("cnhw,cmhw->nm", m * j, j) - np.einsum("cn,cm->nm", mean, mean)
                                         - np.outer(along, along) / aa)
    return np.sqrt(1 - np.exp(-information)), hessian, gradient
