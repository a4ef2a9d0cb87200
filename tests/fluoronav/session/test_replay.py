# SPDX-License-Identifier: Apache-2.0
"""A replay keeps recorded time, winds anywhere, shows what was shown, and says where it cannot."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_runs as runs
import session_runs

from fluoronav.live.step import Command
from fluoronav.session import Session, coding
from fluoronav.session.replay import ReplayFeed
from fluoronav.session.shown import NOT_THE_BITS, WARM_UP, Shown
from registration.errors import BadInput
from registration.result import Outcome

COUNT = 40


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    path = tmp_path_factory.mktemp("replay") / "s.mcap"
    runs.record(path, None, runs.frames(COUNT), {3: [Command("window", {"level": 120.0, "width": 200.0})]})
    with Session.open(path) as opened:
        yield opened


@pytest.fixture()
def feed(session: Session) -> Iterator[tuple[ReplayFeed, Clock]]:
    clock = Clock()
    made = ReplayFeed(session, None, clock=clock)
    yield made, clock
    made.close()


def at(feed: ReplayFeed, position: int, seconds: float = 10.0) -> bool:
    """Whether the feed shows that frame in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        step = feed.latest()
        if step is not None and feed.status().position == position and step.frame.index == position:
            return True
        time.sleep(0.005)
    return False


def test_from_the_start_on_every_picture_is_the_recorded_one_to_the_bit(session: Session) -> None:
    shown = Shown(session, None)
    for k in range(COUNT):
        step, record = shown.step(k), session.record(k)
        assert coding.sha256(step.picture) == record["hashes"]["picture"], k
        assert coding.sha256(step.enhanced.display) == record["hashes"]["display"], k
        assert NOT_THE_BITS not in step.badges


def test_after_a_jump_the_picture_is_close_and_says_that_it_is_not_the_bits(session: Session) -> None:
    shown, whole = Shown(session, None), Shown(session, None)
    for k in range(30):
        true = whole.step(k)
    step = shown.step(29)
    assert WARM_UP < 29
    apart = np.abs(step.enhanced.display.astype(int) - true.enhanced.display)
    assert apart.mean() < 2.0  # grey levels: a filter of finite memory has forgotten nearly all that is missing
    assert (NOT_THE_BITS in step.badges) == (apart.max() > 0)


def test_the_anatomy_is_drawn_as_it_was_recorded(tmp_path: Path) -> None:
    case = runs.vessel_case(tmp_path)
    runs.record(tmp_path / "s.mcap", case, runs.frames(4))
    with Session.open(tmp_path / "s.mcap") as session:
        shown = Shown(session, session.case())
        assert [layer["name"] for layer in shown.layers] == ["centerline", "target"]
        steps = [shown.step(k) for k in range(4)]
        assert [s.registration.outcome for s in steps] == [Outcome.LOST] * 2 + [Outcome.ACCEPTED] * 2
        for k, step in enumerate(steps):
            assert coding.hashes(step.enhanced.display, step.overlay, step.picture).items() <= session.record(k)[
                "hashes"].items()
        bare = Shown(session, None).step(3)
        assert bare.overlay.layers == {} and "the case is not open: no anatomy is drawn" in bare.badges


def test_lost_and_ambiguous_frames_are_shown_without_anatomy(tmp_path: Path) -> None:
    session_runs.record(tmp_path / "s.mcap", session_runs.steps(session_runs.frames(6)))
    with Session.open(tmp_path / "s.mcap") as session:
        session.about["settings"] = {}
        shown = Shown(session, None)
        for k in (3, 4):
            assert shown.step(k).overlay.layers == {} and shown.step(k).overlay.method == "none"


def test_it_begins_paused_at_the_first_frame_and_winds_anywhere(feed: tuple[ReplayFeed, Clock]) -> None:
    replay, _ = feed
    assert at(replay, 0) and replay.status().playing is False and replay.status().mode == "replay"
    for position in (25, 3, COUNT - 1, 0):
        replay.command(Command("seek", position))
        assert at(replay, position)
    replay.command(Command("step", 1))
    assert at(replay, 1)
    replay.command(Command("step", -1))
    assert at(replay, 0)
    replay.command(Command("seek", 10**6))
    assert at(replay, COUNT - 1) and replay.status().source_state == "ended"


