# SPDX-License-Identifier: Apache-2.0
"""What does an OpenIGTLink peer send? Pictures, and where the C-arm is; lost connections come back by themselves.

The messages are pyigtl's; the connection is our own, because pyigtl's client does not notice that its peer
is gone and keeps only the newest message of a device. PLUS and 3D Slicer speak R, A, S: turned here.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fluoronav.imaging.carm_file import angles_of_rotation, read_carm_file
from fluoronav.imaging.frame import Angles, Frame
from fluoronav.live.source import Gap, Rhythm, State, Stated
from fluoronav.live.streamed import Streamed, picture_in
from registration.errors import BadInput, BadPixels
from registration.geometry import Float64, Rigid

POLL_S = 0.05
CONNECT_S = 2.0
BACK_OFF_S = (0.1, 2.0)  # first and longest wait between attempts
STALLED_S = 5.0  # in the middle of a message
LARGEST = 512 << 20  # bytes of a message: more is no OpenIGTLink stream
KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}  # a pulled cable shows within 5 s
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Devices:
    """Names in the stream. image: the IMAGE device (empty: the first that comes); carm: a TRANSFORM named XToY
    as PLUS names them: `CArmToRoom` takes points of the C-arm frame (x along columns, y along rows, z towards
    the source, mm) into the room, `RoomToCArm` the other way; table: TRANSFORM whose shift is the table's place
    in the room. room: the axes of the room in the stream, parallel to the patient's (`ras` or `lps`)."""

    image: str = ""
    carm: str = "CArmToRoom"
    table: str = "TableToRoom"
    room: Literal["ras", "lps"] = "ras"


