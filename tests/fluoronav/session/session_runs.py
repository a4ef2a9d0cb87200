# SPDX-License-Identifier: Apache-2.0
"""Small runs of steps to record: a picture that moves under noise, the chain as it is, poses made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fluoronav.enhance.chain import Chain, ChainState
from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.live.step import Command, Decision, Step
from fluoronav.session.record import SessionRecorder
from overlays.renderer import Overlay
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.result import ErrorEstimate, Outcome, Registration

SHAPE = (48, 64)
TARGET = np.array([1.0, 2.0, 3.0])


def frames(count: int, *, shape: tuple[int, int] = SHAPE, seed: int = 0, name: str = "run.dcm",
           start_ns: int = 1_700_000_000_000_000_000, dtype: type = np.uint16) -> list[Frame]:
    """Noise around a bar that wanders; the shutter closes by a column at frame 5; 15 frames a second."""
    rng = np.random.default_rng(seed)
    top = 4095 if dtype is np.uint16 else 255
    out = []
    for k in range(count):
        picture = np.full(shape, 0.6 * top)
        picture[:, 10 + k % 20:14 + k % 20] *= 0.5
        picture = np.clip(rng.normal(picture, 0.02 * top), 0, top).astype(dtype)
        valid = np.ones(shape, bool)
        if k >= 5:
            valid[:, :3] = False
        out.append(Frame(
            picture, k, start_ns + round(k * 1e9 / 15), CArm.centered(shape, 0.3, 1100.0, 750.0),
            Angles(30.1 + 0.1 * k, -9.9), Exposure(80.0 + (k >= 8) * 10, 210.0, 8.0, 0.42),
            Intensity("linear", "dark", 12 if dtype is np.uint16 else 8, i0=3500.0, i0_source="header",
                      assumed=("dark level 0",)), valid, name, (1.0, -2.0, 0.1 * k)))
    return out


def registration(k: int) -> Registration:
    """Accepted, but for frames 3 (ambiguous) and 4 (lost)."""
    if k == 4:
        return Registration.lost("the picture shows too little: move the table back")
    pose = Rigid.exp([0, 0, 0, 0.1 * k, 0, 0]) @ carm_from_patient_at(30.1, -9.9, TARGET)
    if k == 3:
        return Registration(Outcome.AMBIGUOUS, "two poses explain it: turn the C-arm by 20 degrees", pose,
                            alternatives=(pose @ Rigid.translation(1, 0, 0),))
    return Registration(Outcome.ACCEPTED, "registered", pose, np.eye(6) * (k + 1) / 3,
                        ErrorEstimate(1.0 + 0.1 * k, 0.5 + 0.05 * k, TARGET), 0.9, "last")


def steps(pictures: list[Frame]) -> list[Step]:
    """The chain over the frames, with the poses above, a layer and its picture."""
    chain, state, out = Chain(), None, []
    for k, frame in enumerate(pictures):
        state, step = _step(chain, state, frame, k)
        out.append(step)
    return out


def _step(chain: Chain, state: ChainState | None, frame: Frame, k: int) -> tuple[ChainState | None, Step]:
    state, enhanced = chain.step(state, frame)
    layer = np.zeros((*frame.pixels.shape, 4), np.uint8)
    layer[10:20, 5 + k % 9:15] = (0, 200, 255, 255)
    picture = np.repeat(enhanced.display[:, :, None], 3, axis=2).copy()
    picture[10:20, 5 + k % 9:15] = (0, 200, 255)
    return state, Step(
        frame, enhanced, registration(k), Overlay({"vessels": layer}, frame.carm, "lines"), picture,
        {"total": 20.0 + k}, ("slow",), (Command("nudge", np.arange(6) / 7.0),) if k == 2 else (),
        (Decision("dropped", 2),) if k == 6 else (), {"target_error_mm": 0.3, "target_projected_error_mm": 0.2})


def record(path: Path, made: list[Step], *, name: str = "run.dcm", close: bool = True) -> SessionRecorder:
    """The steps as a session file; waits, so that no frame is lost to a slow disk."""
    recorder = SessionRecorder(path, case=None, pipeline_settings={"init": "angles"}, fingerprint={"build": "test"},
                               source_name=name, nominal_interval_s=1 / 15)
    for step in made:
        recorder.write(step, snapshot=lambda: b"state")
    recorder.event("source", "the pedal was released", made[-1].frame.time_ns if made else 0)
    if close:
        recorder.close()
    return recorder
