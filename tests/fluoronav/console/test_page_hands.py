# SPDX-License-Identifier: Apache-2.0
"""What can a hand do? Layers, raw, hold, window, DRR, nudge, measure, still: the page in a headless Chromium."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from console_feed import CARM, ConsoleFeed, pose_at
from seen import AMBER, amber, arrived, canvas_of, opened, path_is_seen, picture, run_module, until, word

from fluoronav.console import ConsoleServer
from registration.geometry import Rigid

pytestmark = pytest.mark.browser


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
    with page.expect_download(lambda d: d.suggested_filename.endswith(".json"), timeout=30_000) as still:
        page.keyboard.press("s")
    facts = json.loads(Path(still.value.path()).read_text())
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
