# SPDX-License-Identifier: Apache-2.0
"""Is a file written whole or not at all?"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fluoronav.files import whole_or_nothing, write_whole


def test_a_file_is_there_whole_and_can_be_read_by_others(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


def test_what_was_there_stays_when_writing_fails_halfway(tmp_path: Path) -> None:
    output = tmp_path / "a.bin"
    output.write_bytes(b"old")
    with pytest.raises(OSError, match=r"No space left.*/a\.bin"), whole_or_nothing(output) as part:
        part.write_bytes(b"ne")
        assert part.suffix == ".bin"  # writers choose a format by it
        raise OSError(errno.ENOSPC, "No space left on device")
    assert output.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_place_that_is_not_there_is_named_as_the_person_named_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"/nowhere/a\.bin'$"):
        write_whole(tmp_path / "nowhere" / "a.bin", b"new")
