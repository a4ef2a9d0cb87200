# SPDX-License-Identifier: Apache-2.0
"""How well does registration do on the real images? Vessel phantom, knee implant, two views of a knee and of a
wrist, chest CT."""

from __future__ import annotations

import importlib.util

from fluoronav.bench.figure import Figure, Progress

PARTS = ("real_phantom", "real_knee", "real_biplane", "real_chest")


def figures(progress: Progress) -> dict[str, Figure]:
    """The figures of every part that this version has."""
    out: dict[str, Figure] = {}
    parts = [p for p in PARTS if importlib.util.find_spec(f"fluoronav.bench.{p}")]
    for k, part in enumerate(parts):
        module = importlib.import_module(f"fluoronav.bench.{part}")
        out.update(module.figures(lambda share, text, k=k: progress((k + share) / len(parts), text)))
    return out
