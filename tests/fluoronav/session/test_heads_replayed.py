# SPDX-License-Identifier: Apache-2.0
"""A session in which heads of the enhancement were switched: replayed and verified as it was shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import real_runs as runs

from fluoronav.live.step import Command
from fluoronav.session import Session
from fluoronav.session.shown import NOT_THE_BITS, Shown
from fluoronav.session.verify import verify

SWITCHED = {2: [Command("heads", {"contrast": 1.0, "stabilise": True})],
            5: [Command("heads", {"contrast": 1.0, "stabilise": True, "superres": True})], 9: [Command("heads", {})]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames, without a case."""
    made = tmp_path_factory.mktemp("heads") / "s.mcap"
    runs.record(made, None, runs.frames(12), SWITCHED)
    return made


def test_every_picture_is_the_recorded_one_to_the_bit_whatever_was_on(path: Path) -> None:
    with Session.open(path) as session:
        shown = Shown(session, None)
        sizes = []
        for k in range(session.frame_count):
            step = shown.step(k)
            assert NOT_THE_BITS not in step.badges
            sizes.append(step.picture.shape[0])
    assert sizes == [160] * 5 + [320] * 4 + [160] * 3


def test_verification_follows_the_switches(path: Path) -> None:
    with Session.open(path) as session:
        found = verify(session)
    assert found.identical and found.frames == 12 and found.differing == []
