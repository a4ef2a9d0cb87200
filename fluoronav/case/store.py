# SPDX-License-Identifier: Apache-2.0
"""How does a case lie on disk? A manifest and one compressed file an array, checksummed, written whole or not at all.

manifest.json names every array file with its sha256, and carries a checksum of itself; its bytes are a
canonical form, so that any changed byte is seen. No header of any input is copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array

FORMAT, VERSION, MANIFEST = "fluoronav-case", 1, "manifest.json"
DTYPES = ("<i2", "<i4", "<f4", "<f8")
BYTES_MAX = 1 << 35  # of one array when unpacked; above it no machine of this kind could open it
LEVEL = 3  # of zstd: higher ones take longer and save 1 % of a CT
AGAIN = "copy the case folder again, or create it again with `fluoronav case create`"


def encode(array: Array) -> tuple[bytes, dict[str, Any]]:
    """An array as bytes (bytes of a number apart, then zstd), and the words that tell how to read them."""
    import imagecodecs

    data = np.ascontiguousarray(array)
    data = data.astype(data.dtype.newbyteorder("<"), copy=False)
    if data.dtype.str not in DTYPES:
        raise TypeError(f"{data.dtype} is no type of a case file")
    split = data.reshape(-1).view(np.uint8).reshape(-1, data.dtype.itemsize).T.tobytes()
    words = {"dtype": data.dtype.str, "shape": list(data.shape), "coding": "byte planes, zstd"}
    return bytes(imagecodecs.zstd_encode(split, LEVEL)), words


def decode(packed: bytes, words: dict[str, Any], name: str) -> Array:
    """The array that `encode` made bytes of. Raises BadInput."""
    import imagecodecs

    dtype, shape = words.get("dtype"), words.get("shape")
    if dtype not in DTYPES or not isinstance(shape, list) or not _is_shape(shape):
        raise BadInput(f"{name} in the manifest", got=f"{dtype}, {shape}", expected="a known type and a shape",
                       remedy=AGAIN)
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if size > BYTES_MAX:
        raise BadInput(f"{name} in the manifest", got=f"{size} bytes", expected=f"at most {BYTES_MAX}", remedy=AGAIN)
    try:
        raw = imagecodecs.zstd_decode(packed, out=size)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"{name} of the case", got="a file that does not unpack", expected="zstd data",
                       remedy=AGAIN) from error
    if len(raw) != size:
        raise BadInput(f"{name} of the case", got=f"{len(raw)} bytes", expected=f"{size} bytes", remedy=AGAIN)
    return np.frombuffer(raw, np.uint8).reshape(kind.itemsize, -1).T.copy().view(kind).reshape(shape)


def checksum_of(manifest: dict[str, Any]) -> str:
    """sha256 over the manifest's content, its own checksum left out."""
    return hashlib.sha256(_canonical({k: v for k, v in manifest.items() if k != "checksum"})).hexdigest()


def write_case(folder: Path, arrays: dict[str, Array], content: dict[str, Any], *, force: bool) -> None:
    """Write arrays (by file name) and a manifest into a new folder, whole or not at all.

    Everything is written and synced in a folder beside, which is then renamed. An existing case is
    refused unless `force`; any other existing folder that is not empty is always refused. Raises BadInput.
    """
    check_place(folder, force=force)
    try:
        _written(folder, arrays, content)
    except OSError as error:
        raise BadInput(f"case folder {folder}", got=error.strerror or str(error), expected="a place to write to",
                       remedy="make room, check the rights, or choose another place") from error


def _written(folder: Path, arrays: dict[str, Array], content: dict[str, Any]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        files, words = {}, {}
        for name, array in arrays.items():
            packed, words[name] = encode(array)
            _write(part / name, packed)
            files[name] = {"sha256": hashlib.sha256(packed).hexdigest(), "bytes": len(packed), **words[name]}
        manifest = {"format": FORMAT, "version": VERSION, "name": pseudonym(files, content), **content, "files": files}
        _write(part / MANIFEST, _canonical({**manifest, "checksum": checksum_of(manifest)}))
        part.chmod(0o755)
        _sync(part)
        _put(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def check_place(folder: Path, *, force: bool) -> None:
    """Whether a case may be written here; asked before the long work too. Raises BadInput."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder.is_dir() and (folder / MANIFEST).is_file()):
        raise BadInput(f"case folder {folder.name}", got="something else of that name",
                       expected="a new or empty folder", remedy="choose another name")
    if not force:
        raise BadInput(f"case folder {folder.name}", got="a folder that holds a case already",
                       expected="a new folder", remedy="choose another name, or replace it on purpose with --force")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a case folder, its own checksum and canonical form checked. Raises BadInput."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"case {folder.name}", got=f"no {MANIFEST}" if folder.is_dir() else "no such folder",
                       expected="a case folder", remedy="create one with `fluoronav case create`")
    raw = path.read_bytes()
    try:
        manifest = json.loads(raw)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise BadInput(f"{MANIFEST} of case {folder.name}", got="damaged JSON", expected="a whole manifest",
                       remedy=AGAIN)
    if manifest.get("format") != FORMAT:
        raise BadInput(f"case {folder.name}", got="a manifest of another format", expected=f"format {FORMAT}",
                       remedy="give a folder made by `fluoronav case create`")
    version = manifest.get("version")
    if isinstance(version, int) and version > VERSION:
        raise BadInput(f"case {folder.name}", got=f"format version {version}", expected=f"version {VERSION} or older",
                       remedy="open it with a newer fluoronav, or create it again with this one")
    if raw != _canonical(manifest) or manifest.get("checksum") != checksum_of(manifest):
        raise BadInput(f"{MANIFEST} of case {folder.name}", got="a manifest that does not match its checksum",
                       expected="an unchanged manifest", remedy=AGAIN)
    return manifest


def read_array(folder: Path, manifest: dict[str, Any], name: str) -> Array:
    """One array of a case, its checksum checked. Raises BadInput."""
    words = manifest["files"].get(name)
    path = folder / name
    if words is None or "/" in name or not path.is_file():
        raise BadInput(f"file {name} of case {folder.name}", got="nothing", expected="the file that the manifest names",
                       remedy=AGAIN)
    packed = path.read_bytes()
    if len(packed) != words["bytes"]:
        raise BadInput(f"file {name} of case {folder.name}", got=f"{len(packed)} bytes",
                       expected=f"{words['bytes']} bytes", remedy=AGAIN)
    if hashlib.sha256(packed).hexdigest() != words["sha256"]:
        raise BadInput(f"file {name} of case {folder.name}", got="bytes that do not match their checksum",
                       expected="an unchanged file", remedy=AGAIN)
    return decode(packed, words, f"file {name}")


def pseudonym(files: dict[str, Any], content: dict[str, Any]) -> str:
    """CASE and four digits that follow from the content alone."""
    digest = hashlib.sha256(_canonical({"files": files, "content": content})).hexdigest()
    return f"CASE {digest[:4].upper()}"


def _canonical(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def _is_shape(shape: list[Any]) -> bool:
    return all(isinstance(n, int) and n > 0 for n in shape) and 0 < len(shape) <= 4


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(part: Path, folder: Path) -> None:
    """Give the finished folder its name; an older case goes only once the new one stands."""
    old = None
    if folder.exists() and any(folder.iterdir()):
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
        folder.rename(old)  # onto an empty folder: atomic
    part.rename(folder)
    _sync(folder.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
