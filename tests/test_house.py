# SPDX-License-Identifier: Apache-2.0
"""The house itself: help is quick, heavy libraries are imported late, errors are one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ["numpy", "scipy", "vtk", "vtkmodules", "SimpleITK", "torch", "cv2", "matplotlib", "pydicom", "aiohttp", "av",
         "skimage", "openvino", "xraydb", "spekpy"]


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fluoronav", *args], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, env={**os.environ, "COLUMNS": "100"})


def test_help_answers_in_half_a_second() -> None:
    times = []
    for _ in range(8):  # the first also reads the files from disk; other tests run beside
        start = time.perf_counter()
        assert _run("--help").returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5


def test_the_command_line_imports_no_heavy_library_before_it_needs_it() -> None:
    code = f"import sys, fluoronav.cli.app; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_help_names_every_command_of_the_readme() -> None:
    text = _run("--help").stdout
    for command in ("demo", "case", "frames", "drr", "register", "live", "replay", "enhance", "bench", "doctor"):
        assert f" {command} " in text


def test_every_command_has_help() -> None:
    for command in ("demo", "case", "case create", "case show", "frames show", "drr", "register", "live", "replay",
                    "enhance", "bench", "doctor"):
        done = _run(*command.split(), "--help")
        assert done.returncode == 0 and "Usage" in done.stdout, command


def test_a_wrong_name_is_one_sentence_and_exit_code_2() -> None:
    done = _run("bench", "no-such-bench")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "expected" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_command_is_exit_code_2_without_a_traceback() -> None:
    done = _run("no-such-command")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_no_machine_path_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md", "*.toml", "*.txt", "*.cpp", "*.hpp", "*.js", "*.html",
                             "Makefile", ".ci/run"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        return  # an unpacked archive has no list of files
    words = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/"]
    found = [(name, word) for name in listed.stdout.split() for word in words
             if word in (ROOT / name).read_text(errors="replace")]
    assert found == []
