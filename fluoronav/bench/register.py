# SPDX-License-Identifier: Apache-2.0
"""How often, how well and how fast is a volume found? From starts near and far, from none, apart from tissue that
breathes, and in two views."""

from __future__ import annotations

import numpy as np

from fluoronav.bench import biplane, bodies, recipe, search
from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.gate_scenes import bent
from fluoronav.bench.real_chest import chest_volume, register_many

STARTS = 100


def figures(progress: Progress) -> dict[str, Figure]:
    """`register.*` from 10 deg / 20 mm and 20 deg / 40 mm / 100 mm depth; `search.*` from no start; `bodies.*`,
    `biplane.*`. Some forty minutes, most of them for what it is compared with and
    for the pictures."""
    chest = chest_volume(progress)
    near, projected, times, _ = register_many(chest, STARTS, (10.0, 20.0, None),
                                              lambda s, t: progress(0.25 * s, t), seed=7, every=2)
    far, _, _, _ = register_many(chest, STARTS, (20.0, 40.0, 100.0),
                                 lambda s, t: progress(0.25 + 0.25 * s, t), seed=8, every=2)
    return {
        "register.success_10_20": Figure(float((near < 1).mean()), "share", STARTS),
        "register.success_20_40": Figure(float((far < 1).mean()), "share", STARTS),
        "register.error_mm_median": Figure(float(np.median(near)), "mm", STARTS),
        "register.projected_mm_median": Figure(float(np.median(projected)), "mm", STARTS),
        "register.ms_median": Figure(float(np.median(times)), "ms", STARTS),
        "register.ms_p95": Figure(float(np.quantile(times, 0.95)), "ms", STARTS),
        **recipe.figures(chest, float(np.median(times)), lambda s, t: progress(0.5 + 0.05 * s, t)),
        **search.figures(chest, bent(chest.resampled(2.0), 12.0, 0.94, 12), lambda s, t: progress(0.55 + 0.25 * s, t)),
        **bodies.figures(chest, lambda s, t: progress(0.8 + 0.1 * s, t)),
        **biplane.figures(chest, lambda s, t: progress(0.9 + 0.1 * s, t)),
    }
