# SPDX-License-Identifier: Apache-2.0
"""What do fewer bits cost a network? `python -m fluoronav.bench.precision_gate` measures, and writes the record.

Seeded scenes of the test family, at a quarter dose and at four full doses, go through the chain with one network in
float32 and in fewer bits: bf16 by OpenVINO, int8 by static quantization (onnxruntime's, calibrated on other scenes at a
quarter and at a full dose). It passes if at neither dose the error against the truth grows by more than 0.02 dB
everywhere and 0.05 dB where devices are: a tenth of what two trainings differ by. The high dose is there because int8
has an end, and contrast in units of the noise has none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from fluoronav.bench.enhance_heads import _binned, frame_of
from fluoronav.bench.enhance_scenes import shot
from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.enhance.precision import NETS, RECORD, checksum
from fluoronav.imaging.frame import Frame, Intensity
from models.engines import WEIGHTS, Engine, open_engine
from registration.geometry import Array

MOST_DB, MOST_ON_DEVICES_DB = 0.02, 0.05
SEEDS, DOSES = (900, 901), (0.25, 4.0)
CALIBRATED = ((910, 0.25), (911, 1.0))  # (seed, dose)
SETTLE = 6
Opened = Callable[[str, tuple[int, ...]], Engine]


def gate(net: str, file: Path, precision: str) -> dict[str, Any]:
    """What a network costs when it runs from `file` in a precision: {loss_db, loss_on_devices_db, passes}."""
    def fewer(name: str, shape: tuple[int, ...]) -> Engine:
        own = name == net
        return _opened(file if own else WEIGHTS / f"{name}.onnx", shape, precision if own else "f32")

    def plain(name: str, shape: tuple[int, ...]) -> Engine:
        return _opened(WEIGHTS / f"{name}.onnx", shape, "f32")

    errors = np.array([[[_errors(net, seed, dose, opened) for opened in (plain, fewer)] for seed in SEEDS]
                       for dose in DOSES])  # (doses, seeds, precisions, everywhere and on devices)
    everywhere, on_devices = 10 * np.log10(errors[:, :, 1] / errors[:, :, 0]).mean(axis=1).max(axis=0)
    return {"loss_db": round(float(everywhere), 4), "loss_on_devices_db": round(float(on_devices), 4),
            "passes": bool(everywhere <= MOST_DB and on_devices <= MOST_ON_DEVICES_DB)}


def quantized(net: str, to: Path) -> None:
    """Writes a network in int8: weights a channel, activations a tensor, ranges from training scenes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Features one by one."""

        def __init__(self) -> None:
            self.left: Iterator[Array] = iter(seen_by(net))

        def get_next(self) -> dict[str, Array] | None:
            """See CalibrationDataReader."""
            return next(({"features": x} for x in self.left), None)

    quantize_static(str(WEIGHTS / f"{net}.onnx"), str(to), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def seen_by(net: str) -> list[Array]:
    """Features that a network was asked about in scenes that the gate does not judge."""
    found: list[Array] = []

    def opened(name: str, shape: tuple[int, ...]) -> Engine:
        engine = _opened(WEIGHTS / f"{name}.onnx", shape, "f32")
        return cast(Engine, _Listening(engine, found)) if name == net else engine

    for seed, dose in CALIBRATED:
        _errors(net, seed, dose, opened)
    return found


class _Listening:
    """An engine that keeps what it was asked."""

    def __init__(self, engine: Engine, found: list[Array]) -> None:
        self.engine, self.found, self.name = engine, found, engine.name

    def run(self, features: Array) -> Array:
        """See Engine."""
        self.found.append(features.copy())
        return self.engine.run(features)


def _opened(file: Path, shape: tuple[int, ...], precision: str) -> Engine:
    return open_engine(file, cast(tuple[int, int, int, int], shape), "openvino", precision=precision)


def _errors(net: str, seed: int, dose: float, opened: Opened) -> tuple[float, float]:
    """Mean squares of the chain's line integrals less the true ones: everywhere, where devices are. Of contrast what is
    shown is held against the scene with twice the devices and contrast agent."""
    more: Array | float = 0.0
    if net == "superres":
        fine, pixels, law, device = _binned(seed, dose)
        frames, settings = [frame_of(k, p, law) for k, p in enumerate(pixels)], ChainSettings(superres=True)
    else:
        seen = shot(seed, dose)
        fine, law, device = seen.expected, seen.intensity, seen.scene.device
        frames, settings = [seen.frame(k) for k in range(len(seen.counts))], ChainSettings(method="learned")
        if net == "contrast":
            assert seen.scene.vessels is not None
            settings = ChainSettings(contrast=1.0, contrast_by="learned")
            more = seen.scene.clean - seen.scene.bare + seen.scene.vessels
    chain = Chain(settings)
    for stage in chain.stages.values():
        if hasattr(stage, "opened"):
            stage.opened = opened
    errors: tuple[list[Array], list[Array]] = ([], [])
    for k, enhanced in enumerate(_played(chain, frames)):
        if k < SETTLE:
            continue
        seen_as, expected = enhanced.line_integrals, fine[k]
        if isinstance(more, np.ndarray):
            assert enhanced.values is not None
            seen_as = _line_integrals(enhanced.values, law)
            expected = law.dark + (fine[k] - law.dark) * np.exp(-more[k])
        square = ((seen_as - _line_integrals(expected, law)) ** 2)[12:-12, 12:-12]
        near = (cv2.dilate(device[k], np.ones((5, 5), np.uint8)) > 0.1)[12:-12, 12:-12]
        errors[0].append(square.ravel())
        errors[1].append(square[near])
    return float(np.concatenate(errors[0]).mean()), float(np.concatenate(errors[1]).mean())


def _line_integrals(values: Array, law: Intensity) -> Array:
    return np.asarray(-np.log(np.maximum(values - law.dark, 0.5) / (law.i0 or 1.0)))


def _played(chain: Chain, frames: list[Frame]) -> Iterator[Enhanced]:
    state = None
    for frame in frames:
        state, enhanced = chain.step(state, frame)
        yield enhanced


def main() -> None:
    """Measures all networks; int8 ships where it passes."""
    record: dict[str, Any] = {}
    for net in NETS:
        whole = WEIGHTS / f"{net}.onnx"
        record[net] = {"sha256": checksum(whole), "bf16": gate(net, whole, "bf16")}
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "int8.onnx"
            quantized(net, small)
            record[net]["int8"] = gate(net, small, "f32")
            shipped = WEIGHTS / f"{net}_int8.onnx"
            shipped.unlink(missing_ok=True)
            if record[net]["int8"]["passes"]:
                shipped.write_bytes(small.read_bytes())
        print(net, json.dumps(record[net]))
    (WEIGHTS / RECORD).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
