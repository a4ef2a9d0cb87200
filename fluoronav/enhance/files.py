# SPDX-License-Identifier: Apache-2.0
"""How is a file written whole or not at all? Beside its place, and moved there when all went well."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_or_nothing(output: Path) -> Iterator[Path]:
    """A path beside `output` to write a file to; it becomes `output` only when all went well."""
    handle, name = tempfile.mkstemp(prefix=f".{output.name}.", suffix=output.suffix, dir=output.resolve().parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
