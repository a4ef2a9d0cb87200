# SPDX-License-Identifier: Apache-2.0
"""Scenes and detectors: seeded, true to what they say, and two families that differ."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.training.anatomy import projected
from models.training.detector import Detector, detected, exposures, signal, stored
from models.training.simulate import MARGIN, Motion, flow_of, scene, warped
from registration.errors import BadInput


def test_a_seed_is_a_scene_and_families_share_none() -> None:
    a, b = scene(3, "train", 96, 5), scene(3, "train", 96, 5)
    assert all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("clean", "bare", "device", "flow"))
    assert np.abs(a.clean - scene(3, "test", 96, 5).clean).mean() > 0.05
    with pytest.raises(BadInput, match="family"):
        scene(3, "other")


def test_devices_are_where_the_mask_says_and_nowhere_else() -> None:
    for seed in range(6):
        s = scene(seed, "train", 96, 4)
        drawn = s.clean - s.bare
        assert drawn.min() >= 0 and s.device.min() >= 0 and s.device.max() <= 1
        assert np.all(s.device[drawn > 1e-4] > 0)
        assert s.clean.min() > 0


def test_the_flow_carries_what_moves_to_the_next_frame() -> None:
    random = np.random.default_rng(1)
    side, frames = 128, 4
    layer = cv2.GaussianBlur(random.normal(size=(side + 2 * MARGIN,) * 2).astype(np.float32), (0, 0), 4)
    motion = Motion(np.array([[0, 0], [1, 2], [3, 1], [6, -2]], float), np.array([0, 0.02, 0.05, 0.01]),
                    np.array([1, 1.02, 0.98, 1.03]))
    for k in range(1, frames):
        before, after = (warped(layer, motion.matrix(j, side / 2), side) for j in (k - 1, k))
        flow = flow_of(motion, motion, np.zeros((side, side), bool), k, side)
        v, u = np.indices((side, side), np.float32)
        moved = cv2.remap(before, u - flow[..., 0], v - flow[..., 1], cv2.INTER_CUBIC)
        inside = np.s_[20:-20, 20:-20]
        still, left = (float(np.abs(after - x)[inside].max()) for x in (before, moved))
        assert left < 0.05 * still  # two interpolations


def test_the_noise_of_a_detector_follows_its_law() -> None:
    random = np.random.default_rng(0)
    for blur in (0.0, 0.6):
        detector = Detector(1000, electronic=3, blur_px=blur)
        flat = np.full((1, 256, 256), 400.0, np.float32)
        noise = detected(flat, detector, random)[0] - 400
        expected = np.sqrt(400 * detector.noise_sd() ** 2 + 9)
        assert noise.std() == pytest.approx(expected, rel=0.03)  # 65,536 samples, correlated
        beside = np.mean(noise[:, 1:] * noise[:, :-1]) / noise.var()
        assert beside > 0.3 if blur else abs(beside) < 0.02


def test_lag_scatter_and_glare_move_signal_and_keep_its_sum() -> None:
    p = np.full((3, 64, 64), 1.0, np.float32)
    p[0, 20:40, 20:40] = 0.2
    plain = signal(p, Detector(1000, blur_px=0))
    lagging = signal(p, Detector(1000, blur_px=0, lag=0.2))
    assert lagging[1, 30, 30] == pytest.approx(0.8 * plain[1, 30, 30] + 0.2 * plain[0, 30, 30], rel=1e-5)
    glared = signal(p, Detector(1000, blur_px=0, glare=0.1))
    assert glared[0].sum() == pytest.approx(plain[0].sum(), rel=0.01) and glared[0, 30, 42] > plain[0, 30, 42]
    assert signal(p, Detector(1000, scatter=0.5)).mean() == pytest.approx(1.5 * plain.mean(), rel=0.02)


@pytest.mark.parametrize(("kind", "bits"), [("linear", 14), ("log", 12), ("display", 8)])
def test_stored_pictures_are_dark_where_dense(kind: str, bits: int) -> None:
    picture = stored(np.array([[5.0, 100.0, 900.0]], np.float32), Detector(1000, bits=bits, kind=kind))
    assert picture[0, 0] < picture[0, 1] < picture[0, 2] <= (1 << bits) - 1
    assert picture.dtype == (np.uint8 if bits == 8 else np.uint16)


def test_training_scenes_rest_and_test_scenes_do_not() -> None:
    rests = {}
    for family in ("train", "test"):
        bare = [scene(seed, family, 48, 8).bare for seed in range(6)]
        rests[family] = sum(bool(np.array_equal(b[0], b[1]) or np.array_equal(b[-1], b[-2])) for b in bare)
    assert rests["train"] >= 3 > rests["test"]  # 60 % of them pause; contrast may still flow


def test_noise_that_a_display_averages_lasts_and_is_as_strong() -> None:
    flat = np.full((6, 128, 128), 400.0, np.float32)
    noise = detected(flat, Detector(1000, 2.0, 0.0, memory=0.4), np.random.default_rng(1)) - 400
    assert np.mean(noise[4] * noise[5]) / noise[4].var() == pytest.approx(0.4, abs=0.03)
    assert noise[5].std() == pytest.approx(np.sqrt(404), rel=0.03)


def test_exposures_change_once_and_the_signal_follows() -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        doses = exposures(10, random)
        assert doses[0] == 1 and doses.min() > 0.49 and doses.max() < 2.02 and not np.allclose(doses, 1)
    p = np.full((3, 32, 32), 1.0, np.float32)
    counts = signal(p, Detector(1000), np.array([1.0, 1.0, 1.5]))
    assert counts[2] == pytest.approx(1.5 * counts[1], rel=1e-5)


def test_maps_that_were_not_corrected_stay_where_they_are() -> None:
    flat = np.full((40, 64, 64), 50.0, np.float32)
    mean = detected(flat, Detector(100, 0.0, 0.0, offset=3.0, fixed=0.02), np.random.default_rng(3)).mean(axis=0)
    assert mean.std() == pytest.approx(np.sqrt(3.0**2 + 1.0**2 + 50 / 40), rel=0.08)  # 4,096 pixels


def test_projected_patients_are_seeded_and_hold_bodies() -> None:
    a, b = (projected(96, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(a, b) and a.shape == (96, 96) and a.min() >= 0.3 and 1 < a.mean() < 4 and a.std() > 0.1
