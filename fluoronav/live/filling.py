# SPDX-License-Identifier: Apache-2.0
"""What new picture is in this folder? Whole files in the order of their names; half-written ones are waited for."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fluoronav.imaging.frame import Frame
from fluoronav.imaging.pictures import picture_kind
from fluoronav.imaging.run import Run, open_run
from fluoronav.imaging.times import ASSUMED_INTERVAL_S
from fluoronav.live.source import Gap, Pace, Rhythm, Stated
from registration.errors import BadInput, BadPixels

POLL_S = 0.02
RESCAN_S = 0.5  # a folder's own time stamp is too coarse to be trusted alone
SETTLED_S = 0.1  # without a change before a file without an end mark is believed to be whole
PATIENCE_S = 5.0  # without a change before a file that does not decode is given up
SUFFIXES = {"", ".dcm", ".dicom", ".ima", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"}
ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}  # PNG 11.2.5 with its checksum; T.81 B.1.1.3


@dataclass(slots=True)
class _Watched:
    """A file that is not read yet: its size and time when last looked at, since when they stand, the fault."""

    path: Path
    size: int = -1
    changed_ns: int = -1
    since: float = 0.0
    tried: bool = False
    fault: str = "got an unfinished file, expected a whole picture"


class FillingFolder:
    """A source that takes the pictures of a folder as they appear, until it is closed.

    What lies there at the start is played at 15 frames/s, what comes later at once. Names are taken in
    their order as far as they are there; a file that does not become whole holds the later ones up for
    5 s, is then told as one event (without its name), and skipped. Frames carry the time when they were found.
    """

    def __init__(self, folder: Path, stated: Stated, *, patience_s: float = PATIENCE_S) -> None:
        self.folder, self.stated, self.patience_s = folder, stated, patience_s
        self.name = folder.name
        self.nominal_interval_s: float | None = None
        self.notes: tuple[str, ...] = ()
        self._stop = threading.Event()
        self._known: set[str] = set()
        self._changed_ns, self._looked = -1, 0.0
        self._waiting: list[_Watched] = []
        self._count = self._last_ns = 0
        self._mask: Any = None
        if stated.carm is not None:  # a wrong file is told now, not with every picture
            from fluoronav.imaging.carm_file import read_carm_file

            read_carm_file(stated.carm)

    def __iter__(self) -> Iterator[Frame | Gap]:
        pace, rhythm = Pace(self._stop), Rhythm()
        self._look()
        before = set(self._known)
        while not self._stop.is_set():
            self._look()
            if not self._waiting:
                if rhythm.silent():
                    yield self._idle(rhythm.silence_s)
                self._stop.wait(POLL_S)
                continue
            head = self._waiting[0]
            run = self._whole(head)
            if run is not None:
                self._waiting.pop(0)
                for frame in self._frames(run, pace if head.path.name in before else None):
                    rhythm.came()
                    yield frame
            elif time.monotonic() - head.since > self.patience_s:
                self._waiting.pop(0)
                yield Gap(rhythm.silence_s, f"a file after picture {self._count} was skipped: {head.fault}", event=True)
            else:
                self._stop.wait(POLL_S)

    def close(self) -> None:
        self._stop.set()

    def truth(self, index: int) -> dict[str, Any] | None:
        return None

    # ---- files

    def _look(self) -> None:
        """Queue the files not seen before that may be pictures, in the order of the numbers in their names."""
        try:
            changed, now = self.folder.stat().st_mtime_ns, time.monotonic()
            if changed == self._changed_ns and now - self._looked < RESCAN_S:
                return
            self._changed_ns, self._looked = changed, now
            new = {entry.name for entry in os.scandir(self.folder)} - self._known
        except OSError as error:
            raise BadPixels(f"folder {self.name}", got=error.strerror or str(error), expected="a readable folder",
                            remedy="check that it is still there") from error
        for name in sorted(new, key=natural):
            file = self.folder / name
            if _may_be_picture(file) and file.is_file():
                self._waiting.append(_Watched(file, since=now))
        self._known |= new

    def _whole(self, file: _Watched) -> Run | None:
        """The run in a file that is whole, None while it is not."""
        try:
            stat = file.path.stat()
            if (stat.st_size, stat.st_mtime_ns) != (file.size, file.changed_ns):
                file.size, file.changed_ns = stat.st_size, stat.st_mtime_ns
                file.since, file.tried = time.monotonic(), False
            marked = ends_whole(file.path)
            settled = marked or (marked is None and time.monotonic() - file.since > SETTLED_S)
            if file.tried or not settled:
                return None
            file.tried = True
            run = open_run(file.path, **self.stated.options())
            for k in {0, len(run.frames) - 1}:
                _ = run.frames[k]
        except BadInput as error:
            # no file names: what is said here is recorded, and names of files name people
            file.fault = f"got {error.got}, expected {error.expected}".replace(file.path.name, "the file")
            return None
        except OSError as error:
            file.fault = error.strerror or type(error).__name__
            return None
        return run

    def _frames(self, run: Run, pace: Pace | None) -> Iterator[Frame]:
        """The frames of a whole file, numbered and timed in the order of the folder."""
        if not self.notes:
            self.notes, self.nominal_interval_s = run.notes, run.nominal_interval_s
        own, start = Pace(self._stop), time.time_ns()
        for k in range(len(run.frames)):
            frame = run.frames[k]
            if run.kind == "pictures":  # one mask for all: a border found in single pictures would flicker
                if self._mask is None or self._mask.shape != frame.valid.shape:
                    self._mask = frame.valid
                frame = replace(frame, valid=self._mask)
            if len(run.frames) > 1:
                own.wait(frame.time_ns)
            elif pace is not None:
                pace.wait(round(self._count * ASSUMED_INTERVAL_S * 1e9))
            if self._stop.is_set():
                return
            stamp = start + frame.time_ns if len(run.frames) > 1 else time.time_ns()
            self._last_ns = max(stamp, self._last_ns + 1)
            yield replace(frame, index=self._count, time_ns=self._last_ns, source_name=self.name)
            self._count += 1

    def _idle(self, seconds: float) -> Gap:
        if not self._count:
            return Gap(seconds, "no picture is in the folder yet", state="waiting")
        return Gap(seconds, "no new picture comes into the folder", state="hold")


def ends_whole(file: Path) -> bool | None:
    """Whether a picture ends with the mark that its format puts there; None for formats without one."""
    with file.open("rb") as handle:
        mark = ENDS.get(picture_kind(handle.read(132)) or "")
        if mark is None:
            return None
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - len(mark)))
        return handle.read() == mark


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that counts the numbers in names as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _may_be_picture(file: Path) -> bool:
    """Names of pictures and of DICOM files (often a UID, which ends in a number); none that is hidden."""
    suffix = file.suffix.lower()
    return not file.name.startswith(".") and (suffix in SUFFIXES or suffix[1:].isdigit())
