# SPDX-License-Identifier: Apache-2.0
"""How is a case recorded? Every raw frame and every answer into one MCAP file, beside the live step.

The step hands over and goes on; a thread of its own writes. Where the disk cannot follow, frames are counted,
and when it can again a gap and a snapshot of the pipeline's state are written, from which verification goes on.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoronav.live.step import Step
from fluoronav.session import coding
from fluoronav.session.book import Book, events_of
from fluoronav.session.carry import pack_case
from fluoronav.session.mcap_write import McapWriter
from fluoronav.session.privacy import Scrubber
from registration.geometry import Array

if TYPE_CHECKING:
    from fluoronav.case import Case

FORMAT = 1
PROGRAM = version("fluoronav")
PROFILE = "fluoronav"
MOST_STEPS = 48  # waiting for the disk: about 3 s at 15 frames a second
MOST_BYTES = 256 << 20
SYNC_S = 1.0  # what a power cut may take beyond what a killed process loses


def _schema(name: str, **types: str) -> tuple[str, str, bytes]:
    """A JSON schema by which Foxglove offers the numbers of a channel for plots."""
    fields = {key: {"type": kind} for key, kind in types.items()}
    return name, "jsonschema", json.dumps({"title": name, "type": "object", "properties": fields}).encode()


CHANNELS: dict[str, tuple[str, tuple[str, str, bytes]]] = {
    "/frame": ("ros1", coding.RAW_IMAGE),
    "/step": ("json", _schema(
        "fluoronav.Step", frame_number="integer", index="integer", time_ns="integer", frame="object",
        registration="object", overlay_method="string", badges="array", commands="array", decisions="array",
        hashes="object", timings="object", truth="object", chain="string")),
    "/exposure": ("json", _schema("fluoronav.Exposure", index="integer", kvp="number", ma="number", ms="number",
                                  dose_ugy="number")),
    "/truth": ("json", _schema("fluoronav.Truth", index="integer", target_error_mm="number",
                               target_projected_error_mm="number", breathing_mm="number")),
    "/event": ("json", _schema("fluoronav.Event", index="integer", kind="string", text="string", time_ns="integer")),
}


@dataclass(slots=True)
class _Item:
    """What waits for the disk: a step, or an event (kind, text, time_ns)."""

    size: int
    step: Step | None = None
    lost: int = 0
    snapshot: Callable[[], bytes] | None = None
    event: tuple[str, str, int] | None = None


class SessionRecorder:
    """Records a session; a context manager. Thread-safe.

    case None where nothing is registered. pipeline_settings and fingerprint: plain JSON. source_name may be a file
    name or an address: only its kind is kept. nominal_interval_s: seconds between frames, None where not stated.
    Raises BadInput where the file exists or cannot be made; once recording, a failing disk ends the recording,
    not the case, and `state()` says so.
    """

    def __init__(self, path: str | Path, *, case: Case | None, pipeline_settings: Mapping[str, Any],
                 fingerprint: Mapping[str, Any], source_name: str, nominal_interval_s: float | None = None) -> None:
        self.path = Path(path)
        self._scrub = Scrubber(source_name)
        self._out = McapWriter(self.path, PROFILE, f"fluoronav {PROGRAM}")
        about = {
            "format": FORMAT, "program": PROGRAM, "session": uuid.uuid4().hex,
            "source": self._scrub.label, "nominal_interval_s": nominal_interval_s,
            "case": None if case is None else {"name": case.name, "checksum": case.checksum},
            "settings": self._scrub.value(coding.plain(pipeline_settings)), "fingerprint": coding.plain(fingerprint)}
        self._out.metadata(PROFILE, {"session": json.dumps(about)})
        self._channels = {topic: self._out.channel(topic, *how) for topic, how in CHANNELS.items()}
        self._book = Book()
        self._before: dict[str, Any] | None = None
        self._exposure: dict[str, float | None] = {}
        self._chain = ""
        self._mask: tuple[int, Array] | None = None
        self._window: Any = None  # as last commanded, so that a frame can be shown without those before it
        self._lock = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._waiting_bytes = 0
        self._lost = self._lost_in_all = 0
        self._closing = False
        self._failed = ""
        self._case_folder = None if case is None else case.folder
        self._thread = threading.Thread(target=self._run, name="session recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> SessionRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------
    # Called by the live run; none of these waits for the disk

    def write(self, step: Step, *, snapshot: Callable[[], bytes]) -> None:
        """A step. `snapshot` gives the pipeline's state after this step whenever it is called, from any thread;
        it is asked for after a gap only."""
        step = _lean(step)
        size = (step.frame.pixels.nbytes + step.enhanced.display.nbytes + step.picture.nbytes
                + sum(layer.nbytes for layer in step.overlay.layers.values()))
        with self._lock:
            if self._failed or self._closing:
                return
            # after a gap the disk must have caught up first: else every other frame would be a gap
            share = 0.5 if self._lost else 1.0
            full = len(self._queue) >= share * MOST_STEPS or self._waiting_bytes + size > share * MOST_BYTES
            if full and self._queue:
                self._lost += 1
                self._lost_in_all += 1
                return
            lost, self._lost = self._lost, 0
        item = _Item(size, step, lost, snapshot if lost else None)
        with self._lock:
            self._put(item)

    def event(self, kind: str, text: str, time_ns: int) -> None:
        """Something that happened (source lost, back, ended; a note), at a time."""
        with self._lock:
            if not (self._failed or self._closing):
                self._put(_Item(0, event=(kind, text, time_ns)))

    def state(self) -> tuple[float | None, str]:
        """(seconds recorded, None where not recording; a sentence where something is wrong, else "")."""
        with self._lock:
            rows = self._book.rows
            seconds = (rows[-1][4] - rows[0][4]) / 1e9 if rows else 0.0
            if self._failed:
                return None, self._failed
            if self._closing:
                return None, f"{self._lost_in_all} frames not recorded" if self._lost_in_all else ""
            if self._lost:
                return seconds, f"the disk cannot follow: {self._lost_in_all} frames not recorded"
            if self._lost_in_all:
                return seconds, f"{self._lost_in_all} frames not recorded: the disk could not follow"
            return seconds, ""

    def close(self) -> None:
        """Writes what waits, then the index; harmless when called again."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join()

    # ---------------------------------------------------------------------------------------------
    # The recorder's own thread

    def _put(self, item: _Item) -> None:
        self._queue.append(item)
        self._waiting_bytes += item.size
        self._lock.notify()

    def _run(self) -> None:
        synced = time.monotonic()
        try:
            self._embed_case()
            while (item := self._next()) is not None:
                if item.event is not None:
                    kind, text, time_ns = item.event
                    self._write_events([(kind, text)], time_ns)
                elif item.step is not None:
                    self._write_step(item, item.step)
                if time.monotonic() - synced > SYNC_S:
                    self._out.sync()
                    synced = time.monotonic()
            self._end()
        except Exception as error:  # noqa: BLE001  the case goes on without its recording, and the console says so
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            with self._lock:
                self._failed = f"recording stopped: {reason}; what was recorded can be replayed"
                self._queue.clear()
            self._out.abandon()

    def _next(self) -> _Item | None:
        with self._lock:
            self._lock.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            item = self._queue.popleft()
            self._waiting_bytes -= item.size
            return item

    def _embed_case(self) -> None:
        packed = None if self._case_folder is None else pack_case(self._case_folder)
        if packed is not None:
            self._out.attachment("case.zip", "application/zip", packed)

    def _end(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:  # the last frames of the session did not reach the disk
            time_ns = int(self._book.rows[-1][4]) if self._book.rows else 0
            self._write_events([("recorder gap", f"{lost} frames not recorded at the end")], time_ns)
        self._out.attachment("book.zip", "application/zip", self._book.to_bytes())
        self._out.finish()

    def _write_step(self, item: _Item, step: Step) -> None:
        """The raw frame as one chunk, then its answer as the next: the answer's end is the frame's receipt."""
        frame = step.frame
        self._scrub.learn(frame.source_name)
        time_ns, k = max(0, frame.time_ns), len(self._book.rows)
        image = coding.image_bytes(frame)
        frame_place = self._out.chunk([(self._channels["/frame"], time_ns, image)], pixels=True)
        state = None if item.snapshot is None else item.snapshot()
        record = self._record(item.lost, state, step, coding.sha256_bytes(image))
        events = events_of(record, self._before, self._exposure)
        if item.lost:
            events.insert(0, ("recorder gap", f"{item.lost} frames not recorded: the disk could not follow"))
        messages = [(self._channels[topic], time_ns, coding.to_json(value)) for topic, value in (
            *(("/event", self._event(kind, text, time_ns, k)) for kind, text in events),
            ("/exposure", {"index": k, **record["frame"]["exposure"]}),
            *((("/truth", {"index": k, **record["truth"]}),) if record["truth"] is not None else ()),
            ("/step", record))]
        if state is not None:
            name = f"snapshot/{k}.zip"
            self._out.attachment(name, "application/zip", state, time_ns)
            self._book.snapshots[k] = name
        step_place = self._out.chunk(messages)
        with self._lock:
            self._book.add(record, frame_place, step_place)
            for kind, text in events:
                self._book.event(self._event(kind, text, time_ns, k))
        self._before = record

    def _record(self, lost: int, state: bytes | None, step: Step, raw: str) -> dict[str, Any]:
        """All of a step but its pixels, as the session keeps it."""
        frame, scrub, k = step.frame, self._scrub, len(self._book.rows)
        display, truth = step.enhanced.display, step.truth
        if self._mask is None or not (self._mask[1] is frame.valid or _same(self._mask[1], frame.valid)):
            self._mask = (k, frame.valid)
        for command in step.commands:
            if command.kind == "window":
                self._window = coding.plain(command.value)
        record = {
            "frame_number": k, "index": frame.index, "time_ns": frame.time_ns,
            "frame": coding.frame_to_plain(frame, scrub.text), "mask_from": self._mask[0],
            **({"mask": coding.mask_to_plain(frame.valid)} if self._mask[0] == k else {}),
            **scrub.value(coding.answer_to_plain(step)),
            "commands": [{"kind": c.kind, "value": coding.plain(c.value)} for c in step.commands],
            "decisions": [{"kind": d.kind, "value": scrub.value(coding.plain(d.value))} for d in step.decisions],
            "hashes": {"raw": raw, **coding.hashes(display, step.overlay, step.picture)},
            "thumb": coding.thumb(display),
            "timings": coding.plain(step.timings), "truth": None if truth is None else coding.plain(truth),
            "window": self._window, "heads": asdict(step.enhanced.heads), "shift_px": list(step.enhanced.shift_px),
            "gap": None if state is None else {
                "frames": lost, "snapshot": f"snapshot/{k}.zip", "sha256": coding.sha256_bytes(state)}}
        self._chain = record["chain"] = coding.chained(self._chain, record)
        return record

    def _event(self, kind: str, text: str, time_ns: int, k: int) -> dict[str, Any]:
        return {"index": k, "kind": kind, "text": self._scrub.text(text), "time_ns": time_ns}

    def _write_events(self, events: list[tuple[str, str]], time_ns: int) -> None:
        k = max(0, len(self._book.rows) - 1)
        told = [self._event(kind, text, max(0, time_ns), k) for kind, text in events]
        self._out.chunk([(self._channels["/event"], e["time_ns"], coding.to_json(e)) for e in told])
        with self._lock:
            for event in told:
                self._book.event(event)


def _lean(step: Step) -> Step:
    """The step without what is not recorded: what waits for the disk should not hold memory for nothing."""
    display = step.enhanced.display
    return replace(step, enhanced=replace(step.enhanced, line_integrals=display, sigma=display, raw_display=display,
                                          flow=None, values=None, shares=None))


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool((a == b).all())
