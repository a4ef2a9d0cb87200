# SPDX-License-Identifier: Apache-2.0
"""What is in a session file, whole or cut anywhere? Records by position, and a walk that ends at the cut."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, AttachmentIndex, Channel, Chunk, Footer, Header, Message, Metadata, SummaryOffset
from mcap.stream_reader import breakup_chunk

from fluoronav.session.mcap_write import MAGIC
from registration.errors import BadInput

_HEAD = struct.Struct("<BQ")
_FOOTER = _HEAD.size + 20 + len(MAGIC)
# What damaged bytes make the decoders raise: all become BadInput at this wall.
BROKEN = (McapError, ValueError, KeyError, TypeError, IndexError, EOFError, RuntimeError, OverflowError, MemoryError,
          struct.error, zstandard.ZstdError)
_MOST = 1 << 30  # bytes of one record: more is damage, not a frame


class McapFile:
    """An MCAP file open for reading, safe to use from several threads. Raises BadInput."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise BadInput(f"session {path.name}", got="a folder", expected="a session file (.mcap)",
                           remedy="name the file in it; to look at a run, use `fluoronav live`")
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise BadInput(f"session {path.name}", got=error.strerror or str(error),
                           expected="a session file (.mcap)", remedy="check the path") from None
        self.size = os.fstat(self._fd).st_size
        if self.read(0, len(MAGIC)) != MAGIC:
            self.close()
            raise BadInput(f"session {path.name}", got=f"{self.size} bytes that are not MCAP",
                           expected="a session file (.mcap)", remedy="give a file that fluoronav recorded")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at a position; fewer where the file ends."""
        return os.pread(self._fd, max(0, min(length, self.size - offset)), offset) if offset < self.size else b""

    def walk(self, start: int = len(MAGIC)) -> Iterator[tuple[int, int, int]]:
        """(opcode, offset, length) of each whole record from a position on; ends at the first that is not."""
        at = start
        while True:
            head = self.read(at, _HEAD.size)
            if len(head) < _HEAD.size:
                return
            opcode, length = _HEAD.unpack(head)
            end = at + _HEAD.size + length
            if opcode == 0 or end > self.size or length > _MOST:
                return
            yield opcode, at, _HEAD.size + length
            if opcode == Opcode.FOOTER:
                return
            at = end

    def record(self, offset: int, length: int) -> Any:
        """The record at a position: Header, Metadata, Attachment, Channel or Chunk. Raises BadInput."""
        kinds: dict[int, Any] = {Opcode.HEADER: Header, Opcode.METADATA: Metadata, Opcode.ATTACHMENT: Attachment,
                 Opcode.CHANNEL: Channel, Opcode.CHUNK: Chunk, Opcode.ATTACHMENT_INDEX: AttachmentIndex,
                 Opcode.SUMMARY_OFFSET: SummaryOffset, Opcode.FOOTER: Footer}
        data = self.read(offset, length)
        try:
            opcode, said = _HEAD.unpack_from(data)
            if said != length - _HEAD.size or len(data) != length:
                raise ValueError("length")
            return kinds[opcode].read(ReadDataStream(BytesIO(data[_HEAD.size:])))
        except BROKEN as error:
            raise self._broken(offset, error) from None

    def messages(self, offset: int, length: int) -> list[Message]:
        """The messages of the chunk at a position, its checksum checked. Raises BadInput."""
        chunk = self.record(offset, length)
        try:
            if not isinstance(chunk, Chunk) or chunk.uncompressed_size > _MOST:
                raise ValueError("not a chunk")
            return [m for m in breakup_chunk(chunk, validate_crc=True) if isinstance(m, Message)]
        except BROKEN as error:
            raise self._broken(offset, error) from None

    def attachment(self, offset: int, length: int) -> bytes:
        """The bytes of the attachment at a position, its checksum checked. Raises BadInput."""
        found = self.record(offset, length)
        said = struct.unpack("<I", self.read(offset + length - 4, 4))[0]
        if not isinstance(found, Attachment) or zlib.crc32(self.read(offset, length)[_HEAD.size:-4]) != said:
            raise self._broken(offset, ValueError("checksum"))
        return found.data

    def attachments(self) -> dict[str, tuple[int, int]] | None:
        """name -> (offset, length) from the summary; None where the file has no whole one."""
        footer = self.read(self.size - _FOOTER, _FOOTER)
        if len(footer) < _FOOTER or footer[-len(MAGIC):] != MAGIC or footer[0] != Opcode.FOOTER:
            return None
        try:
            at = self.record(self.size - _FOOTER, _FOOTER - len(MAGIC)).summary_offset_start
            groups = [self.record(o, n) for code, o, n in self.walk(at) if code == Opcode.SUMMARY_OFFSET]
            found: dict[str, tuple[int, int]] = {}
            for group in groups:
                if group.group_opcode != Opcode.ATTACHMENT_INDEX:
                    continue
                for code, o, n in self.walk(group.group_start):
                    if o >= group.group_start + group.group_length or code != Opcode.ATTACHMENT_INDEX:
                        break
                    entry = self.record(o, n)
                    found[entry.name] = (entry.offset, entry.length)
            return found
        except BadInput:
            return None

    def _broken(self, offset: int, error: BaseException) -> BadInput:
        return BadInput(f"session {self.path.name}", got=f"damaged bytes at {offset} ({type(error).__name__})",
                        expected="a whole record", remedy="restore the file from a copy, or work with what is before")
