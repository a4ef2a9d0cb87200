# SPDX-License-Identifier: Apache-2.0
"""The learned denoisers as they are trained: what they begin as, what they may do, what they learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are trained with torch")

from fluoronav.bench import recurrent as stage  # noqa: E402
from models.networks import recurrent  # noqa: E402
from models.networks.mixing import Noise  # noqa: E402
from models.training import recipe  # noqa: E402
from models.training.pictures import Recipe, make_batch  # noqa: E402

SMALL = Recipe(batch=2, side=64, frames=6, unseen=2, cut=2, scenes=2, steps=2)


def test_batches_are_seeded_and_in_the_scale_of_unit_noise() -> None:
    a, b = make_batch(SMALL, 3), make_batch(SMALL, 3)
    assert torch.equal(a.y, b.y) and torch.equal(a.noise.covariance, b.noise.covariance)
    assert a.y.shape == (2, 6, 64, 64) and a.flow.shape == (2, 6, 64, 64, 2)
    assert 0.6 < float((a.y - a.clean).std()) < 1.6  # laws that are wrong, displays that round
    assert torch.allclose(a.noise.covariance[:, 0, 0], torch.ones(2), atol=1e-4)


@pytest.mark.parametrize("net", ["mixing", "recurrent"])
def test_a_training_takes_steps_and_goes_on_from_its_checkpoint(net: str, tmp_path: Path) -> None:
    settings = Recipe(net=net, batch=2, side=64, frames=6, unseen=2, cut=2, scenes=2, steps=1,
                      cache=str(tmp_path / "scenes"))
    first = recipe.train(tmp_path, 1, settings)
    moved = [float(p.detach().abs().sum()) for p in first.head.parameters()] if net == "recurrent" else [
        float(p.detach().abs().sum()) for p in first.time.head.parameters()]
    assert sum(moved) > 0
    again = recipe.train(tmp_path, 1, settings)  # nothing is left to do
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_recurrent_net_begins_as_a_recursive_filter_and_adds_no_more_than_its_bound() -> None:
    torch.manual_seed(0)
    net = recurrent.Recurrent()
    noise = Noise(*(torch.ones(1, 1, 1, 1) for _ in range(3)), torch.eye(4)[None])
    y = torch.randn(1, 1, 32, 40)
    before = recurrent.Memory(torch.randn(1, 1, 32, 40), torch.zeros(1, recurrent.MEMORY, 8, 10))
    with torch.no_grad():
        state, mixed = net.step(before, y, noise, None)
        weight = 1 / (1 + np.exp(0.85))
        assert torch.allclose(mixed.clean, before.mean + weight * (y - before.mean), atol=1e-5)
        for p in net.parameters():
            p += torch.randn_like(p)
        state, mixed = net.step(before, y, noise, None)
    assert float((mixed.clean - state.mean).abs().max()) <= recurrent.BOUND + 1e-5
    assert bool((state.mean >= torch.minimum(y, before.mean) - 1e-5).all())
    assert (stage.FOLD, stage.MEMORY, stage.BOUND, stage.SPREAD) == (recurrent.FOLD, recurrent.MEMORY,
                                                                     recurrent.BOUND, recurrent.SPREAD)
