# SPDX-License-Identifier: Apache-2.0
"""Does a network run in fewer bits only where that was measured to be as good?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fluoronav.enhance import precision
from fluoronav.enhance.precision import NETS, RECORD, checksum, choice, open_chosen
from models.engines import WEIGHTS, hardware_precisions, installed

GOOD = {"loss_db": 0.001, "loss_on_devices_db": 0.002, "passes": True}
BAD = {"loss_db": 0.6, "loss_on_devices_db": 1.2, "passes": False}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "superres.onnx").write_bytes(b"a network")
    return tmp_path


def written(folder: Path, **measured: object) -> None:
    (folder / RECORD).write_text(json.dumps({"superres": {"sha256": checksum(folder / "superres.onnx"), **measured}}))


def chosen(folder: Path, monkeypatch: pytest.MonkeyPatch,
           hardware: tuple[str, ...] = ("bf16", "int8")) -> precision.Choice:
    monkeypatch.setattr(precision, "hardware_precisions", lambda: hardware)
    precision._on_openvino.cache_clear()
    return choice("superres", "openvino", folder)


def test_what_passes_and_is_in_hardware_is_taken(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(weights, bf16=GOOD, int8=BAD)
    found = chosen(weights, monkeypatch)
    assert (found.precision, found.file.name) == ("bf16", "superres.onnx") and "+0.001 dB" in found.why
    written(weights, bf16=GOOD, int8=GOOD)
    assert chosen(weights, monkeypatch).file.name == "superres_int8.onnx"


def test_everything_else_runs_in_float32_and_says_why(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no record" in chosen(weights, monkeypatch).why
    written(weights, bf16=BAD)
    found = chosen(weights, monkeypatch)
    assert found.precision == "f32" and "costs +0.600 dB" in found.why and "int8 not measured" in found.why
    written(weights, bf16=GOOD)
    assert "no bf16 in this processor" in chosen(weights, monkeypatch, ()).why
    (weights / "superres.onnx").write_bytes(b"another network")
    found = chosen(weights, monkeypatch)
    assert found.precision == "f32" and "other weights" in found.why
    assert choice("superres", "torch", weights).precision == "f32"


def test_the_record_is_of_the_weights_that_ship() -> None:
    record = json.loads((WEIGHTS / RECORD).read_text())
    for net in NETS:
        assert record[net]["sha256"] == checksum(WEIGHTS / f"{net}.onnx")
        assert {"bf16", "int8"} <= record[net].keys()
        assert (WEIGHTS / f"{net}_int8.onnx").is_file() == record[net]["int8"]["passes"]


@pytest.mark.skipif("openvino" not in installed(), reason="OpenVINO is not installed")
def test_the_engine_runs_in_what_was_chosen() -> None:
    x = np.random.default_rng(1).normal(size=(1, 6, 24, 40)).astype(np.float32)
    few, whole = (open_chosen("superres", x.shape, engine).run(x) for engine in ("openvino", "torch"))
    apart = float(np.sqrt(np.mean((few - whole) ** 2) / np.mean(whole**2)))
    precision._on_openvino.cache_clear()
    bits = choice("superres", "openvino").why.split(":")[0]
    # eight bits in six layers, on white features that no picture has; float32 sums in another order
    assert apart < (0.08 if bits in hardware_precisions() else 1e-4)


@pytest.mark.skipif("openvino" not in installed(), reason="OpenVINO is not installed")
def test_the_gate_lets_a_network_pass_that_is_itself_and_no_other(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="making another network needs torch")
    pytest.importorskip("onnx", reason="making another network needs onnx")
    from fluoronav.bench import precision_gate
    from models.networks.superres import FEATURES, OUTPUTS, Finer
    from models.training.export import onnx_of

    monkeypatch.setattr(precision_gate, "SEEDS", (900,))
    monkeypatch.setattr(precision_gate, "DOSES", (0.25,))
    assert precision_gate.gate("superres", WEIGHTS / "superres.onnx", "f32") == {
        "loss_db": 0.0, "loss_on_devices_db": 0.0, "passes": True}
    torch.manual_seed(0)
    plain = onnx_of(Finer().eval(), "superres", FEATURES, OUTPUTS)
    (tmp_path / "plain.onnx").write_bytes(plain)  # adds nothing to the interpolation
    refused = precision_gate.gate("superres", tmp_path / "plain.onnx", "f32")
    assert not refused["passes"] and refused["loss_on_devices_db"] > 0.1
