# SPDX-License-Identifier: Apache-2.0
"""Can the session carry its case? A case folder becomes a zip inside the session, and a folder again."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from registration.errors import BadInput

MOST_PACKED = 64 << 20  # bytes: larger cases stay where they are, and replay asks for --case
_MOST_UNPACKED = 1 << 30


def pack_case(folder: Path) -> bytes | None:
    """The folder as a zip (sorted, without dates), None where it is larger than MOST_PACKED.

    Nothing is compressed again: the arrays of a case already are.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if sum(p.stat().st_size for p in files) > MOST_PACKED:
        return None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in files:
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
    return out.getvalue()


def unpack_case(data: bytes, folder: Path) -> None:
    """The files of a packed case under a folder. Raises BadInput for a zip that reaches outside or is damaged."""
    remedy = "give the case folder with --case"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_UNPACKED:
                raise BadInput("case in the session", got="more than 1 GiB", expected="a case folder", remedy=remedy)
            root = folder.resolve()
            for name in archive.namelist():
                if not (root / name).resolve().is_relative_to(root):
                    raise BadInput("case in the session", got="a file name that leads outside",
                                   expected="names inside it", remedy=remedy)
            archive.extractall(folder)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, NotImplementedError) as error:
        raise BadInput("case in the session", got=type(error).__name__, expected="a whole zip",
                       remedy=remedy) from None
