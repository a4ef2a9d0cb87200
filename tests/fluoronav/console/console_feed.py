# SPDX-License-Identifier: Apache-2.0
"""A feed that does what a test says: real enhancement and real overlays over generated frames of a vessel tree."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fluoronav.enhance.chain import Chain
from fluoronav.enhance.enhanced import Heads
from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.live.step import Command, Status, Step
from overlays import Renderer, compose, nothing, scene_of
from registration.geometry import Array, CArm, Rigid, carm_from_patient_at
from registration.result import ErrorEstimate, Outcome, Registration
from registration.shapes import Polylines

SIDE = 288
CARM = CArm.centered((SIDE, SIDE), 1.0, 1100.0, 720.0)
LINEAR = Intensity("linear", "dark", 14, i0=3000.0, i0_source="measured", dark=50.0, gain=2.0, electronic=6.0)
EXPOSURE = Exposure(kvp=90, ma=210, ms=8, dose_ugy=0.42)


def tree(seed: int = 4) -> Polylines:
    """Seven smooth branches, radius 1 to 3 mm, around the isocenter."""
    rng = np.random.default_rng(seed)
    branches: list[np.ndarray] = []
    for b in range(7):
        here = np.array([0.0, 0.0, -70.0]) if b == 0 else branches[0][rng.integers(20, 110)]
        way = np.array([0.1, 0.0, 1.0]) if b == 0 else rng.normal(size=3) + np.array([0, 0, 0.6])
        line = [here]
        for _ in range(140 if b == 0 else 60):
            way = way / np.linalg.norm(way) + rng.normal(size=3) * 0.08
            line.append(line[-1] + way / np.linalg.norm(way))
        branches.append(np.array(line))
    at = np.cumsum([0, *(len(line) for line in branches)])
    lines = tuple(np.arange(a, b) for a, b in pairwise(at))
    return Polylines(np.concatenate(branches), lines, np.repeat([3.0] + [1.4] * 6, [len(b) for b in branches]))


def pose_at(k: int) -> Array:
    """Breathing: 6 mm along the head, 1 degree in the picture; carm_from_patient."""
    breath = np.sin(2 * np.pi * k / 60)
    return Rigid.exp([0, 0, np.radians(breath), 2, 6 * breath, 0]) @ carm_from_patient_at(31.3, -0.1, np.zeros(3))


def counts(lines: Polylines, pose: Array | None, random: np.random.Generator) -> Array:
    """Detector counts of a tree filled with contrast (pose None: no contrast) over a smooth body, with noise."""
    v, u = np.mgrid[:SIDE, :SIDE]
    p = 1.2 + 0.5 * np.sin(u / 56 + 0.4) + 0.35 * np.cos(v / 48)
    if pose is not None:
        p = p + dense(lines, pose)
    mean = 3000 * np.exp(-p)
    noisy = random.poisson(mean / 2) * 2 + random.normal(0, 6, p.shape) + 50
    return np.clip(np.rint(noisy), 0, (1 << 14) - 1).astype(np.uint16)


def dense(lines: Polylines, pose: Array) -> Array:
    """Line integrals of the contrast alone, drawn as blurred strokes of the vessels' width."""
    import cv2

    image = np.zeros(CARM.shape, np.float32)
    assert lines.radius_mm is not None
    for line in lines.lines:
        px = CARM.project_patient(pose, lines.points[line])
        wide = max(1, round(2 * lines.radius_mm[line[0]] * 1100 / 720 / CARM.pitch_mm_row_col[0]))
        cv2.polylines(image, [np.round(px * 16).astype(np.int32)], False, 0.7, wide, cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(image, (0, 0), 1.2)


def frame_at(k: int, pixels: Array, interval_s: float = 1 / 15) -> Frame:
    """Frame k of a run."""
    valid = np.ones(CARM.shape, bool)
    return Frame(pixels, k, round(k * interval_s * 1e9), CARM, Angles(31.3, -0.1), EXPOSURE, LINEAR, valid, "test")


class ConsoleFeed:
    """A live feed driven by hand (`push`, `set`) or at a pace (`play`). Implements Feed."""

    def __init__(self) -> None:
        self.lines = tree()
        path = self.lines.points[self.lines.lines[0]]
        self.scene = scene_of(centerlines={"aorta": self.lines}, path_mm=path[:90], target_mm=path[89])
        self.layers: Sequence[dict[str, Any]] = self.scene.described()
        self.commands: list[Command] = []
        self.outcome: Outcome = Outcome.ACCEPTED
        self.why = ""
        self.case_name = "CASE 7F3A torso"
        self.source_state: Literal["live", "hold", "lost", "ended", "waiting"] = "live"
        self.source_note = ""
        self.badges: tuple[str, ...] = ()
        self.tolerance_mm = 3.5
        self.heads = Heads()
        self.index = -1
        self._taken = 0
        self._renderer = Renderer(self.scene, "lines")
        self._chain, self._chain_state = Chain(), None
        self._random = np.random.default_rng(1)
        self._step: Step | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def latest(self) -> Step | None:
        return self._step

    def status(self) -> Status:
        return Status("live", self.case_name, self.source_state, self.source_note, 1 / 15, 15.0, 21.0, 34.0, 0, 123.0,
                      "", self.index + 1)

    def command(self, command: Command) -> None:
        self.commands.append(command)
        if command.kind == "tolerance":
            self.tolerance_mm = float(command.value)
        if command.kind == "heads":
            self.heads = Heads(**command.value)
            self._chain = self._chain.with_heads(self.heads)

    def blend(self, step: Step) -> Array | None:
        """A drawing of the tree at the pose, as a DRR of it would look."""
        drr = np.full(CARM.shape, 230, np.uint8)
        drr[dense(self.lines, self.pose(step.frame.index)) > 0.1] = 60
        return drr

    def timeline(self) -> dict[str, Any] | None:
        return None

    def pose(self, k: int) -> Array:
        """Where the tree is at frame k."""
        return pose_at(k)

    def push(self) -> Step:
        """One more frame."""
        self.index += 1
        k, pose = self.index, self.pose(self.index)
        frame = frame_at(k, counts(self.lines, pose, self._random))
        self._chain_state, enhanced = self._chain.step(self._chain_state, frame)
        found = self._registration(pose)
        carm = enhanced.carm or CARM
        overlay = self._renderer.draw(carm, pose) if found.outcome is Outcome.ACCEPTED else nothing(carm)
        taken, self._taken = tuple(self.commands[self._taken:]), len(self.commands)
        step = Step(frame, enhanced, found, overlay, compose(enhanced.display, overlay), {"total": 21.0}, self.badges,
                    taken)
        self._step = step
        return step

    def play(self, fps: float = 15.0) -> None:
        """Frames at a pace, from a thread, until `halt`."""
        def run() -> None:
            while not self._stop.wait(1 / fps):
                self.push()

        self._stop.clear()
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """No more frames."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _registration(self, pose: Array) -> Registration:
        if self.outcome is Outcome.LOST:
            return Registration.lost(self.why or "the vessels left the picture; turn back or press re-register")
        if self.outcome is Outcome.AMBIGUOUS:
            why = self.why or "two poses fit equally well; turn the C-arm by 20 degrees or more"
            return Registration(Outcome.AMBIGUOUS, why, pose, alternatives=(pose,))
        near = 0.8 + 0.15 * np.sin(self.index / 9)
        return Registration(Outcome.ACCEPTED, "", pose, np.eye(6) * 1e-4, ErrorEstimate(2.6 * near, near,
                            self.scene.layers[-1].points_mm[0]), 0.93, "last")


class ReplayOf:
    """A recording of steps, wound by commands. Implements Feed."""

    def __init__(self, steps: Sequence[Step], layers: Sequence[dict[str, Any]]) -> None:
        self.steps, self.layers = list(steps), layers
        self.position, self.playing, self.rate = 0, False, 1.0

    def latest(self) -> Step | None:
        return self.steps[self.position]

    def status(self) -> Status:
        return Status("replay", "CASE 7F3A torso", "live", "", 1 / 15, 15.0, 21.0, 34.0, 0, None, "", len(self.steps),
                      self.position, self.playing, self.rate)

    def command(self, command: Command) -> None:
        if command.kind == "seek":
            self.position = min(int(command.value), len(self.steps) - 1)
        elif command.kind in ("play", "pause"):
            self.playing = command.kind == "play"
        elif command.kind == "rate":
            self.rate = float(command.value)

    def blend(self, step: Step) -> Array | None:
        return None

    def timeline(self) -> dict[str, Any] | None:
        errors = [s.registration.error for s in self.steps]
        lost = [k for k, s in enumerate(self.steps) if s.registration.outcome is Outcome.LOST]
        return {"time_s": [s.frame.time_ns / 1e9 for s in self.steps],
                "outcome": [s.registration.outcome.value for s in self.steps],
                "expected_mm": [e and e.target_mm for e in errors],
                "projected_mm": [e and e.projected_mm for e in errors],
                "latency_ms": [20.0 + k % 7 for k in range(len(self.steps))],
                "events": [{"index": lost[0], "kind": "loss", "text": "registration lost"}] if lost else []}


def recorded(frames: int = 40) -> ReplayOf:
    """A recording that is registered, then uncertain, then lost, then registered."""
    feed = ConsoleFeed()
    steps = []
    for k in range(frames):
        part = k / frames
        feed.outcome = (Outcome.ACCEPTED if part < 0.4 or part >= 0.75 else
                        Outcome.AMBIGUOUS if part < 0.55 else Outcome.LOST)
        steps.append(feed.push())
    return ReplayOf([replace(s) for s in steps], feed.layers)
