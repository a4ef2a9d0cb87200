# SPDX-License-Identifier: Apache-2.0
"""What was recorded comes back, in our reader and in the library's; a cut or a kill loses a frame at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import session_runs as runs
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader

from fluoronav.session import Session, coding
from fluoronav.session.mcap_read import McapFile
from fluoronav.session.record import MOST_STEPS, SessionRecorder
from registration.errors import BadInput
from registration.result import Outcome


@pytest.fixture(scope="module")
def made() -> list:
    return runs.steps(runs.frames(12))


@pytest.fixture(scope="module")
def whole(made: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("session") / "s.mcap"
    runs.record(path, made)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_come_back_bit_for_bit_with_mask_and_geometry(tmp_path: Path, dtype: type) -> None:
    made = runs.steps(runs.frames(8, dtype=dtype))
    runs.record(tmp_path / "s.mcap", made)
    with Session.open(tmp_path / "s.mcap") as session:
        assert session.frame_count == 8 and session.recovered == ""
        for step, frame in zip(made, session.frames, strict=True):
            was = step.frame
            assert frame.pixels.dtype == was.pixels.dtype and np.array_equal(frame.pixels, was.pixels)
            assert np.array_equal(frame.valid, was.valid)
            for name in ("index", "time_ns", "carm", "angles", "exposure", "intensity", "table_in_room_mm",
                         "geometry_fault"):
                assert getattr(frame, name) == getattr(was, name), name


def test_answers_come_back_number_for_number(made: list, whole: Path) -> None:
    with Session.open(whole) as session:
        for k, step in enumerate(made):
            record = session.record(k)
            assert record["registration"] == coding.registration_to_plain(step.registration)
            pose = record["registration"]["carm_from_patient"]
            if step.registration.carm_from_patient is not None:
                assert np.array_equal(np.array(pose), step.registration.carm_from_patient)
            assert record["hashes"]["display"] == coding.sha256(step.enhanced.display)
            assert record["truth"] == step.truth
        assert session.record(2)["commands"] == [{"kind": "nudge", "value": (np.arange(6) / 7.0).tolist()}]
        rebuilt = coding.registration_from_plain(session.record(3)["registration"])
        assert rebuilt.outcome is Outcome.AMBIGUOUS and len(rebuilt.alternatives) == 1


def test_the_library_reads_what_was_written(made: list, whole: Path) -> None:
    with whole.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "fluoronav"
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        counts = {summary.channels[c].topic: n for c, n in summary.statistics.channel_message_counts.items()}
        assert counts["/frame"] == counts["/step"] == counts["/exposure"] == 12
        pictures = [m.data for _, _, m in reader.iter_messages(topics=["/frame"])]
        assert np.array_equal(coding.image_pixels(pictures[7]), made[7].frame.pixels)
        times = [m.log_time for _, _, m in reader.iter_messages(topics=["/frame"])]
        assert times == [s.frame.time_ns for s in made]
        assert [a.name for a in reader.iter_attachments()] == ["book.zip"]


def test_a_raw_image_is_laid_out_as_ros_1_says(made: list) -> None:
    frame = made[0].frame
    data = coding.image_bytes(frame)
    rows, columns = frame.pixels.shape
    assert data[:8] == (1_700_000_000).to_bytes(4, "little") + (0).to_bytes(4, "little")
    assert data[8:20] == (8).to_bytes(4, "little") + b"detector"
    assert data[20:28] == columns.to_bytes(4, "little") + rows.to_bytes(4, "little")
    assert data[28:38] == (6).to_bytes(4, "little") + b"mono16"
    assert data[38:46] == (2 * columns).to_bytes(4, "little") + (2 * rows * columns).to_bytes(4, "little")
    assert data[46:] == frame.pixels.astype("<u2").tobytes()


def test_what_happened_is_told_as_events(whole: Path) -> None:
    with Session.open(whole) as session:
        kinds = [(e["index"], e["kind"]) for e in session.events]
    assert kinds == [(0, "registered"), (2, "nudge"), (3, "uncertain"), (4, "loss"), (5, "registered"), (6, "drop"),
                     (8, "exposure"), (11, "source")]


def test_a_session_is_never_overwritten(whole: Path) -> None:
    with pytest.raises(BadInput, match="exists"):
        SessionRecorder(whole, case=None, pipeline_settings={}, fingerprint={}, source_name="x")


def _structure(path: Path) -> list[int]:
    file = McapFile(path)
    found = [(at, length) for _, at, length in file.walk()]
    file.close()
    return [at + d for at, _ in found for d in (-1, 0, 1, 9)] + [found[-1][0] + found[-1][1]]


def _positions(path: Path) -> list[int]:
    size = path.stat().st_size
    rng = np.random.default_rng(1)
    cuts = [*rng.integers(0, size, 220).tolist(), *_structure(path)]
    return sorted({c for c in cuts if 0 <= c < size})


def test_a_session_cut_at_any_byte_opens_to_its_last_whole_frame(whole: Path, made: list, tmp_path: Path) -> None:
    data = whole.read_bytes()
    with Session.open(whole) as session:
        ends = (session.rows["step_at"] + session.rows["step_length"]).tolist()
        times = session.rows["time_ns"].tolist()
    file = McapFile(whole)
    head = next(at for code, at, _ in file.walk() if code == Opcode.METADATA)
    head_end = next(at for code, at, _ in file.walk() if at > head)
    file.close()
    cut_path = tmp_path / "cut.mcap"
    counts = set()
    for cut in _positions(whole):
        cut_path.write_bytes(data[:cut])
        if cut < head_end:
            with pytest.raises(BadInput):
                Session.open(cut_path)
            continue
        with Session.open(cut_path) as session:
            # an answer that is whole makes its frame whole, and none is made up
            assert session.frame_count == sum(end <= cut for end in ends), cut
            assert "last whole frame" in session.recovered
            assert session.rows["time_ns"].tolist() == times[:session.frame_count]
            for k in range(max(0, session.frame_count - 2), session.frame_count):
                assert np.array_equal(session.frames[k].pixels, made[k].frame.pixels)
        counts.add(session.frame_count)
    assert counts == set(range(13))


def test_a_hole_of_zeros_as_a_power_cut_leaves_it_ends_the_session_before_it(whole: Path, tmp_path: Path) -> None:
    data = bytearray(whole.read_bytes())
    with Session.open(whole) as session:
        at, length = int(session.rows[9]["frame_at"]), int(session.rows[9]["frame_length"])
        end = int(session.rows[9]["step_at"] + session.rows[9]["step_length"])
    data[at + 100:at + length] = bytes(length - 100)
    (tmp_path / "hole.mcap").write_bytes(data[:end])
    with Session.open(tmp_path / "hole.mcap") as session:
        assert session.frame_count == 9


@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"not a session at all, but some text" * 9])
def test_what_is_no_session_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mcap").write_bytes(content)
    with pytest.raises(BadInput):
        Session.open(tmp_path / "x.mcap")


def test_a_folder_is_not_a_session(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a folder"):
        Session.open(tmp_path)


def test_a_foreign_mcap_file_is_refused(tmp_path: Path) -> None:
    from mcap.writer import Writer

    with (tmp_path / "x.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/a", "json", 0)
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()
    with pytest.raises(BadInput, match="head"):
        Session.open(tmp_path / "x.mcap")


def test_flipped_bytes_are_bad_input_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(2)
    path, refused = tmp_path / "x.mcap", 0
    for at in rng.integers(0, len(data), 120):
        changed = bytearray(data)
        changed[at] ^= 0x41
        path.write_bytes(changed)
        try:
            with Session.open(path) as session:
                for k in range(session.frame_count):
                    session.record(k)
                    session.frames[k]
        except BadInput:
            refused += 1
    assert refused > 60  # most bytes are pixels, and their checksum tells


_KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import session_runs as runs
from fluoronav.session.record import SessionRecorder
recorder = SessionRecorder(Path({path!r}), case=None, pipeline_settings={{}}, fingerprint={{}}, source_name="demo")
made = runs.steps(runs.frames(8))
k = 0
while True:
    recorder.write(made[k % 8], snapshot=lambda: b"")
    k += 1
    while len(recorder._queue):
        time.sleep(0.0005)
    print(k, flush=True)
"""


