# SPDX-License-Identifier: Apache-2.0
"""What was recorded? A session opened again: at once where it is whole, by a scan where it was cut short."""

from __future__ import annotations

import json
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mcap.opcode import Opcode
from mcap.records import Metadata

from fluoronav.imaging.frame import Frame
from fluoronav.imaging.run import LazyFrames
from fluoronav.session import coding
from fluoronav.session.book import OUTCOMES, Book, read_book
from fluoronav.session.carry import unpack_case
from fluoronav.session.mcap_read import BROKEN, McapFile
from fluoronav.session.record import CHANNELS, FORMAT, PROFILE
from registration.errors import BadInput
from registration.geometry import Array

if TYPE_CHECKING:
    from fluoronav.case import Case

_TOPICS = dict(enumerate(CHANNELS, start=1))
_KEPT = 64  # records kept decoded
Progress = Callable[[float, str], None]


class Session:
    """A recorded session, read as it is asked for. Thread-safe; close it, or use it as a context manager.

    frames: lazy sequence of Frame, bit for bit as recorded (notes and names stay behind); events: list of
    {"index", "kind", "text", "time_ns"}; gaps: [{"frame", "frames", "snapshot", "sha256"}] of the recorder; rows: one
    row a frame (book.ROW); about: program, source, case and settings as written at the start; recovered: a sentence
    where the file was cut, else "".
    """

    def __init__(self, file: McapFile, about: dict[str, Any], rows: Array, rest: dict[str, Any],
                 places: dict[str, tuple[int, int]], recovered: str) -> None:
        self._file, self.about, self.rows, self.recovered = file, about, rows, recovered
        self.path = file.path
        self.events: list[dict[str, Any]] = rest["events"]
        self.gaps: list[dict[str, Any]] = rest["gaps"]
        self._snapshots: dict[int, str] = rest["snapshots"]
        self._places = places
        self._records: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._masks: dict[int, Array] = {}
        self._lock = threading.RLock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.frames: Sequence[Frame] = LazyFrames(len(rows), self.frame)

    @classmethod
    def open(cls, path: str | Path, progress: Progress | None = None) -> Session:
        """The session in a file. Raises BadInput where not even its head is whole, or it is of another program."""
        file = McapFile(Path(path))
        try:
            about = _about(file)
            places = file.attachments()
            if places is not None and "book.zip" in places:
                try:
                    rows, rest = read_book(file.attachment(*places["book.zip"]))
                    return cls(file, about, rows, rest, places, "")
                except (BadInput, ValueError, KeyError, OSError, zipfile.BadZipFile):
                    pass  # the index is damaged: the frames themselves are asked
            return cls(file, about, *_scanned(file, progress))
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        if self._folder is not None:
            self._folder.cleanup()

    # ---------------------------------------------------------------------------------------------

    @property
    def frame_count(self) -> int:
        return len(self.rows)

    @property
    def settings(self) -> dict[str, Any]:
        """What the pipeline was set to, as PipelineSettings.to_json gave it."""
        return dict(self.about["settings"])

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Build and machine that made the session."""
        return dict(self.about["fingerprint"])

    @property
    def case_name(self) -> str:
        """The pseudonym; empty without a case."""
        case = self.about["case"]
        return case["name"] if case else ""

    @property
    def duration_s(self) -> float:
        """From the first frame to the last, s."""
        return float(self.rows["time_ns"][-1] - self.rows["time_ns"][0]) / 1e9 if len(self.rows) else 0.0

    def record(self, k: int) -> dict[str, Any]:
        """What was answered to frame k: registration, commands, decisions, hashes, timings, truth, badges.

        Raises IndexError, and BadInput where its bytes are damaged.
        """
        if not 0 <= k < len(self.rows):
            raise IndexError(f"frame {k} of {len(self.rows)}")
        with self._lock:
            if k not in self._records:
                row = self.rows[k]
                record = _step_in(self._file, int(row["step_at"]), int(row["step_length"]))
                if record is None:
                    raise self._damaged(k, "no answer of a frame there")
                self._records[k] = record
                while len(self._records) > _KEPT:
                    self._records.popitem(last=False)
            return self._records[k]

    def frame(self, k: int) -> Frame:
        """Frame k, bit for bit as recorded. Raises BadInput where its bytes are damaged."""
        record = self.record(k)
        try:
            pixels = coding.image_pixels(self.image(k))
            return coding.frame_from_plain(record, pixels, self._mask(int(record["mask_from"]), pixels.shape),
                                           self.about["source"])
        except BROKEN as error:
            if isinstance(error, BadInput):
                raise
            raise self._damaged(k, type(error).__name__) from None

    def image(self, k: int) -> bytes:
        """The raw picture of frame k as it lies in the file (foxglove_msgs/RawImage). Raises BadInput."""
        row = self.rows[k]
        for message in self._file.messages(int(row["frame_at"]), int(row["frame_length"])):
            if _TOPICS.get(message.channel_id) == "/frame":
                return message.data
        raise self._damaged(k, "no picture there")

    def snapshot(self, k: int) -> bytes | None:
        """The pipeline's state after frame k, where it was recorded."""
        name = self._snapshots.get(k)
        return None if name is None or name not in self._places else self._file.attachment(*self._places[name])

    def timeline(self) -> dict[str, Any]:
        """Seconds, outcomes, bounds, latency and events, as the console's scrubber takes them."""
        t = self.rows
        seconds = (t["time_ns"] - t["time_ns"][0]) / 1e9 if len(t) else np.empty(0)
        return {"time_s": coding.plain(seconds), "outcome": [OUTCOMES[o] for o in t["outcome"]],
                "expected_mm": coding.plain(t["target_mm"]), "projected_mm": coding.plain(t["projected_mm"]),
                "latency_ms": coding.plain(t["latency_ms"]),
                "events": [{"index": e["index"], "kind": e["kind"], "text": e["text"]} for e in self.events]}

    def case(self, given: str | Path | None = None) -> Case | None:
        """The case: from the folder given, else from inside the session; None where there was none.

        Raises BadInput where it is not the case of this session, or is needed and not given.
        """
        from fluoronav.case import Case

        said = self.about["case"]
        if said is None:
            return None
        if given is not None:
            case = Case.open(Path(given))
            if case.checksum != said["checksum"]:
                raise BadInput("--case", got=f"{case.name} with checksum {case.checksum[:12]}",
                               expected=f"{said['name']} with {said['checksum'][:12]}",
                               remedy="give the case that the session was recorded with")
            return case
        if "case.zip" not in self._places:
            raise BadInput(f"session {self.path.name}", got="no case inside",
                           expected=f"the folder of {said['name']}", remedy="give it with --case")
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fluoronav-case-")
                unpack_case(self._file.attachment(*self._places["case.zip"]), Path(self._folder.name))
            return self.case(self._folder.name)

    # ---------------------------------------------------------------------------------------------

    def _mask(self, k: int, shape: tuple[int, int]) -> Array:
        kept = self._masks
        if k not in kept:
            kept = self._masks = {k: coding.mask_from_plain(self.record(k).get("mask"), shape)}
        return kept[k]

    def _damaged(self, k: int, got: str) -> BadInput:
        return BadInput(f"frame {k} of session {self.path.name}", got=got, expected="the frame that was recorded",
                        remedy="restore the file from a copy")


