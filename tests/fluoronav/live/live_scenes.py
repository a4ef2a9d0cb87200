# SPDX-License-Identifier: Apache-2.0
"""Live scenes with known truth: a contrast-filled vessel tree that breathes under a C-arm, without the projector."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.live.source import Gap
from registration.geometry import CArm, Rigid, carm_from_patient_at, carm_from_room

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from trees import picture, tree

CARM = CArm.centered((192, 192), 1.0, 1000, 720)
ANGLES = Angles(25.0, -10.0)


def case(seed: int = 4) -> Any:
    """A case with a vessel tree."""
    lines = tree(seed)
    return SimpleNamespace(name="CASE T", implant=None, volume_hu=None, surfaces={}, centerlines={"tree": lines},
                           target_mm=lines.points.mean(0), target_assumed=True, path_mm=None, mr=None, bodies=None)


@lru_cache(maxsize=64)
def _grey(seed: int, pose: bytes) -> np.ndarray:
    view = picture(tree(seed), CARM, np.frombuffer(pose).reshape(4, 4), noise=0.0)
    return 220 - 60 * view.line_integrals


def pose_at(k: int, angles: Angles = ANGLES, seed: int = 4, breath_mm: float = 3.0,
            table: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """True pose of frame k: off the isocenter, breathing along the head's axis."""
    center = tree(seed).points.mean(0) + np.array([4, -6, 3 + breath_mm * np.sin(k / 3)]) - np.array(table)
    return carm_from_patient_at(angles.primary_deg, angles.secondary_deg, center)


def frame_of(k: int, pose: np.ndarray | None = None, *, seed: int = 4, angles: Angles | None = ANGLES,
             carm: CArm | None = CARM, empty: bool = False, fps: float = 15.0, **more: Any) -> Frame:
    """Frame k at a pose; empty: no contrast in the vessels (background alone)."""
    rng = np.random.default_rng(k)
    if empty:
        v, u = np.mgrid[: CARM.shape[0], : CARM.shape[1]]
        grey = 220 - 60 * (1.0 + 0.4 * np.sin(u / CARM.shape[1] * 2) + 0.3 * (v / CARM.shape[0]) ** 2)
    else:
        grey = _grey(seed, (pose_at(k, seed=seed) if pose is None else pose).tobytes())
    pixels = np.clip(grey + rng.normal(0, 2.5, grey.shape), 0, 255).astype(np.uint8)
    return Frame(pixels=pixels, index=k, time_ns=round(k / fps * 1e9), carm=carm, angles=angles, exposure=Exposure(),
                 intensity=Intensity("display", "dark", 8), valid=np.ones(pixels.shape, bool), source_name="scene",
                 geometry_fault=None if carm is not None else "no distances were stated", **more)


def error_mm(found: np.ndarray, true: np.ndarray, point: np.ndarray) -> float:
    """Distance of a point of the patient in the picture's plane, mm at its depth."""
    a, b = Rigid.apply(found, point), Rigid.apply(true, point)
    pixels = CARM.project(a) - CARM.project(b)
    return float(np.linalg.norm(pixels)) * CARM.mm_per_px_at_isocenter


def turned(angles: Angles) -> np.ndarray:
    return carm_from_room(angles.primary_deg, angles.secondary_deg)


class ListSource:
    """Frames and gaps given, at a pace; numbers between them are pauses in seconds."""

    def __init__(self, items: Sequence[Any], interval_s: float = 0.0, truth: Any = None) -> None:
        self.items, self.interval_s = items, interval_s
        self.name, self.notes, self.nominal_interval_s = "list", (), interval_s or None
        self._truth = truth
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[Frame | Gap]:
        for item in self.items:
            if isinstance(item, float):
                self._stop.wait(item)
            elif callable(item):
                item()
            else:
                yield item
                self._stop.wait(self.interval_s)
            if self._stop.is_set():
                return
        yield Gap(0.0, "the list has ended", ended=True)

    def close(self) -> None:
        self._stop.set()

    def truth(self, index: int) -> dict[str, Any] | None:
        return None if self._truth is None else self._truth(index)


class Tape:
    """A recorder that keeps everything in memory."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.snapshots: list[bytes] = []
        self.events: list[tuple[str, str, int]] = []
        self.closed = False

    def write(self, step: Any, *, snapshot: Any) -> None:
        self.steps.append(step)

    def event(self, kind: str, text: str, time_ns: int) -> None:
        self.events.append((kind, text, time_ns))

    def state(self) -> tuple[float | None, str]:
        return 0.0, ""

    def close(self) -> None:
        self.closed = True

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.events]


def until(condition: Any, seconds: float = 10.0) -> bool:
    """Whether a condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
