# SPDX-License-Identifier: Apache-2.0
"""The page switches the heads of the enhancement and shows where a pixel is from and how sure it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from console_feed import SIDE, ConsoleFeed
from seen import arrived, canvas_of, opened, picture, until

from fluoronav.console import ConsoleServer


def test_heads_are_switched_and_the_face_says_what_is_on(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    until(page, "!document.getElementById('stabilise').disabled")
    page.click("#stabilise")
    arrived(page, feed, ["heads"])
    assert feed.commands[-1].value == {"denoise": True, "contrast": 0.0, "superres": False, "stabilise": True}
    until(page, "document.getElementById('face').textContent.includes('STABILISED')")
    page.fill("#contrast", "1.5")
    arrived(page, feed, ["heads", "heads"])
    assert feed.commands[-1].value == {"denoise": True, "contrast": 1.5, "superres": False, "stabilise": True}
    until(page, "document.getElementById('face').textContent.includes('CONTRAST 1.5')")
    page.click("#superres")
    until(page, "said => document.getElementById('picture').width === said", 2 * SIDE)
    page.keyboard.press("r")  # raw is raw, on the same pixels
    until(page, "document.getElementById('face').textContent.includes('RAW')")
    until(page, "!document.getElementById('face').textContent.includes('CONTRAST')")


def test_weights_and_uncertainty_lie_over_the_picture_with_their_legend(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _feed, server = live
    opened(page, server)
    page.keyboard.press("e")
    until(page, "document.getElementById('face').textContent.includes('WEIGHTS')")
    page.click("#overlay")
    seen = picture(page).astype(int)
    assert np.mean(np.abs(seen[..., 0] - seen[..., 2]) > 10) > 0.3  # in color
    assert "surroundings" in page.inner_text("#explain-legend")
    page.keyboard.press("u")
    until(page, "document.getElementById('face').textContent.includes('UNCERTAINTY')")
    assert "Standard deviation" in page.inner_text("#explain-legend")
    page.keyboard.press("u")
    until(page, "!document.getElementById('face').textContent.includes('UNCERTAINTY')")
    assert page.is_hidden("#explain-legend") and canvas_of(page)
