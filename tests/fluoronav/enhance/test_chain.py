# SPDX-License-Identifier: Apache-2.0
"""The chain: less noise, no lag, nothing poisoned, the same bits again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scenes

from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.imaging.frame import Frame, Intensity

SIDE = 192


def still(k: int, seed: int = 0, dose: float = 1.0) -> Frame:
    """Frame k of a scene in which nothing moves."""
    return scenes.frame(scenes.counts(scenes.body(SIDE), np.random.default_rng([seed, k]), dose), k)


def play(frames: list[Frame], chain: Chain | None = None) -> list[Enhanced]:
    """All enhanced frames of a run."""
    work, state, out = chain or Chain(), None, []
    for frame in frames:
        state, enhanced = work.step(state, frame)
        out.append(enhanced)
    return out


def same(a: Enhanced, b: Enhanced) -> bool:
    """Whether two enhanced frames agree bit for bit."""
    return all(np.array_equal(getattr(a, name), getattr(b, name))
               for name in ("line_integrals", "sigma", "display", "raw_display", "values"))


def test_noise_falls_to_less_than_a_third_where_nothing_moves() -> None:
    runs = [play([still(k, seed) for k in range(16)])[-1].line_integrals for seed in range(6)]
    raw = np.stack([-np.log(np.maximum(still(15, s).pixels - scenes.DARK, 0.5) / scenes.I0) for s in range(6)])
    assert np.std(runs, axis=0).mean() < 0.3 * np.std(raw, axis=0).mean()
    assert abs(float(np.mean(np.stack(runs) - scenes.body(SIDE)))) < 0.002  # unbiased, in line integrals


@pytest.mark.parametrize("frames", [1, 3, 16])
def test_sigma_is_what_the_picture_really_scatters_by(frames: int) -> None:
    last = [play([still(k, seed) for k in range(frames)])[-1] for seed in range(10)]
    real = np.std([e.line_integrals for e in last], axis=0, ddof=1)
    said = np.mean([e.sigma for e in last], axis=0)
    # 15 %: one calibration for the picture, ten runs
    assert np.sqrt((said**2).mean() / (real**2).mean()) == pytest.approx(1, abs=0.15)


def test_a_moving_wire_keeps_its_contrast_and_leaves_no_ghost() -> None:
    def run(wired: bool) -> list[Enhanced]:
        out = []
        for k in range(14):
            p = scenes.body(SIDE) + (scenes.wire_at(SIDE, 50 + 6 * k) if wired else 0)
            out.append(scenes.frame(scenes.counts(p, np.random.default_rng([9, k])), k))
        return play(out)

    plain, wired = run(False)[-1].line_integrals, run(True)[-1].line_integrals
    drawn, old = scenes.wire_at(SIDE, 50 + 6 * 13), scenes.wire_at(SIDE, 50 + 6 * 10)
    kept = float(((wired - plain) * drawn).sum() / (drawn**2).sum())
    ghost = float(((wired - plain) * old).sum() / (old**2).sum())
    assert kept > 0.85  # a filter with the same noise and no gate keeps 0.1
    assert abs(ghost) < 0.05


def test_the_same_frames_give_the_same_bits() -> None:
    frames = [still(k) for k in range(6)]
    assert all(same(a, b) for a, b in zip(play(frames), play(frames), strict=True))


@pytest.mark.parametrize("bad", ["constant", "saturated", "black", "smaller"])
def test_after_a_frame_that_cannot_be_used_the_next_one_starts_anew(bad: str) -> None:
    good = [still(k) for k in range(4)]
    pixels = {"constant": np.full((SIDE, SIDE), 700, np.uint16), "black": np.zeros((SIDE, SIDE), np.uint16),
              "saturated": np.full((SIDE, SIDE), 16383, np.uint16), "smaller": good[0].pixels[:100, :90]}[bad]
    spoiled = scenes.frame(np.ascontiguousarray(pixels), 2)
    out = play([good[0], good[1], spoiled, replace(good[3], index=3)])
    assert out[2].badges and np.isfinite(out[2].line_integrals).all() and np.isfinite(out[2].sigma).all()
    assert same(out[3], play([good[3]])[0])


def test_a_gap_in_time_starts_anew() -> None:
    late = replace(still(3), time_ns=20_000_000_000)
    assert same(play([still(0), still(1), late])[-1], play([late])[0])


def test_a_step_of_exposure_neither_smears_nor_blinds() -> None:
    frames = [still(k) for k in range(8)] + [still(k, dose=1.6) for k in range(8, 12)]
    out = play(frames)
    truth = scenes.body(SIDE) - np.log(1.6)
    for e in out[8:]:
        assert abs(float((e.line_integrals - truth).mean())) < 0.01
    assert any("exposure step" in badge for badge in out[8].badges)
    assert out[8].sigma.mean() < 0.6 * play([frames[8]])[0].sigma.mean()  # what was learned is kept


def test_a_panned_scene_is_followed_and_the_flow_says_so() -> None:
    random = np.random.default_rng(6)
    texture = np.kron(random.normal(size=(60, 90)), np.ones((8, 8)))[:400, :700] * 0.25
    import cv2

    texture = cv2.GaussianBlur(texture, (0, 0), 4) * 3
    frames = [scenes.frame(scenes.counts(1.2 + texture[:256, 4 * k: 4 * k + 256], random), k) for k in range(10)]
    out = play(frames)
    flow = out[-1].flow
    assert flow is not None
    moving = np.abs(flow).sum(axis=2) > 0
    assert moving.mean() > 0.3 and float(np.median(flow[..., 0][moving])) == pytest.approx(-4, abs=0.7)
    error = out[-1].line_integrals - (1.2 + texture[:256, 36:292])
    still_too = play(frames, Chain(ChainSettings(motion=False)))[-1].line_integrals - (1.2 + texture[:256, 36:292])
    assert np.sqrt((error**2).mean()) < np.sqrt((still_too**2).mean())


def test_off_means_the_raw_frame() -> None:
    frame = still(0)
    out = play([frame], Chain(ChainSettings(denoise=False)))[0]
    assert np.array_equal(out.display, out.raw_display)
    assert out.values is not None and np.array_equal(out.values, frame.pixels)


def test_a_stage_out_of_time_is_left_out_with_a_badge() -> None:
    chain = Chain()
    state, _ = chain.step(None, still(0))
    _, late = chain.step(state, still(1), skip=("denoise",))
    assert any("denoise skipped" in badge for badge in late.badges)
    assert np.array_equal(late.display, late.raw_display)


def test_a_stage_that_raises_is_switched_off_and_the_picture_comes_through() -> None:
    class Broken:
        def step(self, state: Any, item: Any) -> Any:
            raise RuntimeError("broken")

    chain = Chain()
    chain.stages["denoise"] = Broken()
    state, first = chain.step(None, still(0))
    assert any("denoise failed" in badge for badge in first.badges)
    _, second = chain.step(state, still(1))
    assert np.array_equal(second.display, second.raw_display)


def test_dense_is_dark_whatever_the_stored_polarity() -> None:
    v, u = np.mgrid[:96, :96]
    grey = np.clip(150 - 60 * ((u - 48) ** 2 + (v - 48) ** 2 < 400) + np.random.default_rng(0).normal(0, 3, u.shape),
                   0, 255).astype(np.uint8)
    for pixels, dense in ((grey, "dark"), (255 - grey, "bright")):
        out = play([scenes.frame(pixels, 0, Intensity("display", dense, 8))])[0]  # type: ignore[arg-type]
        assert out.relative and out.display[48, 48] + 60 < out.display[5, 5]
        assert out.line_integrals[48, 48] > out.line_integrals[5, 5]


def test_the_window_does_not_flicker() -> None:
    out = play([still(k) for k in range(12)])
    levels = [float(np.median(e.display)) for e in out[2:]]
    assert max(levels) - min(levels) <= 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2)])
def test_a_picture_too_small_for_neighbors_comes_through_without_a_warning(shape: tuple[int, int]) -> None:
    ramp = 900 + np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape)
    frames = [scenes.frame(ramp + np.uint16(k), k) for k in range(3)]
    for enhanced in play(frames):
        assert enhanced.display.shape == shape and np.isfinite(enhanced.line_integrals).all()
