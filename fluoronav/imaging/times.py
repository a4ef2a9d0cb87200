# SPDX-License-Identifier: Apache-2.0
"""When was each frame of a DICOM run made, counted from the first?"""

from __future__ import annotations

import numpy as np

from fluoronav.imaging.notes import Notes
from fluoronav.imaging.tags import Header
from registration.geometry import Array

ASSUMED_INTERVAL_S = 1 / 15  # a usual pulse rate; said whenever it is used


def frame_times(header: Header, frames: int, notes: Notes) -> tuple[Array, float | None]:
    """(int64 ns of every frame from the start of the run, nominal interval in s or None where not stated).

    FrameTimeVector, else FrameTime, else a display rate, else an assumed rate that is said so.
    """
    vector = header.numbers("FrameTimeVector")
    if vector.state == "ok" and len(vector.values) >= frames > 1 and min(vector.values[:frames]) >= 0:
        steps = np.array(vector.values[:frames])
        at = np.cumsum(steps) - steps[0]
        interval = float(np.median(steps[1:])) / 1000
        notes.read(f"frame times (FrameTimeVector), {interval * 1000:g} ms apart in the median")
        return np.round(at * 1e6).astype(np.int64), interval or None
    stamps = [_seconds(header.of(k).code("FrameAcquisitionDateTime")) for k in range(frames)] if header.enhanced else []
    if len(stamps) > 1 and None not in stamps:
        at = np.array(stamps, np.float64) - float(stamps[0] or 0)
        steps = np.diff(at)
        if (steps >= 0).all() and at[-1] > 0:
            notes.read(f"frame times (FrameAcquisitionDateTime), {np.median(steps) * 1000:g} ms apart in the median")
            return np.round(at * 1e9).astype(np.int64), float(np.median(steps)) or None
    interval_s = _interval(header, notes)
    if interval_s is None and frames > 1:
        notes.assumed(f"frame times: not stated, {1 / ASSUMED_INTERVAL_S:g} frames/s assumed")
    at = np.arange(frames) * (interval_s or ASSUMED_INTERVAL_S)
    return np.round(at * 1e9).astype(np.int64), interval_s


def _seconds(stamp: str) -> float | None:
    """Seconds of a DICOM date and time (YYYYMMDDHHMMSS.FFFFFF) from the start of its month; None if unreadable."""
    digits = stamp[:14]
    if len(digits) < 14 or not digits.isdigit():
        return None
    fraction = stamp[14:].split("+")[0].split("-")[0]
    whole = ((int(digits[6:8]) * 24 + int(digits[8:10])) * 60 + int(digits[10:12])) * 60 + int(digits[12:14])
    return whole + (float(f"0{fraction}") if fraction[1:].isdigit() else 0.0)


def _interval(header: Header, notes: Notes) -> float | None:
    time = header.numbers("FrameTime").first
    if time is not None and 0 < time < 1e7:
        notes.read(f"{time:g} ms a frame (FrameTime)")
        return time / 1000
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = header.numbers(keyword).first
        if rate is not None and 0 < rate < 1000:
            notes.derived(f"{1000 / rate:g} ms a frame from {keyword}")
            return 1 / rate
    return None
