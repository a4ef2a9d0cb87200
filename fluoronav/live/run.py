# SPDX-License-Identifier: Apache-2.0
"""Who moves frames from the source to the eye? Threads around the pure step: reader, step, jobs; newest wins.

reader -> bounded queue (drops the oldest, counts) -> step -> latest answer and recorder. What the clock
decides goes into the step as decisions, and into the recording with it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Protocol

from fluoronav.enhance.enhanced import Heads
from fluoronav.imaging.frame import Frame
from fluoronav.live.beside import Beside
from fluoronav.live.commands import checked_command
from fluoronav.live.deadlines import Deadlines
from fluoronav.live.drawing import grey_picture
from fluoronav.live.measured import Measured, true_errors
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.scene import blended
from fluoronav.live.source import Gap, Source
from fluoronav.live.step import Command, Decision, Status, Step
from fluoronav.live.untouched import untouched
from overlays.renderer import Overlay
from registration.errors import BadInput
from registration.geometry import Array, CArm
from registration.result import Outcome, Registration

QUEUE = 2  # frames that may wait: a hiccup of two intervals is caught up, a slow machine shows what is new
STILL_S = 0.5  # without a new frame for this long, commands are answered on the last one


class Recorder(Protocol):
    """Keeps a session. None of its methods blocks; when the disk cannot follow, it counts and says so."""

    def write(self, step: Step, *, snapshot: Callable[[], bytes]) -> None: ...

    def event(self, kind: str, text: str, time_ns: int) -> None: ...

    def state(self) -> tuple[float | None, str]:
        """Seconds recorded (None: not recording), and a note where something is wrong."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A frame in the queue: when it arrived (monotonic s) and the gap before it, s."""

    frame: Frame
    arrived: float
    gap_s: float | None


