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
    """A path beside `output`, of the same suffix, to write a file to; it becomes `output` only when all went well.

    What was at `output` stays as it was until then, also where the power fails. Raises OSError that names `output`.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{output.name}.", suffix=output.suffix, dir=output.resolve().parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output)) from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.chmod(0o644)
        part.replace(output)
    except OSError as error:
        if error.errno is not None and error.filename in (None, name):
            error.filename = str(output)
        raise
    finally:
        part.unlink(missing_ok=True)  # still there only where something went wrong


def write_whole(output: Path, data: bytes) -> None:
    """Write `data` to `output`, whole or not at all. Raises OSError."""
    with whole_or_nothing(output) as part:
        part.write_bytes(data)
