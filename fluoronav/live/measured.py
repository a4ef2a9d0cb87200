# SPDX-License-Identifier: Apache-2.0
"""How did a live run go? Frames, pace, latency, outcomes, and true errors where the source knows them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Any

import numpy as np

from fluoronav.live.step import Step
from registration.geometry import Float64, Rigid
from registration.result import Outcome

KEPT = 200_000  # numbers of each kind: four hours at 15 frames/s
TRUE = {"expected_error_mm": "target_error_mm", "projected_error_mm": "target_projected_error_mm"}
RECENT = 150  # frames behind the latency that is shown


def true_errors(truth: dict[str, Any] | None, step: Step, target_mm: Float64) -> dict[str, Any] | None:
    """What the source knows of a frame, and the errors (mm) of an ACCEPTED answer against it.

    target_error_mm: distance of the target from its true place (`target_in_carm_mm`, C-arm frame);
    target_projected_error_mm: what of it lies in the picture, in the plane through the target.
    """
    pose, carm = step.registration.carm_from_patient, step.frame.carm
    if truth is None or step.registration.outcome is not Outcome.ACCEPTED or pose is None or carm is None:
        return truth
    true = np.asarray(truth["target_in_carm_mm"], np.float64)
    found = Rigid.apply(pose, target_mm)
    apart = (carm.project(found) - carm.project(true)) * np.array(carm.pitch_mm_row_col[::-1])
    projected = float(np.linalg.norm(apart)) * (carm.sod_mm - true[2]) / carm.sdd_mm
    return truth | {"target_error_mm": float(np.linalg.norm(found - true)), "target_projected_error_mm": projected}


class Measured:
    """Counts and times of a run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.frames = self.dropped = self.held = self.gaps = 0
        self.outcomes: Counter[str] = Counter()
        self._latency: deque[float] = deque(maxlen=KEPT)
        self._errors: dict[str, deque[float]] = {}
        self._bounds: dict[str, deque[float]] = {}
        self._held: dict[str, deque[bool]] = {}  # whether a stated bound held, where the truth is known
        self._stages: dict[str, deque[float]] = {}
        self._done: deque[float] = deque(maxlen=64)
        self._first = self._last = 0.0

    def add(self, step: Step, latency_ms: float | None, now: float) -> None:
        """One answered frame; latency None where an old picture was answered again."""
        with self._lock:
            if latency_ms is None:
                self.held += 1
                return
            self.frames += 1
            self.outcomes[step.registration.outcome.value] += 1
            self._latency.append(latency_ms)
            self._done.append(now)
            self._first, self._last = self._first or now, now
            for name, ms in step.timings.items():
                self._stages.setdefault(name, deque(maxlen=KEPT)).append(ms)
            error = step.registration.error
            if step.registration.outcome is not Outcome.ACCEPTED or error is None:
                return
            for name, stated in (("expected_error_mm", error.target_mm), ("projected_error_mm", error.projected_mm)):
                self._bounds.setdefault(name, deque(maxlen=KEPT)).append(stated)
                known = TRUE[name]
                if step.truth is not None and known in step.truth:
                    true = float(step.truth[known])
                    self._errors.setdefault(known, deque(maxlen=KEPT)).append(true)
                    self._held.setdefault(name, deque(maxlen=KEPT)).append(true <= stated)

    def recent(self, now: float) -> tuple[float, float, float]:
        """(frames/s, latency p50, p95 in ms) of the last frames; 0 frames/s where the last is over 2 s old."""
        with self._lock:
            done, latency = list(self._done), list(self._latency)[-RECENT:]
        within = [t for t in done if now - t < 4.0]
        fps = 0.0
        if len(within) > 1 and now - within[-1] < 2.0:
            fps = (len(within) - 1) / max(within[-1] - within[0], 1e-6)
        return (fps, *_quantiles(latency))

    def summary(self) -> dict[str, Any]:
        """Plain JSON: frames, fps, latency_ms_p50, latency_ms_p95, drops, outcomes, gaps, medians of the stages,
        stated bounds and the share of frames in which they held, and true errors (null where nothing is known)."""
        with self._lock:
            p50, p95 = _quantiles(self._latency)
            seconds = self._last - self._first
            out: dict[str, Any] = {
                "frames": self.frames, "fps": (self.frames - 1) / seconds if seconds > 0 else 0.0,
                "latency_ms_p50": p50, "latency_ms_p95": p95, "drops": self.dropped, "held": self.held,
                "gaps": self.gaps, "outcomes": {o.value: self.outcomes[o.value] for o in Outcome},
                "stage_ms_p50": {name: _quantiles(ms)[0] for name, ms in self._stages.items()}}
            for name in ("expected_error_mm", "projected_error_mm"):
                out[f"stated_{name}_median"] = _quantiles(self._bounds[name])[0] if name in self._bounds else None
                out[f"{name}_held"] = float(np.mean(self._held[name])) if name in self._held else None
            for name in TRUE.values():
                found = _quantiles(self._errors[name]) if name in self._errors else (None, None)
                out[f"{name}_median"], out[f"{name}_p95"] = found
            return out


def _quantiles(values: Any) -> tuple[float, float]:
    """Median and 95th percentile; 0 where there is nothing yet."""
    data = np.fromiter(values, np.float64)
    return (float(np.median(data)), float(np.percentile(data, 95))) if data.size else (0.0, 0.0)
