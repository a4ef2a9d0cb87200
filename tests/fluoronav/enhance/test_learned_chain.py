# SPDX-License-Identifier: Apache-2.0
"""The chain with the learned denoiser keeps the promises of the classical one, and says where it cannot run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from test_chain import SIDE, play, same, still

from fluoronav.enhance import Chain, ChainSettings, Enhanced, mixing
from registration.errors import BadInput

LEARNED = ChainSettings(method="learned")
learned = pytest.mark.skipif(mixing.available() is not None, reason=f"learned denoiser: {mixing.available()}")


@learned
def test_noise_falls_to_less_than_a_third_where_nothing_moves() -> None:
    runs = [play([still(k, seed) for k in range(16)], Chain(LEARNED))[-1].line_integrals for seed in range(6)]
    raw = np.stack([-np.log(np.maximum(still(15, s).pixels - scenes.DARK, 0.5) / scenes.I0) for s in range(6)])
    assert np.std(runs, axis=0).mean() < 0.3 * np.std(raw, axis=0).mean()
    assert abs(float(np.mean(np.stack(runs) - scenes.body(SIDE)))) < 0.002  # unbiased, in line integrals


@learned
@pytest.mark.parametrize("frames", [1, 3, 16])
def test_sigma_is_what_the_picture_really_scatters_by(frames: int) -> None:
    last = [play([still(k, seed) for k in range(frames)], Chain(LEARNED))[-1] for seed in range(10)]
    real = np.std([e.line_integrals for e in last], axis=0, ddof=1)
    said = np.mean([e.sigma for e in last], axis=0)
    # 20 %: one factor for all weights, ten runs
    assert np.sqrt((said**2).mean() / (real**2).mean()) == pytest.approx(1, abs=0.2)


@learned
def test_a_moving_wire_keeps_its_contrast_and_leaves_no_ghost() -> None:
    def run(wired: bool) -> list[Enhanced]:
        out = []
        for k in range(14):
            p = scenes.body(SIDE) + (scenes.wire_at(SIDE, 50 + 6 * k) if wired else 0)
            out.append(scenes.frame(scenes.counts(p, np.random.default_rng([9, k])), k))
        return play(out, Chain(LEARNED))

    plain, wired = run(False)[-1].line_integrals, run(True)[-1].line_integrals
    drawn, old = scenes.wire_at(SIDE, 50 + 6 * 13), scenes.wire_at(SIDE, 50 + 6 * 10)
    assert float(((wired - plain) * drawn).sum() / (drawn**2).sum()) > 0.85
    assert abs(float(((wired - plain) * old).sum() / (old**2).sum())) < 0.05


@learned
def test_the_same_frames_give_the_same_bits_and_a_bad_one_is_forgotten() -> None:
    frames = [still(k) for k in range(5)]
    assert all(same(a, b) for a, b in zip(play(frames, Chain(LEARNED)), play(frames, Chain(LEARNED)), strict=True))
    spoiled = scenes.frame(np.full((SIDE, SIDE), 700, np.uint16), 2)
    out = play([frames[0], spoiled, replace(frames[3], index=3)], Chain(LEARNED))
    assert out[1].badges and same(out[2], play([frames[3]], Chain(LEARNED))[0])


@learned
def test_a_step_of_exposure_neither_smears_nor_blinds() -> None:
    frames = [still(k) for k in range(8)] + [still(k, dose=1.6) for k in range(8, 11)]
    out = play(frames, Chain(LEARNED))
    assert all(abs(float((e.line_integrals - scenes.body(SIDE) + np.log(1.6)).mean())) < 0.01 for e in out[8:])
    assert any("exposure step" in badge for badge in out[8].badges)


@learned
def test_the_fingerprint_names_engine_and_weights() -> None:
    told = mixing.fingerprint()
    assert told["engine"] == "openvino" and told["version"][0].isdigit()
    assert len(told["time"]) == len(told["space"]) == 64 and told["time"] != told["space"]


@learned
@pytest.mark.parametrize("shape", [(97, 83), (64, 200), (41, 40)])
def test_any_size_of_picture_goes_through(shape: tuple[int, int]) -> None:
    pixels = scenes.counts(scenes.body(256)[: shape[0], : shape[1]], np.random.default_rng(0))
    out = play([scenes.frame(pixels, k) for k in range(3)], Chain(LEARNED))
    assert out[-1].display.shape == shape and np.isfinite(out[-1].line_integrals).all()
    assert not any("failed" in badge for badge in out[-1].badges)


def test_where_it_cannot_run_the_classical_one_does_and_a_badge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "installed", lambda: ())
    out = play([still(0)], Chain(ChainSettings(method="auto")))[0]
    assert any("classical denoiser: OpenVINO is not installed" in badge for badge in out.badges)
    assert same(out, play([still(0)], Chain(ChainSettings(method="classical")))[0])
    with pytest.raises(BadInput, match="OpenVINO"):
        Chain(LEARNED)
