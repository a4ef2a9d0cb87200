# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the console, what may be said, and that the newest picture comes without a queue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import cv2
import numpy as np
import pytest
from console_feed import ConsoleFeed, recorded

from fluoronav.console import ConsoleServer
from registration.errors import BadInput
from registration.result import Outcome


@pytest.fixture
def served() -> Iterator[tuple[ConsoleFeed, ConsoleServer]]:
    feed = ConsoleFeed()
    feed.push()
    server = ConsoleServer(feed).start()
    yield feed, server
    server.stop()


class Page:
    """What a page does, without a browser."""

    def __init__(self, channel: aiohttp.ClientWebSocketResponse) -> None:
        self.channel = channel

    async def text(self, kind: str) -> dict[str, Any]:
        """The next text message of a kind."""
        while True:
            message = await asyncio.wait_for(self.channel.receive(), 5)
            if message.type is aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == kind:
                return dict(json.loads(message.data))
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message

    async def picture(self, within_s: float = 5) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The next picture: its header, and its parts by name."""
        async with asyncio.timeout(within_s):
            while True:
                message = await self.channel.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    break
                assert message.type is aiohttp.WSMsgType.TEXT, message
        (length,) = struct.unpack_from("<I", message.data)
        header, at, parts = json.loads(message.data[4:4 + length]), 4 + length, {}
        for part in header["parts"]:
            parts[part["name"]] = message.data[at:at + part["bytes"]]
            at += part["bytes"]
        assert at == len(message.data)
        return header, parts

    async def say(self, **message: Any) -> None:
        await self.channel.send_str(json.dumps(message))

    async def drawn(self, header: dict[str, Any]) -> None:
        await self.say(type="ack", seq=header["seq"])


def run_alone(conversation: Coroutine[Any, Any, Any]) -> Any:
    """Run it on a loop in a thread of its own: a browser's driver may have one running in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, conversation).result()


def with_page(server: ConsoleServer, talk: Callable[[Page], Awaitable[None]]) -> None:
    """Run a conversation over the console's WebSocket."""
    async def run() -> None:
        parts = urlsplit(server.url)
        async with aiohttp.ClientSession(headers={"Origin": f"http://{parts.netloc}"}) as session, \
                session.ws_connect(server.url + "socket", max_msg_size=0) as channel:
            await talk(Page(channel))

    run_alone(run())


def status_of(url: str, headers: dict[str, str] | None = None, *, upgrade: bool = False) -> tuple[int, Any]:
    """HTTP status and headers of a GET, or of the attempt to open a WebSocket."""
    async def run() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session:
            if upgrade:
                try:
                    async with session.ws_connect(url, headers=headers):
                        return 101, {}
                except aiohttp.WSServerHandshakeError as refused:
                    return refused.status, refused.headers
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                return answer.status, answer.headers

    status, headers = run_alone(run())
    return status, headers


# ---- who may talk


def test_without_this_starts_token_nothing_is_served(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = served
    base = f"http://127.0.0.1:{server.port}"
    for path in ("/", "/index.html", "/socket", "/timeline", "/wrong/", "/wrong/style.css", "/wrong/socket"):
        assert status_of(base + path)[0] == 403, path
    assert status_of(f"{base}/wrong/socket", {"Origin": base}, upgrade=True)[0] == 403
    assert status_of(server.url)[0] == 200


def test_each_start_has_its_own_token() -> None:
    first, second = ConsoleServer(ConsoleFeed()).start(), ConsoleServer(ConsoleFeed()).start()
    try:
        assert urlsplit(first.url).path != urlsplit(second.url).path
        assert len(urlsplit(first.url).path.strip("/")) >= 32  # 192 bits
    finally:
        first.stop()
        second.stop()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.nip.io:{port}", "127.0.0.1"])
def test_a_foreign_host_name_is_refused_as_dns_rebinding_needs_it(
        served: tuple[ConsoleFeed, ConsoleServer], host: str) -> None:
    _, server = served
    assert status_of(server.url, {"Host": host.format(port=server.port)})[0] == 403


def test_localhost_is_this_machine_too(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = served
    assert status_of(server.url, {"Host": f"localhost:{server.port}"})[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}",
                                    None])
def test_a_websocket_from_another_origin_is_refused(
        served: tuple[ConsoleFeed, ConsoleServer], origin: str | None) -> None:
    _, server = served
    headers = {} if origin is None else {"Origin": origin.format(port=server.port)}
    assert status_of(server.url + "socket", headers, upgrade=True)[0] == 403
    assert status_of(server.url + "socket", {"Origin": f"http://127.0.0.1:{server.port}"}, upgrade=True)[0] == 101


