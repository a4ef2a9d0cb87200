# SPDX-License-Identifier: Apache-2.0
"""The words between pipeline, console and session: Step, Command, Decision, Status, Feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fluoronav.enhance.enhanced import Enhanced
from fluoronav.imaging.frame import Frame
from overlays.renderer import Overlay
from registration.geometry import Array
from registration.result import Registration


@dataclass(frozen=True, slots=True)
class Command:
    """What the person did since the last frame. kind: `reregister`, `nudge` (value: xi (6,) in the
    C-arm frame), `undo`, `tolerance` (mm), `window` (value: {"level", "width"} in display grey, None: the
    automatic one; applied to display, raw display and picture by the step), `heads` (value: {"denoise", "contrast",
    "superres", "stabilise"}, what is left out is off, but denoise), `layer` (value: {"name",
    "visible", "opacity"}; viewer switch, recorded, does not change steps). `reregister` takes `angles`,
    `last` or `search` as its value, None: around the last pose, else as the settings say."""

    kind: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the clock decided. kind: `dropped` (value: number of frames lost before this one),
    `skip` (value: name of the stage), `job` (value: {"job": name, "result": ...} applied at this
    frame), `overlay_reused` (value: {"frame": m}; the step answers with {"frame": m, "shift_px":
    [du, dv]}), `gap` (value: seconds without a source), `held` (value: index of the last new frame;
    the same picture is answered again, for a command or a job that came while nothing moved).
    All values are plain JSON."""

    kind: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Step:
    """The answer to one frame. `picture` (rows, columns, 3) uint8 is the enhanced display with the
    overlay of every layer over it, before viewer switches. timings: stage -> ms (not part of the
    replay promise). truth: what the source knows of this frame (demo) and the errors that follow from
    it; set by the live run, never by the pipeline. A run without a case has the badge `no case`."""

    frame: Frame
    enhanced: Enhanced
    registration: Registration
    overlay: Overlay
    picture: Array
    timings: dict[str, float] = field(default_factory=dict)
    badges: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    decisions: tuple[Decision, ...] = ()
    truth: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What the console shows beside the picture; made fresh at each question."""

    mode: Literal["live", "replay"]
    case_name: str  # pseudonym, never a person; empty: no case is open
    source_state: Literal["live", "hold", "lost", "ended", "waiting"]
    source_note: str  # a sentence where the state is not `live`
    frame_interval_s: float | None  # nominal, for the NOT LIVE rule
    fps: float
    latency_ms_p50: float
    latency_ms_p95: float
    dropped: int
    recording_s: float | None  # None: not recording
    recording_note: str
    frames: int
    position: int | None = None  # replay: index of the frame shown
    playing: bool | None = None  # replay
    rate: float | None = None  # replay


class Feed(Protocol):
    """What the console shows: a live run or a session being replayed. Thread-safe."""

    @property
    def layers(self) -> Sequence[dict[str, Any]]:
        """What can be switched: {"name", "label", "color" (#rrggbb), "opacity", "visible"}."""


    def latest(self) -> Step | None:
        """The newest step (newest wins; the console never queues)."""

    def status(self) -> Status: ...

    def command(self, command: Command) -> None:
        """A command of the person; live: applied at the next frame. Replay ignores what would
        change the recording and takes `seek` (frame), `play`, `pause`, `rate`."""

    def blend(self, step: Step) -> Array | None:
        """DRR of the case at the pose of this step, (rows, columns) uint8 like `display`, or None."""

    def timeline(self) -> dict[str, Any] | None:
        """Replay: {"time_s": [...], "outcome": [...], "expected_mm": [...], "projected_mm": [...],
        "latency_ms": [...], "events": [{"index", "kind", "text"}]}; live: None."""