def _about(file: McapFile) -> dict[str, Any]:
    """What the session says of itself at its start. Raises BadInput."""
    for opcode, at, length in file.walk():
        if opcode == Opcode.METADATA:
            found = file.record(at, length)
            if isinstance(found, Metadata) and found.name == PROFILE:
                try:
                    about = json.loads(found.metadata["session"])
                    known = about["format"] == FORMAT
                    if not {"settings", "fingerprint", "case", "source", "nominal_interval_s"} <= set(about):
                        break
                except (ValueError, KeyError, TypeError):
                    break
                if not known:
                    raise BadInput(f"session {file.path.name}", got=f"format {about['format']}",
                                   expected=f"format {FORMAT}", remedy="use the version that recorded it")
                return about
        if opcode in (Opcode.CHUNK, Opcode.DATA_END):
            break
    raise BadInput(f"session {file.path.name}", got="no whole head of a session", expected="a file that fluoronav "
                   "recorded", remedy="give a session that was recorded for a second at least")


def _scanned(file: McapFile, progress: Progress | None) -> tuple[
        Array, dict[str, Any], dict[str, tuple[int, int]], str]:
    """Rows, the rest of the book, attachments and the sentence of a file without an index, in one pass."""
    scan = _Scan(file)
    try:
        for opcode, at, length in file.walk():
            scan.take(opcode, at, length)
            if progress is not None and opcode == Opcode.CHUNK:
                progress(at / max(1, file.size), "recovering the session")
        scan.answer()
    except BROKEN:
        pass  # damaged from here on: what is before it is whole
    book, places = scan.book, scan.places
    while book.rows and not _readable(file, book.rows[-1][:2]):  # a power cut may leave an answer without its picture
        book.rows.pop()
    n = len(book.rows)
    rest = {"events": [{**e, "index": min(e["index"], max(0, n - 1))} for e in book.events],
            "gaps": [g for g in book.gaps if g["frame"] < n],
            "snapshots": {g["frame"]: g["snapshot"] for g in book.gaps if g["snapshot"] in places}}
    lost = file.size - scan.end
    text = (f"the file has no whole end: recovered to its last whole frame, {n} frames"
            + (f"; {lost} bytes behind it could not be used" if lost else ""))
    return book.table(), rest, places, text


class _Scan:
    """Fills a book from a file's records in their order."""

    def __init__(self, file: McapFile) -> None:
        self.file, self.book = file, Book()
        self.places: dict[str, tuple[int, int]] = {}
        self.end = 0
        self._chunk: tuple[int, int] | None = None
        self._frame: tuple[int, int] | None = None

    def take(self, opcode: int, at: int, length: int) -> None:
        """One record. Raises one of BROKEN where it cannot be read."""
        if opcode == Opcode.ATTACHMENT:
            self.file.attachment(at, length)
            self.places[self.file.record(at, length).name] = (at, length)
        elif opcode == Opcode.CHUNK:
            self.answer()
            self._chunk = (at, length)
        elif opcode == Opcode.MESSAGE_INDEX and self._chunk is not None:
            # the index behind a chunk tells a picture from an answer: pictures need not be unpacked here
            channel = int.from_bytes(self.file.read(at + 9, 2), "little")
            if _TOPICS.get(channel) == "/frame":
                self._frame, self._chunk = self._chunk, None
            else:
                self.answer()
        self.end = at + length

    def answer(self) -> None:
        """Notes the chunk that was passed, if it holds an answer or events."""
        if self._chunk is None:
            return
        place, self._chunk = self._chunk, None
        for message in self.file.messages(*place):
            topic = _TOPICS.get(message.channel_id)
            if topic == "/event":
                self.book.event(json.loads(message.data))
            elif topic == "/step" and self._frame is not None:
                self.book.add(json.loads(message.data), self._frame, place)
                self._frame = None


def _readable(file: McapFile, place: tuple[int, int]) -> bool:
    try:
        return bool(file.messages(*place))
    except BadInput:
        return False


def _step_in(file: McapFile, at: int, length: int) -> dict[str, Any] | None:
    for message in file.messages(at, length):
        if _TOPICS.get(message.channel_id) == "/step":
            return json.loads(message.data)
    return None
