# SPDX-License-Identifier: Apache-2.0
"""Do the measures see likeness, ignore what they should, and point the right way?"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from similarity_reference import correlation

from registration.similarity import GRADIENT, LOCAL_NCC, NCC, PATCHES, Correlation

ALL = {"ncc": NCC, "gradient": GRADIENT, "local": LOCAL_NCC, "patches": PATCHES}


def smooth(rng, *shape):
    return ndimage.gaussian_filter(rng.normal(size=shape), [0] * (len(shape) - 2) + [2, 2]).astype(np.float32)


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    moving = smooth(rng, 50, 67)
    return moving, moving + 0.5 * smooth(rng, 50, 67), rng.uniform(0.2, 1, (50, 67)).astype(np.float32), rng


@pytest.mark.parametrize("measure", ALL.values(), ids=ALL)
def test_gradient_of_the_cost_is_that_of_the_value(measure, pair):
    moving, fixed, weight, rng = pair
    jacobian = smooth(rng, 6, 50, 67)
    measure = replace(measure, floor=0.0)  # the floor follows the mean energy, whose derivative is left out
    normal = measure.evaluate(moving, fixed, weight, jacobian).normal

    def cost(step):
        value = measure.evaluate(moving + np.tensordot(step, jacobian, 1).astype(np.float32), fixed, weight).value
        return 0.5 * np.log(1 - value**2)  # what the normal equations descend

    numeric = [(cost(h) - cost(-h)) / 2e-2 for h in 1e-2 * np.eye(6)]
    assert np.allclose(normal.gradient, numeric, rtol=0.02, atol=0.01 * np.abs(numeric).max())
    assert np.allclose(normal.scores.sum(0), normal.gradient)
    assert np.linalg.eigvalsh(normal.hessian).min() > 0


@pytest.mark.parametrize("measure", ALL.values(), ids=ALL)
def test_compiled_measures_agree_with_the_plain_float64_ones(measure, pair):
    moving, fixed, weight, rng = pair
    jacobian = smooth(rng, 6, 50, 67)
    likeness = measure.evaluate(moving, fixed, weight, jacobian)
    value, hessian, gradient = correlation(measure, moving, fixed, weight, jacobian)
    # sums of some thousand float32 products: a few 1e-6
    assert likeness.value == pytest.approx(value, abs=1e-5)
    assert np.abs(likeness.normal.hessian - hessian).max() < 1e-5 * np.abs(hessian).max()
    assert np.abs(likeness.normal.gradient - gradient).max() < 1e-4 * np.abs(gradient).max()


@pytest.mark.parametrize("measure", ALL.values(), ids=ALL)
def test_value_does_not_depend_on_scale_and_offset(measure, pair):
    moving, fixed, weight, _ = pair
    value = measure.evaluate(moving, fixed, weight).value
    assert value == pytest.approx(measure.evaluate(3.7 * moving - 2, 0.2 * fixed + 5, weight).value, abs=2e-4)
    assert measure.evaluate(-moving, fixed, weight).value < value / 2


@pytest.mark.parametrize("measure", ALL.values(), ids=ALL)
def test_pixels_without_weight_do_not_count(measure, pair):
    moving, fixed, weight, rng = pair
    weight = weight.copy()
    weight[:, 40:] = 0
    spoiled = fixed.copy()
    spoiled[:, 40:] = 100 * rng.normal(size=(50, 27))
    assert measure.evaluate(moving, fixed, weight).value == pytest.approx(
        measure.evaluate(moving, spoiled, weight).value, abs=1e-5)


@pytest.mark.parametrize("measure", ALL.values(), ids=ALL)
def test_an_empty_picture_is_like_nothing(measure, pair):
    moving, fixed, weight, rng = pair
    for a, b, w in ((0 * moving, fixed, weight), (moving, 0 * fixed, weight), (moving, fixed, 0 * weight)):
        likeness = measure.evaluate(a, b, w, smooth(rng, 6, 50, 67))
        assert likeness.value == pytest.approx(0, abs=1e-6)
        assert np.isfinite(likeness.normal.hessian).all()
        assert np.isfinite(likeness.normal.gradient).all()


@pytest.mark.parametrize("patch", [None, 16])
def test_slow_scatter_hurts_the_gradient_less_than_the_picture(patch, pair):
    moving, _, weight, _ = pair
    field = np.linspace(-3, 3, 67, dtype=np.float32)[None] * moving.std() + 0 * moving
    by_picture = Correlation(patch_px=patch).evaluate(moving, moving + field, weight).value
    by_gradient = Correlation(gradient=True, patch_px=patch).evaluate(moving, moving + field, weight).value
    assert by_gradient > 0.98
    assert by_gradient > by_picture


@pytest.mark.parametrize("measure", [GRADIENT, PATCHES], ids=["gradient", "patches"])
def test_a_wire_that_only_the_frame_has_loses_its_weight(measure, pair):
    moving, _, _, rng = pair
    weight = np.ones_like(moving)
    fixed = moving + 0.02 * moving.std() * rng.normal(size=moving.shape).astype(np.float32)
    wire = np.zeros_like(moving, bool)
    wire[np.arange(50), 10 + np.arange(50) // 2] = True
    fixed = fixed + wire * 4 * moving.std()
    robust = measure.robust_weight(moving, fixed, weight)
    beside = np.roll(wire, 1, 1)[1:-1, 1:-1]  # a central difference feels the wire beside it
    assert robust[1:-1, 1:-1][beside].mean() < 0.15
    assert robust[~ndimage.binary_dilation(wire, iterations=3)].mean() > 0.7
    assert measure.evaluate(moving, fixed, robust).value > measure.evaluate(moving, fixed, weight).value


def test_best_possible_correlation_follows_the_noise(pair):
    moving, _, _, rng = pair
    weight, sigma = np.ones_like(moving), 0.1 * float(moving.std())
    found = []
    for _ in range(16):
        real, alone = sigma * rng.normal(size=(2, *moving.shape)).astype(np.float32)
        found.append(PATCHES.agreement(moving, moving + real, weight, alone))
    median, explained, patches = np.mean(found, 0)
    assert abs(median - 1) < 0.03  # nothing but noise keeps the pictures apart, so they agree as well as it allows
    assert explained == 1
    assert patches == 12  # three by four
    assert PATCHES.agreement(moving, moving, weight, 10 * moving) == (0.0, 0.0, 0)  # noise hides every patch


def test_shapes_that_do_not_fit_are_refused(pair):
    moving, fixed, weight, _ = pair
    with pytest.raises(ValueError, match="shape"):
        NCC.evaluate(moving, fixed[:-1], weight)
    with pytest.raises(ValueError, match="shape"):
        NCC.evaluate(moving, fixed, weight, np.zeros((6, 5, 5), np.float32))
