# SPDX-License-Identifier: Apache-2.0
"""What is a run? Lazy frames with what was read, derived and assumed; and which door opens a path."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

from fluoronav.imaging.frame import Frame
from fluoronav.imaging.notes import Notes
from registration.errors import BadGeometry, BadInput, BadPixels
from registration.geometry import Float64

KEPT = 3  # decoded frames kept; a run may be far larger than memory
VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm", ".mpg", ".mpeg", ".ts"}


class LazyFrames(Sequence[Frame]):
    """Frames decoded when asked for, the last few kept. `make` gives frame k of `count`."""

    def __init__(self, count: int, make: Callable[[int], Frame]) -> None:
        self._count, self._make = count, make
        self._kept: OrderedDict[int, Frame] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, k: int) -> Frame: ...
    @overload
    def __getitem__(self, k: slice) -> list[Frame]: ...
    def __getitem__(self, k: int | slice) -> Frame | list[Frame]:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(self._count))]
        at = k + self._count if k < 0 else k
        if not 0 <= at < self._count:
            raise IndexError(f"frame {k} of {self._count}")
        if at not in self._kept:
            self._kept[at] = self._make(at)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[at]


@dataclass(slots=True)
class Run:
    """A run of frames from one source.

    frames: lazy sequence of Frame; nominal_interval_s: seconds between frames, None where not stated;
    geometry_error: why `carm` or `angles` are missing (raise it where geometry is needed); flipped:
    columns were flipped at the door; signed: stored pixels were signed and are counted from their minimum.
    """

    name: str
    path: Path
    kind: Literal["dicom", "pictures", "video"]
    frames: Sequence[Frame]
    shape: tuple[int, int]
    notes_list: Notes = field(repr=False)
    nominal_interval_s: float | None = None
    geometry_error: BadGeometry | None = None
    flipped: bool = False
    signed: bool = False
    files: tuple[Path, ...] = ()
    carm_from_room: Float64 | None = None  # 4x4 where a --carm file stated it

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines, each beginning with read, derived, assumed or warning."""
        return tuple(self.notes_list.lines)

    def describe(self) -> dict[str, Any]:
        """What a person or a program wants to know of the run: plain values; decodes the first frame."""
        first = self.frames[0]
        return {
            "file": str(self.path), "kind": self.kind, "frames": len(self.frames), "shape_rows_cols": list(self.shape),
            "interval_ms": None if self.nominal_interval_s is None else self.nominal_interval_s * 1000,
            "geometry": _geometry(first), "geometry_fault": str(self.geometry_error) if self.geometry_error else None,
            "exposure": {"kvp": first.exposure.kvp, "ma": first.exposure.ma, "ms": first.exposure.ms,
                         "dose_ugy": first.exposure.dose_ugy},
            "intensity": {"kind": first.intensity.kind, "dense": first.intensity.dense, "bits": first.intensity.bits,
                          "i0_source": first.intensity.i0_source},
            "table_in_room_mm": first.table_in_room_mm, "open_share": float(first.valid.mean()),
            "flipped_columns": self.flipped, "notes": list(self.notes)}


def _geometry(frame: Frame) -> dict[str, Any]:
    c, a = frame.carm, frame.angles
    return {
        "primary_deg": a.primary_deg if a else None, "secondary_deg": a.secondary_deg if a else None,
        "sdd_mm": c.sdd_mm if c else None, "sod_mm": c.sod_mm if c else None,
        "pitch_mm_row_col": list(c.pitch_mm_row_col) if c else None,
        "principal_px_u_v": list(c.principal_px_u_v) if c else None}


def open_run(
    path: str | Path, *, carm_file: str | Path | None = None, sdd_mm: float | None = None,
    sod_mm: float | None = None, pixel_spacing_mm: float | None = None,
    seen_from: Literal["detector", "source"] | None = None, angles_in: Literal["patient", "room"] = "patient",
) -> Run:
    """The run at a path: a DICOM file, a picture, a folder of numbered pictures or DICOM files, or a video.

    The options fill what the source does not say. Raises BadPixels where the pictures cannot be used
    and BadInput for options that make no sense; faults of geometry are told in `run.geometry_error`.
    """
    from fluoronav.imaging.dicom_geometry import Given

    where = Path(path)
    if seen_from not in (None, "detector", "source") or angles_in not in ("patient", "room"):
        raise BadInput("--seen-from or --angles-in", got=f"{seen_from}, {angles_in}",
                       expected="detector or source; patient or room", remedy="choose one of them")
    if not where.exists():
        raise BadPixels(str(path), got="nothing there", expected="a DICOM file, picture, folder or video",
                        remedy="check the path")
    given = Given(sdd_mm, sod_mm, pixel_spacing_mm, angles_in)
    if where.is_dir():
        from fluoronav.imaging.folder import open_folder

        return open_folder(where, carm_file, given, seen_from)
    return open_file(where, carm_file, given, seen_from)


def open_file(where: Path, carm_file: str | Path | None, given: Any, seen_from: Any) -> Run:
    """The run in one file, by what its first bytes say."""
    from fluoronav.imaging.carm_file import read_carm_file
    from fluoronav.imaging.dicom import is_dicom, open_dicom
    from fluoronav.imaging.pictures import open_pictures, picture_kind

    with where.open("rb") as file:
        head = file.read(132)
    # a DICOM preamble may hold a TIFF header (PS3.10, 7.1): DICM at 128 goes first
    kind = None if head[128:132] == b"DICM" else picture_kind(head)
    if kind and where.suffix.lower() in (".dcm", ".dicom"):
        raise BadPixels(where.name, got=f"a {kind} picture named like a DICOM file", expected="a DICOM file",
                        remedy=f"rename it to .{kind.lower()} and give its geometry with --carm")
    if kind:
        return open_pictures([where], where, carm_file, given, seen_from)
    if not is_dicom(head) and where.suffix.lower() in VIDEO_SUFFIXES:
        from fluoronav.imaging.video import open_video

        return open_video(where, carm_file, given, seen_from)
    stated = read_carm_file(carm_file) if carm_file is not None and is_dicom(head) else None
    return open_dicom(where, given, seen_from, stated)
