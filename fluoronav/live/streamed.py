# SPDX-License-Identifier: Apache-2.0
"""How do pictures of a stream become Frames? Geometry from --carm, one mask, times that never go back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from fluoronav.imaging.carm_file import StatedCarm
from fluoronav.imaging.frame import Angles, Frame
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.plain import PlainDoor
from fluoronav.imaging.run import Run
from fluoronav.live.source import Stated
from registration.errors import BadPixels
from registration.geometry import Array


def picture_in(image: Array, name: str) -> Array:
    """The (rows, columns) uint8 or uint16 picture in an IMAGE message's array (slices, rows, columns[, colors]).

    Raises BadPixels for stacks, colors and other types of numbers.
    """
    picture = np.asarray(image)
    remedy = "send single grey pictures of 8 or 16 bits, unsigned"
    if picture.ndim == 4:
        if picture.shape[3] > 1 and (picture[..., :1] != picture[..., : min(3, picture.shape[3])]).any():
            raise BadPixels(f"image {name}", got="colors", expected="grey", remedy=remedy)
        picture = picture[..., 0]
    if picture.ndim == 3 and picture.shape[0] == 1:
        picture = picture[0]
    elif picture.ndim == 3 and picture.shape[2] == 1:  # as pyigtl packs two-dimensional arrays
        picture = picture[:, :, 0]
    if picture.ndim != 2 or picture.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise BadPixels(f"image {name}", got=f"{picture.dtype.name} {picture.shape}",
                        expected="one slice, uint8 or uint16", remedy=remedy)
    return np.ascontiguousarray(picture, picture.dtype.newbyteorder("="))


class Streamed:
    """Numbers and times the pictures of a stream, and gives them their meaning. count: frames made so far."""

    def __init__(self, name: str, stated: Stated, carm: StatedCarm | None) -> None:
        self.name, self.stated, self.carm = name, stated, carm
        self.notes: tuple[str, ...] = ()
        self.count = 0
        self._last_ns = self._shift_ns = self._arrived_ns = 0
        self._template: Frame | None = None
        self._run: Run | None = None

    def frame(self, picture: Array, stamp_s: float, angles: Angles | None,
              table: tuple[float, float, float] | None) -> Frame:
        """The next frame. stamp_s: the sender's clock, seconds since 1970. Raises BadPixels."""
        template, run = self._meaning(picture)
        pixels = picture[:, ::-1] if run.flipped else picture
        angles = angles or template.angles
        fault = template.geometry_fault
        if fault is None and angles is None:
            fault = f"{self.name} and --carm state no gantry angles"
        frame = replace(template, pixels=pixels, index=self.count, time_ns=self._time(stamp_s), angles=angles,
                        table_in_room_mm=table, geometry_fault=fault)
        self.count += 1
        return frame

    def _meaning(self, picture: Array) -> tuple[Frame, Run]:
        """Geometry, intensity and mask, anew where size or depth changed."""
        kept, form = self._template, (picture.shape, picture.dtype)
        if kept is None or self._run is None or (kept.pixels.shape, kept.pixels.dtype) != form:
            notes = Notes()
            rows, columns = picture.shape
            door = PlainDoor(self.name, Path(self.name), "video", 1, (rows, columns), 8 * picture.dtype.itemsize,
                             lambda k: picture, lambda k: 0, None, notes)
            self._run = door.run(self.stated.carm, self.stated.given, self.stated.seen_from)
            kept = self._template = self._run.frames[0]
            self.notes = self._run.notes
        return kept, self._run

    def _time(self, stamp_s: float) -> int:
        """The sender's time, moved on by the time that passed here where its clock went back (another sender)."""
        stamp = round(stamp_s * 1e9) if stamp_s > 0 else time.time_ns()
        now = time.monotonic_ns()
        if self.count and stamp + self._shift_ns <= self._last_ns:
            self._shift_ns = self._last_ns + max(1, now - self._arrived_ns) - stamp
        self._arrived_ns = now
        self._last_ns = max(stamp + self._shift_ns, self._last_ns + 1)
        return self._last_ns


