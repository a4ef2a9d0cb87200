# SPDX-License-Identifier: Apache-2.0
"""Super-resolution: the finer picture bins to the input, and its C-arm sees the same anatomy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes

from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.enhance.superres import Superres, unavailable
from fluoronav.enhance.work import Work
from fluoronav.imaging.frame import Exposure, Frame
from registration.geometry import CArm

CARM = CArm((96, 120), (0.4, 0.3), 1100, 750, (57.25, 49.5))


def frame(k: int) -> Frame:
    """A wire in a body, 96 x 120, with geometry."""
    p = scenes.body(192)[:96, :120] + scenes.wire_at(192, 80)[48:144, :120]
    pixels = scenes.counts(p, np.random.default_rng([5, k]))
    valid = np.ones(p.shape, bool)
    valid[:, :6] = False
    return Frame(pixels, k, k * 66_666_667, CARM, None, Exposure(), scenes.STATED, valid, "test")


def last(settings: ChainSettings, frames: int = 5) -> Enhanced:
    """The last frame of a run."""
    chain, state = Chain(settings), None
    for k in range(frames):
        state, enhanced = chain.step(state, frame(k))
    return enhanced


def binned(picture: np.ndarray) -> np.ndarray:
    """Means of 2x2."""
    return picture.reshape(picture.shape[0] // 2, 2, picture.shape[1] // 2, 2).mean(axis=(1, 3))


def seen_of(enhanced: Enhanced) -> np.ndarray:
    """Line integrals of what is shown, raised contrast and all."""
    assert enhanced.values is not None
    return -np.log(np.maximum(enhanced.values - scenes.DARK, 0.5) / scenes.I0)


@pytest.mark.parametrize(("contrast", "uncertainty"), [(0.0, True), (0.0, False), (1.0, False)])
def test_binned_it_is_the_clean_picture_within_what_is_stated(contrast: float, uncertainty: bool) -> None:
    stated = ChainSettings(contrast=contrast, uncertainty=uncertainty)  # sigma is the bound that is kept
    plain, fine = last(stated), last(replace(stated, superres=True))
    assert plain.values is not None and fine.values is not None
    assert fine.values.shape == fine.display.shape == fine.valid.shape == (192, 240)
    away = np.abs(binned(fine.line_integrals) - seen_of(plain)) / plain.sigma
    # bounded in the scale of unit noise; the logarithm of a mean is not the mean of logarithms, beside a wire
    assert np.sqrt((away**2).mean()) < 0.7 and np.quantile(away, 0.99) < 1.06
    assert np.array_equal(binned(fine.raw_display), plain.raw_display)  # raw stays raw
    assert np.array_equal(fine.valid[::2, ::2], plain.valid)


def test_the_carm_of_the_finer_picture_sees_a_point_on_the_same_anatomy() -> None:
    carm = last(ChainSettings(superres=True), 1).carm
    assert carm is not None
    assert carm.binned(2) == CARM and carm.pitch_mm_row_col == (0.2, 0.15)
    points = np.array([[3.0, -8, 20], [-11, 4, -30]])
    # a coarse pixel's center lies between its four fine ones
    assert np.allclose(carm.project(points), 2 * CARM.project(points) + 0.5)


def test_without_its_net_it_interpolates_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluoronav.enhance.superres.installed", lambda: ())
    enhanced = last(ChainSettings(superres=True), 2)
    assert any("interpolation alone" in badge for badge in enhanced.badges)
    assert "interpolation" in ChainSettings(superres=True).describe()


@pytest.mark.skipif(unavailable() is not None, reason=f"super-resolution: {unavailable()}")
def test_the_net_finds_more_of_a_wire_than_interpolation_does() -> None:
    fine = np.full((128, 128), 60, np.float32) + 12 * scenes.wire_at(128, 61, 1.0).astype(np.float32)
    x = binned(fine).astype(np.float32)
    item = Work(frame(0), clean=x, stabilized=x, mean=x, variance=np.full_like(x, 0.04))
    net, plain = Superres(), Superres()
    plain.why = "interpolation for comparison"
    errors = [float(((s.finer(item) - fine)[8:-8, 8:-8] ** 2).mean()) for s in (net, plain)]
    assert errors[0] < 0.9 * errors[1]  # half a decibel


def test_a_frame_that_cannot_be_used_keeps_the_size_of_the_run() -> None:
    chain = Chain(ChainSettings(superres=True))
    state, _ = chain.step(None, frame(0))
    dark = Frame(np.full((96, 120), 60, np.uint16), 1, 66_666_667, CARM, None, Exposure(), scenes.STATED,
                 np.ones((96, 120), bool), "test")
    _, enhanced = chain.step(state, dark)
    assert enhanced.display.shape == (192, 240) and enhanced.carm is not None and enhanced.carm.shape == (192, 240)
