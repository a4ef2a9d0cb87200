# SPDX-License-Identifier: Apache-2.0
"""How do trained weights become what ships? `python -m models.training.export CHECKPOINT [FOLDER]`.

Two ONNX files of the mixing denoiser (features to coefficients, in time and in space), one of its competitor. They are
written node by node (no tracer, so that the same checkpoint gives the same bytes): convolutions and rectifiers only,
what follows them is the kernels' work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.engines import WEIGHTS
from models.networks.contrast import Gains
from models.networks.mixing import SPACE_FEATURES, SPACE_OUTPUTS, TIME_FEATURES, TIME_OUTPUTS, Chooser
from models.networks.pose_regressor import PoseRegressor
from models.networks.recurrent import FEATURES, OUTPUTS, Recurrent
from models.networks.superres import Finer
from models.training.recipe import NETS, Net
from registration.geometry import Array

Convolutions = Chooser | Recurrent | PoseRegressor | Finer | Gains
# The gate of the shipped mixing nets opens a little later than training left it: its loss weighs devices four times,
# and so leaves more noise at rest than a viewer likes. -0.7 gives 0.5 dB for 1 % of a wire's contrast (model card).
GATE_BIAS = -0.7


def export(net: Net, folder: Path) -> list[Path]:
    """Writes its networks: mixing (1, 7, rows, columns) -> (1, 3, rows / 2, columns / 2) and (1, 9, ...), recurrent
    (1, 56, rows, columns) -> (1, 81, rows, columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(net, Recurrent):
        parts: dict[str, tuple[Chooser | Recurrent, int, int]] = {"recurrent": (net, FEATURES, OUTPUTS)}
    else:
        parts = {"mixing_time": (net.time, TIME_FEATURES, TIME_OUTPUTS),
                 "mixing_space": (net.space, SPACE_FEATURES, SPACE_OUTPUTS)}
    out = []
    for name, (chooser, features, outputs) in parts.items():
        out.append(folder / f"{name}.onnx")
        out[-1].write_bytes(onnx_of(chooser, name, features, outputs))
    return out


def onnx_of(chooser: Convolutions, name: str, features: int, outputs: int) -> bytes:
    """An ONNX model of convolutions and rectifiers: `body` one after the other, then `head`."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, constants, last = [], [], "features"

    def constant(key: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), key))
        return key

    for k, layer in enumerate([*chooser.body, chooser.head]):
        now = f"x{k}"
        if isinstance(layer, nn.Conv2d):
            weight = constant(f"w{k}", layer.weight.detach().numpy())
            assert layer.bias is not None
            bias = constant(f"b{k}", layer.bias.detach().numpy())
            pad = int(layer.padding[0])
            nodes.append(helper.make_node("Conv", [last, weight, bias], [now], kernel_shape=list(layer.kernel_size),
                                          strides=list(layer.stride), pads=[pad] * 4,
                                          dilations=list(layer.dilation)))
        else:
            nodes.append(helper.make_node("Relu", [last], [now]))
        last = now
    nodes[-1].output[0] = "coefficients"
    graph = helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, features, "h", "w"])],
        [helper.make_tensor_value_info("coefficients", TensorProto.FLOAT, [1, outputs, "g", "v"])], constants)
    model = helper.make_model(graph, producer_name="fluoronav", opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def trained(checkpoint: Path) -> Net:
    """The network of a checkpoint of models.training.recipe; of the mixing one the gate is moved by GATE_BIAS."""
    kept = torch.load(checkpoint, weights_only=True)
    net: Net = NETS[kept["recipe"]["net"]]()
    net.load_state_dict(kept["net"])
    if not isinstance(net, Recurrent):
        assert net.time.head.bias is not None
        with torch.no_grad():
            net.time.head.bias[0] += GATE_BIAS
    return net.eval()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=WEIGHTS)
    given = parser.parse_args()
    for path in export(trained(given.checkpoint), given.folder):
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
