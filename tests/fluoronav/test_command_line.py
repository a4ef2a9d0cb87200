# SPDX-License-Identifier: Apache-2.0
"""What does a person read when a disk is full or a folder may not be written? One sentence, exit code 2."""

from __future__ import annotations

import errno
import sys

import pytest

from fluoronav.cli import app


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.ENOSPC, "No space left on device", "clean.dcm"), "clean.dcm: got No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "kept"), "kept: got Permission denied")])
def test_what_the_system_refuses_is_one_sentence(monkeypatch, capsys, error, words):
    def refused():
        raise error

    monkeypatch.setattr(app, "app", refused)
    monkeypatch.delenv("FLUORONAV_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        app.main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and words in said and said.count("\n") == 1


def test_a_picture_that_cannot_be_written_is_refused_before_the_long_work(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fluoronav", "register", "no-case", "no-frames", "--overlay", "out.bmp"])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 2 and "suffix .bmp" in capsys.readouterr().err
