# SPDX-License-Identifier: Apache-2.0
"""What run is in a video? Frames through PyAV, read forward; going back starts again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.imaging.dicom_geometry import Given
from fluoronav.imaging.mirror import SeenFrom
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.plain import PlainDoor
from fluoronav.imaging.run import Run
from registration.errors import BadPixels
from registration.geometry import Array

SIDE_MAX = 8192
COLOR_MOST = 8  # levels of 255 by which chroma, or one of R, G, B, may stray: lossy coding and rounding of grey
LOSSLESS = {"ffv1", "rawvideo", "png", "huffyuv", "ffvhuff", "utvideo"}
REMEDY = "convert it to a lossless grey video (ffv1 in mkv), or give the DICOM run"


def open_video(path: Path, carm_file: str | Path | None, given: Given, seen_from: SeenFrom | None) -> Run:
    """The run in a video file. Raises BadPixels where it does not decode."""
    video = _Video(path)
    notes = Notes()
    if video.codec not in LOSSLESS:
        notes.warn(f"{video.codec} video went through a lossy compression: noise and lines are altered")
    if video.interval_s is None:
        notes.assumed("frame times: not stated, 15 frames/s assumed")
    else:
        notes.read(f"{video.interval_s * 1000:g} ms a frame (time stamps of the video)")
    door = PlainDoor(path.name, path, "video", len(video.times_ns), video.shape, video.bits, video.pixels,
                     lambda k: video.times_ns[k], video.interval_s, notes)
    return door.run(carm_file, given, seen_from)


class _Video:
    """One video stream: size, times of its frames, and the frames in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at, self._frames = -1, iter(())  # type: tuple[int, Iterator[Any]]
        self._last: Array | None = None
        try:
            self._survey()
        except BadPixels:
            raise
        except Exception as error:
            raise self._bad(f"a file that does not open ({type(error).__name__})", "a video") from error

    def _survey(self) -> None:
        """Size, format and time stamps, without decoding."""
        import av

        with av.open(str(self.path)) as container:
            if not container.streams.video:
                raise self._bad("no picture stream", "a video")
            stream = container.streams.video[0]
            context = stream.codec_context
            self.shape = (int(context.height), int(context.width))
            self.codec = str(context.name)
            components = context.format.components if context.format is not None else ()
            self.bits = 16 if components and components[0].bits > 8 else 8
            self.depth = int(components[0].bits) if components else 8
            if not all(0 < side <= SIDE_MAX for side in self.shape):
                raise self._bad(f"{self.shape[0]} x {self.shape[1]} pixels", f"up to {SIDE_MAX} a side")
            rate = stream.average_rate
            self.interval_s = float(1 / rate) if rate else None
            base = float(stream.time_base) if stream.time_base else 1 / 15
            stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        if not stamps:
            raise self._bad("no frames", "a video")
        step = self.interval_s or 1 / 15
        seconds = [(s - stamps[0]) * base for s in stamps]
        if seconds[-1] <= 0:
            seconds = [i * step for i in range(len(stamps))]
        self.times_ns = [round(s * 1e9) for s in seconds]

    def pixels(self, k: int) -> Array:
        """Frame k, decoded by going forward from the frame before, or from the start."""
        if k < self._at or self._at < 0:
            self._frames, self._at, self._last = self._decode(), -1, None
        while self._at < k:
            try:
                self._last = next(self._frames)
            except StopIteration:
                raise self._bad(f"only {self._at + 1} frames", f"{len(self.times_ns)}") from None
            except Exception as error:
                raise self._bad(f"frame {self._at + 1} does not decode ({type(error).__name__})",
                                "a whole video") from error
            self._at += 1
        assert self._last is not None
        return self._last

    def _decode(self) -> Iterator[Array]:
        import av

        wanted = "gray16le" if self.bits == 16 else "gray"
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                if (frame.height, frame.width) != self.shape:
                    raise self._bad(f"a frame of {frame.height} x {frame.width}", f"{self.shape}")
                if _colored(frame):
                    raise self._bad("a color picture", "grey scale")
                yield _grey(frame, wanted)

    def _bad(self, got: str, expected: str) -> BadPixels:
        return BadPixels(f"video {self.path.name}", got=got, expected=expected, remedy=REMEDY)


def _colored(frame: Any) -> bool:
    """Whether the picture holds colors, not only a format that could hold them (most grey video is YUV)."""
    form = frame.format
    if len(form.components) < 3:
        return False
    if form.name.startswith("yuv"):
        chroma = frame if form.components[0].bits == 8 else frame.reformat(format="yuv444p")
        planes = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width]
                  for p in chroma.planes[1:3]]
        return any(np.abs(plane.astype(np.int16) - 128).max() > COLOR_MOST for plane in planes)
    picture = frame.reformat(format="rgb24").to_ndarray().astype(np.int16)
    return bool(np.ptp(picture, axis=2).max() > COLOR_MOST)


def _grey(frame: Any, wanted: str) -> Array:
    """Grey of a decoded frame: its own plane where it is grey or luminance of 8 bits, else converted."""
    name = frame.format.name
    if name.startswith(("gray", "yuv")) and frame.format.components[0].bits <= 8:
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return np.ascontiguousarray(rows[: frame.height, : frame.width])
    return np.ascontiguousarray(frame.reformat(format=wanted).to_ndarray())
