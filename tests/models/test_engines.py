# SPDX-License-Identifier: Apache-2.0
"""One artefact, several engines, one answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.engines import installed, open_engine
from registration.errors import BadInput

torch = pytest.importorskip("torch", reason="exporting a network needs torch")
pytest.importorskip("onnx", reason="exporting a network needs onnx")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.networks.mixing import Mixing
    from models.training.export import export

    torch.manual_seed(0)
    net = Mixing()
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
    return export(net, tmp_path_factory.mktemp("weights"))[0]


def test_every_engine_gives_the_same_answer_and_the_same_bits_again(artefact: Path) -> None:
    x = np.random.default_rng(0).normal(size=(1, 7, 24, 40)).astype(np.float32)
    answers = {}
    for name in installed():
        engine = open_engine(artefact, x.shape, name)
        answers[name] = engine.run(x)
        assert engine.name == name and answers[name].shape == (1, 3, 12, 20)
        assert np.array_equal(engine.run(x), answers[name])
        assert np.array_equal(open_engine(artefact, x.shape, name).run(x), answers[name])
    first = next(iter(answers.values()))
    # float32 sums of 216 products in another order
    assert all(np.abs(a - first).max() < 1e-4 * np.abs(first).max() for a in answers.values())


def test_an_export_is_the_same_file_again(artefact: Path, tmp_path: Path) -> None:
    from models.networks.mixing import Mixing
    from models.training.export import export

    torch.manual_seed(1)
    net = Mixing()
    once, again = (export(net, tmp_path / folder)[1].read_bytes() for folder in ("a", "b"))
    assert once == again


def test_a_missing_engine_or_artefact_is_said(artefact: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="engine"):
        open_engine(artefact, (1, 7, 8, 8), "abacus")
    with pytest.raises(BadInput, match="weights"):
        open_engine(tmp_path / "none.onnx", (1, 7, 8, 8))
