# SPDX-License-Identifier: Apache-2.0
"""What run do plain pictures make? PNG and TIFF (and JPEG, said to be lossy), one frame a picture or page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.imaging.dicom_geometry import Given
from fluoronav.imaging.mirror import SeenFrom
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.plain import PlainDoor
from fluoronav.imaging.run import Run
from fluoronav.imaging.times import ASSUMED_INTERVAL_S
from registration.errors import BadPixels
from registration.geometry import Array

SIDE_MAX = 8192  # no X-ray detector comes near it
DENSEST = 1100  # deflate packs 1032 : 1 at most: a smaller file cannot hold what it claims
REMEDY = "export the picture again as grey scale PNG or TIFF, 8 or 16 bits"


def picture_kind(head: bytes) -> str | None:
    """PNG, TIFF, JPEG or BMP by the first bytes of a file, else None."""
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "TIFF"
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    return "BMP" if head[:2] == b"BM" and len(head) > 26 else None


def open_pictures(files: Sequence[Path], path: Path, carm_file: str | Path | None, given: Given,
                  seen_from: SeenFrom | None) -> Run:
    """The run of pictures of one size, in the order given. Raises BadPixels."""
    pages = [page for file in files for page in _pages(file)]
    first = pages[0]
    for page in pages:
        if (page.shape, page.bits) != (first.shape, first.bits):
            raise BadPixels(f"picture {page.name}", got=f"{page.shape[0]} x {page.shape[1]}, {page.bits} bits",
                            expected=f"{first.shape[0]} x {first.shape[1]}, {first.bits} bits as {first.name}",
                            remedy="keep pictures of one run in a folder of their own")
    notes = Notes()
    if any(page.lossy for page in pages):
        notes.warn("JPEG pictures went through a lossy compression: noise and lines are altered")
    interval_ns = round(ASSUMED_INTERVAL_S * 1e9)
    if len(pages) > 1:
        notes.assumed(f"frame times: pictures state none, {1 / ASSUMED_INTERVAL_S:g} frames/s assumed")
    door = PlainDoor(path.name, path, "pictures", len(pages), first.shape, first.bits, lambda k: pages[k].read(),
                     lambda k: k * interval_ns, None, notes, tuple(files))
    return door.run(carm_file, given, seen_from)


def pages_of(file: Path) -> int:
    """How many frames a picture file holds."""
    return len(_pages(file))


@dataclass(frozen=True, slots=True)
class Page:
    """One picture in a file: its size is known before it is read."""

    file: Path
    index: int
    shape: tuple[int, int]
    bits: int
    lossy: bool = False

    @property
    def name(self) -> str:
        """How to name it in a sentence."""
        return self.file.name if self.index == 0 else f"{self.file.name}, page {self.index}"

    def read(self) -> Array:
        """The picture as (rows, columns) uint8 or uint16. Raises BadPixels."""
        try:
            picture = _read_tiff(self.file, self.index) if _kind(self.file) == "TIFF" else _read_other(self.file)
        except BadPixels:
            raise
        except Exception as error:
            raise _unreadable(self.name, error) from error
        return _grey(picture, self)


def _pages(file: Path) -> list[Page]:
    with file.open("rb") as handle:
        head = handle.read(132)
    kind = picture_kind(head)
    if kind is None:
        raise BadPixels(f"picture {file.name}", got="an empty file" if not head else "no picture",
                        expected="PNG or TIFF", remedy=REMEDY)
    try:
        pages = _tiff_pages(file) if kind == "TIFF" else [_single(file, head, kind)]
    except BadPixels:
        raise
    except Exception as error:
        raise _unreadable(file.name, error) from error
    if not pages:
        raise BadPixels(f"picture {file.name}", got="a TIFF without pages", expected="a whole picture", remedy=REMEDY)
    for page in pages:
        if not all(0 < side <= SIDE_MAX for side in page.shape) or page.bits not in (8, 16):
            raise BadPixels(f"picture {page.name}", got=f"{page.shape[0]} x {page.shape[1]}, {page.bits} bits",
                            expected=f"up to {SIDE_MAX} pixels a side, 8 or 16 bits", remedy=REMEDY)
    claimed = sum(page.shape[0] * page.shape[1] * page.bits // 8 for page in pages)
    if kind in ("PNG", "TIFF") and claimed > DENSEST * file.stat().st_size:
        raise BadPixels(f"picture {file.name}", got=f"a claim of {claimed} bytes in a file of {file.stat().st_size}",
                        expected="a whole picture", remedy=REMEDY)
    return pages


def _single(file: Path, head: bytes, kind: str) -> Page:
    if kind == "PNG":  # IHDR (PNG specification, 11.2.2): width, height, bit depth
        columns, rows = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return Page(file, 0, (rows, columns), 16 if head[24] == 16 else 8)
    if kind == "BMP":
        return Page(file, 0, (abs(int.from_bytes(head[22:26], "little", signed=True)),
                              int.from_bytes(head[18:22], "little")), 8)
    from fluoronav.imaging.codecs import stream_matrix

    matrix = stream_matrix(file.read_bytes())
    if matrix is None:
        raise BadPixels(f"picture {file.name}", got="a JPEG without a frame header", expected="a whole picture",
                        remedy=REMEDY)
    return Page(file, 0, matrix, 8, lossy=True)


def _tiff_pages(file: Path) -> list[Page]:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        return [Page(file, i, (page.imagelength, page.imagewidth), int(page.bitspersample))
                for i, page in enumerate(map(_whole, tiff.pages))]


def _whole(page: Any) -> Any:
    """The page with all of its tags (tifffile keeps short forms of later pages)."""
    return page.aspage() if hasattr(page, "aspage") else page


def _read_tiff(file: Path, index: int) -> Array:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[index]
        picture = np.asarray(page.asarray())
        if getattr(page, "photometric", None) == 0:  # MINISWHITE: 0 is shown white
            picture = np.iinfo(picture.dtype).max - picture
        return picture


def _read_other(file: Path) -> Array:
    import cv2

    picture = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise BadPixels(f"picture {file.name}", got="a file that does not decode", expected="a whole picture",
                        remedy=REMEDY)
    return picture


def _grey(picture: Array, page: Page) -> Array:
    """Grey of a picture stored with equal color channels (up to 2 steps: lossy rounding)."""
    if picture.ndim == 3:
        colors = picture[..., :3].astype(np.int32)
        if np.ptp(colors, axis=2).max(initial=0) > 2:
            raise BadPixels(f"picture {page.name}", got="colors", expected="grey scale", remedy=REMEDY)
        picture = picture[..., 1 if picture.shape[2] > 2 else 0]
    if picture.shape != page.shape or picture.dtype not in (np.uint8, np.uint16):
        raise BadPixels(f"picture {page.name}", got=f"{picture.dtype} {picture.shape}",
                        expected=f"uint8 or uint16 {page.shape}", remedy=REMEDY)
    return np.ascontiguousarray(picture)


def _kind(file: Path) -> str | None:
    with file.open("rb") as handle:
        return picture_kind(handle.read(132))


def _unreadable(name: str, error: Exception) -> BadPixels:
    return BadPixels(f"picture {name}", got=f"a file that does not decode ({type(error).__name__})",
                     expected="a whole picture", remedy=REMEDY)
