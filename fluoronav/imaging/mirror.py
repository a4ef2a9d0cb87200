# SPDX-License-Identifier: Apache-2.0
"""Is a picture seen from the detector or from the source? Flipped once, at the door, where it must be."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fluoronav.imaging.frame import Angles
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.tags import Header
from registration.geometry import carm_from_room

SeenFrom = Literal["detector", "source"]
DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


def flips(header: Header, angles: Angles | None, seen_from: SeenFrom | None, name: str, notes: Notes) -> bool:
    """Whether the columns have to be flipped so that the picture is seen from the detector.

    --seen-from decides, then PatientOrientation where it is filled and angles are known; else DICOM is
    taken as seen from the detector. FieldOfViewHorizontalFlip tells what was done already: no flip.
    A PatientOrientation that says turned, not mirrored, is told as a warning and not used.
    """
    letters = header.code("PatientOrientation")
    told = _mirrored(letters, angles, name, notes) if seen_from is None or letters else None
    if seen_from is not None:
        notes.read(f"seen from the {seen_from}, as given on the command line")
        if told is not None and told != (seen_from == "source"):
            notes.warn(f"PatientOrientation {letters} says the opposite of --seen-from {seen_from}; "
                       "the command line is followed")
        return seen_from == "source"
    if told is not None:
        notes.read(f"PatientOrientation {letters}: seen from the {'source, columns flipped' if told else 'detector'}")
        return told
    notes.assumed("seen from the detector (PatientOrientation is not stated or cannot be checked)")
    return False


def _mirrored(letters: str, angles: Angles | None, name: str, notes: Notes) -> bool | None:
    parts = letters.split("\\")
    if angles is None or len(parts) != 2 or not all(parts):
        return None
    if not all(letter in DIRECTIONS for part in parts for letter in part):
        notes.warn(f"PatientOrientation {letters} is not understood and is ignored")
        return None
    axes = carm_from_room(angles.primary_deg, angles.secondary_deg)[:2, :3]
    row, column = (_cosine(part, axis) for part, axis in zip(parts, axes, strict=True))
    # 0.3: letters name the nearest axes, so half of a right angle may lie between; below it they are across
    if abs(row) < 0.3 or abs(column) < 0.3:
        notes.warn(f"PatientOrientation {letters} lies across the axes of the angles; it is not used")
        return None
    if column < 0:
        notes.warn(f"PatientOrientation {letters} says that {name} is turned or upside down against its angles; "
                   "the picture is taken as seen from the detector")
        return None
    return row < 0


def _cosine(letters: str, axis: np.ndarray) -> float:
    direction = np.sum([DIRECTIONS[letter] for letter in letters], axis=0).astype(float)
    length = float(np.linalg.norm(direction))
    return float(direction @ axis) / length if length else 0.0