class Connection:
    """One connection to a peer: whole messages in the order in which they were sent."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=CONNECT_S)
        self._socket.settimeout(POLL_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._start()

    def _start(self) -> None:
        from pyigtl.messages import MessageBase

        self._header: dict[str, Any] | None = None
        self._data, self._filled = bytearray(MessageBase.IGTL_HEADER_SIZE), 0
        self._progress = time.monotonic()

    def message(self) -> Any | None:
        """The next message, None where none was whole within a moment. Raises OSError where the peer is gone,
        ValueError where what it sends is no OpenIGTLink, BadPixels for content that cannot be read."""
        from pyigtl.messages import MessageBase

        if not self._fill():
            return None
        if self._header is None:
            self._header = _header(bytes(self._data))
            self._data, self._filled = bytearray(self._header["body_size"]), 0
            if not self._fill():
                return None
        header, body = self._header, bytes(self._data)
        self._start()
        message = MessageBase.create_message(header["message_type"])
        if message is None:  # a kind that pyigtl does not know: not for us
            return None
        try:
            message.unpack(header, body)
        except (struct.error, KeyError, IndexError, ValueError, NotImplementedError) as error:
            raise BadPixels(f"message {header['message_type']} of {header['device_name']}",
                            got=f"content that cannot be read ({error})", expected="whole pictures and transforms",
                            remedy="send them as PLUS and 3D Slicer do") from error
        return message

    def _fill(self) -> bool:
        """Whether all bytes of the present part are there."""
        view = memoryview(self._data)
        while self._filled < len(self._data):
            try:
                n = self._socket.recv_into(view[self._filled:])
            except TimeoutError:
                begun = self._filled or self._header is not None
                if begun and time.monotonic() - self._progress > STALLED_S:
                    raise ConnectionError("a message stopped in its middle") from None
                return False
            if n == 0:
                raise ConnectionError("the peer closed the connection")
            self._filled += n
            self._progress = time.monotonic()
        return True

    def close(self) -> None:
        self._socket.close()


def _header(data: bytes) -> dict[str, Any]:
    """The fields of a header. Raises ValueError."""
    from pyigtl.messages import MessageBase

    try:
        fields: dict[str, Any] = MessageBase.parse_header(data)
    except UnicodeDecodeError as error:
        raise ValueError("a header with names that are no text") from error
    if fields["header_version"] not in (1, 2, 3) or fields["body_size"] > LARGEST:
        raise ValueError(f"a header of version {fields['header_version']} and {fields['body_size']} bytes")
    return fields


class NetworkSource:
    """Pictures of an OpenIGTLink peer, for as long as it takes: reconnects with growing waits, says each gap."""

    def __init__(self, host: str, port: int, stated: Stated, devices: Devices) -> None:
        self.host, self.port, self.stated, self.devices = host, port, stated, devices
        self.name = f"igtl://{host}:{port}"
        self.nominal_interval_s: float | None = None
        self._streamed = Streamed(self.name, stated, read_carm_file(stated.carm) if stated.carm else None)
        self._stop = threading.Event()
        self._angles: Angles | None = None
        self._table: tuple[float, float, float] | None = None
        self._told: set[str] = set()
        self._last = time.monotonic()
        self._image = devices.image
        self.notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Frame | Gap]:
        wait = BACK_OFF_S[0]
        while not self._stop.is_set():
            connection = None
            try:
                connection = Connection(self.host, self.port)
                for item in self._pictures(connection):
                    wait = BACK_OFF_S[0] if isinstance(item, Frame) else wait
                    yield item
            except (OSError, ValueError) as error:
                # no host names: what is said here is recorded
                said = "the sender cannot be reached" if connection is None else \
                    f"the connection to the sender broke ({error})"
                yield self._gap(f"{said}; trying again", "lost")
            finally:
                if connection is not None:
                    connection.close()
            self._angles = self._table = None  # what was true before the break may not be true after it
            self._stop.wait(wait)
            wait = min(2 * wait, BACK_OFF_S[1])

    def close(self) -> None:
        self._stop.set()

    def truth(self, index: int) -> dict[str, Any] | None:
        return None

    def _pictures(self, connection: Connection) -> Iterator[Frame | Gap]:
        """Frames of one connection; Gap where the peer stands and sends no pictures."""
        rhythm = Rhythm()
        while not self._stop.is_set():
            frame = None
            try:
                message = connection.message()
                if message is not None and message.message_type in ("IMAGE", "TRANSFORM"):
                    frame = self._taken(message)
            except BadInput as error:
                yield from self._once(str(error))
            if frame is not None:
                rhythm.came()
                self._last, self.notes = time.monotonic(), self._streamed.notes
                yield frame
            elif rhythm.silent():
                yield self._gap("the sender sends no pictures", "hold")

    def _taken(self, message: Any) -> Frame | None:
        """What a message changes: a frame, or the place of C-arm or table. Raises BadInput."""
        name = str(message.device_name)
        if message.message_type == "TRANSFORM":
            if name == self.devices.carm:
                self._angles = self._angles_of(np.asarray(message.matrix, np.float64))
            elif name == self.devices.table:
                place = self._to_lps @ np.asarray(message.matrix, np.float64)[:, 3]
                self._table = (float(place[0]), float(place[1]), float(place[2]))
            return None
        self._image = self._image or name
        if name != self._image:
            return None
        picture = picture_in(message.image, name)
        return self._streamed.frame(picture, float(message.timestamp), self._angles, self._table)

    @property
    def _to_lps(self) -> Float64:
        return LPS_FROM_RAS if self.devices.room == "ras" else np.eye(4)

    def _angles_of(self, matrix: Float64) -> Angles | None:
        """Gantry angles from a transform; None where a roll is left over that they cannot say."""
        rigid = Rigid.checked(matrix, f"transform {self.devices.carm}")
        if self.devices.carm.lower().startswith("room"):
            return angles_of_rotation(rigid @ Rigid.inverse(self._to_lps))
        return angles_of_rotation(Rigid.inverse(self._to_lps @ rigid))

    def _gap(self, reason: str, state: State) -> Gap:
        nothing_yet = self._streamed.count == 0
        return Gap(time.monotonic() - self._last, reason, state="waiting" if nothing_yet else state)

    def _once(self, reason: str) -> Iterator[Gap]:
        """What cannot be used is told once, not with every message."""
        if reason not in self._told:
            self._told.add(reason)
            yield Gap(time.monotonic() - self._last, reason, event=True)