@pytest.mark.parametrize("rate", [0.25, 1.0, 8.0])
def test_playing_shows_the_frame_that_is_due_by_recorded_time(feed: tuple[ReplayFeed, Clock], rate: float) -> None:
    replay, clock = feed
    assert at(replay, 0)
    replay.command(Command("rate", rate))
    replay.command(Command("play"))
    for k in (1, 2, 5, 19):
        clock.now = 1000.0 + (k / 15 + 0.001) / rate
        with replay._changed:
            replay._changed.notify_all()
        assert at(replay, k)
    replay.command(Command("layer", {"name": "vessels", "visible": False, "opacity": 1.0}))
    replay.command(Command("pause"))
    clock.now += 100
    time.sleep(0.05)
    assert replay.status().position == 19 and replay.status().rate == rate


def test_an_hour_does_not_drift() -> None:
    """54,000 frames with jitter: due times follow the recorded ones to a frame at any moment."""
    rng = np.random.default_rng(0)
    times = (np.arange(54_000) / 15 + rng.uniform(-0.02, 0.02, 54_000)).clip(0)
    feed, clock = ReplayFeed.__new__(ReplayFeed), Clock()
    feed._clock, feed._playing, feed._rate, feed._wanted = clock, True, 1.0, 0
    feed._time_s, feed._from = np.sort(times), (1000.0, float(times.min()))
    for seconds in (1.0, 60.0, 1799.9, 3599.0):
        clock.now = 1000.0 + seconds
        due = feed._due()
        assert abs(feed._time_s[due] - float(times.min()) - seconds) < 0.12  # a frame and its jitter


def test_real_time_passes_as_recorded(session: Session) -> None:
    feed = ReplayFeed(session, None)
    assert at(feed, 0)
    seconds = session.duration_s
    feed.command(Command("play"))
    start = time.monotonic()
    while feed.status().playing and time.monotonic() < start + 3 * seconds:
        time.sleep(0.005)
    took = time.monotonic() - start
    feed.close()
    assert seconds - 0.1 < took < seconds + 1.0  # the last frame comes when it is due; a busy machine adds little
    assert feed.status().position == COUNT - 1


@pytest.mark.parametrize("command", [Command("seek", "x"), Command("seek", None), Command("seek", True),
                                     Command("rate", 0), Command("rate", 99), Command("rate", "fast"),
                                     Command("nudge", [0] * 6), Command("reregister")])
def test_commands_that_make_no_sense_are_refused(feed: tuple[ReplayFeed, Clock], command: Command) -> None:
    with pytest.raises(BadInput):
        feed[0].command(command)


def test_status_and_timeline_tell_the_whole_session(feed: tuple[ReplayFeed, Clock], session: Session) -> None:
    replay, _ = feed
    assert at(replay, 0)
    replay.command(Command("seek", 30))
    assert at(replay, 30)
    status, line = replay.status(), replay.timeline()
    assert status.frames == COUNT and status.fps == pytest.approx(15, rel=0.01)
    assert status.latency_ms_p95 >= status.latency_ms_p50 > 0 and status.recording_s is None
    assert {len(line[k]) for k in ("time_s", "outcome", "expected_mm", "projected_mm", "latency_ms")} == {COUNT}
    assert any(e["kind"] == "exposure" and e["index"] == 21 for e in line["events"])


def test_a_frame_that_is_damaged_is_said_and_the_others_still_play(session: Session, tmp_path: Path) -> None:
    data = bytearray(session.path.read_bytes())
    row = session.rows[20]
    data[int(row["frame_at"]) + int(row["frame_length"]) // 2] ^= 0xFF
    (tmp_path / "x.mcap").write_bytes(data)
    with Session.open(tmp_path / "x.mcap") as damaged:
        feed = ReplayFeed(damaged, None)
        feed.command(Command("seek", 20))
        end = time.monotonic() + 10
        while feed.status().position != 20 and time.monotonic() < end:
            time.sleep(0.005)
        assert "damaged" in feed.status().source_note
        feed.command(Command("seek", 5))
        assert at(feed, 5) and feed.status().source_note == ""
        feed.close()


def test_many_may_ask_at_once(feed: tuple[ReplayFeed, Clock]) -> None:
    replay, _ = feed
    faults: list[Any] = []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(40):
                replay.command(Command("seek", int(rng.integers(COUNT))))
                replay.status()
                replay.latest()
                replay.timeline()
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            faults.append(error)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replay.command(Command("seek", 7))
    assert at(replay, 7) and faults == []
