# SPDX-License-Identifier: Apache-2.0
"""Where is each frame in the file, and what happened when? Kept while recording, rebuilt where a file was cut.

The same book is filled by the recorder (then stored at the end of the file, so that an hour's session opens at
once) and by the scan of a file that has no end.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from registration.geometry import Array
from registration.result import Outcome

OUTCOMES = tuple(o.value for o in Outcome)
ROW = np.dtype([("frame_at", "<u8"), ("frame_length", "<u8"), ("step_at", "<u8"), ("step_length", "<u8"),
                ("time_ns", "<i8"), ("index", "<i8"), ("mask_from", "<i8"), ("outcome", "u1"), ("target_mm", "<f8"),
                ("projected_mm", "<f8"), ("latency_ms", "<f8"), ("true_mm", "<f8"),
                ("true_projected_mm", "<f8"), ("dose_ugy", "<f8"), ("similarity", "<f8"), ("kvp", "<f8"),
                ("mas", "<f8"), ("dropped", "<u4"), ("held", "?")])
_EXPOSURE_STEP = 0.05  # relative: automatic exposure control moves by less from frame to frame


@dataclass(slots=True)
class Book:
    """Rows of ROW in order, events, gaps of the recorder and snapshots (frame -> name of the attachment)."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    snapshots: dict[int, str] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any], frame_place: tuple[int, int], step_place: tuple[int, int]) -> None:
        """A frame that is whole in the file."""
        found = record["registration"]
        error = found["error"] or {}
        truth = record.get("truth") or {}
        exposure = record["frame"]["exposure"]
        # a picture that is answered again (for a command, for a job) was exposed once and waited for nobody
        held = any(d["kind"] == "held" for d in record["decisions"])
        self.rows.append((
            *frame_place, *step_place, record["time_ns"], record["index"], record["mask_from"],
            OUTCOMES.index(found["outcome"]), _number(error.get("target_mm")), _number(error.get("projected_mm")),
            math.nan if held else latency_ms(record["timings"]), _number(truth.get("target_error_mm")),
            _number(truth.get("target_projected_error_mm")), math.nan if held else _number(exposure["dose_ugy"]),
            _number(found["similarity"]), _number(exposure["kvp"]),
            _number(exposure["ma"]) * _number(exposure["ms"]) / 1000, _dropped(record), held))
        if record.get("gap"):
            self.gaps.append({"frame": len(self.rows) - 1, **record["gap"]})

    def event(self, event: Mapping[str, Any]) -> None:
        self.events.append(dict(event))

    def table(self) -> Array:
        """The rows as one array of ROW."""
        return np.array(self.rows, ROW)

    def to_bytes(self) -> bytes:
        """The book as a zip of an array and JSON."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            rows = io.BytesIO()
            np.save(rows, self.table(), allow_pickle=False)
            archive.writestr("rows.npy", rows.getvalue())
            archive.writestr("book.json", json.dumps({"events": self.events, "gaps": self.gaps,
                                                      "snapshots": {str(k): v for k, v in self.snapshots.items()}}))
        return out.getvalue()


def read_book(data: bytes) -> tuple[Array, dict[str, Any]]:
    """(rows, {"events", "gaps", "snapshots"}) of a stored book. Raises ValueError, KeyError or BadZipFile."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        rows = np.load(io.BytesIO(archive.read("rows.npy")), allow_pickle=False)
        rest = json.loads(archive.read("book.json"))
    if rows.dtype != ROW or rows.ndim != 1:
        raise ValueError("rows of another layout")
    rest["snapshots"] = {int(k): v for k, v in rest["snapshots"].items()}
    return rows, rest


def latency_ms(timings: Mapping[str, float]) -> float:
    """From frame to answer, ms: `latency` or `total` where stated, else the sum of the stages."""
    for name in ("latency", "total"):
        if name in timings:
            return float(timings[name])
    return float(sum(timings.values()))


def events_of(record: Mapping[str, Any], before: Mapping[str, Any] | None, exposure: dict[str, float | None]) -> list[
        tuple[str, str]]:
    """(kind, text) of what happened at a frame: state changes, commands, decisions, exposure.

    exposure holds what was last told of, and is brought up to date.
    """
    out: list[tuple[str, str]] = []
    found = record["registration"]
    was = before["registration"]["outcome"] if before else None
    if found["outcome"] != was and (was is not None or found["outcome"] == "ACCEPTED"):
        kind = {"ACCEPTED": "registered", "AMBIGUOUS": "uncertain", "LOST": "loss"}[found["outcome"]]
        out.append((kind, found["why"]))
    for command in record["commands"]:
        if command["kind"] not in ("layer", "window"):
            out.append((command["kind"], _told(command["value"])))
    already = [(d["kind"], d["value"]) for d in (before or {}).get("decisions", []) if d["kind"] == "skip"]
    for decision in record["decisions"]:
        kind, value = decision["kind"], decision["value"]
        if kind not in ("held", "overlay_reused") and (kind, value) not in already:
            out.append(_decided(kind, value))
    out += _exposed(record["frame"]["exposure"], exposure)
    for name in (record.get("badges") or []):
        if "failed" in name and name not in ((before or {}).get("badges") or []):
            out.append(("fault", name))
    return out


def _decided(kind: str, value: Any) -> tuple[str, str]:
    if kind == "dropped":
        return "drop", f"{value} frame{'' if value == 1 else 's'} dropped before this one"
    if kind == "gap":
        return "gap", f"no picture came for {float(value):.1f} s" if isinstance(value, (int, float)) else _told(value)
    if kind == "skip":
        return "skip", f"{value} left out for want of time"
    if kind == "job" and isinstance(value, Mapping):
        result = value.get("result")
        why = result.get("why") if isinstance(result, Mapping) else None
        job = value.get("job")
        name = job.get("name") if isinstance(job, Mapping) else job
        how = result.get("how") if isinstance(result, Mapping) else None
        name = f"registration from {how}" if how else name
        return "job", f"{name}: {why}" if why else f"{name} applied"
    return kind, _told(value)


def _exposed(now: Mapping[str, float | None], told: dict[str, float | None]) -> list[tuple[str, str]]:
    units = {"kvp": "kV", "ma": "mA", "ms": "ms"}
    parts, first = [], not told
    for name, unit in units.items():
        new, old = now.get(name), told.get(name)
        if first or new is None or old is None or abs(new - old) > _EXPOSURE_STEP * max(abs(old), 1e-9):
            if not first and new != old:
                parts.append(f"{_value(old)} to {_value(new)} {unit}")
            told[name] = new
    return [("exposure", ", ".join(parts))] if parts else []


def _value(number: float | None) -> str:
    return "not stated" if number is None else f"{number:g}"


def _told(value: Any) -> str:
    return "" if value is None else json.dumps(value)[:200]


def _dropped(record: Mapping[str, Any]) -> int:
    return sum(int(d["value"]) for d in record["decisions"] if d["kind"] == "dropped" and d["value"])


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
