# SPDX-License-Identifier: Apache-2.0
"""The learned denoiser: kernels against torch, nothing but candidates in the output, the same bits again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluoronav.enhance import kernels, reference
from fluoronav.enhance.mixing import WHITE_COVARIANCE, covariances
from registration.geometry import Array

torch = pytest.importorskip("torch", reason="the twin of the kernels is written in torch")
native: Any = kernels.mixing()
pytestmark = pytest.mark.skipif(native is None, reason="the compiled kernels are not built here")
EVIDENCE, LINE, POINT = 0.4, 0.45, 0.6
FIVE = (0.0625, 0.25, 0.375, 0.25, 0.0625)


def tensor(picture: Array) -> Any:
    return torch.from_numpy(np.ascontiguousarray(picture))[None, None]


def inputs(shape: tuple[int, int]) -> tuple[Array, Array, Array, Array, Array]:
    """(y, m, v, busy, lined) with noise, an edge, a line and pixels of every doubt."""
    random = np.random.default_rng(0)
    y, m = random.normal(size=shape).astype(np.float32), (0.5 * random.normal(size=shape)).astype(np.float32)
    v = random.uniform(0.04, 1.5, shape).astype(np.float32)
    m[20:40] += 3
    y[:, 30:32] += 4
    small = (shape[0] // 4, shape[1] // 4)
    return y, m, v, *(random.random(small).astype(np.float32) for _ in range(2))


def test_kernels_compute_what_the_network_was_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.networks import mixing as twin
    from models.networks.operators import blur, line_best, wider

    def in_steps(picture: Any) -> Any:  # the kernels average lines of whole steps, far below the noise
        return tensor(reference.line_best(reference.stepped(picture[0, 0].numpy(), reference.DETAIL)) / 32)

    torch.manual_seed(0)
    net = twin.Mixing()
    noise = twin.Noise(*(torch.tensor(x).view(1, 1, 1, 1) for x in (EVIDENCE, LINE, POINT)),
                       torch.from_numpy(WHITE_COVARIANCE)[None])
    y, m, v, busy, lined = inputs((96, 120))
    z = kernels.evidence(y, m, v, 1.0)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
        before = twin.State(tensor(m), tensor(v), tensor(busy), tensor(lined))
        d = (tensor(y) - tensor(m)) / torch.sqrt(1 + tensor(v))
        off = np.abs(z) - line_best(blur(d))[0, 0].abs().numpy()  # of two of the same height either may be taken
        assert np.abs(off).max() < 1 / 128  # half a step, as if all pixels of a line erred alike
        features = twin.time_features(d, tensor(z).abs() / EVIDENCE, tensor(v), before)
        a, b, f = net.time(features).split(1, dim=1)
        law = torch.cat([a, 5 * torch.exp(b.clamp(-2, 2)), 0.02 + 0.2 * torch.sigmoid(f - 1.1)], dim=1)[0].numpy()
        monkeypatch.setattr(twin, "line_best", lambda _: tensor(z))
        mean, variance, gate = net.in_time(before, tensor(y), noise)
    ours = native.time_features(y, z, m, v, 1.0, 1 / EVIDENCE, busy, lined)
    assert np.abs(ours - features[0].numpy()).max() < 1e-5  # float32 sums of 132 values in another order
    in_time = native.mix_time(y, z, m, v, 1.0, 1 / EVIDENCE, np.ascontiguousarray(law))
    for one, other in zip(in_time, (mean, variance, gate), strict=True):
        assert np.abs(one - other[0, 0].numpy()).max() < 1e-5
    near, wide, along, strength, _ = native.space_features(*in_time, 1 / LINE, 1 / POINT)
    assert np.abs(wide - wider(blur(mean, 1, FIVE))[0, 0].numpy()).max() < 1e-5
    monkeypatch.setattr(twin, "line_best", in_steps)
    # two 3x3 means in a row as one 5x5 mean: they differ where the border is repeated
    found_base = blur(tensor(in_time[0]), 1, FIVE)
    halves = iter((found_base, found_base))
    monkeypatch.setattr(twin, "blur", lambda _: next(halves))
    with torch.no_grad():
        clean, stated, weights, _ = net.in_space(*(tensor(x) for x in in_time), noise)
        found = net.space(torch.from_numpy(native.space_features(*in_time, 1 / LINE, 1 / POINT)[4])[None])[0].numpy()
    out, left, shares = native.mix_space(*in_time[:2], near, wide, along, strength, 1 / POINT,
                                      np.ascontiguousarray(found), WHITE_COVARIANCE)
    assert np.abs(out - clean[0, 0].numpy()).max() < 1e-4  # the logits differ by the sums before them
    assert np.abs(left / stated[0, 0].numpy() - 1).max() < 2e-3
    assert max(np.abs(shares[i] - weights[0, k].numpy()).max() for i, k in enumerate((0, 1, 3))) < 1e-4


@pytest.mark.parametrize("shape", [(64, 64), (97, 83), (33, 160), (40, 41)])
def test_no_pixel_leaves_the_range_of_its_candidates(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    y, m, v, _, _ = inputs(shape)
    cells = tuple(-(-n // 8) for n in shape)
    law = np.ascontiguousarray(np.stack([random.normal(0, 3, cells), random.uniform(1, 30, cells),
                                         random.uniform(0.02, 0.2, cells)]).astype(np.float32))
    mean, variance, gate = native.mix_time(y, kernels.evidence(y, m, v, 1.0), m, v, 1.0, 2.0, law)
    assert np.all(mean >= np.minimum(y, m) - 1e-5) and np.all(mean <= np.maximum(y, m) + 1e-5)
    near, wide, along, strength, _ = native.space_features(mean, variance, gate, 2.0, 1.6)
    candidates = np.stack([mean, near + along, near, wide])
    out, left, shares = native.mix_space(mean, variance, near, wide, along, strength, 1.6,
                                         random.normal(0, 2, (9, *cells)).astype(np.float32), WHITE_COVARIANCE)
    assert np.isfinite(out).all() and np.all(left > 0) and np.all(left <= variance * 1.001)
    assert np.all(out >= candidates.min(axis=0) - 1e-4) and np.all(out <= candidates.max(axis=0) + 1e-4)
    assert np.all(shares >= 0) and np.all(shares.sum(axis=0) <= 1 + 1e-5)


def test_the_number_of_threads_changes_no_bit() -> None:
    y, m, v, busy, lined = inputs((256, 320))
    cells = np.zeros((3, 32, 40), np.float32) + np.array([0, 5, 0.07], np.float32)[:, None, None]
    law = np.random.default_rng(2).normal(0, 1, (9, 32, 40)).astype(np.float32)
    results = []
    try:
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            z = kernels.evidence(y, m, v, 1.0)
            features = native.time_features(y, z, m, v, 1.0, 2.0, busy, lined)
            mean, variance, gate = native.mix_time(y, z, m, v, 1.0, 2.0, cells)
            near, wide, along, strength, more = native.space_features(mean, variance, gate, 2.0, 1.6)
            mixed = native.mix_space(mean, variance, near, wide, along, strength, 1.6, law, WHITE_COVARIANCE)
            results.append((z, features, more, *mixed))
    finally:
        kernels.set_threads(2)
    assert all(np.array_equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_covariances_of_the_candidates_of_white_noise_are_what_the_constants_say() -> None:
    noise = np.random.default_rng(3).normal(size=(768, 768)).astype(np.float32)
    found = covariances(noise, np.ones(noise.shape, bool))
    assert np.abs(found - WHITE_COVARIANCE).max() < 0.03
    assert np.linalg.eigvalsh(found.astype(float)).min() > 0
