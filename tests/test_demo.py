# SPDX-License-Identifier: Apache-2.0
"""The main way, by its one command: a patient is made, seen, recorded, verified and reported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KEYS = {"frames", "fps", "latency_ms_p50", "latency_ms_p95", "target_error_mm_median", "target_error_mm_p95", "drops",
        "session", "report"}


def fluoronav(*args: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fluoronav", *map(str, args)], cwd=ROOT, capture_output=True,
                          text=True, timeout=timeout, env={**os.environ, "COLUMNS": "120"}, check=False)


@pytest.mark.slow
def test_the_demo_registers_records_verifies_and_reports(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = fluoronav("demo", "--headless", "--seconds", 10, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # one JSON object, nothing else
    result = json.loads(done.stdout)
    assert set(result) >= KEYS
    assert result["frames"] + result["drops"] == 150
    assert result["outcomes"]["ACCEPTED"] > 0
    assert result["replay_identical"] is True
    # the tolerance of the gate is 5 mm; the demo's own figure (README) is a few tenths
    assert result["target_error_mm_median"] < 1.0 and result["target_projected_error_mm_p95"] < 2.0
    report = Path(result["report"]).read_text()
    assert "<svg" in report
    assert not re.search(r"(src|href)=.https?://(?!www\.w3\.org)", report)  # nothing is loaded from elsewhere

    again = fluoronav("replay", result["session"], "--verify", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["verification"]["identical"] is True

    shown = fluoronav("case", "show", out / "case", "--png", tmp_path / "case.png")
    assert shown.returncode == 0 and (tmp_path / "case.png").stat().st_size > 10_000


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = fluoronav("demo", "--headless", "--seconds", 1, "--out", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "another folder" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_without_opengl_the_demo_says_so_and_draws_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluoronav.session.session import Session

    monkeypatch.setenv("FLUORONAV_NO_OPENGL", "1")
    done = fluoronav("demo", "--headless", "--seconds", 6, "--json", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "plain lines" in done.stderr
    with Session.open(Path(json.loads(done.stdout)["session"])) as session:
        drawn = [session.record(k) for k in range(session.frame_count)]
    assert {r["overlay_method"] for r in drawn} <= {"lines", "none"}
    assert any("plain lines" in badge for r in drawn for badge in r["badges"])
