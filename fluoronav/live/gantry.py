# SPDX-License-Identifier: Apache-2.0
"""How did the C-arm or the table move between two frames, and where does that put the patient?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fluoronav.imaging.frame import Frame
from registration.geometry import Float64, Rigid, carm_from_room

TURNED_DEG = 0.3  # angles are read out to 0.1 or 1 degree and flicker by a step; less is standing still
MOVED_MM = 0.3  # of the table, for the same reason


@dataclass(frozen=True, slots=True)
class Gantry:
    """Gantry angles in degrees and table position in mm of a frame; None where not stated."""

    angles: tuple[float, float] | None = None
    table_in_room_mm: tuple[float, float, float] | None = None

    @classmethod
    def of(cls, frame: Frame) -> Gantry:
        """What a frame states."""
        a = frame.angles
        return cls(None if a is None else (a.primary_deg, a.secondary_deg), frame.table_in_room_mm)

    def followed(self, now: Gantry, *, seen: bool) -> Gantry:
        """The gantry that the pose of a frame at `now` belongs to: `now` where the pose was found in that frame
        or was moved with the gantry; else the old one, so that a slow turn adds up until it counts."""
        if not seen and self.new_from_old(now) is None:
            return Gantry(self.angles or now.angles, self.table_in_room_mm or now.table_in_room_mm)
        return Gantry(now.angles or self.angles, now.table_in_room_mm or self.table_in_room_mm)

    def new_from_old(self, now: Gantry) -> Float64 | None:
        """The motion (4x4) that takes the old carm_from_patient to the new one, in the C-arm frame about the
        isocenter; None where nothing moved that is stated in both frames."""
        turned, moved = self._turned(now), self._moved(now)
        if not turned and not moved:
            return None
        before = Rigid.translation(0, 0, 0) if self.angles is None else carm_from_room(*self.angles)
        after = before if not turned or now.angles is None else carm_from_room(*now.angles)
        shift = np.zeros(3)
        if moved and now.table_in_room_mm is not None and self.table_in_room_mm is not None and self.angles is not None:
            shift = np.subtract(now.table_in_room_mm, self.table_in_room_mm)
        return np.asarray(after @ Rigid.translation(*shift) @ Rigid.inverse(before))

    def _turned(self, now: Gantry) -> bool:
        return (self.angles is not None and now.angles is not None
                and max(abs(a - b) for a, b in zip(self.angles, now.angles, strict=True)) > TURNED_DEG)

    def _moved(self, now: Gantry) -> bool:
        a, b = self.table_in_room_mm, now.table_in_room_mm
        return a is not None and b is not None and max(abs(x - y) for x, y in zip(a, b, strict=True)) > MOVED_MM

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"angles": None if self.angles is None else list(self.angles),
                "table_in_room_mm": None if self.table_in_room_mm is None else list(self.table_in_room_mm)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Gantry:
        """What `to_json` gave."""
        angles, table = data.get("angles"), data.get("table_in_room_mm")
        return cls(None if angles is None else (float(angles[0]), float(angles[1])),
                   None if table is None else (float(table[0]), float(table[1]), float(table[2])))

