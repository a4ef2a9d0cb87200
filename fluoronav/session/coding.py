# SPDX-License-Identifier: Apache-2.0
"""How is a step written down, so that its frame comes back bit for bit and its answer can be compared?

Pixels travel as foxglove_msgs/RawImage in ROS 1 coding (mono8, mono16), everything else as JSON, whose numbers
Python writes in full: a float64 comes back as the same bits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.live.step import Step
from overlays.renderer import Overlay
from registration.geometry import Array, CArm
from registration.result import ErrorEstimate, Outcome, Registration

RAW_IMAGE = ("foxglove_msgs/RawImage", "ros1msg", b"""time timestamp
string frame_id
uint32 width
uint32 height
string encoding
uint32 step
uint8[] data
""")
THUMB = 32  # blocks along each side of the small pictures that other machines are compared by


def plain(value: Any) -> Any:
    """The value as plain JSON types: arrays as lists, NaN and infinity as null, enums as values."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
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


def to_json(value: Any) -> bytes:
    """Compact JSON of a plain value."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def sha256(array: Array) -> str:
    """Hex digest over shape, type and content."""
    data = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{data.shape}{data.dtype.str}".encode())
    digest.update(data.data)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def chained(before: str, record: Mapping[str, Any]) -> str:
    """Hex digest of a step's record and of all before it: changing one changes every later one."""
    plain_record = {k: v for k, v in record.items() if k != "chain"}
    return hashlib.sha256(before.encode() + to_json(plain_record)).hexdigest()


def sha256_layer(layer: Array) -> str:
    """Hex digest of an RGBA layer: shape, the rows that hold anything, and their content.

    Most of a layer is empty, and looking for a set pixel is quicker than hashing zeros.
    """
    data = np.ascontiguousarray(layer)
    wide = next(t for t in (np.uint64, np.uint32, np.uint8) if data[0].nbytes % np.dtype(t).itemsize == 0)
    rows = np.flatnonzero(np.bitwise_or.reduce(data.reshape(len(data), -1).view(wide), axis=1))
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    digest = hashlib.sha256(f"{data.shape}{data.dtype.str}{top}:{bottom}".encode())
    digest.update(data[top:bottom].data)
    return digest.hexdigest()


