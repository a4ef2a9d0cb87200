# SPDX-License-Identifier: Apache-2.0
"""What may a session say of its source? Its kind and a random mark: never a path, a file name or a host."""

from __future__ import annotations

import re
import uuid
from pathlib import PurePath
from typing import Any

# Anything that looks like a path: its folders name people and places.
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\s\\/:;,'\"()]+){2,}[\\/]?")
_KINDS = (("igtl:", "network feed"), ("demo", "demo patient"))
_SUFFIXES = {".dcm": "DICOM", ".dicom": "DICOM", ".ima": "DICOM", ".tif": "pictures", ".tiff": "pictures",
             ".png": "pictures", ".mp4": "video", ".avi": "video", ".mkv": "video", ".mov": "video",
             ".mpg": "video", ".mpeg": "video", ".webm": "video", ".m4v": "video", ".ts": "video"}


class Scrubber:
    """Replaces what names a source by a neutral label, in texts and in plain JSON values."""

    def __init__(self, source_name: str) -> None:
        self.label = f"{_kind(source_name)} {uuid.uuid4().hex[:8]}"
        self._seen: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.learn(source_name)

    def learn(self, name: str) -> None:
        """Another name of the source (a file of a folder, a device)."""
        if name in self._seen or name == self.label or name.startswith("demo"):
            return
        self._seen.add(name)
        words = set()
        for known in self._seen:
            path = PurePath(known.replace("\\", "/"))
            words |= {known, path.name, path.stem, *path.parts}
        # two letters are no name but would be found in every other word
        ordered = sorted((w for w in words if len(w) > 2), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE) if ordered else None

    def text(self, text: str) -> str:
        """The sentence without names of the source and without paths."""
        if self._pattern is not None:
            text = self._pattern.sub(self.label, text)
        return _PATH.sub("a path", text)

    def value(self, value: Any) -> Any:
        """A plain JSON value with every text in it scrubbed."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(k): self.value(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(v) for v in value]
        return value


def _kind(source_name: str) -> str:
    low = source_name.lower()
    for start, kind in _KINDS:
        if low.startswith(start):
            return kind
    return _SUFFIXES.get(PurePath(low).suffix, "source")
