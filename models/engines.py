# SPDX-License-Identifier: Apache-2.0
"""What runs an exported network here? One ONNX artefact on OpenVINO, onnxruntime or torch, with the same answer.

An engine is made once and called for every frame. Fixed threads, float32 and a fixed shape: the same input
gives the same bits on the same machine. Nothing here sends anything anywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array

ENGINES = ("openvino", "onnxruntime", "torch")  # in the order in which they are tried
WEIGHTS = Path(__file__).parent / "weights"


class Engine(Protocol):
    """A network with one input and one output, both (1, channels, rows, columns) float32."""

    name: str

    def run(self, features: Array) -> Array:
        """The answer of the network, a new C-contiguous array."""


def installed() -> tuple[str, ...]:
    """The engines that can run here, the preferred one first. torch needs the package onnx to read the artefact."""
    needs = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime",), "torch": ("torch", "onnx")}
    return tuple(e for e in ENGINES if all(importlib.util.find_spec(n) is not None for n in needs[e]))


def open_engine(artefact: Path, shape: tuple[int, int, int, int], name: str | None = None, threads: int = 2,
                precision: str = "f32") -> Engine:
    """An engine for inputs of one shape. precision: `f32`, or `bf16` for OpenVINO, which uses it where the processor
    has it. Raises BadInput where the engine or the artefact is missing, or cannot run in that precision."""
    name = name or next(iter(installed()), None)
    if name is None or name not in installed():
        raise BadInput("engine for networks", got=name or "none installed", expected="one of " + ", ".join(ENGINES),
                       remedy="pip install openvino")
    if not artefact.is_file():
        raise BadInput("weights", got=f"no file {artefact.name}", expected="an exported network in models/weights",
                       remedy="reinstall fluoronav, or export one (python -m models.training.export)")
    if precision != "f32" and (name != "openvino" or precision != "bf16"):
        raise BadInput("precision of an engine", got=f"{precision} on {name}", expected="f32, or bf16 on openvino",
                       remedy="use f32")
    if name == "openvino":
        return OpenVino(artefact, shape, threads, precision)
    kinds: dict[str, Callable[..., Engine]] = {"onnxruntime": OnnxRuntime, "torch": Torch}
    return kinds[name](artefact, shape, threads)


@functools.cache
def hardware_precisions() -> tuple[str, ...]:
    """Which of bf16 and int8 OpenVINO has in this processor's hardware (none where it is not installed)."""
    if "openvino" not in installed():
        return ()
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in ("bf16", "int8") if name.upper() in able)


class OpenVino:
    """OpenVINO on the processor."""

    name = "openvino"

    def __init__(self, artefact: Path, shape: tuple[int, int, int, int], threads: int, precision: str = "f32") -> None:
        os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
        import openvino

        core = openvino.Core()
        model = core.read_model(artefact)
        model.reshape(list(shape))
        self._compiled = core.compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False})
        self._request = self._compiled.create_infer_request()

    def run(self, features: Array) -> Array:
        """See Engine."""
        self._request.infer([features], share_inputs=True)
        return np.array(self._request.get_output_tensor(0).data, np.float32)


class OnnxRuntime:
    """onnxruntime on the processor."""

    name = "onnxruntime"

    def __init__(self, artefact: Path, shape: tuple[int, int, int, int], threads: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(artefact), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        del shape

    def run(self, features: Array) -> Array:
        """See Engine."""
        return np.ascontiguousarray(self._session.run(None, {self._input: features})[0], np.float32)


class Torch:
    """torch, by walking the graph of the artefact: the few operations that the exported networks have."""

    name = "torch"

    def __init__(self, artefact: Path, shape: tuple[int, int, int, int], threads: int) -> None:
        import onnx
        import torch
        from onnx import numpy_helper

        torch.set_num_threads(threads)
        graph = onnx.load(str(artefact)).graph
        self._constants: dict[str, Any] = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy())
                                           for t in graph.initializer}
        self._nodes = [(n.op_type, list(n.input), n.output[0], {a.name: onnx.helper.get_attribute_value(a)
                                                                for a in n.attribute}) for n in graph.node]
        self._input, self._output = graph.input[0].name, graph.output[0].name
        known = {"Conv", "Relu"}
        if unknown := {n[0] for n in self._nodes} - known:
            raise BadInput("exported network", got=", ".join(sorted(unknown)), expected="operations of " + str(known),
                           remedy="run it on openvino or onnxruntime")
        del shape

    def run(self, features: Array) -> Array:
        """See Engine."""
        import torch
        from torch.nn import functional

        values = dict(self._constants) | {self._input: torch.from_numpy(features)}
        with torch.no_grad():
            for kind, inputs, output, given in self._nodes:
                first, *rest = (values[name] for name in inputs)
                if kind == "Relu":
                    values[output] = torch.relu(first)
                    continue
                values[output] = functional.conv2d(first, rest[0], rest[1], stride=given["strides"],
                                                   padding=given["pads"][:2], dilation=given["dilations"])
        return np.ascontiguousarray(values[self._output].numpy())
