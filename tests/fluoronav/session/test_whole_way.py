# SPDX-License-Identifier: Apache-2.0
"""The whole way: the demo patient live, recorded, verified, replayed and reported; and the command `replay`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import real_runs
from typer.testing import CliRunner

from fluoronav.case import create_case
from fluoronav.cli.app import app
from fluoronav.live.demo import DemoSource, write_demo_case_files
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.run import LiveRun
from fluoronav.live.settings import PipelineSettings
from fluoronav.session import Session, SessionRecorder
from fluoronav.session.report import write_report
from fluoronav.session.shown import NOT_THE_BITS, Shown
from fluoronav.session.summary import summary
from fluoronav.session.verify import verify
from models.patient import DemoPatient
from registration.errors import BadInput

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_a_live_run_of_the_demo_patient_verifies_to_the_bit_and_is_reported(tmp_path: Path) -> None:
    patient = DemoPatient.build(0, "small")
    case = create_case(tmp_path / "case", **write_demo_case_files(patient, tmp_path / "input"))
    source = DemoSource(patient, 4.0)  # the first registration runs beside the steps: on busy cores for seconds
    pipeline = Pipeline(case, PipelineSettings(overlay="lines"))
    recorder = SessionRecorder(tmp_path / "s.mcap", case=case, pipeline_settings=pipeline.settings.to_json(),
                               fingerprint=pipeline.fingerprint(), source_name=source.name,
                               nominal_interval_s=source.nominal_interval_s)
    run = LiveRun(pipeline, source, recorder=recorder, carm=source.scene.carm)
    run.start()
    assert run.join(120)
    run.stop()
    live = run.summary()
    with Session.open(tmp_path / "s.mcap") as session:
        found, figures = verify(session), summary(session)
        assert found.identical and found.mode == "bits", found.text
        assert figures["frames"] == live["frames"] and figures["drops"] == live["drops"]
        assert figures["frames"] + figures["drops"] == source.frame_count
        assert figures["outcomes"] == live["outcomes"] and figures["outcomes"]["ACCEPTED"] > 0
        assert figures["target_error_mm"]["median"] == pytest.approx(live["target_error_mm_median"])
        shown = Shown(session, session.case())
        drawn = [k for k in range(session.frame_count) if session.record(k)["overlay_method"] == "lines"]
        for k in range(drawn[0] + 1):
            step = shown.step(k)
        assert step.overlay.layers and NOT_THE_BITS not in step.badges
        assert "replay identical" in write_report(session, tmp_path / "report", found).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "s.mcap"
    real_runs.record(path, None, real_runs.frames(10))
    return path


def _ask(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["replay", *args])
    if isinstance(result.exception, BadInput):
        return 2, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


def test_verify_and_report_print_one_json_object_and_nothing_else(recorded: Path, tmp_path: Path) -> None:
    code, out, _ = _ask(str(recorded), "--verify", "--report", str(tmp_path / "report"), "--json")
    answer = json.loads(out)
    assert code == 0 and answer["verification"]["identical"] and answer["summary"]["frames"] == 10
    assert Path(answer["report"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_session_that_differs_is_exit_code_1(recorded: Path, tmp_path: Path) -> None:
    data = bytearray(recorded.read_bytes())
    with Session.open(recorded) as session:
        row = session.rows[4]
    data[int(row["frame_at"]) + int(row["frame_length"]) // 2] ^= 0x10
    (tmp_path / "x.mcap").write_bytes(data)
    code, out, said = _ask(str(tmp_path / "x.mcap"), "--verify", "--json")
    assert code == 1 and not json.loads(out)["verification"]["identical"] and "frame 4" in said


def test_a_cut_session_says_what_was_recovered(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mcap").write_bytes(recorded.read_bytes()[: recorded.stat().st_size // 2])
    code, out, said = _ask(str(tmp_path / "cut.mcap"), "--verify", "--json")
    answer = json.loads(out)
    assert code == 0 and 0 < answer["summary"]["frames"] < 10
    assert "last whole frame" in said and "last whole frame" in answer["recovered"]


@pytest.mark.parametrize("content", [None, b"", b"no session"])
def test_what_is_no_session_is_exit_code_2_and_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.mcap").write_bytes(content)
    code, out, said = _ask(str(tmp_path / "x.mcap"), "--verify", "--json")
    assert code == 2 and out == "" and "expected" in said


def test_without_options_the_console_shows_the_replay(recorded: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "fluoronav", "replay", str(recorded)], cwd=ROOT, text=True,
                               stderr=subprocess.PIPE, env={**os.environ, "BROWSER": "true"})
    try:
        assert process.stderr is not None
        url = re.search(r"http://\S+", process.stderr.readline())
        assert url is not None
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = opener.open(url[0], timeout=20).read().decode()
        assert "<html" in page.lower()
        base, _, query = url[0].partition("?")
        line = json.loads(opener.open(f"{base.rstrip('/')}/timeline?{query}", timeout=20).read())
        assert len(line["time_s"]) == 10 and np.diff(line["time_s"]) == pytest.approx(1 / 15, abs=1e-6)
    finally:
        process.terminate()
        process.wait(20)
