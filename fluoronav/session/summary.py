# SPDX-License-Identifier: Apache-2.0
"""How did it go? The figures of a session, each with the number of frames behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluoronav.session.book import OUTCOMES
from fluoronav.session.session import Session
from registration.geometry import Array


def summary(session: Session) -> dict[str, Any]:
    """Plain JSON: frames, held (pictures answered once more, counted apart), seconds, fps, drops, not_recorded, gaps,
    outcomes (counts), and for each quantity {"n", "median", "p95", "max"}: expected_error_mm and projected_error_mm
    (95 % bounds of ACCEPTED frames), target_error_mm and target_projected_error_mm (true, where recorded), latency_ms,
    dose_ugy (with "sum"), similarity. A quantity of which nothing is known has n 0 and nulls. within_bound_3d and
    within_bound_projected: share of frames whose true error lies within the bound stated."""
    t = session.rows[~session.rows["held"]]
    accepted = t["outcome"] == OUTCOMES.index("ACCEPTED")
    n, seconds = len(t), session.duration_s
    out: dict[str, Any] = {
        "frames": n, "held": int(session.rows["held"].sum()), "seconds": seconds,
        "fps": (n - 1) / seconds if seconds > 0 else 0.0,
        "drops": int(t["dropped"].sum()), "not_recorded": sum(int(g["frames"]) for g in session.gaps),
        "gaps": sum(e["kind"] == "gap" for e in session.events),
        "outcomes": {name: int((t["outcome"] == k).sum()) for k, name in enumerate(OUTCOMES)},
        "expected_error_mm": _spread(t["target_mm"][accepted]),
        "projected_error_mm": _spread(t["projected_mm"][accepted]),
        "target_error_mm": _spread(t["true_mm"]), "target_projected_error_mm": _spread(t["true_projected_mm"]),
        "latency_ms": _spread(t["latency_ms"]), "dose_ugy": _spread(t["dose_ugy"]),
        "similarity": _spread(t["similarity"][accepted])}
    out["dose_ugy"]["sum"] = float(np.nansum(t["dose_ugy"])) if out["dose_ugy"]["n"] else None
    for true, bound in (("true_mm", "target_mm"), ("true_projected_mm", "projected_mm")):
        known = accepted & np.isfinite(t[true]) & np.isfinite(t[bound])
        share = float((t[true][known] <= t[bound][known]).mean()) if known.any() else None
        out[f"within_bound_{'3d' if bound == 'target_mm' else 'projected'}"] = {"n": int(known.sum()), "share": share}
    return out


def _spread(values: Array) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return {"n": 0, "median": None, "p95": None, "max": None}
    return {"n": int(known.size), "median": float(np.median(known)), "p95": float(np.percentile(known, 95)),
            "max": float(known.max())}
