# SPDX-License-Identifier: Apache-2.0
"""Every damaged file stops `register` with exit code 2 and one sentence, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_xa_codings import GEOMETRY, PIXELS

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def case(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vessel phantom's case, whose runs the damaged files were made from."""
    from fluoronav.case import create_case

    folder = tmp_path_factory.mktemp("case") / "phantom"
    create_case(folder, vessels=[shared_data / "vessel_phantom" / "centerlines.vtk"])
    return folder


@pytest.mark.parametrize("name", [*GEOMETRY, *PIXELS])
def test_every_damaged_file_stops_register_with_its_sentence(
        command: Callable[..., tuple[int, str, str]], shared_data: Path, case: Path, tmp_path: Path, name: str) -> None:
    file = shared_data / "xa_codings" / "bad" / f"{name}.dcm"
    code, out, err = command("register", case, file, "--json", "--overlay", tmp_path / "overlay.png")
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and file.name in err and "Traceback" not in err
    assert (GEOMETRY | PIXELS)[name] in err and all(part in err for part in ("got ", "expected ", "; "))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_damaged_files_names_each_in_a_line_of_its_own(
        command: Callable[..., tuple[int, str, str]], shared_data: Path, case: Path) -> None:
    code, out, err = command("register", case, shared_data / "xa_codings" / "bad", "--json")
    assert code == 2 and out == ""
    lines = err.strip().splitlines()
    named = [name for name in (GEOMETRY | PIXELS) if sum(f"{name}.dcm" in line for line in lines) == 1]
    assert len(named) >= len(GEOMETRY | PIXELS) - 1  # a text file named .dcm may be passed over as none of ours
    assert all(line.startswith("fluoronav: ") for line in lines)
