# SPDX-License-Identifier: Apache-2.0
"""The measures of bench enhance tell good filters from bad ones, and know what is known of noise and steps."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from fluoronav.bench import observer
from fluoronav.bench.enhance_measures import banded, ence, noise_spectrum, similarity, transfer_in_time
from fluoronav.bench.enhance_methods import STACK, methods, peer_filter, peers, recursive_filter
from fluoronav.bench.enhance_peers import compared, table
from fluoronav.bench.enhance_scenes import SIDE, shot
from fluoronav.bench.enhance_tasks import DOSES, equivalent
from fluoronav.bench.figure import Figure
from fluoronav.bench.recurrent import folded, unfolded
from fluoronav.bench.wire import APART, SETTLE, measure, measure_moving, order
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
    for share in (f.kept, f.kept_still, f.new_place, f.new_1, f.new_3, f.inserted):
        assert share == pytest.approx(1, abs=0.02)
    for share in (f.ghost_0, f.ghost, f.removed_0, f.removed_3):
        assert abs(share) < 0.02
    assert f.noise_left == pytest.approx(1) and f.beside == pytest.approx(1, abs=0.05)


def test_what_smears_in_time_or_space_is_told(run: Array) -> None:
    slow, soft, raw = measure(run, recursive_filter(0.2), 0), measure(run, blurred, 0), measure(run, nothing, 0)
    assert slow.kept < 0.4 and slow.ghost_0 > 0.6 and slow.ghost > 0.2 and slow.new_place < 0.4
    assert slow.inserted < 0.4 and slow.removed_0 > 0.3 and slow.removed_0 > slow.removed_3 > 0.1
    assert soft.kept < 0.5 and soft.noise_left < 0.3 and abs(soft.ghost) < 0.05
    for see in (observer.npwe, observer.hotelling):  # a wire that is not there is not seen, however little noise
        assert see(slow.patches) < see(raw.patches)


def test_half_of_the_measure_is_the_same_half(run: Array) -> None:
    whole, part = (f(run[:, :96, :96], recursive_filter(0.4), 4) for f in (measure, measure_moving))
    assert (whole.kept, whole.beside) == (part.kept, part.beside)  # a wire that turns back stays in a small picture
    assert np.array_equal(whole.patches.present, part.patches.present) and 0.3 < part.kept < 0.5


def test_a_peer_passes_what_nobody_judges_and_cleans_the_rest_as_if_it_had_seen_all() -> None:
    seen = shot(100, 0.25, still=True, frames=SETTLE + 1).middle(64)
    frames = [x.astype(np.float32) for x in seen.counts]
    nlm = next(peer for peer in peers() if peer.name == "nlm_multi")
    skipped, whole = (list(peer_filter(nlm, seen.intensity, after)(iter(frames))) for after in (SETTLE, 0))
    assert np.array_equal(skipped[0], frames[0]) and np.array_equal(skipped[-1], whole[-1])
    assert np.std(whole[-1] - seen.expected[-1]) < 0.6 * np.std(frames[-1] - seen.expected[-1])


def test_all_methods_stand_in_one_table_and_slow_ones_say_that_they_are_left_out() -> None:
    assert {m.name for m in compared(methods(), full=False)} >= {"raw", "recursive", "bm3d", "nlm_multi", "shipped"}
    bm4d = next(m for m in compared(methods(), full=False) if m.name == "bm4d")
    assert bm4d.why is not None
    kept = "enhance.beside_wire_kept_25"
    found = {f"{kept}_shipped": Figure(0.9, "share", 1), f"{kept}_bm3d": Figure(0.8, "share", 1),
             "enhance.denoise_ms_512": Figure(4.0, "ms", 1), "enhance.ms_512_bm3d": Figure(321, "ms", 1),
             "enhance.beside_dose_equivalence_bm3d": Figure(None, "share", 1, "not reached; raw")}
    head, ours, theirs = table(found)
    share, dose, ms = (head.index(name) for name in ("wire kept 25 %", "dose NPWE", "ms 512"))
    assert (ours[0], ours[share], ours[ms]) == ("shipped", "0.9", "4")
    assert (theirs[0], theirs[share], theirs[ms], theirs[dose]) == ("bm3d", "0.8", "321", "not reached")


def test_observers_answer_what_theory_says_for_white_noise() -> None:
    random = np.random.default_rng(5)
    side = 2 * observer.HALF + 1
    profile = -0.3 * np.clip(1.5 - np.abs(np.arange(side) - observer.HALF), 0, 1)[None] * np.ones((side, 1))
    noise = random.normal(0, 0.5, (2, 4000, side, side))
    seen = observer.Patches(noise[0] + profile, noise[1], profile)
    window = np.exp(-0.5 * ((np.arange(side) - observer.HALF) / observer.WINDOW) ** 2)[:, None]
    best = float(np.sqrt((((profile - profile.mean()) * window) ** 2).sum())) / 0.5  # that sees through the window only
    weighed = float((profile**2 * window).sum() / np.sqrt((profile**2 * window**2).sum())) / 0.5
    assert observer.hotelling(seen) == pytest.approx(weighed, rel=0.12)  # four channels hold most of a 2-pixel wire
    assert 0.2 * best < observer.npwe(seen) < observer.hotelling(seen)
    half = observer.Patches(noise[0] / 2 + profile, noise[1] / 2, profile)
    assert observer.npwe(half) == pytest.approx(2 * observer.npwe(seen), rel=0.02)
    # quiet where nothing is: the mean of both variances counts
    quiet = observer.Patches(noise[0] + profile, 0.1 * noise[1], profile)
    assert observer.npwe(quiet) == pytest.approx(np.sqrt(2 / 1.01) * observer.npwe(seen), rel=0.05)


def test_dose_equivalence_is_where_the_curve_meets_raw() -> None:
    assert equivalent([4.0, 8.0, 12.0, 16.0], 12.0, 3).value == pytest.approx(0.5)
    assert equivalent([4.0, 8.0, 12.0, 16.0], 10.0, 3).value == pytest.approx(np.sqrt(0.25 * 0.5))
    missed = equivalent([1.0, 2.0, 3.0, 4.0], 5.0, 3)
    assert missed.value is None and "not reached" in missed.note and len(DOSES) == 4


def test_a_step_passes_a_recursive_filter_as_its_transfer_says() -> None:
    assert transfer_in_time([1.0, 1.0, 1.0]) == pytest.approx((1.0, 1.0))
    w = 0.4
    quarter, half = transfer_in_time([1 - (1 - w) ** (k + 1) for k in range(40)])
    assert half == pytest.approx(w / (2 - w), abs=1e-6)  # |w / (1 - (1 - w) z)| at z = -1
    assert quarter == pytest.approx(w / np.hypot(1, 1 - w), abs=1e-6)  # and at z = -i


def test_white_noise_has_a_flat_spectrum_and_a_blur_takes_its_top() -> None:
    noise = np.random.default_rng(3).normal(0, 2, (3, 192, 192))
    white = banded(*noise_spectrum(noise))
    assert white == pytest.approx(np.full(3, 4.0), rel=0.08)  # some 70 blocks; the lowest band is 5 rings
    soft = banded(*noise_spectrum(np.stack([cv2.GaussianBlur(x, (0, 0), 1.0) for x in noise])))
    assert soft[0] > 0.8 * white[0] and soft[2] < 0.15 * white[2]


def test_similarity_is_one_for_the_same_and_falls_with_noise() -> None:
    random = np.random.default_rng(4)
    picture = cv2.GaussianBlur(random.normal(0, 40, (96, 96)), (0, 0), 3)
    span = float(np.ptp(picture))
    values = [float(similarity(picture + random.normal(0, s, picture.shape), picture, span).mean()) for s in (0, 2, 6)]
    assert values[0] == pytest.approx(1) and values[0] > values[1] > values[2]


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


def test_the_shipped_denoiser_is_the_one_without_a_suffix_and_a_peer_cleans() -> None:
    names = [m.suffix for m in methods()]
    assert names[0] == "" and len(set(names)) == 3 and "_recurrent" in names
    noisy = np.random.default_rng(6).normal(10, 1, (STACK, 48, 48)).astype(np.float32)
    nlm = next(peer for peer in peers() if peer.name == "nlm_multi").last(noisy)
    assert nlm.std() < 0.7 and abs(float(nlm.mean()) - 10) < 0.3


@pytest.mark.parametrize("shape", [(16, 24), (17, 22)])
def test_folding_is_undone_by_unfolding(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    assert np.array_equal(unfolded(folded(picture), shape), picture)
