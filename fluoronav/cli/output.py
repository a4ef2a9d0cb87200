# SPDX-License-Identifier: Apache-2.0
"""How do commands print? JSON alone on stdout, everything for a person on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Progress = Callable[[float, str], None]  # share done 0..1, what is being done


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    from fluoronav.session.coding import plain

    print(json.dumps(plain(value), allow_nan=False), flush=True)


def tell(line: str) -> None:
    """A line for the person, on stderr, so that stdout stays for data."""
    print(line, file=sys.stderr, flush=True)


def tell_some(lines: Sequence[str], most: int = 5) -> None:
    """The first of many lines and how many more there are; `--json` holds them all."""
    for line in lines[:most]:
        tell(line)
    if len(lines) > most:
        tell(f"and {len(lines) - most} more (--json names all)")


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr (none when quiet or when nobody looks)."""
    if quiet or not sys.stderr.isatty():
        yield lambda share, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
             console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=f"{title}: {text}")
