# SPDX-License-Identifier: Apache-2.0
"""Contrast: lines grow by as much as was asked for; noise, flanks and what is measured stay."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import scenes

from fluoronav.enhance import Chain, ChainSettings, kernels, reference_contrast
from fluoronav.enhance.contrast import QUARTILE, unavailable
from fluoronav.imaging.frame import Frame
from registration.errors import BadInput

ONES = np.ones(4, np.float32)


def noise(seed: int, shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    """White noise of unit variance."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(133, 150), (128, 97)])
def test_the_compiled_kernel_computes_what_the_reference_says(shape: tuple[int, int]) -> None:
    y = noise(0, shape)
    y[40:43] += 8
    y[:, 90:] += 5
    v = (0.5 + np.random.default_rng(1).random(shape)).astype(np.float32)
    floors = np.array([1, 1.2, 0.8, 1], np.float32)
    ours, theirs = kernels.contrast(y, v, floors, 1.0), reference_contrast.contrast(y, v, floors, 1.0)
    assert np.abs(ours[0] - theirs[0]).max() < 1e-4  # other orders of summing
    assert ours[1:] == pytest.approx(theirs[1:], rel=1e-4)
    gains = np.random.default_rng(2).uniform(0, 2, (4, -(-shape[0] // 4), -(-shape[1] // 4))).astype(np.float32)
    told: list[tuple[np.ndarray, np.ndarray]] = []

    def choose(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        told.append((fine, coarse))
        return gains

    chosen = [k.contrast(y, v, floors, 1.0, choose)[0] for k in (kernels, reference_contrast)]
    assert np.abs(chosen[0] - chosen[1]).max() < 1e-4 and np.abs(chosen[0] - ours[0]).max() > 0.5
    for compiled, plain in zip(*told, strict=True):
        assert compiled.shape == plain.shape and np.abs(compiled - plain).max() < 1e-3 * max(1, np.abs(plain).max())
    same = kernels.contrast(y, v, floors, 1.0, lambda fine, coarse: np.ones_like(gains))[0]
    assert np.array_equal(same, ours[0])  # gains of 1 are what nobody chose


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    y, v = noise(2), np.ones((256, 256), np.float32)
    y[100:103] += 5
    out = []
    for threads in (1, 2):
        kernels.set_threads(threads)
        out.append(kernels.contrast(y, v, ONES, 1.0)[0])
    assert np.array_equal(*out)


def test_noise_alone_is_left_alone_and_has_the_energies_that_are_assumed() -> None:
    y = noise(3, (1024, 1024))
    shown, *quartiles = kernels.contrast(y, np.ones_like(y), ONES, 1.0)
    assert quartiles == pytest.approx([QUARTILE] * 4, rel=0.1)  # 4,000 samples a level, alike in part
    assert np.std(shown) / np.std(y) < 1.02  # one pixel in a hundred passes the lower threshold
    assert np.mean(np.abs(shown - y) > 0.5) < 0.005


@pytest.mark.parametrize("width", [2, 3, 6])
def test_a_line_grows_without_a_halo(width: int) -> None:
    y = np.full((160, 160), 50, np.float32)
    y[:, 80: 80 + width] += 10
    shown = kernels.contrast(y, np.full_like(y, 0.05), ONES, 1.0)[0]
    middle = shown[80] - 50
    assert 14 < middle[80: 80 + width].max() <= 20 + 1e-3  # more than 40 % more, never more than asked for
    beside = np.delete(middle, np.s_[80 - 2: 80 + width + 2])
    assert np.abs(beside).max() < 1e-3


def test_an_edge_gets_steeper_and_passes_neither_side() -> None:
    y = np.full((128, 128), 50, np.float32)
    y[:, 60:] += 10
    y = reference_contrast.blur5(y)
    shown = kernels.contrast(y, np.full_like(y, 0.05), ONES, 1.0)[0]
    assert shown.min() > 50 - 0.5 and shown.max() < 60 + 0.5  # one in twenty: means are softer than extremes
    assert np.diff(shown[64]).max() > 1.2 * np.diff(y[64]).max()


def test_whatever_is_chosen_no_more_is_added_than_the_kernel_may() -> None:
    random = np.random.default_rng(8)

    def anything(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        return random.uniform(0, 2, (4, *fine.shape[1:])).astype(np.float32)

    alone = noise(9, (512, 512))
    shown = kernels.contrast(alone, np.ones_like(alone), ONES, 1.0, anything)[0]
    assert np.std(shown) / np.std(alone) < 1.02 and np.mean(np.abs(shown - alone) > 0.5) < 0.005
    y = np.full((160, 160), 50, np.float32)
    y[:, 80:83] += 10
    middle = kernels.contrast(y, np.full_like(y, 0.05), ONES, 1.0, anything)[0] - 50
    assert middle.max() <= 20 + 1e-3 and middle[:, 80:83].min() > 10 - 1e-3  # never turned round, at most doubled
    assert np.abs(np.delete(middle, np.s_[78:85], axis=1)).max() < 1e-3


@pytest.mark.skipif(unavailable() is not None, reason=f"learned contrast: {unavailable()}")
def test_the_net_raises_a_wire_and_leaves_more_of_the_rest_alone_than_the_fixed_law() -> None:
    changes = []
    for by in ("classical", "learned"):
        chain, state = Chain(ChainSettings(contrast=1.0, contrast_by=by)), None  # type: ignore[arg-type]
        without, before = Chain(ChainSettings()), None
        for k in range(6):
            (state, more), (before, plain) = chain.step(state, wired(k)), without.step(before, wired(k))
        assert more.values is not None and plain.values is not None
        changes.append(plain.values - more.values)
    drawn = scenes.wire_at(192, 90) > 0.3
    away = cv2.dilate(drawn.astype(np.uint8), np.ones((25, 25), np.uint8)) == 0
    fixed, chosen = changes
    assert chosen[drawn].mean() > 0.5 * fixed[drawn].mean() > 0
    assert chosen[away].std() < 0.7 * fixed[away].std()


def wired(k: int) -> Frame:
    """A still wire in a still body, with noise."""
    p = scenes.body() + scenes.wire_at(192, 90)
    return scenes.frame(scenes.counts(p, np.random.default_rng([4, k])), k)


def test_what_is_measured_stays_and_only_what_is_seen_changes() -> None:
    out = []
    for strength in (0.0, 1.0):
        chain, state = Chain(ChainSettings(contrast=strength)), None
        for k in range(6):
            state, enhanced = chain.step(state, wired(k))
        out.append(enhanced)
    plain, more = out
    assert np.array_equal(plain.line_integrals, more.line_integrals) and np.array_equal(plain.sigma, more.sigma)
    assert np.array_equal(plain.raw_display, more.raw_display)
    assert plain.values is not None and more.values is not None
    drawn = scenes.wire_at(192, 90) > 0.3
    assert (plain.values - more.values)[drawn].mean() > 0.05 * plain.values[drawn].mean()  # the wire is darker
    assert "raised" in ChainSettings(contrast=1.0).describe() and "raised" not in ChainSettings().describe()


def test_a_strength_that_makes_no_sense_is_refused() -> None:
    for strength in (-0.1, 2.5, float("nan")):
        with pytest.raises(BadInput, match="strength"):
            Chain(replace(ChainSettings(), contrast=strength if strength > 0 else 9.0))