@pytest.mark.parametrize("path", ["", "app.js", "style.css", "no-such-file", "timeline"])
def test_every_answer_carries_a_policy_that_loads_nothing_from_elsewhere(
        served: tuple[ConsoleFeed, ConsoleServer], path: str) -> None:
    _, server = served
    _, headers = status_of(server.url + path)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"  # the token is in the path


@pytest.mark.parametrize("path", ["..%2fserver.py", "%2e%2e/server.py", "../server.py", "server.py", "__init__.py"])
def test_only_files_of_the_page_are_served(served: tuple[ConsoleFeed, ConsoleServer], path: str) -> None:
    _, server = served
    from yarl import URL

    assert status_of(URL(server.url + path, encoded=True))[0] in (403, 404)  # type: ignore[arg-type]


def test_only_loopback_is_served() -> None:
    with pytest.raises(BadInput, match="SSH tunnel"):
        ConsoleServer(ConsoleFeed(), host="0.0.0.0")


def test_a_taken_port_is_told_in_a_sentence() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken, \
            pytest.raises(BadInput, match="expected a free port"):
        ConsoleServer(ConsoleFeed(), port=taken.getsockname()[1]).start()


def test_a_stopped_console_gives_its_port_back() -> None:
    server = ConsoleServer(ConsoleFeed()).start()
    server.stop()
    again = ConsoleServer(ConsoleFeed(), port=server.port).start()
    assert again.port == server.port
    again.stop()


# ---- what may be said


@pytest.mark.parametrize("said", [
    "not json", "[]", "{}", '{"type": "ack"}', '{"type": "ack", "seq": "1"}', '{"type": "command", "kind": "shutdown"}',
    '{"type": "command", "kind": "nudge", "value": [0, 0, 0, 0, 0]}',
    '{"type": "command", "kind": "nudge", "value": [0, 0, 0, 1e9, 0, 0]}',
    '{"type": "command", "kind": "nudge", "value": [NaN, 0, 0, 0, 0, 0]}',
    '{"type": "command", "kind": "tolerance", "value": -1}', '{"type": "command", "kind": "tolerance", "value": true}',
    '{"type": "command", "kind": "layer", "value": {"name": "no such layer", "visible": true, "opacity": 1}}',
    '{"type": "command", "kind": "layer", "value": {"name": "path", "visible": true, "opacity": 2}}',
    '{"type": "command", "kind": "undo", "more": 1}', '{"type": "command", "kind": "reregister", "value": "rm"}',
    '{"type": "command", "kind": "seek", "value": 3}', '{"type": "view", "pictures": ["secret"]}'])
def test_a_malformed_message_is_refused_with_a_sentence_and_reaches_no_feed(
        served: tuple[ConsoleFeed, ConsoleServer], said: str) -> None:
    feed, server = served

    async def talk(page: Page) -> None:
        await page.channel.send_str(said)
        assert len((await page.text("refused"))["text"]) > 10
        await page.say(type="clock", t=1.0)  # and the connection lives
        assert (await page.text("clock"))["t"] == 1.0

    with_page(server, talk)
    assert feed.commands == []


