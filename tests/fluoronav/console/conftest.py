# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for the tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from console_feed import ConsoleFeed, ReplayOf, recorded

from fluoronav.console import ConsoleServer

PLACES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium of the system (or CHROMIUM), driven by playwright."""
    found = os.environ.get("CHROMIUM") or next((path for name in PLACES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine (apt install chromium, or set CHROMIUM)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page, 1280 x 800; errors of the page and refusals of its policy fail the test."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(10_000)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" and "WebSocket" not in said.text
              else None)
    yield opened
    context.close()
    assert wrong == []


@pytest.fixture
def live() -> Iterator[tuple[ConsoleFeed, ConsoleServer]]:
    feed = ConsoleFeed()
    feed.push()
    server = ConsoleServer(feed).start()
    feed.play()
    yield feed, server
    feed.halt()
    server.stop()


@pytest.fixture
def replay() -> Iterator[tuple[ReplayOf, ConsoleServer]]:
    feed = recorded(24)
    server = ConsoleServer(feed).start()
    yield feed, server
    server.stop()