class LiveRun:
    """A live run of a pipeline on a source; the console's Feed. start(), then join() or stop()."""

    def __init__(self, pipeline: Pipeline, source: Source, *, recorder: Recorder | None = None,
                 carm: CArm | None = None) -> None:
        self.pipeline, self.source, self.recorder = pipeline, source, recorder
        self.layers: Sequence[dict[str, Any]] = pipeline.layers
        self.measured = Measured()
        self._changed = threading.Condition()
        self._warm = threading.Event()
        self._carm = carm
        self._queue: deque[_Waiting] = deque()
        self._commands: list[Command] = []
        self._latest: Step | None = None
        self._gap: tuple[Gap, float] | None = None  # what the source says, and since when (monotonic s)
        self._lost_frames = 0  # dropped since the last step
        self._came: deque[float] = deque(maxlen=16)
        self._reading, self._answering, self._stopped, self._ended = True, False, False, ""
        self._beside = Beside(pipeline.run_job, self._notify)
        self._deadlines = Deadlines(source.nominal_interval_s)
        self._blend: dict[str, Any] = {}
        self._blend_lock = threading.Lock()
        self._threads = [threading.Thread(target=self._read, name="fluoronav-reader", daemon=True),
                         threading.Thread(target=self._work, name="fluoronav-step", daemon=True)]

    # ---- life

    def start(self) -> None:
        """Begin to read and to answer."""
        self._beside.start()
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the source has ended and its last frame is answered, with the job that it waits for.
        True if so, False where the time ran out."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._stopped and (self._reading or self._queue or self._answering or self._beside.busy):
                left = 0.1 if until is None else min(0.1, until - time.monotonic())
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def stop(self) -> None:
        """End reading and answering, and close the recording. May be called twice."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.source.close()
        self._beside.stop()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(10.0)
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None

    def summary(self) -> dict[str, Any]:
        """How it went, plain JSON (see Measured.summary), and what ended it."""
        return self.measured.summary() | {"source": self.source.name, "ended": self._ended}

    # ---- what the console asks

    def latest(self) -> Step | None:
        """The newest step."""
        return self._latest

    def status(self) -> Status:
        """How things stand now."""
        fps, p50, p95 = self.measured.recent(time.monotonic())
        recording, note = (None, "") if self.recorder is None else self.recorder.state()
        state, said = self._source_state()
        case = self.pipeline.case
        return Status(mode="live", case_name="" if case is None else case.name, source_state=state, source_note=said,
                      frame_interval_s=self.source.nominal_interval_s or self._interval(), fps=fps,
                      latency_ms_p50=p50, latency_ms_p95=p95, dropped=self.measured.dropped, recording_s=recording,
                      recording_note=note, frames=self.measured.frames)

    def command(self, command: Command) -> None:
        """Take a command for the next frame. Raises BadInput where it makes no sense."""
        checked = checked_command(command)
        with self._changed:
            self._commands.append(checked)
            self._changed.notify_all()

    def blend(self, step: Step) -> Array | None:
        """The case's computed picture at the pose of an ACCEPTED step, else None. Takes its time; any thread."""
        carm, pose = step.enhanced.carm, step.registration.carm_from_patient
        case = self.pipeline.case
        if case is None or carm is None or pose is None or step.registration.outcome is not Outcome.ACCEPTED:
            return None
        settings = self.pipeline.settings
        with self._blend_lock:
            try:
                return blended(case, settings.by, carm, pose, threads=settings.threads, kept=self._blend)
            except BadInput:
                return None  # centerlines alone absorb nothing

    def timeline(self) -> dict[str, Any] | None:
        return None

    @property
    def tolerance_mm(self) -> float:
        """The gate's bound on the projected error now, mm."""
        return self.pipeline.tolerance_mm

    @property
    def heads(self) -> Heads:
        """What the enhancement does now."""
        return self.pipeline.heads

    def _source_state(self) -> tuple[Literal["live", "hold", "lost", "ended", "waiting"], str]:
        with self._changed:
            gap = self._gap
            if self._ended:
                return "ended", self._ended
            if gap is not None:
                return gap[0].state, gap[0].reason
            if self._latest is None:
                return "waiting", "the first picture has not come yet"
        return "live", ""

    def _interval(self) -> float | None:
        """Median time between the frames that came lately, s."""
        with self._changed:
            came = list(self._came)
        steps = sorted(b - a for a, b in pairwise(came))
        return steps[len(steps) // 2] if len(steps) > 3 else None

    # ---- reading

    def _read(self) -> None:
        self._warm.wait()  # what comes first should find a step that is ready
        try:
            for item in self.source:
                if self._stopped:
                    break
                if isinstance(item, Gap):
                    self._no_frame(item)
                else:
                    self._arrived(item)
        except BadInput as error:
            self._no_frame(Gap(0.0, f"the source cannot be read: {error}", ended=True))
        except Exception as error:  # noqa: BLE001  whatever a source does, the console goes on and says it
            self._no_frame(Gap(0.0, f"the source failed ({type(error).__name__}: {error})", ended=True))
        finally:
            with self._changed:
                self._reading = False
                self._ended = self._ended or "the source was closed"
                self._changed.notify_all()

    def _arrived(self, frame: Frame) -> None:
        now = time.monotonic()
        with self._changed:
            gap, self._gap = self._gap, None
            self._came.append(now)
            if len(self._queue) >= QUEUE:
                oldest = self._queue.popleft()
                self._lost_frames += 1
                self.measured.dropped += 1
                if oldest.gap_s is not None and self._queue:
                    self._queue[0] = replace(self._queue[0], gap_s=oldest.gap_s)
            seconds = None if gap is None or gap[0].state == "waiting" else now - gap[1]
            self._queue.append(_Waiting(frame, now, seconds))
            self._changed.notify_all()
        if seconds is not None:
            self._event("back", f"pictures came back after {seconds:.1f} s")

    def _no_frame(self, gap: Gap) -> None:
        """Keep what the source says while nothing comes; each new reason is an event."""
        if gap.event:
            self._event("skipped", gap.reason)
            return
        with self._changed:
            before = self._gap
            begun = before is None or before[0].reason != gap.reason
            if before is None and gap.state != "waiting" and not gap.ended:
                self.measured.gaps += 1
            self._gap = (gap, time.monotonic() - gap.seconds if before is None else before[1])
            if gap.ended:
                self._ended = gap.reason
            self._changed.notify_all()
        if begun and gap.state != "waiting":
            self._event("ended" if gap.ended else gap.state, gap.reason)

    def _event(self, kind: str, text: str) -> None:
        recorder, latest = self.recorder, self._latest
        if recorder is None:
            return
        time_ns = 0
        if latest is not None:
            with self._changed:
                came = self._came[-1] if self._came else time.monotonic()
            time_ns = latest.frame.time_ns + max(0, round((time.monotonic() - came) * 1e9))
        recorder.event(kind, text, time_ns)

    # ---- answering

    def _work(self) -> None:
        try:
            self.pipeline.warm(self._carm)
        except Exception as error:  # noqa: BLE001  the step will meet it again, and say it in a badge
            self._event("alarm", f"drawing failed at its first try ({type(error).__name__}: {error})")
        self._warm.set()
        while True:
            with self._changed:
                while not (self._stopped or self._queue or self._held()):
                    self._changed.wait(0.1)
                if self._stopped:
                    return
                waiting = self._queue.popleft() if self._queue else None
                commands, self._commands = tuple(self._commands), []
                lost, self._lost_frames = self._lost_frames, 0
                self._answering = True
            if waiting is not None:
                self._answer(waiting, commands, lost)
            elif self._latest is not None:
                self._answer_again(self._latest, commands)
            with self._changed:
                self._answering = False
                self._changed.notify_all()

    def _held(self) -> bool:
        """Whether the last picture is to be answered again: something is asked and no new one comes."""
        if self._latest is None or not (self._commands or self._beside.ready):
            return False
        return not self._reading or not self._came or time.monotonic() - self._came[-1] > STILL_S

    def _answer(self, waiting: _Waiting, commands: tuple[Command, ...], lost: int) -> None:
        decisions = [Decision("dropped", lost)] if lost else []
        if waiting.gap_s is not None:
            decisions.append(Decision("gap", round(waiting.gap_s, 3)))
        decisions += [*self._jobs_done(), *self._deadlines.decisions()]
        step = self._stepped(waiting.frame, commands, tuple(decisions), waiting.arrived)
        rung = self._deadlines.rung
        self._deadlines.done(step, self._interval())
        now = time.monotonic()
        self.measured.add(step, (now - waiting.arrived) * 1000, now)
        if self._deadlines.rung != rung:
            saved = ", ".join(self._deadlines.rungs[: self._deadlines.rung])
            self._event("deadline", f"short of time: saving on {saved}" if saved else "in time again: all stages run")

    def _answer_again(self, last: Step, commands: tuple[Command, ...]) -> None:
        """The last picture once more, for a command or a job's result."""
        step = self._stepped(last.frame, commands, (Decision("held", last.frame.index), *self._jobs_done()))
        self.measured.add(step, None, time.monotonic())

    def _jobs_done(self) -> list[Decision]:
        return [Decision("job", {"job": result["name"], "result": result}) for result in self._beside.fetch()]

    def _stepped(self, frame: Frame, commands: tuple[Command, ...], decisions: tuple[Decision, ...],
                 arrived: float | None = None) -> Step:
        try:
            step = self.pipeline.step(frame, commands, decisions)
        except Exception as error:  # noqa: BLE001  the raw picture always comes through
            step = _raw_step(frame, commands, decisions, f"{type(error).__name__}: {error}")
        else:
            job = self.pipeline.wanted_job()
            if job is not None:
                self._beside.submit(job)
        held = any(d.kind == "held" for d in decisions)
        truth = None if held else self.source.truth(frame.index)
        timings = step.timings if arrived is None else step.timings | {"latency": (time.monotonic() - arrived) * 1000}
        step = replace(step, truth=true_errors(truth, step, self.pipeline.finder.target_mm), timings=timings)
        self._latest = step
        if self.recorder is not None:
            self.recorder.write(step, snapshot=self.pipeline.snapshotter())
        return step

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _raw_step(frame: Frame, commands: tuple[Command, ...], decisions: tuple[Decision, ...], said: str) -> Step:
    """What is shown where the whole step failed."""
    enhanced = untouched(frame)
    return Step(frame, enhanced, Registration.lost(f"the step failed ({said})"), Overlay({}, frame.carm, "none"),
                grey_picture(enhanced.display), {}, (f"alarm: the step failed ({said})", *enhanced.badges),
                commands, decisions)
