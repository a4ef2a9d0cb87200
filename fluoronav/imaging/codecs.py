# SPDX-License-Identifier: Apache-2.0
"""Which JPEG streams does pydicom not decode by itself? A plug-in over imagecodecs for those.

pydicom finds it through `install()`; JPEG lossless (.57, .70) and JPEG baseline and extended
(.50, .51) are decoded here, everything else by the plug-ins pydicom knows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

BASELINE, EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
LOSSLESS, LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
DECODER_DEPENDENCIES = dict.fromkeys((BASELINE, EXTENDED, LOSSLESS, LOSSLESS_SV1), ("numpy", "imagecodecs"))
LOSSY = {BASELINE: "JPEG baseline", EXTENDED: "JPEG extended", "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
         "1.2.840.10008.1.2.4.91": "JPEG 2000", "1.2.840.10008.1.2.4.203": "HTJ2K"}


def is_available(uid: str) -> bool:
    """Whether this plug-in decodes a transfer syntax (the question pydicom asks)."""
    return uid in DECODER_DEPENDENCIES


def install() -> None:
    """Put the plug-in into pydicom's decoders, once."""
    from pydicom.pixels.decoders import base

    for decoder in (base.JPEGBaseline8BitDecoder, base.JPEGExtended12BitDecoder, base.JPEGLosslessDecoder,
                    base.JPEGLosslessSV1Decoder):
        if "fluoronav" not in decoder.available_plugins:
            decoder.add_plugin("fluoronav", ("fluoronav.imaging.codecs", "decode_frame"))


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """One frame's JPEG stream to little-endian pixel bytes (the call pydicom makes)."""
    import imagecodecs
    import numpy as np

    lossless = str(runner.transfer_syntax) in (LOSSLESS, LOSSLESS_SV1)
    picture = np.asarray(imagecodecs.ljpeg_decode(source) if lossless else imagecodecs.jpeg_decode(source))
    runner.set_option("bits_allocated", picture.dtype.itemsize * 8)
    if picture.ndim == 3:  # already turned from YBR by the decoder
        runner.set_option("photometric_interpretation", "RGB")
        runner.set_option("planar_configuration", 0)
    return picture.astype(picture.dtype.newbyteorder("<")).tobytes()


def stream_matrix(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream claims; None where no header is found.

    Read before a decoder is called, so that a lying stream cannot ask for memory.
    """
    if stream[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC, SIZ (ISO/IEC 15444-1, A.5.1)
        x1, y1, x0, y0 = (int.from_bytes(stream[8 + 4 * i: 12 + 4 * i], "big") for i in range(4))
        return (y1 - y0, x1 - x0) if len(stream) >= 24 else None
    if stream[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:  # JPEG: walk the markers up to the frame header
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7):
            return int.from_bytes(stream[at + 5: at + 7], "big"), int.from_bytes(stream[at + 7: at + 9], "big")
        at += 2 + int.from_bytes(stream[at + 2: at + 4], "big")
    return None


def stream_damage(stream: bytes) -> str | None:
    """What no whole stream can hold: a marker inside coded data; None where nothing was found.

    Decoders of JPEG 2000 go on over damaged data and return a picture. Coders stuff bits so that no
    marker (above FF8F) stands in coded data (ISO/IEC 15444-1, B.10.1, D.2.2; 15444-15 likewise), and
    JPEG stuffs a zero byte after FF (ISO/IEC 10918-1, B.1.1.5): 4000 bytes of noise hold about 7 of them.
    """
    begin = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if begin >= 0:
        return _tile_damage(stream, begin)
    if stream[:2] == b"\xff\xd8" and (scan := _after_header(stream)) is not None and not scan[1]:
        found = re.search(rb"\xff[\x01-\xbf]", stream[scan[0]:])
        return f"a marker inside coded data at byte {scan[0] + found.start()}" if found else None
    return None


def _tile_damage(stream: bytes, begin: int) -> str | None:
    """Walk the tile parts of a JPEG 2000 codestream (ISO/IEC 15444-1, A.4.2) and look into each."""
    end = len(stream.rstrip(b"\x00"))
    end -= 2 if stream[end - 2: end] == b"\xff\xd9" else 0
    at = _skip_segments(stream, begin + 2, b"\x90")
    while at is not None and stream[at: at + 2] == b"\xff\x90":
        length = int.from_bytes(stream[at + 6: at + 10], "big")
        stop = at + length if length else end
        if stop > len(stream):
            return f"a tile part that ends {stop - len(stream)} bytes after the stream"
        data = _skip_segments(stream, at + 12, b"\x93")
        if data is None:
            return "a tile part without data"
        # FF91 and FF92 (SOP, EPH) may stand between packets
        found = re.search(rb"\xff[\x90\x93-\xff]", stream[data + 2: stop])
        if found:
            return f"a marker inside coded data at byte {data + 2 + found.start()}"
        at = stop
    return None


def _skip_segments(stream: bytes, at: int, until: bytes) -> int | None:
    """Position of marker FF `until`, going over marker segments; None where the chain breaks."""
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1: at + 2] == until:
            return at
        at += 2 + int.from_bytes(stream[at + 2: at + 4], "big")
    return None


def _after_header(stream: bytes) -> tuple[int, bool] | None:
    """Where the first scan's coded data begins in a JPEG, and whether it is JPEG-LS (which stuffs bits)."""
    at, is_ls = 2, False
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        is_ls |= stream[at + 1] == 0xF7
        size = int.from_bytes(stream[at + 2: at + 4], "big")
        if stream[at + 1] == 0xDA:
            return at + 2 + size, is_ls
        at += 2 + size
    return None