def test_commands_reach_the_feed_in_order(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = served
    said = [("nudge", [0.0, 0.0, 0.1, 1.0, -2.0, 3.0]), ("undo", None), ("reregister", "search"), ("tolerance", 4.0),
            ("layer", {"name": "path", "visible": False, "opacity": 0.5}), ("reregister", None)]

    async def talk(page: Page) -> None:
        for kind, value in said:
            await page.say(type="command", kind=kind, **({} if value is None else {"value": value}))
        for kind, _ in said:
            assert (await page.text("done"))["kind"] == kind

    with_page(server, talk)
    assert [(c.kind, c.value) for c in feed.commands] == said


def test_a_recording_is_wound_but_not_changed() -> None:
    replay = recorded(4)
    server = ConsoleServer(replay).start()

    async def talk(page: Page) -> None:
        assert (await page.text("hello"))["mode"] == "replay"
        await page.say(type="command", kind="nudge", value=[0, 0, 0, 1, 0, 0])
        assert "not changed" in (await page.text("refused"))["text"]
        await page.say(type="command", kind="seek", value=2)
        await page.text("done")

    try:
        with_page(server, talk)
        assert replay.position == 2
    finally:
        server.stop()


# ---- pictures


def test_a_picture_comes_whole_with_its_words_and_layers(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = served
    step = feed.latest()
    assert step is not None

    async def talk(page: Page) -> None:
        header, parts = await page.picture()
        assert header["state"]["word"] == "REGISTERED" and header["angles"]["primary_deg"] == 31.3
        grey = cv2.imdecode(np.frombuffer(parts["enhanced"], np.uint8), cv2.IMREAD_UNCHANGED)
        off = np.abs(grey.astype(float) - step.enhanced.display)
        assert grey.shape == step.enhanced.display.shape and off.mean() < 2  # JPEG of quality 92
        name, truth = "path", step.overlay.layers["path"]
        part = next(p for p in header["parts"] if p["name"] == name)
        r, c, h, w = part["box"]
        rgba = cv2.imdecode(np.frombuffer(parts[name], np.uint8), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]]
        whole = np.zeros_like(truth)
        whole[r:r + h, c:c + w] = rgba
        assert np.array_equal(whole[..., 3], truth[..., 3])  # nothing of a layer is cut off
        back = np.rint(whole[..., :3] * (whole[..., 3:] / 255.0))
        assert np.abs(back - truth[..., :3]).max() <= 1  # straight alpha, rounded once

    with_page(server, talk)


@pytest.mark.parametrize("outcome", [Outcome.AMBIGUOUS, Outcome.LOST])
def test_no_anatomy_is_sent_unless_registered(
        served: tuple[ConsoleFeed, ConsoleServer], outcome: Outcome) -> None:
    feed, server = served
    feed.outcome = outcome
    feed.push()

    async def talk(page: Page) -> None:
        await page.say(type="view", pictures=["enhanced", "drr"])
        while "drr" not in (header := (await page.picture())[0])["missing"]:
            await page.drawn(header)
        assert header["layers"] == {} and [p["name"] for p in header["parts"]] == ["enhanced"]
        assert header["state"]["why"] and header["state"]["projected_mm"] is None

    with_page(server, talk)


def test_a_layer_that_did_not_change_is_not_sent_again(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = served
    feed.pose = lambda k: ConsoleFeed.pose(feed, 0)  # type: ignore[method-assign]
    feed.push()

    async def talk(page: Page) -> None:
        header, parts = await page.picture()
        assert "path" in parts
        await page.drawn(header)
        feed.push()
        later, parts = await page.picture()
        assert later["layers"]["path"] == header["layers"]["path"] and set(parts) == {"enhanced"}

    with_page(server, talk)


def test_a_slow_page_skips_to_the_newest_and_nothing_queues(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = served

    async def talk(page: Page) -> None:
        first, _ = await page.picture()
        for _ in range(5):
            feed.push()
            await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):  # not acknowledged: nothing more comes
            await page.picture(within_s=0.3)
        await page.drawn(first)
        newest, _ = await page.picture()
        assert newest["index"] == first["index"] + 5

    with_page(server, talk)


def test_a_slow_page_does_not_hold_back_another(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = served

    async def both() -> None:
        headers = {"Origin": f"http://127.0.0.1:{server.port}"}
        async with aiohttp.ClientSession(headers=headers) as session, \
                session.ws_connect(server.url + "socket") as slow, session.ws_connect(server.url + "socket") as quick:
            await Page(slow).picture()  # and never acknowledges
            page, seen = Page(quick), 0
            for _ in range(6):
                header, _ = await page.picture()
                await page.drawn(header)
                seen += 1
                feed.push()
            assert seen == 6

    run_alone(both())


def test_the_held_picture_stays_and_can_still_be_seen_raw(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = served

    async def talk(page: Page) -> None:
        first, _ = await page.picture()
        await page.drawn(first)
        await page.say(type="view", pictures=["enhanced"], hold=True)
        await page.drawn((await page.picture())[0])
        for _ in range(3):
            feed.push()
        await page.say(type="view", pictures=["raw"], hold=True)
        held, parts = await page.picture()
        assert held["seq"] == first["seq"] and list(parts) == ["raw"]
        await page.drawn(held)
        await page.say(type="view", pictures=["enhanced"])
        while (header := (await page.picture())[0])["index"] < first["index"] + 3:
            await page.drawn(header)

    with_page(server, talk)


def test_a_page_opened_late_learns_how_old_the_picture_is(served: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = served
    time.sleep(0.6)

    async def talk(page: Page) -> None:
        header, _ = await page.picture()
        assert time.time() * 1000 - header["seen_ms"] > 500  # the feed has stood still since before the page

    with_page(server, talk)


def test_without_a_page_nothing_is_encoded(served: tuple[ConsoleFeed, ConsoleServer],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    feed, _ = served
    coded: list[str] = []
    monkeypatch.setattr(cv2, "imencode", lambda kind, *_: coded.append(kind))
    for _ in range(3):
        feed.push()
        time.sleep(0.03)
    assert coded == []
