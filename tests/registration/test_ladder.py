# SPDX-License-Identifier: Apache-2.0
"""Are coarser pictures what larger pixels would have measured, with the noise that they have?"""

import numpy as np
import pytest

from registration.geometry import CArm
from registration.ladder import Ladder, binned
from registration.model import View


def view(shape, *, relative=False, seed=0):
    rng = np.random.default_rng(seed)
    picture = rng.normal(3, 1.5, shape).astype(np.float32)
    return View(picture, rng.uniform(0.2, 1, shape).astype(np.float32), CArm.centered(shape, 0.6, 1020, 765), relative)


def means(values, k):
    rows, cols = (n // k for n in values.shape)
    return values[:rows * k, :cols * k].reshape(rows, k, cols, k).mean((1, 3))


@pytest.mark.parametrize("shape", [(512, 512), (360, 451), (193, 200)])
@pytest.mark.parametrize("relative", [False, True], ids=["counts", "relative"])
def test_levels_are_weighted_means_of_what_a_detector_counts(shape, relative):
    seen = view(shape, relative=relative)
    ladder = Ladder(seen, (64, 128))
    p, w = seen.line_integrals.astype(np.float64), seen.weight.astype(np.float64)
    for edge in (32, 64, 100, 128):
        k = round(max(shape) / edge)
        sight = ladder.sight(edge)
        signal = means(w * (p if relative else np.exp(-p)), k) / means(w, k)
        # float32 sums, and an exponential and a logarithm good to 4e-6
        assert np.abs(sight.fixed - (signal if relative else -np.log(signal))).max() < 2e-5
        assert np.abs(sight.weight - means(w, k)).max() < 1e-5
        assert sight.carm == seen.carm.binned(k)


def test_a_level_made_from_a_finer_one_is_the_one_made_from_the_pixels():
    seen = view((512, 512))
    direct, by_way = Ladder(seen).sight(64), Ladder(seen, (256,)).sight(64)
    assert np.abs(direct.fixed - by_way.fixed).max() < 1e-5
    assert np.abs(direct.weight - by_way.weight).max() < 1e-6


def test_halves_have_the_noise_of_the_mean():
    rng, shape = np.random.default_rng(1), (480, 480)
    smooth = np.add.outer(np.linspace(0, 1, 480), np.linspace(1, 3, 480))
    pictures = [(smooth + 0.1 * rng.normal(size=shape)).astype(np.float32) for _ in range(2)]
    carm = CArm.centered(shape, 0.6, 1020, 765)
    (one, noise), (two, _) = (Ladder(View(p, np.ones_like(p), carm)).halves(120) for p in pictures)
    # 16 pixels a block
    assert noise.std() == pytest.approx(0.1 / 4, rel=0.03)
    assert (one.fixed - two.fixed).std() == pytest.approx(np.sqrt(2) * noise.std(), rel=0.05)


def test_halves_of_blocks_that_are_half_seen_count_for_nothing():
    shape = (256, 256)
    field = np.add.outer(np.arange(256), np.arange(256)) % 2
    weight = np.where(np.arange(256)[:, None] < 128, 1.0, field)
    sight, noise = Ladder(View(np.ones(shape), weight, CArm.centered(shape, 0.6, 1020, 765))).halves(128)
    assert (sight.weight[:64] == 1).all()
    assert (sight.weight[64:] == 0).all()
    assert np.isfinite(noise).all()


def test_very_dense_pixels_stay_finite():
    picture = np.where(np.add.outer(np.arange(128), np.arange(128)) % 5 == 0, 300.0, 2.0).astype(np.float32)
    fixed, weight = binned(picture, np.ones_like(picture), 4, counts=True)
    assert np.isfinite(fixed).all()
    assert np.abs(fixed - 2.2).max() < 0.2  # what is opaque takes its share of the area
    assert (weight == 1).all()
