# SPDX-License-Identifier: Apache-2.0
"""How far may parts of the patient lie from where a tracked pose has them, until somebody looks again?

A look (parting.py) costs as much as several tracked frames, so it comes now and then: soon where something is
allowed for, where the target has moved, as whoever breathes moves, or where the picture is explained less well than it
was then; else once in a while. What it found is allowed for until the next one, with what it had grown by, and
forgotten slowly: a breath comes back. Who moves as one body is asked ever less often whether he does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot

# Frames. At 15 a second a breath takes some 60, in which tissue moves by some 10 mm and back: 0.5 mm a frame.
_SOON, _AT_LEAST = 4, 24
_KEPT = 0.75  # of what is allowed for, after a look that finds less: breath stands still for some looks, and comes back
_WORSE = 0.02  # in agreement: some 3 mm of tissue against the spine; noise alone changes it by 0.005
NOTHING_MM = 0.5  # what nobody minds being off
# Of the target in the picture's plane, between two looks. The first that find nothing tell little, as tissue that has
# moved by 1.5 mm is just noticed; after them each asks for twice the way.
_MOVED_MM, _FARTHEST_MM, _UNSURE = 1.0, 16.0, 3


@dataclass(frozen=True, slots=True)
class Apart:
    """allowed_mm: how far the target may be off, in the picture's plane; seen_mm: what the last look found, None before
    one; agreement: of that frame; at_mm: where the target was in it; frames: tracked since; idle: looks in a row that
    came because it had moved, and found nothing."""

    allowed_mm: float = 0.0
    seen_mm: float | None = None
    agreement: float = 0.0
    frames: int = 0
    at_mm: tuple[float, float] = (0.0, 0.0)
    idle: int = 0

    def due(self, agreement: float, at_mm: tuple[float, float]) -> bool:
        """Whether it is time to look, in a frame that is explained so well with the target there."""
        if self.frames < _SOON:
            return False
        moving = self.seen_mm is None or self.allowed_mm > NOTHING_MM or self._moved(at_mm)
        return moving or agreement < self.agreement - _WORSE or self.frames >= _AT_LEAST

    def _moved(self, at_mm: tuple[float, float]) -> bool:
        reach = min(_MOVED_MM * 2 ** max(0, self.idle + 1 - _UNSURE), _FARTHEST_MM)
        return hypot(at_mm[0] - self.at_mm[0], at_mm[1] - self.at_mm[1]) > reach

    @classmethod
    def followed(cls, off_mm: float, agreement: float) -> Apart:
        """After a frame in which the parts were followed each by itself: as one body, a look would be due."""
        return cls(off_mm, off_mm, agreement, _SOON)

    def unseen(self) -> Apart:
        """After a frame in which nobody looked."""
        return replace(self, frames=self.frames + 1)

    def seen(self, off_mm: float, agreement: float, at_mm: tuple[float, float]) -> Apart:
        """After a look."""
        grown = 0.0 if self.seen_mm is None else max(0.0, off_mm - self.seen_mm)
        allowed = max(off_mm + grown, _KEPT * self.allowed_mm)
        nothing = off_mm < NOTHING_MM and self.seen_mm is not None
        idle = 0 if not nothing else self.idle + 1 if self._moved(at_mm) else max(0, self.idle - 1)
        return Apart(allowed if allowed > NOTHING_MM else 0.0, off_mm, agreement, 0, at_mm, idle)
