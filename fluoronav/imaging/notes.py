# SPDX-License-Identifier: Apache-2.0
"""What was read, derived, assumed, and what contradicts? A list that says it in that order of trust."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Notes:
    """Lines for a person, each with its kind in front: read, derived, assumed, warning."""

    lines: list[str] = field(default_factory=list)

    def read(self, text: str) -> None:
        """What the source states."""
        self._add("read", text)

    def derived(self, text: str) -> None:
        """What follows from what the source states."""
        self._add("derived", text)

    def assumed(self, text: str) -> None:
        """What was taken for granted."""
        self._add("assumed", text)

    def warn(self, text: str) -> None:
        """What contradicts or cannot be used."""
        self._add("warning", text)

    def _add(self, kind: str, text: str) -> None:
        line = f"{kind}: {text}"
        if line not in self.lines:
            self.lines.append(line)