def test_a_killed_process_loses_two_frames_at_most(tmp_path: Path) -> None:
    path = tmp_path / "killed.mcap"
    code = _KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               cwd=Path(__file__).resolve().parents[3])
    assert process.stdout is not None
    told = 0
    while told < 60:
        told = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    with Session.open(path) as session:
        assert session.recovered and told - 2 <= session.frame_count <= told + 1
        assert session.frames[session.frame_count - 1].pixels.shape == runs.SHAPE


def test_a_disk_that_cannot_follow_leaves_a_gap_and_a_snapshot_and_says_so(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runs.steps(runs.frames(MOST_STEPS + 30))
    open_gate, written = threading.Event(), SessionRecorder._write_step

    def slow(self: SessionRecorder, *item: object) -> None:
        open_gate.wait()
        written(self, *item)  # type: ignore[arg-type]

    monkeypatch.setattr(SessionRecorder, "_write_step", slow)
    recorder = SessionRecorder(tmp_path / "s.mcap", case=None, pipeline_settings={}, fingerprint={},
                               source_name="demo")
    snapshots = iter(range(1000))
    start = time.perf_counter()
    for step in made[:-5]:
        recorder.write(step, snapshot=lambda: b"%d" % next(snapshots))
    assert time.perf_counter() - start < 1.0  # waited for nobody
    assert "cannot follow" in recorder.state()[1]
    open_gate.set()
    while recorder._queue:
        time.sleep(0.005)
    for step in made[-5:]:
        recorder.write(step, snapshot=lambda: b"%d" % next(snapshots))
    assert "could not follow" in recorder.state()[1]
    recorder.close()
    with Session.open(tmp_path / "s.mcap") as session:
        (gap,) = session.gaps
        assert session.frame_count + gap["frames"] == len(made) and next(snapshots) == 1
        assert session.snapshot(gap["frame"]) == b"0"
        assert session.rows["index"][gap["frame"]] - session.rows["index"][gap["frame"] - 1] == gap["frames"] + 1
        assert any(e["kind"] == "recorder gap" and e["index"] == gap["frame"] for e in session.events)


def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = SessionRecorder(tmp_path / "s.mcap", case=None, pipeline_settings={}, fingerprint={},
                               source_name="demo")
    made = runs.steps(runs.frames(6))
    for step in made[:3]:
        recorder.write(step, snapshot=lambda: b"")
    while recorder.state()[0] != pytest.approx(2 / 15, abs=1e-6):
        time.sleep(0.002)

    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder._out, "_write", full)
    for step in made[3:]:
        recorder.write(step, snapshot=lambda: b"")
    recorder.close()
    seconds, note = recorder.state()
    assert seconds is None and "No space left" in note
    with Session.open(tmp_path / "s.mcap") as session:
        assert session.frame_count == 3


def test_the_end_of_a_whole_file_is_read_without_its_frames(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = McapFile.read
    monkeypatch.setattr(McapFile, "read", lambda self, at, n: read.append(n) or original(self, at, n))
    Session.open(whole).close()
    assert sum(read) < 0.2 * whole.stat().st_size


def test_the_library_can_stream_a_cut_session(whole: Path, tmp_path: Path) -> None:
    from mcap.stream_reader import StreamReader

    (tmp_path / "cut.mcap").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    seen = 0
    with (tmp_path / "cut.mcap").open("rb") as file:
        try:
            for _ in StreamReader(file).records:
                seen += 1
        except (McapError, ValueError, RuntimeError, OSError):
            pass
    assert seen > 10
