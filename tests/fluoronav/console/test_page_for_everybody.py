# SPDX-License-Identifier: Apache-2.0
"""Can everybody read and reach it? Tab, contrast, keys, and nothing from elsewhere: the page in a headless Chromium."""

from __future__ import annotations

from typing import Any

import pytest
from console_feed import ConsoleFeed, ReplayOf
from seen import opened

from fluoronav.console import ConsoleServer
from registration.result import Outcome

pytestmark = pytest.mark.browser


def test_everything_is_reached_by_tab_with_visible_focus(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    wanted = set(page.evaluate("""() => [...document.querySelectorAll('button, input, select')]
        .filter((e) => e.checkVisibility() && !e.disabled && e.tabIndex >= 0)
        .map((e) => e.id || e.closest('[data-name]')?.dataset.name)"""))
    reached, unseen = set(), []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => { const e = document.activeElement, s = getComputedStyle(e);
            return [e.id || e.closest('[data-name]')?.dataset.name, parseFloat(s.outlineWidth)]; }""")
        reached.add(name)
        if name and not outline >= 2:
            unseen.append(name)
    assert wanted <= reached
    assert unseen == []


CONTRAST = """() => {
  const parse = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3]));
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => c.map((v, k) => [0.2126, 0.7152, 0.0722][k] * linear(v / 255)).reduce((a, b) => a + b);
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const words = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join('');
    if (!words || !e.checkVisibility({ visibilityProperty: true }) || e.closest('.unseen')) continue;
    const chain = [];
    for (let p = e; p; p = p.parentElement) chain.push(p);
    const opacity = chain.reduce((o, p) => o * Number(getComputedStyle(p).opacity), 1);
    let worst = Infinity;
    for (const under of [[0, 0, 0], [255, 255, 255]]) {  // what lies below a plate may be any grey
      let ground = under;
      for (const p of chain.reverse()) ground = over(parse(getComputedStyle(p).backgroundColor), ground);
      chain.reverse();
      if (!e.closest('#stage')) if (under[0] === 255) continue;
      const ink = parse(getComputedStyle(e).color);
      ink[3] *= opacity;
      const [a, b] = [light(over(ink, ground)), light(ground)].sort((x, y) => y - x);
      worst = Math.min(worst, (a + 0.05) / (b + 0.05));
    }
    found.push([Math.round(worst * 100) / 100, e.id || e.className || e.tagName, words.slice(0, 30)]);
  }
  return found;
}"""


@pytest.mark.parametrize("state", ["REGISTERED", "UNCERTAIN", "LOST", "NOT LIVE", "LAST IMAGE HOLD", "RAW", "ALARM"])
def test_every_word_has_a_contrast_of_seven_to_one(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer], state: str) -> None:
    feed, server = live
    feed.badges = ("alarm: denoise failed and is off",) if state == "ALARM" else ("motion skipped: out of time",)
    feed.outcome = {"UNCERTAIN": Outcome.AMBIGUOUS, "LOST": Outcome.LOST}.get(state, Outcome.ACCEPTED)
    opened(page, server)
    if state == "RAW":
        page.keyboard.press("r")
    if state == "LAST IMAGE HOLD":
        feed.source_state = "ended"
    if state in ("NOT LIVE", "LAST IMAGE HOLD"):
        feed.halt()
        page.wait_for_timeout(900)
    page.wait_for_timeout(300)
    assert state == "ALARM" or state in page.inner_text("body")
    found = page.evaluate(CONTRAST)
    assert len(found) > 30
    assert [one for one in found if one[0] < 7] == []


def test_nothing_blinks(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    assert page.evaluate("document.getAnimations().length") == 0


def test_keys_are_listed(page: Any, replay: tuple[ReplayOf, ConsoleServer]) -> None:
    _, server = replay
    opened(page, server)
    page.keyboard.press("?")
    text = page.inner_text("#keys")
    for key in ("Space", "R", "O", "1 – 6", "B", "G", "N", "Z", "F", "S"):
        assert key in text
    page.keyboard.press("r")  # no key works through the list
    assert page.get_attribute("#raw", "aria-pressed") == "false"
    page.keyboard.press("Escape")
    assert not page.is_visible("#keys")
    page.keyboard.press("?")
    page.click("#keys button")
    assert not page.is_visible("#keys")


def test_nothing_lies_over_an_alarm(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    page.keyboard.press("?")
    feed.halt()
    page.wait_for_selector("#not-live:not([hidden])")
    assert not page.is_visible("#keys")


def test_the_page_asks_nothing_from_elsewhere(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, server)
    page.wait_for_timeout(300)
    assert asked and all(url.startswith(server.url) for url in asked)
