# SPDX-License-Identifier: Apache-2.0
"""In how few bits may a network run here? bf16 or int8 where a gate found its answers as good, else float32.

The gate (fluoronav.bench.precision_gate) plays seeded scenes through the chain with each network in float32 and in
fewer bits, and writes what that costs to models/weights/precision.json, beside the checksum of the weights that it
measured. Here the record is read: what did not pass, what was not measured, and what the processor cannot do in
hardware runs in float32.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from models.engines import WEIGHTS, Engine, hardware_precisions, installed, open_engine

RECORD = "precision.json"
NETS = ("mixing_time", "mixing_space", "superres", "contrast")
ORDER = ("int8", "bf16")  # the first that passes and is in hardware


@dataclass(frozen=True, slots=True)
class Choice:
    """The artefact to open, the precision to open it with, and why, in words."""

    file: Path
    precision: str
    why: str


def choice(net: str, engine: str | None = None, folder: Path = WEIGHTS) -> Choice:
    """For a network of NETS on an engine (None: the first that is installed)."""
    engine = engine or next(iter(installed()), None)
    whole = folder / f"{net}.onnx"
    if engine != "openvino":
        return Choice(whole, "f32", f"float32: {engine or 'no engine'} is not measured in fewer bits")
    return _on_openvino(net, folder, hardware_precisions())


def open_chosen(net: str, shape: tuple[int, ...], engine: str | None = None) -> Engine:
    """The engine of a network for inputs of one shape (1, channels, rows, columns), in the bits that it may run in."""
    chosen = choice(net, engine)
    return open_engine(chosen.file, cast(tuple[int, int, int, int], shape), engine, precision=chosen.precision)


@lru_cache(maxsize=16)
def _on_openvino(net: str, folder: Path, hardware: tuple[str, ...]) -> Choice:
    whole, reasons = folder / f"{net}.onnx", []
    if not (folder / RECORD).is_file():
        return Choice(whole, "f32", "float32: no record of the gate")
    told = json.loads((folder / RECORD).read_text()).get(net, {})
    if told.get("sha256") != checksum(whole):
        return Choice(whole, "f32", "float32: the gate measured other weights")
    for precision in ORDER:
        measured = told.get(precision)
        if measured is None or not measured["passes"]:
            reasons.append(f"{precision} " + ("not measured" if measured is None else f"costs {described(measured)}"))
        elif precision not in hardware:
            reasons.append(f"no {precision} in this processor")
        else:
            file = whole if precision == "bf16" else folder / f"{net}_{precision}.onnx"
            return Choice(file, "bf16" if precision == "bf16" else "f32", f"{precision}: {described(measured)}")
    return Choice(whole, "f32", "float32: " + "; ".join(reasons))


def described(measured: dict[str, float]) -> str:
    """What fewer bits cost, in words."""
    return f"{measured['loss_db']:+.3f} dB, on devices {measured['loss_on_devices_db']:+.3f} dB"


def checksum(file: Path) -> str:
    """sha256 of a file; empty where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
