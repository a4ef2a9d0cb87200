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
)
from fluoronav.enhance.noise import measure, measured_law, stated_law


@pytest.mark.parametrize("mean", [20, 100, 1000, 9000])
def test_counts_have_unit_noise_after_the_transform_and_come_back_unbiased(mean: float) -> None:
    random = np.random.default_rng(1)
    law = stated_law(scenes.STATED)
    assert law is not None
    x = random.poisson(mean / scenes.GAIN, 400_000) * scenes.GAIN + random.normal(0, scenes.ELECTRONIC, 400_000)
    y = law.stabilized(np.clip(np.rint(x + scenes.DARK), 0, 16383).astype(np.uint16)[None])
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
    assert law.stabilized(b)[:, 40:220].std(axis=0).mean() == pytest.approx(1, rel=0.1)
    mean = law.stabilized(b).mean(axis=0).astype(np.float32)[None]
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


@pytest.mark.skipif(not kernels.compiled, reason="the compiled kernels are not built here")
@pytest.mark.parametrize("shape", [(64, 64), (97, 83), (33, 160)])
def test_compiled_kernels_compute_what_their_twins_do(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    y, m = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    v = random.uniform(0.05, 1.5, shape).astype(np.float32)
    flow = random.uniform(-9, 9, (*shape, 2)).astype(np.float32)
    trusted = (random.random(shape) > 0.4).astype(np.uint8)
    z = reference.evidence(y, m, v, 1.5)
    table = (np.arange(64, dtype=np.float32) / 8) ** 2
    for name, arguments in {
            "evidence": (y, m, v, 1.5), "temporal": (y, z, m, v, 1.5, 3.0, 2.0, 3.0, 0.1),
            "spatial": (y, v, 2.0, 2.0, 2.0, 3.0, 0.2), "parts": (y,), "moved": (m, v, flow, trusted, 0.15),
            "chosen": (y, m, v, m * 1.2, v + 0.1, 1.5), "lookup": (y, table, -2.0, 0.1),
            "picture": (y, v, table, table[::-1].copy(), table, -2.0, 0.1)}.items():
        ours, twin = getattr(kernels, name)(*arguments), getattr(reference, name)(*arguments)
        for one, other in zip(ours if isinstance(ours, tuple) else (ours,),
                              twin if isinstance(twin, tuple) else (twin,), strict=True):
            # 5e-6: the order of a few float32 sums, times the slope of the table or of the smooth step
            assert np.abs(one - other).max() < 5e-6 * max(1, np.abs(other).max()), name
    assert np.array_equal(kernels.window(y, -1.0, 1.0), reference.window(y, -1.0, 1.0))
