# SPDX-License-Identifier: Apache-2.0
"""Where is the console served? On loopback, in a thread of its own, at an address that only this start knows.

`ConsoleServer(feed).start()`; `.url` is the address to open; `.stop()`. One thread watches the feed and
encodes, once for all pages; the event loop only sends. A page never slows the pipeline down.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from fluoronav.console import messages
from fluoronav.console.describe import describe_status, plain
from fluoronav.console.encode import Encoded, Encoder
from fluoronav.console.guard import LOOPBACK, Guard, middleware
from fluoronav.console.viewer import Viewer
from fluoronav.live.step import Feed
from registration.errors import BadInput

PAGE = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LOOK_S = 0.004  # how often the feed is looked at: a quarter of a frame at 60 frames/s
STATUS_S = 0.1
MOST_VIEWERS = 8
HEARTBEAT_S = 5.0  # a page that vanished without a word is found by it


class Hub:
    """What the pages share: the feed, the newest encoded picture, and who looks."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.viewers: set[Viewer] = set()
        self.current: Encoded | None = None
        self.wanted: tuple[str, ...] = ()
        self.stopping = threading.Event()
        self._encoder = Encoder(feed.blend)
        self._pool = ThreadPoolExecutor(1, "console-work")  # one: commands keep their order
        self.hello = self._hello(feed.status().mode)  # first message of a connection, and when the feed turns

    def _hello(self, mode: str) -> dict[str, Any]:
        return {"type": "hello", "mode": mode, "layers": plain([dict(layer) for layer in self.feed.layers])}

    def _status(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The status as a message, and the hello that goes with it; a feed may state `tolerance_mm` and
        `heads` (what the enhancement does)."""
        status = self.feed.status()
        tolerance = {"tolerance_mm": plain(getattr(self.feed, "tolerance_mm", None))}
        heads = {"heads": None if (given := getattr(self.feed, "heads", None)) is None else plain(asdict(given))}
        return {"type": "status", **describe_status(status), **tolerance, **heads}, self._hello(status.mode)

    def wanted_changed(self) -> None:
        """Kinds of pictures that any page needs; with nobody looking nothing is encoded."""
        self.wanted = tuple(dict.fromkeys(kind for viewer in self.viewers for kind in viewer.pictures))

    async def complete(self, encoded: Encoded, kinds: Collection[str]) -> None:
        """Encode what a page needs beyond what is ready, off the loop."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._encoder.complete, encoded, kinds)

    async def command(self, order: Any) -> None:
        """Hand a page's command to the feed, off the loop. Raises Refused."""
        command = messages.command_of(order, self.hello["mode"], {layer["name"] for layer in self.hello["layers"]})
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self.feed.command, command)
        except BadInput as refused:
            raise messages.Refused(str(refused)) from None

    async def timeline(self) -> dict[str, Any] | None:
        """The feed's timeline as JSON, None where it is live."""
        found = await asyncio.get_running_loop().run_in_executor(self._pool, self.feed.timeline)
        return None if found is None else plain(found)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the feed until stopped: the newest step, encoded; the status. Runs in its own thread."""
        newest, encoded, seen_ms, status_at = None, None, 0.0, 0.0
        while not self.stopping.wait(LOOK_S):
            step = self.feed.latest()
            if step is not newest:
                newest, seen_ms = step, time.time() * 1000
            if not self.viewers:
                continue
            if newest is not None and newest is not encoded:
                encoded = newest
                loop.call_soon_threadsafe(self._publish, self._encoder.encode(newest, self.wanted, seen_ms))
            if time.monotonic() >= status_at:
                status_at = time.monotonic() + STATUS_S
                loop.call_soon_threadsafe(self._tell, *self._status())

    def close(self) -> None:
        """End the watching and the work."""
        self.stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _publish(self, encoded: Encoded) -> None:
        self.current = encoded
        for viewer in self.viewers:
            viewer.look()

    def _tell(self, status: dict[str, Any], hello: dict[str, Any]) -> None:
        turned, self.hello = hello != self.hello, hello
        for viewer in self.viewers:
            if turned:  # a live run became its recording, or has other layers
                viewer.say(hello)
            viewer.tell_status(status)


class ConsoleServer:
    """The console of one feed. Raises BadInput for an address that is not loopback or not free."""

    def __init__(self, feed: Feed, *, port: int = 0, host: str = "127.0.0.1") -> None:
        if host not in LOOPBACK:
            raise BadInput("console address", got=host, expected="this machine: " + ", ".join(LOOPBACK),
                           remedy="use 127.0.0.1, and an SSH tunnel to look from elsewhere")
        self._host, self._asked = host, port
        self._token = secrets.token_urlsafe(24)
        self._hub = Hub(feed)
        self.port = 0  # the port that is served, once started
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="console", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="console-watch", daemon=True)

    @property
    def url(self) -> str:
        """The address to open, with this start's token."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/{self._token}/"

    def start(self) -> ConsoleServer:
        """Serve, from a thread of its own; returns when the address answers. Raises BadInput."""
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            self._socket = socket.create_server((self._host, self._asked), family=family)
        except (OSError, OverflowError) as failed:
            raise BadInput(f"console port {self._asked}", got=getattr(failed, "strerror", None) or str(failed),
                           expected="a free port", remedy="leave --port out, or give another") from failed
        self.port = int(self._socket.getsockname()[1])
        self._thread.start()
        self._up.wait()
        self._watcher.start()
        return self

    def stop(self) -> None:
        """Close every page's connection and the server; harmless when it was never started."""
        self._hub.close()
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(5)
        if self._watcher.is_alive():
            self._watcher.join(5)

    def _watch(self) -> None:
        assert self._loop is not None
        try:
            self._hub.watch(self._loop)
        except RuntimeError:
            if not self._hub.stopping.is_set():  # the loop may close under a last picture while stopping
                raise

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(middlewares=[middleware(Guard(self._token, self.port))])
        app.add_routes([web.get("/{token}/", self._page), web.get("/{token}/socket", self._viewer),
                        web.get("/{token}/timeline", self._timeline), web.get("/{token}/{name}", self._page)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)  # a log would hold the token
        await runner.setup()
        assert self._socket is not None
        await web.SockSite(runner, self._socket).start()
        self._up.set()
        await self._over.wait()
        for viewer in list(self._hub.viewers):
            await viewer.socket.close(code=1001, message=b"fluoronav ended")
        await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        files = {file.name: file for file in PAGE.iterdir()}
        if name not in files or files[name].suffix not in TYPES:
            raise web.HTTPNotFound(text="There is no such file in the console.")
        return web.Response(body=files[name].read_bytes(), content_type=TYPES[files[name].suffix], charset="utf-8")

    async def _timeline(self, request: web.Request) -> web.Response:
        return web.json_response(await self._hub.timeline())

    async def _viewer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Origin") is None:  # browsers always send it; its absence is no page of ours
            raise web.HTTPForbidden(text="This console answers only its own page.")
        if len(self._hub.viewers) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} pages are open already; close one.")
        channel = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=1 << 16, compress=False)
        await channel.prepare(request)
        viewer = Viewer(channel, self._hub)
        viewer.say(self._hub.hello)
        self._hub.viewers.add(viewer)
        self._hub.wanted_changed()
        try:
            await viewer.serve()
        finally:
            self._hub.viewers.discard(viewer)
            self._hub.wanted_changed()
        return channel
