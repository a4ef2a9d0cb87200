# SPDX-License-Identifier: Apache-2.0
"""Where the real images are, for the tests that use them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Answer(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


SHARED = Path(os.environ.get("FLUORONAV_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; the test is skipped, with the reason, where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real images (../shared/data, or FLUORONAV_SHARED) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def shared_checks() -> Path:
    """The folder of scorers and vectors made apart from this code."""
    folder = SHARED / "checks"
    if not folder.is_dir():
        pytest.skip("the scorers (../shared/checks, or FLUORONAV_SHARED) are not on this machine")
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs `fluoronav ARGS...` as the program does, in this process: (exit code, stdout, stderr)."""

    def run(*args: object) -> Answer:
        from fluoronav.cli.app import answer

        monkeypatch.setattr("sys.argv", ["fluoronav", *(str(a) for a in args)])
        capsys.readouterr()
        code = answer()
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return run
