# SPDX-License-Identifier: Apache-2.0
"""The scale of unit noise, and compiled loops against their numpy twins."""

from __future__ import annotations

import numpy as np
import pytest
import scenes

from fluoronav.enhance import kernels, reference
from fluoronav.enhance.denoise import (
    WHITE_EVIDENCE,
    WHITE_KEPT,
    WHITE_LEFT,
    WHITE_LINE,
    WHITE_POINT,
    Calibration,
    DenoiseSettings,
    calibrated,
    rules_of,
)
from fluoronav.enhance.noise import measure, measured_law, stated_law


@pytest.mark.parametrize("mean", [20, 100, 1000, 9000])
def test_counts_have_unit_noise_after_the_transform_and_come_back_unbiased(mean: float) -> None:
    random = np.random.default_rng(1)
    law = stated_law(scenes.STATED)
    assert law is not None
    x = random.poisson(mean / scenes.GAIN, 400_000) * scenes.GAIN + random.normal(0, scenes.ELECTRONIC, 400_000)
    y, _ = law.stabilized(np.clip(np.rint(x + scenes.DARK), 0, 16383).astype(np.uint16)[None])
    # 6 %: at 20 counts, three electronic sigmas above zero, the transform is only asymptotically right
    assert y.std() == pytest.approx(1, rel=0.06 if mean < 50 else 0.02)
    back = float(kernels.lookup(np.full((1, 1), y.mean(), np.float32), law.restore, law.start, law.step)[0, 0])
    assert back - scenes.DARK == pytest.approx(mean, rel=0.01, abs=0.4)


def test_the_law_of_display_data_is_found_from_two_frames() -> None:
    random = np.random.default_rng(2)
    level = np.tile(np.linspace(40, 200, 256), (256, 1))
    sigma = 2 + level / 40
    a, b = (np.clip(np.rint(level + random.normal(0, sigma)), 0, 255).astype(np.uint8) for _ in range(2))
    levels, variances = measure(b, a, np.ones(a.shape, bool))
    assert np.allclose(np.sqrt(variances), 2 + levels / 40, rtol=0.1)  # a quarter of 32 blocks of 256 pixels
    law = measured_law(levels, variances, 8)
    assert law.stabilized(b)[0][:, 40:220].std(axis=0).mean() == pytest.approx(1, rel=0.1)
    mean = law.stabilized(b)[0].mean(axis=0).astype(np.float32)[None]
    restored = kernels.lookup(np.ascontiguousarray(mean), law.restore, law.start, law.step)[0]
    assert np.abs(restored - b.mean(axis=0))[20:-20].mean() < 0.15  # grey steps


def test_motion_everywhere_is_not_taken_for_noise() -> None:
    random = np.random.default_rng(3)
    v, u = np.mgrid[:256, :256]
    def moved(k: int) -> np.ndarray:
        scene = 120 + 50 * np.sin((u + 4 * k) / 15) * np.cos(v / 20)
        return np.clip(np.rint(scene + random.normal(0, 2, u.shape)), 0, 255).astype(np.uint8)
    a, b = moved(0), moved(1)
    _, variances = measure(b, a, np.ones(a.shape, bool))
    plain = float(np.std(b.astype(float) - a) / np.sqrt(2))
    assert plain > 5 and np.sqrt(np.median(variances)) == pytest.approx(2, rel=0.1)


def test_what_white_noise_does_is_what_the_constants_say() -> None:
    random = np.random.default_rng(4)
    a, b = (random.normal(size=(768, 768)).astype(np.float32) for _ in range(2))
    found = calibrated(Calibration(), a, b, np.ones(a.shape, bool), DenoiseSettings())
    assert found.evidence == pytest.approx(WHITE_EVIDENCE, rel=0.05)
    assert found.line == pytest.approx(WHITE_LINE, rel=0.05)
    assert found.point == pytest.approx(WHITE_POINT, rel=0.05)
    assert found.left == pytest.approx(WHITE_LEFT, rel=0.1)
    assert found.kept == pytest.approx(WHITE_KEPT, rel=0.1)


