# SPDX-License-Identifier: Apache-2.0
"""What is on the screen? What the tests of the page look at, and how long they wait for it."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
from console_feed import ConsoleFeed

from fluoronav.console import ConsoleServer

AMBER = (255, 181, 46)  # the planned path


def until(page: Any, said: str, argument: Any = None, within_s: float = 10) -> None:
    """Wait for an expression, or a function of an argument, to be true (wait_for_function would need eval, which the
    page's policy forbids)."""
    end = time.monotonic() + within_s
    while not page.evaluate(said, argument):
        assert time.monotonic() < end, f"{said} ({argument}) did not come true"
        page.wait_for_timeout(20)


def opened(page: Any, server: ConsoleServer) -> None:
    """The page with its first picture."""
    page.goto(server.url)
    until(page, "document.getElementById('number').textContent !== ''")


def picture(page: Any) -> np.ndarray:
    """RGB of the picture with its layers, as on the screen, without the rows where words stand."""
    data = page.locator("#stack").screenshot()
    seen = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return seen[len(seen) // 5: -len(seen) // 6]


def amber(page: Any) -> int:
    """Pixels in the color of the planned path."""
    return int((np.abs(picture(page).astype(int) - AMBER).max(axis=2) < 40).sum())


def path_is_seen(page: Any, seen: bool = True) -> None:
    """Wait until the planned path is on the screen, or is not; a busy machine draws late."""
    end = time.monotonic() + 10
    while (found := amber(page)) <= 100 if seen else (found := amber(page)) > 0:
        assert time.monotonic() < end, f"{found} pixels of the path"
        page.wait_for_timeout(50)


def word(page: Any, said: str) -> None:
    """Wait for the state's word."""
    until(page, "said => document.getElementById('state-word').textContent === said", said)


def arrived(page: Any, feed: ConsoleFeed, kinds: list[str]) -> None:
    """Wait until these commands, and no others, reached the feed."""
    end = time.monotonic() + 5
    while [c.kind for c in feed.commands] != kinds:
        assert time.monotonic() < end, feed.commands
        page.wait_for_timeout(20)


def canvas_of(page: Any, name: str = "#picture") -> str:
    return str(page.evaluate("name => document.querySelector(name).toDataURL()", name))


def run_module(page: Any, name: str, code: str, argument: Any = None) -> Any:
    """Run code with a module of the page as `m` and the argument as `a`."""
    return page.evaluate(f"async a => {{ const m = await import('./{name}.js'); return {code}; }}", argument)
