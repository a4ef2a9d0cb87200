# SPDX-License-Identifier: Apache-2.0
"""The measures of bench enhance tell good filters from bad ones."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from fluoronav.bench.enhance import recursive_filter
from fluoronav.bench.enhance_scenes import SIDE, ence, shot
from fluoronav.bench.wire import APART, measure, order
from registration.geometry import Array


@pytest.fixture(scope="module")
def run() -> Array:
    random = np.random.default_rng(0)
    return np.clip(np.rint(random.normal(120, 6, (12, 160, 160))), 0, 255).astype(np.uint8)


def nothing(frames: Iterator[Array]) -> Iterator[Array]:
    yield from frames


def blurred(frames: Iterator[Array]) -> Iterator[Array]:
    return (cv2.GaussianBlur(f, (0, 0), 3) for f in frames)


def test_no_frame_is_shown_again_soon() -> None:
    shown = order(12, 60, np.random.default_rng(1))
    assert all(k not in shown[i + 1: i + 1 + APART] for i, k in enumerate(shown))


def test_a_filter_that_does_nothing_keeps_all_and_takes_nothing(run: Array) -> None:
    f = measure(run, nothing, 0)
    assert f.kept == pytest.approx(1, abs=0.02) and f.noise_left == pytest.approx(1) and f.new_place == pytest.approx(
        1, abs=0.02)
    assert abs(f.ghost_0) < 0.02 and abs(f.ghost) < 0.02 and f.beside == pytest.approx(1, abs=0.05)


def test_what_smears_in_time_or_space_is_told(run: Array) -> None:
    slow, soft, raw = measure(run, recursive_filter(0.2), 0), measure(run, blurred, 0), measure(run, nothing, 0)
    assert slow.kept < 0.4 and slow.ghost_0 > 0.6 and slow.ghost > 0.2 and slow.new_place < 0.4
    assert soft.kept < 0.5 and soft.noise_left < 0.3 and abs(soft.ghost) < 0.05
    assert slow.detectability < raw.detectability  # a wire that is not there is not seen, however little noise there is


def test_calibration_error_is_small_for_true_sigmas_and_large_for_wrong_ones() -> None:
    random = np.random.default_rng(2)
    sigma = random.uniform(0.5, 3, 200_000)
    error = random.normal(0, sigma)
    assert ence(error, sigma) < 0.02 and ence(error, 1.3 * sigma) == pytest.approx(0.23, abs=0.02)


def test_a_shot_has_the_dose_and_the_noise_that_it_states() -> None:
    for dose in (0.1, 1.0):
        seen = shot(100, dose, still=True, frames=6)
        assert seen.counts.shape == (6, SIDE, SIDE)
        noise = np.std(seen.stabilized(seen.counts), axis=0, ddof=1).mean()
        assert noise == pytest.approx(0.95, abs=0.04)  # six frames: the root of an unbiased variance is 0.952 of sigma
