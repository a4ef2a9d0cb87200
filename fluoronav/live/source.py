# SPDX-License-Identifier: Apache-2.0
"""Where do frames come from, and what is said while none comes? Source, Gap, and the pace of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from fluoronav.imaging.dicom_geometry import Given
from fluoronav.imaging.frame import Frame

State = Literal["lost", "hold", "waiting"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Yielded where nothing comes: seconds since the last frame, a sentence, whether the source has ended.
    state: `lost` (the connection broke), `hold` (it stands, no pictures come: the pedal is up), `waiting`
    (nothing came yet). event: worth a line in the recording by itself (a file that was skipped)."""

    seconds: float
    reason: str
    ended: bool = False
    state: State = "lost"
    event: bool = False


class Source(Protocol):
    """Frames in the order in which they came; index counts up, time_ns never goes back."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def nominal_interval_s(self) -> float | None:
        """Seconds between frames, None where not stated."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read, derived, assumed."""

    def __iter__(self) -> Iterator[Frame | Gap]:
        """Blocks until the next frame is due or came. Ends after a Gap with `ended`, or after close()."""

    def close(self) -> None:
        """May be called from any thread: the iteration ends soon."""

    def truth(self, index: int) -> dict[str, Any] | None:
        """What is known of a frame (demo), else None."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What the person said of the pictures, where they do not say it themselves (as in `register`)."""

    carm: Path | None = None
    sdd_mm: float | None = None
    sod_mm: float | None = None
    pixel_spacing_mm: float | None = None
    seen_from: Literal["detector", "source"] | None = None
    angles_in: Literal["patient", "room"] = "patient"

    @property
    def given(self) -> Given:
        """The numbers among them, as the doors take them."""
        return Given(self.sdd_mm, self.sod_mm, self.pixel_spacing_mm, self.angles_in)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of open_run."""
        return {"carm_file": self.carm, "sdd_mm": self.sdd_mm, "sod_mm": self.sod_mm,
                "pixel_spacing_mm": self.pixel_spacing_mm, "seen_from": self.seen_from, "angles_in": self.angles_in}


class Pace:
    """Waits until frames are due by their own time stamps; a stop ends the wait at once."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._origin: tuple[float, int] | None = None

    def wait(self, time_ns: int) -> None:
        """Return when a frame of this time is due; the first is due at once."""
        now = time.monotonic()
        if self._origin is None:
            self._origin = (now, time_ns)
        due = self._origin[0] + (time_ns - self._origin[1]) * 1e-9
        if due > now:
            self._stop.wait(due - now)


class Rhythm:
    """When did pictures come lately, and is it unusually long since the last?"""

    IDLE_S = 0.5  # silence shorter than this is none
    USUAL = 3.0  # times the usual interval

    def __init__(self) -> None:
        self._came: list[float] = []
        self._begun = time.monotonic()
        self._told = self._begun

    def came(self) -> None:
        """A picture came now."""
        self._came = [*self._came[-8:], time.monotonic()]

    @property
    def silence_s(self) -> float:
        """Seconds since the last picture, or since the beginning."""
        return time.monotonic() - (self._came[-1] if self._came else self._begun)

    def silent(self) -> bool:
        """Whether the silence is worth telling; True at most twice a second."""
        usual = (self._came[-1] - self._came[0]) / (len(self._came) - 1) if len(self._came) > 1 else 0.0
        now = time.monotonic()
        if self.silence_s <= max(self.IDLE_S, self.USUAL * usual) or now - self._told <= self.IDLE_S:
            return False
        self._told = now
        return True
