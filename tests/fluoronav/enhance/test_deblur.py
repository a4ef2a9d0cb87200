# SPDX-License-Identifier: Apache-2.0
"""Is the blur of the X-ray pulse undone where something moves fast, and nothing else touched?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fluoronav.bench import enhance_blur
from fluoronav.bench.enhance_heads import play, values_of
from fluoronav.enhance import ChainSettings
from fluoronav.enhance.deblur import along, deblurred
from fluoronav.imaging.frame import Exposure

ON, OFF = ChainSettings(deblur=True), ChainSettings()


def test_a_box_blur_that_is_known_is_undone_as_the_formula_says() -> None:
    u = np.arange(128, dtype=np.float32)
    picture = np.tile(20 * np.cos(2 * np.pi * u / 16), (64, 1)).astype(np.float32)
    blur = np.zeros((64, 128, 2), np.float32)
    blur[..., 0] = 6
    seen = along(picture, blur)
    transfer = float(seen[32, 64] / picture[32, 64])
    assert abs(transfer - np.sinc(6 / 16)) < 0.02  # seven samples of a box of six pixels
    found, growth = deblurred(seen, np.full(picture.shape, 0.01, np.float32), blur, 1)
    assert abs(float(found[32, 64] / picture[32, 64]) - transfer * (2 - transfer)) < 0.02
    assert growth.max() <= 4 and np.allclose(growth[32, 64], 4)  # the noise at most doubles


def test_noise_alone_and_slow_motion_are_left_as_they_are() -> None:
    random = np.random.default_rng(3)
    noise = 0.3 * random.normal(size=(96, 96)).astype(np.float32)
    variance = np.full(noise.shape, 0.09, np.float32)
    slow, fast = (np.full((96, 96, 2), length / np.sqrt(2), np.float32) for length in (0.9, 4.0))
    assert np.array_equal(deblurred(noise, variance, slow, 1)[0], noise)
    assert np.std(deblurred(noise, variance, fast, 1)[0]) < 1.1 * np.std(noise)  # it would be 2 without the gate


def test_wires_that_move_during_the_pulse_get_contrast_back() -> None:
    run = enhance_blur.blurred_run(0, 0)
    shares = [float(np.mean([enhance_blur.share(0, k, values_of(e)) for k, e in enumerate(play(run, settings))][6:]))
              for settings in (OFF, ON)]
    assert shares[1] > shares[0] + 0.05, shares


def test_without_a_stated_pulse_or_motion_the_bits_are_those_of_the_chain_without_it() -> None:
    run = enhance_blur.blurred_run(1, 0)[:4]
    untold = [replace(f, exposure=Exposure()) for f in run]
    for ours, plain in zip(play(untold, ON), play(untold, OFF), strict=True):
        assert np.array_equal(values_of(ours), values_of(plain)) and np.array_equal(ours.sigma, plain.sigma)
        assert any("pulse" in badge for badge in ours.badges) and not plain.badges
    still = [replace(f, pixels=run[0].pixels) for f in run]
    for ours, plain in zip(play(still, ON), play(still, OFF), strict=True):
        assert np.array_equal(values_of(ours), values_of(plain)) and np.array_equal(ours.display, plain.display)
