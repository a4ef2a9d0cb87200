# SPDX-License-Identifier: Apache-2.0
"""After the case: a session is recorded, opened again even when cut short, verified, replayed, reported.

`SessionRecorder` writes MCAP; `Session.open` reads it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Session", "SessionRecorder"]


def __getattr__(name: str) -> Any:
    if name == "Session":
        from fluoronav.session.session import Session

        return Session
    if name == "SessionRecorder":
        from fluoronav.session.record import SessionRecorder

        return SessionRecorder
    raise AttributeError(name)
