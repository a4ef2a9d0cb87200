# SPDX-License-Identifier: Apache-2.0
"""How do commands print? JSON alone on stdout, everything for a person on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[float, str], None]  # share done 0..1, what is being done


def plain(value: Any) -> Any:
    """The value as plain JSON types: arrays as lists, NaN and infinity as null, enums as values."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "value"):
        return plain(value.value)
    return str(value)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(plain(value), allow_nan=False), flush=True)


def tell(line: str) -> None:
    """A line for the person, on stderr, so that stdout stays for data."""
    print(line, file=sys.stderr, flush=True)


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