def picture_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(y, m, v) with noise, a step, a line and pixels of every doubt."""
    random = np.random.default_rng(5)
    y, m = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    v = random.uniform(0.05, 1.5, shape).astype(np.float32)
    m[10:20] += 3
    y[:, 30:32] += 4
    return y, m, v


def flow_of(shape: tuple[int, int], cell: int) -> tuple[np.ndarray, np.ndarray]:
    """(flow, trusted) of cells: smooth, then wild, past every border."""
    random = np.random.default_rng(6)
    down, across = (-(-n // cell) for n in shape)
    flow = random.uniform(-2.0, -1.8, (down, across, 2)).astype(np.float32)
    flow[down // 2:] = random.uniform(-9, 9, flow[down // 2:].shape)
    return flow, (random.random((down, across)) > 0.3).astype(np.uint8)


RULES = rules_of(Calibration(), DenoiseSettings(), 1.3)


@pytest.mark.skipif(not kernels.compiled, reason="the compiled kernels are not built here")
@pytest.mark.parametrize("shape", [(64, 64), (97, 83), (33, 160), (9, 41), (200, 1100)])
def test_compiled_kernels_compute_what_their_twins_do(shape: tuple[int, int]) -> None:
    y, m, v = picture_of(shape)
    moved = flow_of(shape, 6)
    table = (np.arange(64, dtype=np.float32) / 8) ** 2
    for name, arguments in {
            "evidence": (y, m, v, 1.5), "parts": (y,), "followed": (y, m, v, 1.5, *moved, 6, 0.15),
            "denoised": (y, m, v, RULES, None, None, 1), "spatial": (y, v, RULES), "lookup": (y, table, -2.0, 0.1),
            "pooled": (y, 6), "picture": (y, v, m, table, table[::-1].copy(), table, -2.0, 0.1, 0.0, 50.0)}.items():
        ours, twin = getattr(kernels, name)(*arguments), getattr(reference, name)(*arguments)
        for one, other in zip(ours if isinstance(ours, tuple) else (ours,),
                              twin if isinstance(twin, tuple) else (twin,), strict=True):
            off = np.abs(one.astype(np.float64) - other)
            # 3e-5: a few float32 operations in another order, times the slopes of gates and tables; places of the flow
            # 1000 pixels from the border have 10 bits less. A value that this puts on the other side of a rounding, or
            # of the better of two hypotheses, may differ by what that decides
            most = (1e-3 if name == "followed" else 3e-5) * max(1, np.abs(other).max())
            assert np.mean(off > most) < 1e-3, name
            assert np.median(off) < 1e-6 * max(1, np.abs(other).max()), name
    assert np.array_equal(kernels.window(y, -1.0, 1.0), reference.window(y, -1.0, 1.0))
    pixels = np.abs(1000 * y).astype(np.uint16)
    for ours, twin in zip(kernels.stabilized(pixels, table, 6), reference.stabilized(pixels, table, 6), strict=True):
        assert np.abs(ours - twin).max() < 1e-5 * np.abs(twin).max()
    grey = np.arange(256, dtype=np.uint8)
    assert np.array_equal(kernels.taken(pixels, grey), reference.taken(pixels, grey))


@pytest.mark.skipif(not kernels.compiled, reason="the compiled kernels are not built here")
@pytest.mark.parametrize("excess", [1.0, 4.0])
def test_a_moved_state_is_denoised_as_its_twin_does_it(excess: float) -> None:
    shape, rules = (517, 333), rules_of(Calibration(), DenoiseSettings(), excess)
    y, m, v = picture_of(shape)
    arguments = (y, m, v, rules, *flow_of(shape, 3), 3)
    for one, other in zip(kernels.denoised(*arguments), reference.denoised(*arguments), strict=True):
        off = np.abs(one - other)
        # places in the flow are float32: what that puts on the other side of a rounding moves lines by a step of 1/64,
        # and where both hypotheses are alike, rounding chooses
        assert np.mean(off > 5e-3) < 1e-3 and np.median(off) < 1e-6


@pytest.mark.skipif(not kernels.compiled, reason="the compiled kernels are not built here")
def test_a_line_has_the_same_sum_however_it_is_put_together() -> None:
    random = np.random.default_rng(7)
    for shape in ((40, 600), (7, 30)):
        d = random.normal(0, 3, shape).astype(np.float32)
        near, along, _ = kernels.parts(d)
        best = reference.line_best(reference.stepped(d - near, reference.DETAIL))
        assert np.abs(along * 352 - best * 11).max() < 0.01  # whole steps, so the sums are equal


@pytest.mark.skipif(not kernels.compiled, reason="the compiled kernels are not built here")
def test_steps_of_the_lines_are_far_below_the_noise() -> None:
    y, m, v = picture_of((128, 160))
    d = (y - m) / np.sqrt(1 + v)
    # of two lines of the same height and different signs the other one may be taken: magnitudes
    off = np.abs(kernels.evidence(y, m, v, 1.0)) - np.abs(reference.line_best(reference.blur3(d)))
    # steps of 1/64 and 1/256: uniform errors of 11 pixels, averaged
    assert np.abs(off).max() < 1 / 128 and off.std() < 1 / 500


@pytest.mark.skipif(not kernels.compiled, reason="the compiled kernels are not built here")
def test_the_number_of_threads_changes_no_bit_of_the_classical_denoiser() -> None:
    y, m, v = picture_of((517, 333))
    moved = flow_of((517, 333), 4)
    pixels = np.random.default_rng(8).integers(0, 4096, (517, 333)).astype(np.uint16)
    table = np.sqrt(np.arange(4096, dtype=np.float32))
    results = []
    try:
        for threads in (1, 2, 3, 5):
            kernels.set_threads(threads)
            results.append([*kernels.denoised(y, m, v, RULES, *moved, 4),
                            *kernels.denoised(y, m, v, RULES, None, None, 1), *kernels.spatial(y, v, RULES),
                            *kernels.stabilized(pixels, table, 6), *kernels.followed(y, m, v, 1.0, *moved, 4, 0.15),
                            kernels.evidence(y, m, v, 1.0)])
    finally:
        kernels.set_threads(2)
    assert all(np.array_equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
