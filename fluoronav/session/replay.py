# SPDX-License-Identifier: Apache-2.0
"""How is a session played back? As a feed of the console that keeps recorded time and can be wound.

Frame k is due at start + (t_k - t_start) / rate of a clock that is read anew for every frame, so that nothing
adds up over an hour. Frames that come due faster than they can be shown are passed over; newest wins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fluoronav.live.scene import blended
from fluoronav.live.step import Command, Status, Step
from fluoronav.session.session import Session
from fluoronav.session.shown import WARM_UP, Shown
from registration.errors import BadInput
from registration.geometry import Array
from registration.result import Outcome

if TYPE_CHECKING:
    from fluoronav.case import Case

SLOWEST, FASTEST = 0.25, 8.0
RECENT = 150  # frames behind the latency that is shown
IGNORED = ("layer", "window")  # switches of the viewer: the page keeps them


class ReplayFeed:
    """A session as a Feed; begins at its first frame, paused. close() it when done. Raises BadInput where the
    session has no frame."""

    def __init__(self, session: Session, case: Case | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        if session.frame_count == 0:
            raise BadInput(f"session {session.path.name}", got="no frame", expected="one at least",
                           remedy="record for longer")
        self.session, self._case, self._clock = session, case, clock
        self._shown = Shown(session, case)
        self.layers: Sequence[dict[str, Any]] = self._shown.layers
        steps = np.maximum(0, np.diff(session.rows["time_ns"], prepend=session.rows["time_ns"][:1]))
        self._time_s = np.cumsum(steps) / 1e9  # a source that came back may have set its clock back
        self._dropped = np.cumsum(session.rows["dropped"])
        self._changed = threading.Condition()
        self._wanted, self._position, self._playing, self._rate = 0, -1, False, 1.0
        self._from: tuple[float, float] = (0.0, 0.0)  # (clock, recorded time) when playing began
        self._latest: Step | None = None
        self._fault = ""
        self._closed = False
        self._blend: dict[str, Any] = {}
        self._blend_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="session replay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; the session stays open."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(10.0)

    # ---- what the console asks

    def latest(self) -> Step | None:
        """The step on the screen; the first takes a moment."""
        with self._changed:
            return self._latest

    def status(self) -> Status:
        """How things stand now; fps and latency are those of the recording around this place."""
        with self._changed:
            k, playing, rate, fault = max(0, self._position), self._playing, self._rate, self._fault
        n = self.session.frame_count
        latency = self.session.rows["latency_ms"][max(0, k + 1 - RECENT):k + 1]
        latency = latency[np.isfinite(latency)]
        p50, p95 = (float(np.percentile(latency, q)) if latency.size else 0.0 for q in (50, 95))
        low = max(0, k - 16)
        span = float(self._time_s[k] - self._time_s[low])
        ended = k == n - 1 and not playing
        return Status(mode="replay", case_name=self.session.case_name,
                      source_state="live" if playing else "ended" if ended else "hold",
                      source_note=fault or self.session.recovered,
                      frame_interval_s=self.session.about["nominal_interval_s"],
                      fps=(k - low) / span if span > 0 else 0.0, latency_ms_p50=p50, latency_ms_p95=p95,
                      dropped=int(self._dropped[k]), recording_s=None, recording_note="", frames=n, position=k,
                      playing=playing, rate=rate)

    def command(self, command: Command) -> None:
        """seek (frame), step (number of frames, 1 or -1), play, pause, rate (0.25 to 8). Switches of the viewer are
        taken and change nothing; what would change the recording is refused. Raises BadInput."""
        kind, value, n = command.kind, command.value, self.session.frame_count
        if kind in IGNORED:
            return
        with self._changed:
            self._wanted = self._due()
            if kind in ("seek", "step"):
                if isinstance(value, bool) or not isinstance(value, int):
                    raise BadInput(f"command {kind}", got=repr(value), expected="a whole number",
                                   remedy="give the number of a frame")
                at = value if kind == "seek" else self._wanted + value
                self._wanted = min(max(0, at), n - 1)
                self._playing = self._playing and kind == "seek"
            elif kind == "play":
                self._playing = True
                if self._wanted >= n - 1:
                    self._wanted = 0
            elif kind == "pause":
                self._playing, self._wanted = False, max(0, self._position) if self._playing else self._wanted
            elif kind == "rate":
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not SLOWEST <= value <= FASTEST:
                    raise BadInput("command rate", got=repr(value), expected=f"{SLOWEST} to {FASTEST}",
                                   remedy="choose a rate in between")
                self._rate = float(value)
            else:
                raise BadInput("command", got=kind, expected="seek, step, play, pause or rate",
                               remedy="a recording is looked at, not changed")
            self._from = (self._clock(), float(self._time_s[self._wanted]))
            self._changed.notify_all()

    def blend(self, step: Step) -> Array | None:
        """The case's computed picture at the pose of an ACCEPTED step, else None."""
        carm, pose = step.enhanced.carm, step.registration.carm_from_patient
        if self._case is None or carm is None or pose is None or step.registration.outcome is not Outcome.ACCEPTED:
            return None
        settings = self._shown.settings
        with self._blend_lock:
            try:
                return blended(self._case, settings.by, carm, pose, threads=settings.threads, kept=self._blend)
            except BadInput:
                return None  # centerlines alone absorb nothing

    def timeline(self) -> dict[str, Any]:
        """Seconds, outcomes, bounds, latency and events over the whole session."""
        return self.session.timeline() | {"time_s": self._time_s.tolist()}

    # ---- playing

    def _due(self) -> int:
        """The frame that is due now; the one wanted where nothing plays."""
        if not self._playing:
            return self._wanted
        clock, recorded = self._from
        now = recorded + (self._clock() - clock) * self._rate
        # a nanosecond of slack: a clock that is asked at the very moment must not be late by rounding
        return max(self._wanted, int(np.searchsorted(self._time_s, now + 1e-9, side="right")) - 1)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and self._due() == self._position:
                    self._changed.wait(self._until_next())
                if self._closed:
                    return
                due, at = self._due(), self._position
            # a few frames behind: through all of them, for the filter's sake; farther behind: over them
            k = due if not at < due <= at + WARM_UP // 2 else at + 1
            step, fault = None, ""
            try:
                if k == due:
                    step = self._shown.step(k)
                else:
                    self._shown.passed(k)
            except Exception as error:  # noqa: BLE001  one frame that cannot be shown does not end the replay
                fault = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
            with self._changed:
                self._position, self._fault = k, fault
                if step is not None:
                    self._latest = step
                if self._playing and k == self.session.frame_count - 1:
                    self._playing, self._wanted = False, k

    def _until_next(self) -> float | None:
        """Seconds until the next frame is due, None where nothing plays."""
        k = self._position + 1
        if not self._playing or k >= self.session.frame_count:
            return None
        clock, recorded = self._from
        return max(0.0, (float(self._time_s[k]) - recorded) / self._rate - (self._clock() - clock))
