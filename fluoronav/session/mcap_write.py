# SPDX-License-Identifier: Apache-2.0
"""How does a session reach the disk? As MCAP whose chunks end where we say, not where they are full.

The library's own writer ends a chunk by size alone; here a frame is a chunk and its answer the next, each
written by one call, so that a process killed at any moment loses the frame it was writing and no other.
Records are the library's. Source: MCAP specification, https://mcap.dev/spec.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lz4.frame
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Attachment,
    AttachmentIndex,
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    Message,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

from registration.errors import BadInput

MAGIC = b"\x89MCAP0\r\n"
ZSTD_LEVEL = 1  # noise does not compress: level 3 takes twice the time for 0.1 % (512 x 512, 16 bit)


class McapWriter:
    """One MCAP file being written. Not thread-safe. Raises BadInput where the file cannot be made."""

    def __init__(self, path: Path, profile: str, library: str) -> None:
        try:
            # unbuffered: what was written survives a kill, and one call is one frame
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise BadInput(f"session {path.name}", got="a file that exists", expected="a new name",
                           remedy="record under another name: sessions are never overwritten") from None
        except OSError as error:
            raise BadInput(f"session {path.name}", got=error.strerror or str(error), expected="a file that can be "
                           "written", remedy="choose a folder that exists and has room") from None
        self._at = 0
        self._schemas: list[Schema] = []
        self._channels: list[Channel] = []
        self._chunks: list[ChunkIndex] = []
        self._attachments: list[AttachmentIndex] = []
        self._metadata: list[MetadataIndex] = []
        self._counts: dict[int, int] = defaultdict(int)
        self._times: tuple[int, int] | None = None
        self._zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._write(MAGIC + _bytes(Header(profile, library)))

    def metadata(self, name: str, values: dict[str, str]) -> None:
        """Names and texts; belongs before the first chunk."""
        data = _bytes(Metadata(name=name, metadata=values))
        self._metadata.append(MetadataIndex(offset=self._at, length=len(data), name=name))
        self._write(data)

    def channel(self, topic: str, encoding: str, schema: tuple[str, str, bytes]) -> int:
        """Opens a channel; schema: (name, encoding, text). Returns the channel's number."""
        number = len(self._channels) + 1
        kind = Schema(id=number, name=schema[0], encoding=schema[1], data=schema[2])
        channel = Channel(id=number, topic=topic, message_encoding=encoding, metadata={}, schema_id=number)
        self._schemas.append(kind)
        self._channels.append(channel)
        self._write(_bytes(kind, channel))
        return number

    def chunk(self, messages: Sequence[tuple[int, int, bytes]], *, pixels: bool = False) -> tuple[int, int]:
        """Messages (channel, time_ns, data) as one chunk, written at once; `pixels` chooses the quick way for
        noise. Returns (offset, length) of the chunk's record."""
        body, index, times = _body(messages, self._counts)
        packed = self._zstd.compress(body)
        compression = "zstd"
        if pixels and len(packed) > 0.97 * len(body):  # noise through and through: decompress faster
            packed, compression = lz4.frame.compress(body), "lz4"
        data = _bytes(Chunk(compression=compression, data=packed, message_start_time=times[0],
                            message_end_time=times[1], uncompressed_crc=zlib.crc32(body),
                            uncompressed_size=len(body)))
        at, length = self._at, len(data)
        tail = RecordBuilder()
        offsets = {}
        for channel, entries in index.items():
            offsets[channel] = at + length + tail.count
            MessageIndex(channel, entries).write(tail)
        more = tail.end()
        self._chunks.append(ChunkIndex(
            chunk_length=length, chunk_start_offset=at, compression=compression, compressed_size=len(packed),
            message_end_time=times[1], message_index_length=len(more), message_index_offsets=offsets,
            message_start_time=times[0], uncompressed_size=len(body)))
        known = self._times or times
        self._times = (min(known[0], times[0]), max(known[1], times[1]))
        self._write(data + more)
        return at, length

    def attachment(self, name: str, media_type: str, data: bytes, time_ns: int = 0) -> None:
        """Bytes under a name (case, snapshot, index)."""
        packed = _bytes(Attachment(create_time=0, log_time=time_ns, name=name, media_type=media_type, data=data))
        self._attachments.append(AttachmentIndex(
            offset=self._at, length=len(packed), create_time=0, log_time=time_ns, data_size=len(data), name=name,
            media_type=media_type))
        self._write(packed)

    def sync(self) -> None:
        """Down to the disk, so that a power cut loses no more than a killed process."""
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """The summary, then closed."""
        self._write(_bytes(DataEnd(0)))
        start = self._at
        groups = ((Opcode.SCHEMA, self._schemas), (Opcode.CHANNEL, self._channels),
                  (Opcode.STATISTICS, [self._statistics()]), (Opcode.CHUNK_INDEX, self._chunks),
                  (Opcode.ATTACHMENT_INDEX, self._attachments), (Opcode.METADATA_INDEX, self._metadata))
        builder, offsets = RecordBuilder(), []
        for opcode, records in groups:
            before = builder.count
            for record in records:
                record.write(builder)
            if builder.count > before:
                offsets.append(SummaryOffset(group_opcode=opcode, group_start=start + before,
                                             group_length=builder.count - before))
        offsets_at = start + builder.count
        for offset in offsets:
            offset.write(builder)
        summary = builder.end()
        head = struct.pack("<BQQQ", Opcode.FOOTER, 20, start, offsets_at)
        crc = zlib.crc32(head, zlib.crc32(summary))
        self._write(summary + _bytes(Footer(summary_start=start, summary_offset_start=offsets_at, summary_crc=crc))
                    + MAGIC)
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Closed as it stands (the disk is full): what is there can be opened."""
        self._file.close()

    def _statistics(self) -> Statistics:
        start, end = self._times or (0, 0)
        return Statistics(
            attachment_count=len(self._attachments), channel_count=len(self._channels),
            channel_message_counts=dict(self._counts), chunk_count=len(self._chunks),
            message_count=sum(self._counts.values()), message_end_time=end, message_start_time=start,
            metadata_count=len(self._metadata), schema_count=len(self._schemas))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = self._file.write(view)
            view = view[done or 0:]
        self._at += len(data)


def _body(messages: Sequence[tuple[int, int, bytes]], counts: dict[int, int]) -> tuple[
        bytes, dict[int, list[tuple[int, int]]], tuple[int, int]]:
    """The chunk's records, where each message lies in it, and the times it spans."""
    builder = RecordBuilder()
    index: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for channel, time_ns, data in messages:
        index[channel].append((time_ns, builder.count))
        Message(channel_id=channel, log_time=time_ns, data=data, publish_time=time_ns,
                sequence=counts[channel] & 0xFFFFFFFF).write(builder)
        counts[channel] += 1
    times = [t for _, t, _ in messages]
    return builder.end(), index, (min(times), max(times))


def _bytes(*records: Any) -> bytes:
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    return builder.end()
