# SPDX-License-Identifier: Apache-2.0
"""Where are the pixels of frame k in a DICOM file? Checked against the file's size, then decoded one by one."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fluoronav.imaging.codecs import install, stream_damage, stream_matrix
from fluoronav.imaging.tags import code, numbers
from registration.errors import BadPixels
from registration.geometry import Array

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

MATRIX_MAX = 8192  # no X-ray detector comes near it; a claim above it is damage
PADDING = 16  # bytes that writers leave after the last frame
DEFLATED_MAX = 2 << 30  # bytes a deflated file may unfold to
UNCOMPRESSED = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">",
                "1.2.840.10008.1.2.1.99": "<"}
EXPORT_AGAIN = "export the run again, or copy it again from the archive"
Span = tuple[int, int]  # offset and length in the file


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the pixels of a file are stored, as its header claims."""

    frames: int
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.rows * self.columns * self.samples * self.allocated // 8


class DicomPixels:
    """The frames of one DICOM file, decoded on demand; every claim is checked before memory is asked for.

    Raises BadPixels where the file is cut, holds fewer frames than it says, or cannot be decoded.
    """

    def __init__(self, path: Path, header: FileDataset, body: BinaryIO | bytes | None = None) -> None:
        self.path, self.name = path, path.name
        self.syntax = str(getattr(header.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2"))
        self.format = pixel_format(header, self.name)
        self._memory = body if isinstance(body, bytes) else None
        with self._open() as file:
            self.spans = self._locate(file, header)

    def __len__(self) -> int:
        return self.format.frames

    def stored(self, k: int) -> Array:
        """Frame k as stored: (rows, columns) of the stored integer type, samples averaged where grey."""
        with self._open() as file:
            parts = [self._read(file, span, k) for span in self.spans[k]]
        data = b"".join(parts)
        picture = self._native(data) if self.syntax in UNCOMPRESSED else self._decoded(data, k)
        return self._grey(picture, k)

    def _open(self) -> BinaryIO:
        return io.BytesIO(self._memory) if self._memory is not None else self.path.open("rb")

    def _read(self, file: BinaryIO, span: Span, k: int) -> bytes:
        file.seek(span[0])
        data = file.read(span[1])
        if len(data) < span[1]:
            raise self._short(k, f"{len(data)} bytes", f"{span[1]} bytes")
        return data

    def _short(self, k: int, got: str, expected: str) -> BadPixels:
        return BadPixels(f"pixels of frame {k} of {self.name}", got=f"{got}, the file ends early",
                         expected=expected, remedy=EXPORT_AGAIN)

    def _locate(self, file: BinaryIO, header: FileDataset) -> list[list[Span]]:
        """For every frame the spans of its bytes."""
        start, length = _pixel_element(file, header, self.name)
        file.seek(0, os.SEEK_END)
        end = file.tell()
        if self.syntax in UNCOMPRESSED:
            return self._native_spans(start, length, end)
        if length != 0xFFFFFFFF:
            raise BadPixels(f"pixels of {self.name}", got="plain pixels under a compressed transfer syntax",
                            expected="fragments of a compressed stream", remedy=EXPORT_AGAIN)
        return _frames_of(self._fragments(file, start, end), self.format.frames, file, header, self.name)

    def _native_spans(self, start: int, length: int, end: int) -> list[list[Span]]:
        one, claimed = self.format.frame_bytes, self.format.frames
        have = min(end - start, length if length != 0xFFFFFFFF else end - start)
        if have < one * claimed:
            k = have // one
            raise BadPixels(
                f"pixels of {self.name}",
                got=f"{have} bytes, which end in frame {k}", expected=f"{one * claimed} bytes for {claimed} "
                f"frame(s) of {self.format.rows} x {self.format.columns} at {self.format.allocated} bits",
                remedy=EXPORT_AGAIN)
        if length != 0xFFFFFFFF and length > one * claimed + PADDING:
            raise BadPixels(f"pixels of {self.name}", got=f"{length} bytes", expected=f"{one * claimed} bytes for "
                            f"{claimed} frame(s) of {self.format.rows} x {self.format.columns} at "
                            f"{self.format.allocated} bits", remedy=EXPORT_AGAIN)
        return [[(start + k * one, one)] for k in range(claimed)]

    def _fragments(self, file: BinaryIO, at: int, end: int) -> list[Span]:
        """Offset table (first span) and the fragments after it."""
        spans: list[Span] = []
        order = "little"
        while True:
            file.seek(at)
            head = file.read(8)
            if len(head) < 8:
                raise self._short(max(len(spans) - 1, 0), "no end of the sequence", "a sequence delimiter")
            tag = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)  # type: ignore[arg-type]
            size = int.from_bytes(head[4:], order)  # type: ignore[arg-type]
            if tag == (0xFFFE, 0xE0DD):
                return spans
            if tag != (0xFFFE, 0xE000) or size == 0xFFFFFFFF:
                raise BadPixels(f"pixels of {self.name}", got=f"tag {tag[0]:04x},{tag[1]:04x} between fragments",
                                expected="items of a compressed stream", remedy=EXPORT_AGAIN)
            if at + 8 + size > end:
                raise self._short(max(len(spans) - 1, 0), f"{end - at - 8} bytes of a fragment", f"{size} bytes")
            spans.append((at + 8, size))
            at += 8 + size

    def _native(self, data: bytes) -> Array:
        f = self.format
        kind = f"{UNCOMPRESSED[self.syntax]}{'i' if f.signed else 'u'}{f.allocated // 8}"
        flat = np.frombuffer(data, kind).astype(kind[1:])
        return flat.reshape((f.rows, f.columns) if f.samples == 1 else (f.rows, f.columns, f.samples))

    def _decoded(self, stream: bytes, k: int) -> Array:
        """One compressed frame through pydicom's decoders."""
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.pixels import get_decoder
        from pydicom.uid import UID

        f = self.format
        claimed = stream_matrix(stream)
        if claimed is not None and claimed != (f.rows, f.columns):
            raise BadPixels(f"frame {k} of {self.name}", got=f"a stream of {claimed[0]} x {claimed[1]} pixels",
                            expected=f"Rows x Columns = {f.rows} x {f.columns}", remedy=EXPORT_AGAIN)
        damage = stream_damage(stream)
        if damage is not None:
            raise BadPixels(f"frame {k} of {self.name}", got=f"a damaged stream ({damage})",
                            expected=f"{UID(self.syntax).name}", remedy=EXPORT_AGAIN)
        install()
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = UID(self.syntax)
        one.Rows, one.Columns, one.SamplesPerPixel, one.NumberOfFrames = f.rows, f.columns, f.samples, 1
        one.BitsAllocated, one.BitsStored, one.HighBit = f.allocated, f.stored, f.stored - 1
        one.PixelRepresentation, one.PhotometricInterpretation = int(f.signed), f.photometric
        if f.samples > 1:
            one.PlanarConfiguration = 0
        one.PixelData = encapsulate([stream])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture, _ = get_decoder(UID(self.syntax)).as_array(one, index=0, raw=f.samples == 1)
        except BadPixels:
            raise
        except Exception as error:
            raise BadPixels(f"frame {k} of {self.name}", got=f"a stream that does not decode "
                            f"({_first_line(error)})", expected=f"{UID(self.syntax).name}",
                            remedy=EXPORT_AGAIN) from error
        return np.asarray(picture)

    def _grey(self, picture: Array, k: int) -> Array:
        f = self.format
        if picture.shape[:2] != (f.rows, f.columns):
            raise BadPixels(f"frame {k} of {self.name}", got=f"{picture.shape} pixels decoded",
                            expected=f"{f.rows} x {f.columns}", remedy=EXPORT_AGAIN)
        if picture.ndim == 3:
            if np.ptp(picture, axis=2).max(initial=0) > 2:  # 2: what a lossy color transform leaves of grey
                raise BadPixels(f"frame {k} of {self.name}", got="a color picture", expected="grey scale",
                                remedy="export the run without color or burned-in graphics")
            picture = picture[..., 0]
        if f.stored < f.allocated and picture.dtype.kind == "u":
            picture = picture & np.array((1 << f.stored) - 1, picture.dtype)  # overlay planes live above
        return picture


def pixel_format(header: FileDataset, name: str) -> PixelFormat:
    """The claims of a header about its pixels, each within what an X-ray picture can be. Raises BadPixels."""
    def whole(keyword: str, default: int | None, low: int, high: int) -> int:
        found = numbers(header, keyword)
        value = found.first if found.state == "ok" else (default if found.state in ("absent", "empty") else None)
        if value is None or value != int(value) or not low <= value <= high:
            raise BadPixels(f"{keyword} of {name}", got=found.text or "nothing", expected=f"{low} to {high}",
                            remedy=EXPORT_AGAIN)
        return int(value)

    rows, columns = whole("Rows", None, 1, MATRIX_MAX), whole("Columns", None, 1, MATRIX_MAX)
    allocated = whole("BitsAllocated", None, 8, 16)
    stored = whole("BitsStored", allocated, 1, allocated)
    if allocated not in (8, 16) or whole("HighBit", stored - 1, 0, allocated - 1) != stored - 1:
        raise BadPixels(f"bits of {name}", got=f"{allocated} allocated, {stored} stored, high bit "
                        f"{numbers(header, 'HighBit').text}", expected="8 or 16 allocated, high bit = stored - 1",
                        remedy=EXPORT_AGAIN)
    photometric = code(header, "PhotometricInterpretation") or "MONOCHROME2"
    samples = whole("SamplesPerPixel", 1, 1, 3)
    if photometric == "PALETTE COLOR" or samples == 2 or (samples == 3) != (not photometric.startswith("MONO")):
        raise BadPixels(f"photometric interpretation of {name}", got=f"{photometric}, {samples} sample(s)",
                        expected="MONOCHROME1, MONOCHROME2 or grey RGB", remedy="export grey scale frames")
    if samples == 3 and numbers(header, "PlanarConfiguration").first == 1:
        raise BadPixels(f"planar configuration of {name}", got="color by plane", expected="color by pixel",
                        remedy="export grey scale frames")
    return PixelFormat(whole("NumberOfFrames", 1, 1, 1_000_000), rows, columns, samples, allocated, stored,
                       bool(whole("PixelRepresentation", 0, 0, 1)), photometric)


def inflate(path: Path, start: int) -> bytes:
    """The deflated part of a file from an offset on, refused above a bound. Raises BadPixels."""
    machine, out = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    with path.open("rb") as file:
        file.seek(start)
        try:
            while (chunk := file.read(1 << 20)) and not machine.eof:
                while chunk and not machine.eof:
                    out += machine.decompress(chunk, 1 << 24)
                    chunk = machine.unconsumed_tail
                    if len(out) > DEFLATED_MAX:
                        raise BadPixels(path.name, got=f"more than {DEFLATED_MAX} bytes when inflated",
                                        expected="a run that fits", remedy=EXPORT_AGAIN)
        except zlib.error as error:
            raise BadPixels(path.name, got=f"a deflated stream that does not inflate ({error})",
                            expected="a whole file", remedy=EXPORT_AGAIN) from error
    return bytes(out)


def _pixel_element(file: BinaryIO, header: FileDataset, name: str) -> Span:
    """Offset of the value of PixelData and its length; `file` is where the header ends."""
    at = int(getattr(header, "fluoronav_pixels_at", -1))
    little = bool(header.is_little_endian)
    order = "little" if little else "big"
    file.seek(max(at, 0))
    head = file.read(12)
    group, element = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)  # type: ignore[arg-type]
    if at < 0 or len(head) < 8 or (group, element) != (0x7FE0, 0x0010):
        raise BadPixels(f"pixels of {name}", got="no PixelData", expected="a picture",
                        remedy="give the image file, not a report or a presentation state")
    if header.is_implicit_VR:
        return at + 8, int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
    if head[4:6] in (b"OB", b"OW", b"UN"):
        return at + 12, int.from_bytes(head[8:12], order)  # type: ignore[arg-type]
    raise BadPixels(f"pixels of {name}", got=f"value representation {head[4:6]!r}", expected="OB or OW",
                    remedy=EXPORT_AGAIN)


