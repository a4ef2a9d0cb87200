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
    interval_s = _interval(header, notes)
    if interval_s is None and frames > 1:
        notes.assumed(f"frame times: not stated, {1 / ASSUMED_INTERVAL_S:g} frames/s assumed")
    at = np.arange(frames) * (interval_s or ASSUMED_INTERVAL_S)
    return np.round(at * 1e9).astype(np.int64), interval_s


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
