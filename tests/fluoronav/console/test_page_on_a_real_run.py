# SPDX-License-Identifier: Apache-2.0
"""The page on a real live run: a case made from files, real registration, real overlay; states come as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from console_feed import counts, frame_at, pose_at, tree
from real_run import real_run
from seen import amber, canvas_of, opened, path_is_seen, until, word

from fluoronav.console import ConsoleServer
from fluoronav.console.describe import describe_step
from fluoronav.live.step import Decision


@pytest.mark.browser
def test_a_real_case_is_seen_switched_lost_found_and_ended(page: Any, tmp_path: Path) -> None:
    run, source = real_run(tmp_path)
    page.set_default_timeout(30_000)
    run.start()
    server = ConsoleServer(run).start()
    try:
        opened(page, server)
        word(page, "REGISTERED")
        first = canvas_of(page)
        path_is_seen(page)
        number = page.inner_text("#number")
        until(page, "n => document.getElementById('number').textContent !== n", number)
        assert canvas_of(page) != first
        page.keyboard.press("2")
        path_is_seen(page, False)
        page.keyboard.press("2")
        path_is_seen(page)
        page.keyboard.press("r")
        until(page, "document.getElementById('face').dataset.face === 'RAW'")
        page.keyboard.press("r")

        source.contrast = False
        word(page, "LOST")
        page.wait_for_timeout(200)
        assert amber(page) == 0
        assert "contrast" in page.inner_text("#state-why")
        source.contrast = True
        word(page, "REGISTERED")

        source.silent = True
        page.wait_for_selector("#not-live:not([hidden])")
        source.silent = False
        page.wait_for_selector("#not-live", state="hidden")
        source.ended = True
        until(page, "document.getElementById('holding-word').textContent === 'LAST IMAGE HOLD'")
    finally:
        server.stop()
        run.stop()


def test_what_was_never_registered_begins_and_is_not_called_lost(tmp_path: Path) -> None:
    run, source = real_run(tmp_path)
    first, empty = counts(tree(), pose_at(0), np.random.default_rng(0)), counts(tree(), None, np.random.default_rng(0))
    step = run.pipeline.step(frame_at(0, first))
    assert describe_step(step)["state"]["word"] == "REGISTERING"
    assert describe_step(step)["state"]["outcome"] == "LOST"  # and nothing is drawn
    job = run.pipeline.wanted_job()
    assert job is not None
    result = Decision("job", {"job": job.name, "result": run.pipeline.run_job(job)})
    found = run.pipeline.step(frame_at(1, first), (), (result,))
    assert describe_step(found)["state"]["word"] == "REGISTERED"
    assert describe_step(run.pipeline.step(frame_at(2, empty)))["state"]["word"] == "LOST"
    source.close()
