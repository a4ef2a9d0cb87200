# SPDX-License-Identifier: Apache-2.0
"""How does one page get the newest picture and never a queue? One picture is under way at a time.

The page acknowledges a picture when it has drawn it; only then may the next go out, and that is the newest
there is. A slow or hidden page therefore skips pictures; nothing waits for it. Everything here runs on the
event loop; one task sends, one reads.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from fluoronav.console import messages
from fluoronav.console.encode import Encoded

if TYPE_CHECKING:
    from fluoronav.console.server import Hub

MOST_ANSWERS = 64  # a page that asks and does not read is shut


class Viewer:
    """One open page."""

    def __init__(self, socket: web.WebSocketResponse, hub: Hub) -> None:
        self.socket, self.hub = socket, hub
        self.pictures: tuple[str, ...] = ("enhanced",)
        self._held: Encoded | None = None  # the picture that the person holds
        self._last: Encoded | None = None  # the last one sent
        self._drawn: Encoded | None = None  # the last one that the page said it has drawn
        self._again = False  # the same picture once more, in other kinds
        self._under_way: int | None = None
        self._known: dict[str, int] = {}
        self._texts: deque[dict[str, Any]] = deque()
        self._status: dict[str, Any] | None = None
        self._wake = asyncio.Event()
        self._shut: asyncio.Future[bool] | None = None

    async def serve(self) -> None:
        """Until the page goes."""
        sender = asyncio.create_task(self._send())
        try:
            await self._receive()
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def say(self, text: dict[str, Any]) -> None:
        """Queue a small message; a page that does not read is shut instead of being fed."""
        if len(self._texts) >= MOST_ANSWERS:
            self._shut = asyncio.ensure_future(self.socket.close(code=1008, message=b"does not read"))
            return
        self._texts.append(text)
        self._wake.set()

    def tell_status(self, status: dict[str, Any]) -> None:
        """The newest status; an older one not yet sent is forgotten."""
        self._status = status
        self._wake.set()

    def look(self) -> None:
        """There may be a newer picture."""
        self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._texts:
                await self.socket.send_str(json.dumps(self._texts.popleft(), allow_nan=False))
            if self._status is not None:
                status, self._status = self._status, None
                await self.socket.send_str(json.dumps(status, allow_nan=False))
            await self._send_picture()

    async def _send_picture(self) -> None:
        chosen = self._held or self.hub.current
        if chosen is None or self._under_way is not None or (chosen is self._last and not self._again):
            return
        kinds = self.pictures
        if not chosen.ready(kinds):
            await self.hub.complete(chosen, kinds)
        self._again, self._last, self._under_way = False, chosen, chosen.seq
        await self.socket.send_bytes(chosen.message(kinds, self._known))

    async def _receive(self) -> None:
        async for message in self.socket:
            if message.type is not WSMsgType.TEXT:
                self.say({"type": "refused", "text": "only text messages are understood"})
                continue
            try:
                await self._take(messages.read(message.data))
            except messages.Refused as refused:
                self.say({"type": "refused", "text": str(refused)})

    async def _take(self, said: Any) -> None:
        handler: dict[str, Callable[[Any], Awaitable[None]]] = {
            "ack": self._acknowledged, "view": self._view, "clock": self._clock, "command": self._command}
        await handler[said.type](said)

    async def _acknowledged(self, said: messages.Ack) -> None:
        if said.seq == self._under_way:
            self._under_way, self._drawn = None, self._last
            self._wake.set()

    async def _view(self, said: messages.View) -> None:
        self.pictures = tuple(dict.fromkeys(said.pictures))
        self._held = (self._held or self._drawn) if said.hold else None
        self._again = True
        self.hub.wanted_changed()
        self._wake.set()

    async def _clock(self, said: messages.Clock) -> None:
        self.say({"type": "clock", "t": said.t, "server_ms": time.time() * 1000})

    async def _command(self, said: Any) -> None:
        await self.hub.command(said)
        self.say({"type": "done", "kind": said.kind})
