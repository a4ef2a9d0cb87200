# SPDX-License-Identifier: Apache-2.0
"""What run is in a folder? Numbered pictures, or the single frames of one DICOM series."""

from __future__ import annotations

import re
from pathlib import Path

from fluoronav.imaging.dicom import is_dicom, open_dicom
from fluoronav.imaging.dicom_geometry import Given
from fluoronav.imaging.mirror import SeenFrom
from fluoronav.imaging.pictures import open_pictures, picture_kind
from fluoronav.imaging.run import Run
from registration.errors import BadInput, BadPixels

DICOM_SUFFIXES = (".dcm", ".dicom")
FEW = 10  # damaged files named in one message


def open_folder(folder: Path, carm_file: str | Path | None, given: Given, seen_from: SeenFrom | None) -> Run:
    """The run of a folder's pictures in the order of their numbers. Raises BadPixels."""
    files = files_of(folder)
    kinds = {file: _kind(file) for file in files}
    pictures = [file for file in files if kinds[file] == "picture"]
    dicoms = [file for file in files if kinds[file] == "dicom"]
    if pictures and dicoms:
        raise BadPixels(f"folder {folder.name}", got=f"pictures ({len(pictures)}) and DICOM files ({len(dicoms)})",
                        expected="one kind", remedy="keep each run in a folder of its own")
    damaged = [file.name for file in files if kinds[file] == "empty"]
    if damaged:
        raise BadPixels(f"folder {folder.name}", got="empty files " + ", ".join(damaged[:FEW]),
                        expected="whole pictures", remedy="copy them again, or take them out")
    if pictures:
        return open_pictures(pictures, folder, carm_file, given, seen_from)
    if len(dicoms) == 1 and carm_file is None:
        return open_dicom(dicoms[0], given, seen_from)
    raise BadInput(f"folder {folder.name}", got=f"{len(dicoms)} DICOM files" if dicoms else "no pictures",
                   expected="numbered PNG or TIFF files, or one DICOM run",
                   remedy="give DICOM files one by one: each is a run of its own" if dicoms else "check the path")


def dicom_files(folder: Path) -> list[Path]:
    """The files of a folder that are DICOM, or named like it; [] where it holds pictures."""
    files = files_of(folder)
    kinds = {file: _kind(file) for file in files}
    if "picture" in {kinds[file] for file in files if file.suffix.lower() not in DICOM_SUFFIXES}:
        return []
    return [file for file in files if kinds[file] == "dicom" or file.suffix.lower() in DICOM_SUFFIXES]


def files_of(folder: Path) -> list[Path]:
    """The visible files of a folder, numbers in their names counted as numbers."""
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _kind(file: Path) -> str:
    with file.open("rb") as handle:
        head = handle.read(132)
    if not head:
        return "empty"
    return "picture" if picture_kind(head) else "dicom" if is_dicom(head) else "other"
