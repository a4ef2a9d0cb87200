# SPDX-License-Identifier: Apache-2.0
"""An honest session verifies to the bit; whatever was changed in it afterwards is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_runs as runs
from mcap.opcode import Opcode

from fluoronav.live.pipeline import Pipeline
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.step import Command
from fluoronav.session import Session, coding
from fluoronav.session.mcap_read import McapFile
from fluoronav.session.mcap_write import McapWriter
from fluoronav.session.record import CHANNELS, PROFILE
from fluoronav.session.verify import verify, verify_with
from registration.errors import BadInput

COUNT, BARE = 8, 16
COMMANDS = {3: [Command("nudge", [0, 0, 0, 1.0, -1.0, 0])], 4: [Command("window", {"level": 120.0, "width": 200.0})],
            7: [Command("tolerance", 4.0)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verify")


@pytest.fixture(scope="module")
def case(folder: Path) -> Any:
    return runs.vessel_case(folder)


@pytest.fixture(scope="module")
def honest(folder: Path, case: Any) -> Path:
    """With a case: jobs, a nudge, frames that are lost."""
    outcomes = runs.record(folder / "honest.mcap", case, runs.frames(COUNT, empty=range(5, 6)), COMMANDS)
    assert outcomes["ACCEPTED"] >= 4 and outcomes["LOST"] >= 3  # both kinds are in what is verified
    return folder / "honest.mcap"


@pytest.fixture(scope="module")
def bare(folder: Path) -> Path:
    """Without a case: quick to recompute."""
    runs.record(folder / "bare.mcap", None, runs.frames(BARE), COMMANDS)
    return folder / "bare.mcap"


def rewritten(source: Path, target: Path, change: Callable[[str, int, Any], Any]) -> Path:
    """The session with `change(topic, frame, content)` applied to pixels (arrays) and records (dicts), every
    checksum of the file made right again."""
    out = McapWriter(target, PROFILE, "another hand")
    file, counts = McapFile(source), {"/frame": 0, "/step": 0}
    for opcode, at, length in file.walk():
        if opcode == Opcode.METADATA:
            metadata = file.record(at, length)
            out.metadata(metadata.name, metadata.metadata)
            for topic, how in CHANNELS.items():
                out.channel(topic, *how)
        elif opcode == Opcode.ATTACHMENT:
            entry = file.record(at, length)
            if entry.name != "book.zip":  # its places are no longer right: the session is scanned
                out.attachment(entry.name, entry.media_type, entry.data)
        elif opcode == Opcode.CHUNK:
            messages = []
            for m in file.messages(at, length):
                topic, data = list(CHANNELS)[m.channel_id - 1], m.data
                if topic == "/frame":
                    pixels = np.array(coding.image_pixels(data))
                    data = data[:len(data) - pixels.nbytes] + change(topic, counts[topic], pixels).tobytes()
                elif topic == "/step":
                    data = coding.to_json(change(topic, counts[topic], json.loads(data)))
                if topic in counts:
                    counts[topic] += 1
                messages.append((m.channel_id, m.log_time, data))
            out.chunk(messages)
    file.close()
    out.finish()
    return target


def test_an_honest_session_is_identical_bit_for_bit(honest: Path) -> None:
    with Session.open(honest) as session:
        found = verify(session)
    assert found.identical and found.mode == "bits" and found.frames == COUNT and found.differing == []
    assert found.text == f"replay identical: {COUNT} frames recomputed bit for bit"


def test_the_case_travels_inside_the_session(honest: Path, case: Any, tmp_path: Path) -> None:
    with Session.open(honest) as session:
        inside = session.case()
        assert inside is not None and inside.checksum == case.checksum and inside.folder != case.folder
        assert np.array_equal(inside.centerlines["aorta"].points, case.centerlines["aorta"].points)
        other = runs.create_case(tmp_path / "other", vessels=[case.folder.parent / "input" / "aorta.vtk"])
        with pytest.raises(BadInput, match="recorded with"):
            session.case(other.folder)


def test_rewriting_without_a_change_still_verifies(bare: Path, tmp_path: Path) -> None:
    path = rewritten(bare, tmp_path / "same.mcap", lambda topic, k, content: content)
    with Session.open(path) as session:
        assert session.recovered and verify(session).identical


def test_one_grey_level_in_one_raw_pixel_is_found(bare: Path, tmp_path: Path) -> None:
    def change(topic: str, k: int, content: Any) -> Any:
        if topic == "/frame" and k == 10:
            content[80, 80] ^= 1
        return content

    with Session.open(rewritten(bare, tmp_path / "pixel.mcap", change)) as session:
        found = verify(session)
    assert not found.identical
    assert found.differing[0]["frame"] == 10 and "raw pixels" in found.differing[0]["what"]
    assert "frame 10: raw pixels" in found.text


def test_a_changed_pose_is_found_even_by_one_bit(honest: Path, tmp_path: Path) -> None:
    def change(topic: str, k: int, content: Any) -> Any:
        if topic == "/step" and k == 4:
            pose = content["registration"]["carm_from_patient"]
            pose[0][3] = float(np.nextafter(pose[0][3], 1e9))
        return content

    with Session.open(rewritten(honest, tmp_path / "pose.mcap", change)) as session:
        found = verify(session)
    assert [d["frame"] for d in found.differing] == [4]
    assert found.differing[0]["what"] == ["record (changed since it was written)", "pose"]


@pytest.mark.parametrize("where", ["truth", "badges", "commands", "exposure"])
def test_whatever_else_is_changed_in_a_record_breaks_the_chain(bare: Path, tmp_path: Path, where: str) -> None:
    def change(topic: str, k: int, content: Any) -> Any:
        if topic == "/step" and k == 12:
            if where == "exposure":
                content["frame"]["exposure"]["dose_ugy"] = 0.1
            elif where == "truth":
                content["truth"]["breathing_mm"] = 1.0
            else:
                content[where] = []
                content.setdefault("timings", {})["total"] = 1.0
        return content

    with Session.open(rewritten(bare, tmp_path / "x.mcap", change)) as session:
        found = verify(session)
    assert {d["frame"] for d in found.differing} == {12}
    assert "record (changed since it was written)" in found.differing[0]["what"]


def test_damaged_bytes_are_named_and_the_rest_is_still_verified(bare: Path, tmp_path: Path) -> None:
    data = bytearray(bare.read_bytes())
    with Session.open(bare) as session:
        row = session.rows[13]
    data[int(row["frame_at"]) + int(row["frame_length"]) // 2] ^= 0xFF
    (tmp_path / "x.mcap").write_bytes(data)
    with Session.open(tmp_path / "x.mcap") as session:
        found = verify(session)
    assert found.differing[0]["frame"] == 13 and "damaged" in found.differing[0]["what"][0]
    assert 12 not in {d["frame"] for d in found.differing}


def test_after_a_gap_of_the_recorder_verification_goes_on_from_the_snapshot(folder: Path) -> None:
    runs.record(folder / "gap.mcap", None, runs.frames(BARE), COMMANDS, lost=range(5, 11))
    with Session.open(folder / "gap.mcap") as session:
        assert session.frame_count == BARE - 6
        assert session.gaps[0]["frame"] == 5 and session.gaps[0]["frames"] == 6
        found = verify(session)
        assert found.identical and found.unverifiable == 1
        assert found.text == (f"replay identical: {BARE - 7} frames recomputed bit for bit; 1 behind a gap of the "
                              "recorder could only be taken as recorded")


def test_a_snapshot_that_was_changed_is_found(folder: Path, tmp_path: Path) -> None:
    runs.record(folder / "gap2.mcap", None, runs.frames(BARE), lost=range(5, 11))
    other = Pipeline(None, PipelineSettings(overlay="none")).snapshot()
    with Session.open(folder / "gap2.mcap") as session:
        session.snapshot = lambda k: other  # type: ignore[method-assign]
        found = verify(session)
    assert found.differing[0] == {"frame": 5, "index": 11, "what": ["snapshot of the state"]}


def test_a_cut_session_verifies_to_its_last_whole_frame(bare: Path, tmp_path: Path) -> None:
    data = bare.read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: int(len(data) * 0.6)])
    with Session.open(tmp_path / "cut.mcap") as session:
        assert 5 < session.frame_count < BARE and verify(session).identical


def test_another_machine_is_held_to_bounds_and_it_says_so(honest: Path) -> None:
    with Session.open(honest) as session:
        pipeline = Pipeline(session.case(), PipelineSettings.from_json(session.settings))
        found = verify_with(session, pipeline, ["projector", "cpu_features"])
        assert found.identical and found.mode == "bounds"
        assert "another projector, cpu_features" in found.text and "within bounds" in found.text


def test_a_pose_that_is_off_by_a_millimeter_is_outside_the_bounds(honest: Path, tmp_path: Path) -> None:
    def change(topic: str, k: int, content: Any) -> Any:
        if topic == "/step" and k == 4:
            content["registration"]["carm_from_patient"][0][3] += 1.0
        return content

    with Session.open(rewritten(honest, tmp_path / "pose.mcap", change)) as session:
        pipeline = Pipeline(session.case(), PipelineSettings.from_json(session.settings))
        found = verify_with(session, pipeline, ["projector"])
    assert [d["frame"] for d in found.differing] == [4]
    assert any(w.startswith("pose (1.00 mm at the target") for w in found.differing[0]["what"])


def test_other_settings_leave_the_bounds(honest: Path) -> None:
    with Session.open(honest) as session:
        settings = PipelineSettings.from_json(session.settings)
        blind = replace(settings, chain=replace(settings.chain, denoise=False), init="search", tolerance_mm=0.01)
        found = verify_with(session, Pipeline(session.case(), blind), ["sources"])
    assert not found.identical and any("outcome" in w for d in found.differing for w in d["what"])


def test_a_session_without_a_case_is_verified_too(bare: Path) -> None:
    with Session.open(bare) as session:
        assert session.case() is None and verify(session).identical


def test_a_large_case_is_asked_for(folder: Path, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluoronav.session.carry.MOST_PACKED", 10)
    runs.record(folder / "large.mcap", case, runs.frames(2))
    with Session.open(folder / "large.mcap") as session:
        with pytest.raises(BadInput, match="--case"):
            verify(session)
        assert verify(session, session.case(case.folder)).identical