def _frames_of(spans: list[Span], frames: int, file: BinaryIO, header: FileDataset, name: str) -> list[list[Span]]:
    """Deal fragments to frames: by the extended or basic offset table, one each, or by stream starts."""
    table, fragments = (spans[0] if spans else (0, 0)), spans[1:]
    if not fragments or len(fragments) < frames:
        raise BadPixels(f"pixels of {name}", got=f"{len(fragments)} compressed fragment(s)",
                        expected=f"at least {frames}, one a frame", remedy=EXPORT_AGAIN)
    if len(fragments) == frames:
        return [[span] for span in fragments]
    if frames == 1 and sum(_is_start(_peek(file, span)) for span in fragments) == 1:
        return [fragments]
    first = fragments[0][0] - 8
    offsets = _offsets(file, table, header)
    starts = [span[0] - 8 - first for span in fragments]
    if len(offsets) == frames and all(offset in starts for offset in offsets) and list(offsets) == sorted(set(offsets)):
        cuts = [starts.index(offset) for offset in offsets]
    else:
        cuts = [i for i, span in enumerate(fragments) if _is_start(_peek(file, span))]
    if len(cuts) != frames or cuts[0] != 0:
        raise BadPixels(f"pixels of {name}", got=f"{len(fragments)} fragments that begin {len(cuts)} streams",
                        expected=f"{frames} frames", remedy=EXPORT_AGAIN)
    return [fragments[a:b] for a, b in zip(cuts, [*cuts[1:], len(fragments)], strict=True)]


def _offsets(file: BinaryIO, table: Span, header: FileDataset) -> tuple[int, ...]:
    extended = header.get("ExtendedOffsetTable")
    if isinstance(extended, bytes) and extended:
        return tuple(int(x) for x in np.frombuffer(extended[: len(extended) // 8 * 8], "<u8"))
    file.seek(table[0])
    return tuple(int(x) for x in np.frombuffer(file.read(table[1] // 4 * 4), "<u4"))


def _peek(file: BinaryIO, span: Span) -> bytes:
    file.seek(span[0])
    return file.read(min(12, span[1]))


def _is_start(head: bytes) -> bool:
    """Whether a fragment begins a JPEG or JPEG 2000 stream."""
    return head[:2] == b"\xff\xd8" or head[:4] == b"\xff\x4f\xff\x51" or head[4:8] == b"jP  "


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
