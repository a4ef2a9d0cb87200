# SPDX-License-Identifier: Apache-2.0
"""Stabilising: the anatomy stands still, and the C-arm goes with the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import scenes

from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.enhance.stabilise import MOST
from fluoronav.imaging.frame import Angles, Exposure, Frame
from registration.geometry import CArm

SIDE = 160
CARM = CArm((SIDE, SIDE), (0.3, 0.4), 1100, 750, (70.5, 83.0))
MARKER = np.array([[4.0, -6.0, 15.0]])  # in the C-arm frame, mm


def breathing(k: int) -> tuple[float, float]:
    """Where the anatomy lies in frame k, px."""
    phase = 2 * np.pi * k / 30
    return 1.5 * float(np.sin(phase)), 5.0 * float(np.sin(phase / 2) ** 2)


def frame(k: int, at: tuple[float, float], angles: Angles | None = None, seed: int = 6) -> Frame:
    """Textured anatomy moved by `at`, with a wire that moves otherwise and a marker that moves along."""
    v, u = np.mgrid[:SIDE, :SIDE].astype(float)
    x, y = u - at[0], v - at[1]
    p = 1.5 + 0.4 * np.sin(x / 9) * np.cos(y / 13) + 0.3 * np.sin((x + 2 * y) / 23) + 0.2 * np.cos((x - y) / 5)
    mu, mv = CARM.project(MARKER)[0]
    p += 0.8 * np.exp(-((x - mu) ** 2 + (y - mv) ** 2) / 8)
    p += 0.5 * np.clip(1.5 - np.abs(u - 60 - 0.3 * v - 3 * (k % 12)), 0, 1)
    pixels = scenes.counts(p, np.random.default_rng([seed, k]))
    return Frame(pixels, k, k * 66_666_667, CARM, angles, Exposure(), scenes.STATED, np.ones(p.shape, bool), "test")


def play(frames: list[Frame], **heads: bool) -> list[Enhanced]:
    """All enhanced frames of a run."""
    chain, state, out = Chain(ChainSettings(stabilise=True, **heads)), None, []
    for one in frames:
        state, enhanced = chain.step(state, one)
        out.append(enhanced)
    return out


def test_breathing_is_taken_away_to_half_a_pixel() -> None:
    paths = np.array([breathing(k) for k in range(45)])
    shifts = np.array([e.shift_px for e in play([frame(k, breathing(k)) for k in range(45)])])
    left = paths + shifts - (paths + shifts).mean(axis=0)
    assert np.sqrt((left**2).sum(axis=1).mean()) < 0.5
    assert np.sqrt(((paths - paths.mean(axis=0)) ** 2).sum(axis=1).mean()) > 1.5  # there was something to take away


@pytest.mark.parametrize("superres", [False, True])
def test_a_point_projected_through_the_carm_lands_on_the_same_anatomy(superres: bool) -> None:
    k = 10  # the wire is elsewhere then
    enhanced = play([frame(j, breathing(j)) for j in range(k + 1)], superres=superres)[-1]
    factor = 2 if superres else 1
    assert enhanced.carm is not None and max(np.abs(enhanced.shift_px)) > 2
    # the marker moved with the patient: a shift of the pose, here of the picture
    moved = enhanced.carm.project(MARKER)[0] + factor * np.array(breathing(k))
    u, v = np.round(moved).astype(int)
    reach = 4 * factor
    around = enhanced.line_integrals[v - reach: v + reach + 1, u - reach: u + reach + 1]
    weight = np.maximum(around - np.quantile(around, 0.6), 0)
    rows, columns = np.mgrid[-reach: reach + 1, -reach: reach + 1]
    center = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum() + (u, v)
    assert np.hypot(*(center - moved)) < 1.0 * factor  # of a blob 4 px wide, in noise


def test_borders_that_nothing_is_known_of_are_not_valid() -> None:
    enhanced = play([frame(j, breathing(j)) for j in range(15)])[-1]
    dv = enhanced.shift_px[1]
    assert dv < -2
    assert not enhanced.valid[SIDE - int(-dv):].any() and enhanced.valid[20: SIDE - 20, 20: SIDE - 20].all()
    assert not enhanced.display[SIDE - int(-dv):].any()


def test_panning_is_followed_and_the_picture_comes_back() -> None:
    shifts = np.array([e.shift_px for e in play([frame(k, (1.2 * min(k, 40), 0.0)) for k in range(70)])])
    assert np.abs(shifts).max() <= MOST * SIDE + 1e-6
    assert abs(shifts[-1, 0]) < 0.8 * np.abs(shifts[:, 0]).max()  # it does not stay at the end of its rope


def test_another_view_starts_anew_and_an_unlike_picture_is_said() -> None:
    views = [frame(k, breathing(k), Angles(0, 0)) for k in range(10)] + [frame(10, breathing(10), Angles(30, 0))]
    assert play(views)[-1].shift_px == (0.0, 0.0)
    other = scenes.frame(scenes.counts(1.5 + 0 * scenes.body(SIDE), np.random.default_rng(3)), 10)
    out = play([scenes.frame(frame(k, breathing(k)).pixels, k) for k in range(10)] + [other])
    assert any("not stabilised" in badge for badge in out[-1].badges)


def test_off_is_bit_identical() -> None:
    frames = [frame(k, breathing(k)) for k in range(4)]
    chain, state = Chain(), None
    for one in frames:
        state, plain = chain.step(state, one)
    still = play([frames[0]])[0]
    assert still.shift_px == (0.0, 0.0) and np.array_equal(still.values, Chain().step(None, frames[0])[1].values)
    assert plain.carm == CARM and plain.shift_px == (0.0, 0.0)
