# SPDX-License-Identifier: Apache-2.0
"""Does the live run keep the newest picture, count what it drops, record what happens, and survive what breaks?"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_scenes import ListSource, Tape, case, error_mm, frame_of, pose_at, until
from test_sources import Sender, carm_file, free_port, png

from fluoronav.live.deadlines import PATIENCE, Deadlines
from fluoronav.live.network import Devices, NetworkSource
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.run import QUEUE, LiveRun
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.source import Gap, Stated
from fluoronav.live.step import Command
from registration.errors import BadInput
from registration.geometry import Rigid
from registration.result import Outcome

LINES = PipelineSettings(overlay="lines")


def run_of(pipeline: Pipeline, source: Any) -> tuple[LiveRun, Tape]:
    tape = Tape()
    run = LiveRun(pipeline, source, recorder=tape)
    run.start()
    return run, tape


def replayed(tape: Tape, pipeline: Pipeline) -> bool:
    """Whether the recorded commands and decisions give the recorded bits again."""
    for step in tape.steps:
        again = pipeline.step(step.frame, step.commands, step.decisions)
        a, b = step.registration.carm_from_patient, again.registration.carm_from_patient
        if not (np.array_equal(step.picture, again.picture) and step.badges == again.badges
                and step.decisions == again.decisions and ((a is None) == (b is None))
                and (a is None or b is None or np.array_equal(a, b))):
            return False
    return True


def test_a_live_run_registers_tracks_and_its_record_gives_the_same_bits() -> None:
    truth = {k: {"target_in_carm_mm": Rigid.apply(pose_at(k), case().target_mm).tolist()} for k in range(16)}
    source = ListSource([*(frame_of(k) for k in range(3)), 3.0, *(frame_of(k) for k in range(3, 8))], 0.2, truth.get)
    run, tape = run_of(Pipeline(case(), LINES), source)
    assert run.join(60)
    run.stop()
    summary = run.summary()
    assert tape.closed and summary["frames"] + summary["drops"] == 8
    assert summary["outcomes"]["ACCEPTED"] > 0, [s.registration.why for s in tape.steps]
    assert summary["latency_ms_p95"] >= summary["latency_ms_p50"] > 0
    assert summary["target_projected_error_mm_median"] < 1.0  # pixels are 0.72 mm there
    assert summary["target_error_mm_median"] >= summary["target_projected_error_mm_median"]
    assert replayed(tape, Pipeline(case(), LINES))
    assert "ended" in tape.kinds() and run.status().source_state == "ended"


def test_the_oldest_frames_are_dropped_counted_and_told_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(None)
    step = pipeline.step

    def slow(*args: Any) -> Any:
        time.sleep(0.3)
        return step(*args)

    monkeypatch.setattr(pipeline, "step", slow)
    run, tape = run_of(pipeline, ListSource([frame_of(k) for k in range(12)]))
    assert run.join(20)
    run.stop()
    answered = [s.frame.index for s in tape.steps]
    assert answered[-QUEUE:] == [10, 11]  # the newest are kept
    assert run.summary()["drops"] == 12 - len(answered) > 0
    told = {s.frame.index: d.value for s in tape.steps for d in s.decisions if d.kind == "dropped"}
    before = dict(zip(answered, [-1, *answered], strict=False))
    assert told == {k: k - a - 1 for k, a in before.items() if k - a > 1}


def test_a_gap_is_shown_recorded_and_ends_with_the_next_picture() -> None:
    seen: list[Any] = []
    gap = Gap(0.0, "the cable is out", state="lost")
    source = ListSource([frame_of(0), 0.1, gap, 0.3, lambda: seen.append(run.status()), gap, 0.2, frame_of(1), 0.2,
                         lambda: seen.append(run.status())])
    run, tape = run_of(Pipeline(None), source)
    assert run.join(10)
    run.stop()
    assert (seen[0].source_state, seen[0].source_note) == ("lost", "the cable is out")
    assert seen[1].source_state == "live"
    assert tape.kinds() == ["lost", "back", "ended"]
    assert run.summary()["gaps"] == 1
    (decision,) = tape.steps[1].decisions
    assert decision.kind == "gap" and decision.value == pytest.approx(0.5, abs=0.25)


def test_a_source_that_raises_is_lost_with_a_sentence() -> None:
    def broken() -> None:
        raise BadInput("picture 7", got="half of it", expected="a whole one", remedy="copy it again")

    run, tape = run_of(Pipeline(None), ListSource([frame_of(0), broken]))
    assert run.join(10)
    assert "picture 7: got half of it" in run.status().source_note
    assert run.latest() is not None and tape.events[-1][0] == "ended"
    run.stop()


def test_a_step_that_raises_lets_the_raw_picture_through(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(None)

    def broken(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(pipeline, "step", broken)
    run, _ = run_of(pipeline, ListSource([frame_of(0)]))
    assert run.join(10)
    run.stop()
    step = run.latest()
    assert step is not None and step.badges[0].startswith("alarm: the step failed (MemoryError")
    assert step.registration.outcome is Outcome.LOST and step.picture.std() > 5


def test_commands_are_answered_on_the_last_picture_when_no_new_one_comes() -> None:
    run, tape = run_of(Pipeline(None), ListSource([frame_of(0), frame_of(1)], 0.05))
    assert run.join(10)
    with pytest.raises(BadInput, match="nudge"):
        run.command(Command("nudge", [1, 2]))
    with pytest.raises(BadInput, match="seek"):
        run.command(Command("seek", 3))
    run.command(Command("window", {"level": 100, "width": 50}))
    assert until(lambda: len(tape.steps) == 3)
    run.stop()
    held = tape.steps[-1]
    assert held.commands[0].kind == "window" and held.decisions[0].kind == "held"
    assert run.summary()["frames"] == 2 and run.summary()["held"] == 1


def test_savings_are_taken_when_steps_are_late_and_left_when_they_are_not() -> None:
    step = Pipeline(None).step(frame_of(0))
    late, early = (replace(step, timings={"total": ms, "enhance": 30.0, "overlay": 40.0}) for ms in (95.0, 20.0))
    clock = Deadlines(0.1)
    for _ in range(3 * PATIENCE["up"]):
        clock.done(replace(late, timings={"total": 95.0, "enhance": 9.0, "overlay": 9.0}), None)
    assert clock.rung == 0  # nothing that is worth leaving out
    for _ in range(PATIENCE["up"]):
        clock.done(late, None)
    assert clock.rung == 0  # a few slow steps are no habit
    for _ in range(6 * PATIENCE["up"]):
        clock.done(late, None)
    assert clock.rung == 3
    assert [d.value for d in clock.decisions() if d.kind == "skip"] == ["motion", "denoise"]
    for _ in range(4 * PATIENCE["down"]):
        clock.done(early, None)
    assert clock.rung == 0 and clock.decisions() == ()


def test_blend_is_given_for_accepted_poses_of_what_absorbs() -> None:
    run = LiveRun(Pipeline(case(), LINES), ListSource([]))
    lost = Pipeline(None).step(frame_of(0))
    assert run.blend(lost) is None  # nothing is registered
    assert run.timeline() is None and run.latest() is None
    assert run.status().source_state == "waiting" and run.status().case_name == "CASE T"


def test_a_network_peer_that_is_killed_comes_back_in_the_live_run(tmp_path: Path) -> None:
    sender = Sender(free_port(), tmp_path, np.stack([frame_of(k).pixels for k in range(10)]))
    source = NetworkSource("127.0.0.1", sender.port, Stated(carm_file(tmp_path)), Devices())
    run, tape = run_of(Pipeline(None), source)
    try:
        sender.start()
        assert until(lambda: len(tape.steps) > 5, 20)
        sender.kill()
        assert until(lambda: run.status().source_state == "lost", 5)
        assert "trying again" in run.status().source_note
        before = len(tape.steps)
        sender.start()
        assert until(lambda: len(tape.steps) > before + 3, 20)
        assert run.status().source_state == "live"
    finally:
        sender.kill()
        run.stop()
    assert "lost" in tape.kinds() and "back" in tape.kinds()
    assert any(d.kind == "gap" and d.value > 0 for s in tape.steps for d in s.decisions)


def test_angles_of_the_stream_and_distances_of_the_file_lead_to_a_registration(tmp_path: Path) -> None:
    sender = Sender(free_port(), tmp_path, np.stack([frame_of(0).pixels]), fps=4.0)
    stated = Stated(carm_file(tmp_path, primary_deg=None, secondary_deg=None))
    run, tape = run_of(Pipeline(case(), LINES), NetworkSource("127.0.0.1", sender.port, stated, Devices()))
    try:
        sender.start()
        assert until(lambda: any(s.overlay.layers for s in list(tape.steps)), 40), run.status()
    finally:
        sender.kill()
        run.stop()
    step = next(s for s in tape.steps if s.overlay.layers)
    assert step.registration.outcome is Outcome.ACCEPTED and step.registration.carm_from_patient is not None
    assert error_mm(step.registration.carm_from_patient, pose_at(0), case().target_mm) < 1.0
    assert replayed(tape, Pipeline(case(), LINES))


def test_the_command_plays_a_folder_headless_and_prints_json(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for k in range(4):
        (folder / f"f{k}.png").write_bytes(png(k))

    def live(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "fluoronav", "live", *args], capture_output=True, text=True,
                              timeout=60)

    done = live("-", str(folder), "--finished", "--headless", "--json", "--record", str(tmp_path / "s.mcap"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["frames"] == 4 and found["drops"] == 0 and Path(found["session"]).stat().st_size > 0
    again = live("-", str(folder), "--finished", "--headless", "--record", str(tmp_path / "s.mcap"))
    assert again.returncode == 2 and "Traceback" not in again.stderr  # a recording is not written over


def test_a_source_without_geometry_is_refused_for_overlays_with_exit_code_2(tmp_path: Path) -> None:
    from fluoronav.case import create_case

    lines = case().centerlines["tree"]
    path = tmp_path / "tree.vtk"
    rows = [f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in lines.points]
    cells = [" ".join(map(str, [len(x), *x])) for x in lines.lines]
    path.write_text("\n".join(["# vtk DataFile Version 3.0", "tree", "ASCII", "DATASET POLYDATA",
                               f"POINTS {len(rows)} double", *rows,
                               f"LINES {len(cells)} {sum(len(x) + 1 for x in lines.lines)}", *cells]) + "\n")
    create_case(tmp_path / "case", vessels=(path,))
    (tmp_path / "f.png").write_bytes(png(0))
    args = [sys.executable, "-m", "fluoronav", "live", str(tmp_path / "case"), str(tmp_path / "f.png"), "--headless"]
    refused = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "--carm" in refused.stderr and "Traceback" not in refused.stderr
    stream = subprocess.run([*args[:5], f"igtl://127.0.0.1:{free_port()}", "--headless"], capture_output=True,
                            text=True, timeout=60)
    assert stream.returncode == 2 and "--carm" in stream.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_the_person_ends_closes_its_session(tmp_path: Path, how: signal.Signals) -> None:
    from fluoronav.session.session import Session

    folder, path = tmp_path / "in", tmp_path / "s.mcap"
    folder.mkdir()
    # the tests themselves may be a background job, whose children ignore SIGINT: as in a terminal, then
    heeding = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
               "from fluoronav.cli.app import main; main()")
    args = [sys.executable, "-c", heeding, "live", "-", str(folder), "--headless", "--json", "--record", str(path)]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert until(path.exists, 30)
        for k in range(5):
            (folder / f"f{k}.png").write_bytes(png(k))
        assert until(lambda: path.stat().st_size > 100_000, 20)  # pictures are in it
        size, since = 0, time.monotonic()
        while time.monotonic() - since < 2.0:  # all five, however slow the machine: nothing more comes
            if path.stat().st_size != size:
                size, since = path.stat().st_size, time.monotonic()
            time.sleep(0.1)
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in err
    told = json.loads(out)
    assert told["frames"] + told["drops"] == 5  # a machine that is busy may drop, and says so
    session = Session.open(path)
    assert session.frame_count == told["frames"] > 0
    assert np.array_equal(session.frames[session.frame_count - 1].pixels, frame_of(4).pixels)
