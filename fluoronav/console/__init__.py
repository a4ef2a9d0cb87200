# SPDX-License-Identifier: Apache-2.0
"""What a person sees during a case and in a replay: a loopback server and one page.

`ConsoleServer(feed)` shows any Feed (a live run, a session being replayed) in a browser on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluoronav.console.server import ConsoleServer

__all__ = ["ConsoleServer"]


def __getattr__(name: str) -> object:
    if name == "ConsoleServer":  # aiohttp and pydantic are imported only where a console is opened
        from fluoronav.console.server import ConsoleServer

        return ConsoleServer
    raise AttributeError(name)
