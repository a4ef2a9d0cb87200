# SPDX-License-Identifier: Apache-2.0
"""Which source does a word on the command line mean? A run played at its own pace, a folder that fills, a network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluoronav.imaging.frame import Frame
from fluoronav.imaging.run import Run, open_run
from fluoronav.live.source import Gap, Pace, Source, Stated
from registration.errors import BadInput

__all__ = ["Gap", "RunSource", "Source", "Stated", "open_source"]

SCHEME = "igtl://"


def open_source(spec: str | Path, stated: Stated | None = None, *, fills: bool = True,
                devices: Any = None) -> Source:
    """The source of a path or of `igtl://HOST:PORT`.

    A file is played at its own pace; a folder is watched and its pictures are taken as they appear (fills), or
    played as one finished run (fills=False). devices: names in the stream, network.Devices. Raises BadInput.
    """
    said, text = stated or Stated(), str(spec)
    if text.startswith(SCHEME):
        from fluoronav.live.network import Devices, NetworkSource

        return NetworkSource(*_address(text), said, devices or Devices())
    if "://" in text:
        raise BadInput(f"source {text}", got=text.split("://")[0], expected=f"a path or {SCHEME}HOST:PORT",
                       remedy="give one of them, or `demo`")
    if Path(text).is_dir() and fills:
        from fluoronav.live.filling import FillingFolder

        return FillingFolder(Path(text), said)
    return RunSource(open_run(text, **said.options()))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text[len(SCHEME):].rstrip("/").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(f"source {text}", got=text[len(SCHEME):], expected=f"{SCHEME}HOST:PORT",
                       remedy=f"give it as in {SCHEME}127.0.0.1:18944")
    return host.strip("[]"), int(port)


class RunSource:
    """A finished run, played once at the pace of its own time stamps."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name, self.nominal_interval_s, self.notes = run.name, run.nominal_interval_s, run.notes
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[Frame | Gap]:
        pace = Pace(self._stop)
        for k in range(len(self.run.frames)):
            frame = self.run.frames[k]  # decoded before it is due
            pace.wait(frame.time_ns)
            if self._stop.is_set():
                return
            yield frame
        yield Gap(0.0, f"{self.name} has ended after {len(self.run.frames)} frames", ended=True)

    def close(self) -> None:
        self._stop.set()

    def truth(self, index: int) -> dict[str, Any] | None:
        return None
