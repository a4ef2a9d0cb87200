# SPDX-License-Identifier: Apache-2.0
"""What a person sees and does: the page in a headless Chromium, on feeds whose states the tests choose."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from console_feed import CARM, ConsoleFeed, ReplayOf, pose_at, recorded

from fluoronav.console import ConsoleServer
from registration.geometry import Rigid
from registration.result import Outcome

pytestmark = pytest.mark.browser

AMBER = (255, 181, 46)  # the planned path


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


# ---- is it live, is it registered


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


# ---- what can be switched


def test_a_layer_goes_and_comes_back_without_the_server(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    word(page, "REGISTERED")
    path_is_seen(page)
    box = page.locator('#layer-list li[data-name="path"] input[type=checkbox]')
    box.click()
    assert amber(page) == 0
    box.click()
    path_is_seen(page)
    page.wait_for_timeout(500)  # the hand rests: what is left is told and recorded
    assert ("layer", {"name": "path", "visible": True, "opacity": 1}) in [(c.kind, c.value) for c in feed.commands]
    page.keyboard.press("2")
    assert amber(page) == 0
    page.keyboard.press("2")
    page.keyboard.press("o")
    assert amber(page) == 0
    assert "OVERLAY" not in page.inner_text("#face")


def test_opacity_fades_a_layer(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    word(page, "REGISTERED")
    page.locator('#layer-list li[data-name="path"] input[type=range]').fill("20")
    assert amber(page) == 0
    assert page.evaluate("""document.querySelector('[data-layer="path"]').style.opacity""") == "0.2"


def test_raw_is_one_key_away_and_says_so(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    feed.halt()
    page.wait_for_timeout(300)
    enhanced = canvas_of(page)
    page.keyboard.press("r")
    until(page, "document.getElementById('face').dataset.face === 'RAW'")
    step = feed.latest()
    assert step is not None
    seen = page.evaluate("""() => { const c = document.getElementById('picture');
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 === 0)]; }""")
    off = np.abs(np.reshape(seen, CARM.shape).astype(float) - step.enhanced.raw_display)
    assert off.mean() < 3  # JPEG of quality 92 on noise
    assert np.abs(np.reshape(seen, CARM.shape).astype(float) - step.enhanced.display).mean() > off.mean()
    page.keyboard.press("r")
    until(page, "document.getElementById('face').dataset.face === 'ENHANCED'")
    assert canvas_of(page) == enhanced


def test_hold_keeps_the_picture_and_live_goes_on(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    page.click("#overlay")  # what the mouse used does not keep the keys
    page.keyboard.press("Space")
    until(page, "document.getElementById('holding-word').textContent === 'HOLD'")
    number, at = page.inner_text("#number"), feed.index
    page.wait_for_timeout(600)
    assert page.inner_text("#number") == number and feed.index > at
    assert not page.is_visible("#not-live")
    page.keyboard.press("Space")
    until(page, "n => Number(document.getElementById('number').textContent.slice(1)) > n", feed.index)


def test_window_and_level_follow_the_hand(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    before = picture(page).std()
    box = page.locator("#stack").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 250, y, steps=4)
    page.mouse.up()
    assert float(page.inner_text("#window")) == pytest.approx(255 - 150, abs=2)  # 0.6 grey values a screen pixel
    assert picture(page).std() > 1.3 * before
    page.mouse.dblclick(x, y)
    assert page.inner_text("#window") == "255"


def test_window_table_is_a_clamped_ramp(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    table = run_module(page, "tone", "[...m.windowTable(100, 50)].map((v) => v & 255)")
    assert table[75] == 0 and table[74] == 0 and table[125] == 255 and table[126] == 255 and table[100] == 128
    assert run_module(page, "tone", "[...m.windowTable(127.5, 255)].map((v) => v & 255)") == list(range(256))


@pytest.mark.parametrize("check", ["blend", "checker", "swipe", "edges"])
def test_the_drr_can_be_compared_by_eye(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer], check: str) -> None:
    feed, server = live
    opened(page, server)
    word(page, "REGISTERED")
    feed.halt()
    page.wait_for_timeout(200)
    before = canvas_of(page)
    page.click(f'[data-check="{check}"]')
    until(page, "document.getElementById('face').textContent.includes('DRR')")
    assert canvas_of(page) != before
    page.click('[data-check="off"]')
    until(page, "!document.getElementById('face').textContent.includes('DRR')")
    assert canvas_of(page) == before


# ---- what a hand does to the registration


def test_a_drag_nudges_the_case_by_the_millimeters_it_looks_like(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    word(page, "REGISTERED")
    page.keyboard.press("n")
    box = page.locator("#stack").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 30, steps=3)
    page.mouse.up()
    arrived(page, feed, ["nudge"])
    until(page, "document.getElementById('layers').style.transform === ''")  # answered: the preview is gone
    xi = feed.commands[-1].value
    pixels = np.array([60, -30]) * CARM.shape[1] / box["width"]
    before = CARM.project_patient(pose_at(0), feed.scene.layers[-1].points_mm[0])
    after = CARM.project_patient(Rigid.exp(xi) @ pose_at(0), feed.scene.layers[-1].points_mm[0])
    assert after - before == pytest.approx(pixels, abs=1.0)  # the pose breathes by 6 mm along the ray's neighborhood
    page.keyboard.press("z")
    page.keyboard.press("g")
    arrived(page, feed, ["nudge", "undo", "reregister"])


@pytest.mark.parametrize("angle", [0.3, -1.2])
def test_a_turn_keeps_the_target_where_it_is(
        page: Any, live: tuple[ConsoleFeed, ConsoleServer], angle: float) -> None:
    _, server = live
    opened(page, server)
    point = [20.0, -35.0, 50.0]
    xi = run_module(page, "nudge", "m.turned(a.angle, a.point)", {"angle": angle, "point": point})
    turned = Rigid.exp(xi)
    assert Rigid.apply(turned, point) == pytest.approx(point, abs=1e-9)
    to_the_right = CARM.project(Rigid.apply(turned, [30.0, -35.0, 50.0])) - CARM.project(point)
    assert math.atan2(to_the_right[1], to_the_right[0]) == pytest.approx(angle)  # clockwise on the screen is positive


def test_two_clicks_measure_in_the_plane_of_the_target(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    word(page, "REGISTERED")
    page.keyboard.press("m")
    box = page.locator("#stack").bounding_box()
    for part in (0.3, 0.7):
        page.mouse.click(box["x"] + part * box["width"], box["y"] + 0.5 * box["height"])
    with page.expect_download() as first:
        page.keyboard.press("s")
    with page.expect_download() as second:
        pass
    facts = next(json.loads(Path(d.value.path()).read_text()) for d in (first, second)
                 if d.value.suggested_filename.endswith(".json"))
    at = CARM.sod_mm - facts["target"]["in_carm_mm"][2]
    assert facts["target"]["plane"] == "target"
    across = 0.4 * CARM.shape[1] * 1.0 * at / CARM.sdd_mm
    assert facts["measured_mm"] == pytest.approx(across, rel=0.01)  # clicks fall on whole screen pixels


def test_a_still_is_a_picture_with_its_words_and_its_json(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    opened(page, server)
    word(page, "REGISTERED")
    files: list[Any] = []

    def keep(download: Any) -> None:
        files.append(download)

    page.on("download", keep)
    page.click("#still")
    page.wait_for_timeout(1500)
    by_kind = {Path(f.suggested_filename).suffix: Path(f.path()) for f in files}
    assert set(by_kind) == {".png", ".json"}
    still = cv2.imdecode(np.frombuffer(by_kind[".png"].read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert still.shape[1] == CARM.shape[1] and still.shape[0] > CARM.shape[0]  # words stand below the picture
    assert (np.abs(still[: CARM.shape[0]].astype(int) - AMBER[::-1]).max(axis=2) < 40).sum() > 50
    facts = json.loads(by_kind[".json"].read_text())
    assert facts["state"]["word"] == "REGISTERED" and facts["case"] == "CASE 7F3A torso"


def test_the_tolerance_is_that_of_the_run_and_goes_to_it(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
    opened(page, server)
    until(page, "document.getElementById('tolerance').value === '3.5'")
    page.fill("#tolerance", "-1")
    page.press("#tolerance", "Enter")
    page.fill("#tolerance", "2.5")
    page.press("#tolerance", "Enter")
    arrived(page, feed, ["tolerance"])
    assert feed.commands[-1].value == 2.5


# ---- for everybody


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


def test_keys_are_listed(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    feed, server = live
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
    page.keyboard.press("?")
    feed.halt()
    page.wait_for_selector("#not-live:not([hidden])")
    assert not page.is_visible("#keys")  # nothing lies over an alarm


def test_the_page_asks_nothing_from_elsewhere(page: Any, live: tuple[ConsoleFeed, ConsoleServer]) -> None:
    _, server = live
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, server)
    page.wait_for_timeout(300)
    assert asked and all(url.startswith(server.url) for url in asked)


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
