# SPDX-License-Identifier: Apache-2.0
"""Is it live, is it registered, or is it a recording? The page in a headless Chromium, in states the tests choose."""

from __future__ import annotations

import time
from typing import Any

import pytest
from console_feed import ConsoleFeed, ReplayOf, recorded
from seen import amber, canvas_of, opened, path_is_seen, picture, run_module, until, word

from fluoronav.console import ConsoleServer
from registration.result import Outcome

pytestmark = pytest.mark.browser


def test_the_picture_moves_and_its_words_are_there(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    first = canvas_of(page)
    until(page, "n => Number(document.getElementById('number').textContent.slice(1)) > n", feed.index)
    assert canvas_of(page) != first
    word(page, "REGISTERED")
    text = page.inner_text("body")
    for said in ("CASE 7F3A torso", "31.3", "1100", "90 kV", "210 mA", "8 ms", "0.42 µGy/frame", "ENHANCED", "OVERLAY",
                 "REC", "fps", "dropped"):
        assert said in text, said
    assert page.inner_text("#primary-name") == "LAO" and page.inner_text("#secondary-name") == "CAU"
    bound = page.inner_text("#state-bound")
    assert bound.startswith("±") and "mm" in bound and "3D" in bound
    assert page.get_attribute("body", "data-live") == "live"


def test_a_picture_that_a_stage_was_left_out_of_says_so_on_its_face(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    until(page, "document.getElementById('face').textContent.startsWith('ENHANCED')")
    assert "WITHOUT" not in page.inner_text("#face")
    feed.badges = ("motion skipped: out of time", "denoise failed and is off: ValueError")
    until(page, "document.getElementById('face').textContent.startsWith('ENHANCED WITHOUT MOTION WITHOUT DENOISE')")
    feed.badges = ()
    until(page, "!document.getElementById('face').textContent.includes('WITHOUT')")


def test_time_to_the_screen_is_measured_in_the_page(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    until(page, "Number(document.getElementById('latency').textContent) > 0")
    shown = float(page.inner_text("#latency"))
    assert 21 < shown < 1000  # more than the 21 ms that the feed says its step took


@pytest.mark.parametrize(("outcome", "said", "why"), [
    (Outcome.LOST, "LOST", "the vessels left the picture"), (Outcome.AMBIGUOUS, "UNCERTAIN", "two poses fit")])
def test_without_registration_no_anatomy_is_drawn_and_the_page_says_why(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer], outcome: Outcome, said: str, why: str) -> None:
    feed, server = live
    opened(page, server)
    word(page, "REGISTERED")
    path_is_seen(page)
    feed.outcome = outcome
    word(page, said)
    page.wait_for_timeout(150)
    assert amber(page) == 0
    for name in ("path", "target", "centerline"):  # wiped, not merely hidden
        assert not page.evaluate("""name => { const c = document.querySelector(`[data-layer="${name}"]`);
            return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v !== 0); }""", name)
    assert why in page.inner_text("#state-why").lower()
    assert said in page.inner_text("#layers-why")
    assert "OVERLAY" not in page.inner_text("#face")
    assert said in page.text_content("#announce")
    feed.outcome = Outcome.ACCEPTED
    word(page, "REGISTERED")
    path_is_seen(page)


def test_without_a_case_it_says_so(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    feed.case_name, feed.layers, feed.outcome, feed.badges = "", [], Outcome.LOST, ("no case",)
    opened(page, server)
    word(page, "NO CASE")
    assert page.is_disabled("#reregister")


def test_a_feed_that_stops_is_not_live_and_the_seconds_count(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    word(page, "REGISTERED")
    bright = picture(page)[:, 60:120].mean()
    feed.halt()
    page.wait_for_selector("#not-live:not([hidden])")
    assert page.get_attribute("body", "data-live") == "stale"
    first = float(page.inner_text("#not-live-seconds").split()[0])
    until(page, "t => parseFloat(document.getElementById('not-live-seconds').textContent) > t", first)
    assert picture(page)[:, 60:120].mean() < 0.6 * bright  # greyed
    assert amber(page) == 0  # anatomy of then is not drawn now
    feed.play()
    page.wait_for_selector("#not-live", state="hidden")
    assert page.get_attribute("body", "data-live") == "live"


def test_a_server_that_is_gone_is_not_live(page: Any) -> None:
    feed = ConsoleFeed()
    feed.push()
    server = ConsoleServer(feed).start()
    feed.play()
    opened(page, server)
    word(page, "REGISTERED")
    server.stop()
    page.wait_for_selector("#not-live:not([hidden])")
    assert "Connection" in page.inner_text("#not-live-why")
    feed.halt()


def test_a_page_opened_on_a_feed_that_stands_still_says_so_at_once(page: Any) -> None:
    feed = ConsoleFeed()
    feed.push()
    server = ConsoleServer(feed).start()
    time.sleep(1)
    page.goto(server.url)
    until(page, "document.getElementById('number').textContent !== ''")
    try:
        assert page.is_visible("#not-live")
    finally:
        server.stop()


def test_the_end_of_a_run_is_last_image_hold(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    feed.source_state, feed.source_note = "ended", "the run ended"
    feed.halt()
    until(page, "document.getElementById('holding-word').textContent === 'LAST IMAGE HOLD'")
    assert page.is_visible("#holding") and not page.is_visible("#not-live")


@pytest.mark.parametrize(("interval_s", "age_ms", "kind"), [
    (1 / 15, 450, "live"), (1 / 15, 550, "stale"), (1.0, 2400, "live"), (1.0, 2600, "stale"), (None, 550, "stale")])
def test_stale_is_half_a_second_or_two_and_a_half_intervals(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer], interval_s: float | None, age_ms: float, kind: str) -> None:
    _, server = live
    opened(page, server)
    asked = {"now": 10_000, "newestAt": 10_000 - age_ms, "connected": True, "brokenAt": 0, "statusAt": 9_900,
             "status": {"frame_interval_s": interval_s, "source_state": "live", "source_note": ""}, "held": False,
             "mode": "live"}
    assert run_module(page, "liveness", "m.verdict(a).kind", asked) == kind
    assert run_module(page, "liveness", "m.verdict(a).kind", asked | {"connected": False}) == "stale"


# ---- replay


def test_a_replay_is_wound_by_scrubber_arrows_and_events(page: Any, replay: tuple[ReplayOf, ConsoleServer]) -> None:
    feed, server = replay
    opened(page, server)
    assert page.inner_text("#clock") == "REPLAY"
    assert not page.is_visible("#reregister") and not page.is_visible("#not-live")
    word(page, "REGISTERED")
    page.locator("#scrubber").fill("15")
    until(page, "document.getElementById('number').textContent === '#15'")
    word(page, "LOST")
    assert amber(page) == 0 and feed.position == 15
    page.locator("#scrubber").press("ArrowRight")
    until(page, "document.getElementById('number').textContent === '#16'")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    until(page, "document.getElementById('number').textContent === '#14'")
    lost = next(k for k, s in enumerate(feed.steps) if s.registration.outcome is Outcome.LOST)
    page.click("#event-list button")
    until(page, "n => document.getElementById('number').textContent === `#${n}`", lost)
    page.select_option("#rate", "4")
    page.click("#play")
    until(page, "document.getElementById('play').textContent === 'Pause'")
    assert feed.rate == 4 and feed.playing


def test_a_run_that_becomes_its_recording_is_replayed_on_the_same_page(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    word(page, "REGISTERED")
    feed.halt()
    recording = recorded(6)
    for name in ("latest", "status", "command", "timeline"):
        setattr(feed, name, getattr(recording, name))
    until(page, "document.getElementById('clock').textContent === 'REPLAY'")
    assert page.is_visible("#scrubber") and not page.is_visible("#not-live")
    until(page, "document.getElementById('position').textContent.includes('of 6')")
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('number').textContent === '#1'")


def test_the_band_shows_the_states_by_color_and_height(page: Any, replay: tuple[ReplayOf, ConsoleServer]) -> None:
    feed, server = replay
    opened(page, server)
    page.wait_for_timeout(300)
    heights = page.evaluate("""n => { const c = document.getElementById('timeline'), x = c.getContext('2d');
        const s = devicePixelRatio, at = (k) => Math.round(((k + 0.4) / (n - 1)) * (c.width - 2));
        return [2, 11, 15].map((k) => { const d = x.getImageData(at(k), 0, 1, 18 * s).data;
          let high = 0; for (let i = 3; i < d.length; i += 4) if (d[i] > 200) high += 1 / s; return high; }); }""",
                            len(feed.steps))
    assert [feed.steps[k].registration.outcome for k in (2, 11, 15)] == [
        Outcome.ACCEPTED, Outcome.AMBIGUOUS, Outcome.LOST]
    assert heights[0] > heights[1] > heights[2] > 0
