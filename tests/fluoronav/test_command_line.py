# SPDX-License-Identifier: Apache-2.0
"""What does a person read when a disk is full or a folder may not be written? One sentence, exit code 2."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from fluoronav.cli import app
from fluoronav.live.beside import Beside


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.ENOSPC, "No space left on device", "clean.dcm"), "clean.dcm: got No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "kept"), "kept: got Permission denied")])
def test_what_the_system_refuses_is_one_sentence(monkeypatch, capsys, error, words):
    def refused():
        raise error

    monkeypatch.setattr(app, "app", refused)
    monkeypatch.delenv("FLUORONAV_DEBUG", raising=False)
    code = app.answer()
    said = capsys.readouterr().err
    assert code == 2 and words in said and said.count("\n") == 1


def test_a_picture_that_cannot_be_written_is_refused_before_the_long_work(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fluoronav", "register", "no-case", "no-frames", "--overlay", "out.bmp"])
    assert app.answer() == 2 and "suffix .bmp" in capsys.readouterr().err


ENDS_WHILE_PROJECTING = """
import sys, threading, time
import numpy as np
from fluoronav.cli import app
from registration.geometry import CArm, Volume
from registration.projector import project

volume, carm = Volume(np.zeros((60, 60, 60), np.float32), np.eye(4)), CArm((512, 512), (0.5, 0.5), 1e3, 700, (255, 255))

def forever():
    while True:
        project(volume, carm, np.eye(4))

threading.Thread(target=forever, daemon=True, name=app.OURS + "x").start()
time.sleep(0.2)
app.app = lambda: sys.exit(1)
print("told")
app.main()
"""


def test_a_registration_that_nobody_waits_for_does_not_abort_the_end():
    done = subprocess.run([sys.executable, "-c", ENDS_WHILE_PROJECTING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "told\n", "")


def test_the_thread_of_registrations_is_called_as_the_command_line_calls_it():
    assert Beside(lambda job: {}, lambda: None)._thread.name.startswith(app.OURS)