def thumb(picture: Array) -> str:
    """Block means of a picture on a coarse grid, base64 of uint8: what other machines are compared by."""
    import cv2

    small = cv2.resize(np.ascontiguousarray(picture), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return base64.b64encode(np.ascontiguousarray(small, np.uint8).tobytes()).decode()


def read_thumb(text: str) -> Array:
    """Block means as int16, flat."""
    return np.frombuffer(base64.b64decode(text), np.uint8).astype(np.int16)


# --------------------------------------------------------------------------------------------------
# Pixels


def image_bytes(frame: Frame) -> bytes:
    """The raw pixels as RawImage."""
    seconds, nanoseconds = divmod(max(0, frame.time_ns), 1_000_000_000)
    rows, columns = frame.pixels.shape
    encoding = b"mono16" if frame.pixels.dtype == np.uint16 else b"mono8"
    data = frame.pixels.astype(frame.pixels.dtype.newbyteorder("<"), copy=False)
    return b"".join((struct.pack("<III", seconds & 0xFFFFFFFF, nanoseconds, 8), b"detector",
                     struct.pack("<III", columns, rows, len(encoding)), encoding,
                     struct.pack("<II", columns * frame.pixels.itemsize, data.nbytes), data.tobytes()))


def image_pixels(data: bytes) -> Array:
    """The pixels of a RawImage. Raises ValueError or struct.error on foreign bytes."""
    (name,) = struct.unpack_from("<I", data, 8)
    columns, rows, n = struct.unpack_from("<III", data, 12 + name)
    at = 24 + name
    encoding = data[at:at + n]
    if encoding not in (b"mono8", b"mono16"):
        raise ValueError(f"encoding {encoding!r}")
    pixels: Array = np.frombuffer(data, "<u2" if encoding == b"mono16" else "u1", rows * columns, at + n + 8)
    return pixels.reshape(rows, columns)


def mask_to_plain(valid: Array) -> dict[str, Any] | None:
    """The mask, packed; None where every pixel is valid."""
    if valid.all():
        return None
    return {"shape": list(valid.shape), "bits": base64.b64encode(zlib.compress(np.packbits(valid).tobytes())).decode()}


def mask_from_plain(value: Mapping[str, Any] | None, shape: tuple[int, int]) -> Array:
    """The mask (rows, columns) bool that was stored; None stands for one that is open everywhere."""
    if value is None:
        return np.ones(shape, bool)
    rows, columns = value["shape"]
    packed = np.frombuffer(zlib.decompress(base64.b64decode(value["bits"])), np.uint8)
    return np.unpackbits(packed, count=rows * columns).reshape(rows, columns).astype(bool)


# --------------------------------------------------------------------------------------------------
# Frame


def frame_to_plain(frame: Frame, scrub: Callable[[str], str]) -> dict[str, Any]:
    """Everything of a frame but its pixels and its mask; notes and names stay behind."""
    c, a, e, i = frame.carm, frame.angles, frame.exposure, frame.intensity
    return {
        "carm": None if c is None else {
            "shape_rows_cols": list(c.shape), "pitch_mm_row_col": list(c.pitch_mm_row_col), "sdd_mm": c.sdd_mm,
            "sod_mm": c.sod_mm, "principal_px_u_v": list(c.principal_px_u_v)},
        "angles": None if a is None else {"primary_deg": a.primary_deg, "secondary_deg": a.secondary_deg},
        "exposure": {"kvp": e.kvp, "ma": e.ma, "ms": e.ms, "dose_ugy": e.dose_ugy},
        "intensity": {"kind": i.kind, "dense": i.dense, "bits": i.bits, "i0": i.i0, "i0_source": i.i0_source,
                      "dark": i.dark, "gain": i.gain, "electronic": i.electronic,
                      "assumed": [scrub(t) for t in i.assumed]},
        "table_in_room_mm": None if frame.table_in_room_mm is None else [float(v) for v in frame.table_in_room_mm],
        "geometry_fault": None if frame.geometry_fault is None else scrub(frame.geometry_fault)}


def frame_from_plain(record: Mapping[str, Any], pixels: Array, valid: Array, source_name: str) -> Frame:
    """The frame of a step's record."""
    said = record["frame"]
    c, a, i, table = said["carm"], said["angles"], said["intensity"], said["table_in_room_mm"]
    return Frame(
        pixels=pixels, index=record["index"], time_ns=record["time_ns"],
        carm=None if c is None else CArm(tuple(c["shape_rows_cols"]), tuple(c["pitch_mm_row_col"]), c["sdd_mm"],
                                         c["sod_mm"], tuple(c["principal_px_u_v"])),
        angles=None if a is None else Angles(**a), exposure=Exposure(**said["exposure"]),
        intensity=Intensity(**{**i, "assumed": tuple(i["assumed"])}), valid=valid, source_name=source_name,
        table_in_room_mm=None if table is None else (table[0], table[1], table[2]),
        geometry_fault=said["geometry_fault"])


# --------------------------------------------------------------------------------------------------
# Answer


def registration_to_plain(found: Registration) -> dict[str, Any]:
    """An answer as plain JSON: outcome, why, pose, covariance, bounds at the target (mm) and what led there."""
    error = found.error
    return plain({
        "outcome": found.outcome.value, "why": found.why, "carm_from_patient": found.carm_from_patient,
        "covariance": found.covariance,
        "error": None if error is None else {"target_mm": error.target_mm, "projected_mm": error.projected_mm,
                                             "target": error.target},
        "similarity": found.similarity, "start": found.start, "bodies": found.bodies,
        "alternatives": found.alternatives, "quality": found.quality})


def registration_from_plain(said: Mapping[str, Any]) -> Registration:
    """The registration of a record (poses go through Rigid.checked: equal to the last bit or two)."""
    def matrix(value: Any) -> Any:
        return None if value is None else np.array(value, np.float64)

    error = said["error"]
    return Registration(
        Outcome(said["outcome"]), said["why"], matrix(said["carm_from_patient"]), matrix(said["covariance"]),
        None if error is None else ErrorEstimate(_bound(error["target_mm"]), _bound(error["projected_mm"]),
                                                 matrix(error["target"])),
        said["similarity"], said["start"], {k: matrix(v) for k, v in said["bodies"].items()},
        tuple(matrix(m) for m in said["alternatives"]), dict(said["quality"]))


def _bound(value: float | None) -> float:
    return math.inf if value is None else value  # JSON has no infinity


def hashes(display: Array, overlay: Overlay, picture: Array) -> dict[str, Any]:
    """Digests of what was shown: enhanced display, each overlay layer, the composed picture."""
    return {"display": sha256(display), "picture": sha256(picture),
            "overlay": {name: sha256_layer(layer) for name, layer in sorted(overlay.layers.items())}}


def answer_to_plain(step: Step) -> dict[str, Any]:
    """What recomputing the frame must give again, but for the hashes and the small pictures."""
    return {"registration": registration_to_plain(step.registration), "overlay_method": step.overlay.method,
            "badges": list(step.badges)}
