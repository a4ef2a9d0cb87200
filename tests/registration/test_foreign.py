# SPDX-License-Identifier: Apache-2.0
"""What only the frame has: does a mask take it out to the last bit, and do robust weights help and not hold?

Pictures come from exact formulas; tests/real has the same on a real chest, by another projector.
"""

from dataclasses import replace

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels

from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.ladder import Ladder
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import FINE, VolumeModel

CARM = CArm.centered((192, 192), 1.6, 1020, 765)
TARGETS = np.array([[0, 0, 0], [30, 20, 10], [-25, 30, -30], [0, 50, 35.0]])
POSES, DRAWS, DENSE = range(2), 8, (0.0, 0.1, 1.0, 3.0)
START = Rigid.exp([0.02, -0.015, 0.02, 3, -2.5, 4])
SETTINGS = Settings()


def pose(seed):
    rng = np.random.default_rng(seed)
    return Rigid.exp(rng.normal(size=6) * (0.05, 0.05, 0.05, 8, 8, 15)) @ carm_from_patient_at(
        rng.uniform(-30, 30), rng.uniform(-15, 15), [0, 0, 0])


def error(found, true):
    apart = CARM.project_patient(found, TARGETS) - CARM.project_patient(true, TARGETS)
    return np.linalg.norm(apart, axis=1).mean() * CARM.mm_per_px_at_isocenter


def staples(draw, dense):
    """40 short lines in all directions, (192, 192), line integral `dense`."""
    rng, picture = np.random.default_rng(draw), np.zeros(CARM.shape, np.float32)
    along = np.linspace(0, 9, 20)
    for _ in range(40):
        (v, u), way = rng.integers(10, 180, 2), rng.uniform(0, np.pi)
        picture[(v + along * np.sin(way)).astype(int), (u + along * np.cos(way)).astype(int) % 192] = dense
    return picture


@pytest.fixture(scope="module")
def model():
    return VolumeModel(voxels(chest()), np.zeros(3))


@pytest.fixture(scope="module")
def exact():
    return [line_integrals(chest(), CARM, pose(s)) for s in POSES]


@pytest.fixture(scope="module")
def found(model, exact):
    """{dense: (picture, 3) of poses} found without and with robust weights, and with weights from there once more."""
    out = {}
    for dense in DENSE:
        out[dense] = []
        for seed, draw in ((s, d) for s in POSES for d in range(DRAWS)):
            noise = np.random.default_rng(3).normal(0, 0.05, CARM.shape)
            picture = (exact[seed] + noise + staples(draw, dense)).astype(np.float32)
            ladder = Ladder(View(picture, np.ones_like(picture), CARM))
            near = model.rest(ladder, FINE[:1], START @ pose(seed))
            plain, robust = (model.rest(ladder, (replace(FINE[1], robust=r),), near.room_from_body[0])
                             for r in (False, True))
            again = model.rest(ladder, FINE[1:], robust.room_from_body[0])
            out[dense].append([r.room_from_body[0] for r in (plain, robust, again)])
    return out


def moved_by_staples(found, dense):
    """(picture, 2) mm: how far from where the same picture without them leads, without and with robust weights."""
    return np.array([[error(with_them[k], without[k]) for k in (0, 1)]
                     for with_them, without in zip(found[dense], found[0.0], strict=True)])


@pytest.mark.parametrize("dense", [1.0, 3.0])
def test_staples_move_the_answer_half_as_far_where_weights_are_robust(found, dense):
    plain, robust = moved_by_staples(found, dense).T
    assert robust.mean() < 0.6 * plain.mean() and robust.max() < 0.6 * plain.max()  # 0.009 of 0.019, 0.013 of 0.024 mm


def test_staples_as_faint_as_the_noise_move_nothing(found):
    assert moved_by_staples(found, 0.1).max() < 0.01  # mm, a hundredth of a pixel


def test_where_robust_weights_lead_does_not_depend_on_where_they_are_asked_for(found):
    """Weights taken before a first step would hold a pose where it was: where it is off, edges that both pictures have
    look foreign to each other."""
    for rows in found.values():
        for plain, robust, again in rows:
            assert error(again, robust) < 0.02  # mm; the bias of voxels is 0.04, weights before the step hold 0.03
            assert error(robust, plain) > 0


def painted(picture, mask, what):
    out, rng = picture.copy(), np.random.default_rng(8)
    out[mask == 0] = {"black": 40.0, "dead": -900.0, "noise": rng.normal(0, 50, int((mask == 0).sum())),
                      "huge": 1e30}[what]
    return out


@pytest.fixture(scope="module")
def masked(exact):
    """A picture with noise, and a mask: collimator blades, a plate across the ribs, single dead pixels."""
    rng, mask = np.random.default_rng(1), np.zeros(CARM.shape, np.float32)
    mask[20:175, 15:180] = 1
    mask[70:110, 80:130] = 0
    mask[rng.integers(0, 192, 60), rng.integers(0, 192, 60)] = 0
    signal = np.exp(-exact[0])
    picture = -np.log(np.maximum(rng.poisson((signal + 0.3 * signal.mean()) * 20000), 1) / 20000)
    return picture.astype(np.float32), mask


def same(a, b):
    return all(np.array_equal(x, y) for x, y in ((a.carm_from_patient, b.carm_from_patient),
                                                  (a.covariance, b.covariance))) and a.why == b.why


@pytest.mark.parametrize("relative", [False, True], ids=["counts", "relative"])
@pytest.mark.parametrize("what", ["black", "dead", "noise", "huge"])
def test_what_is_painted_under_a_mask_changes_no_bit(model, masked, what, relative):
    picture, mask = masked
    start = Start(Rigid.exp([0.03, -0.02, 0.02, 5, -4, 8]) @ pose(0))
    clean, other = (View(p, mask, CARM, relative) for p in (picture, painted(picture, mask, what)))
    answer = model.register(clean, [start], SETTINGS)
    assert answer.outcome is Outcome.ACCEPTED and error(answer.carm_from_patient, pose(0)) < 0.15
    assert same(answer, model.register(other, [start], SETTINGS))
    assert same(model.track(clean, start, SETTINGS), model.track(other, start, SETTINGS))


def test_a_search_under_a_mask_changes_no_bit(model, masked):
    picture, mask = masked
    searched = [model.search(View(p, mask, CARM), None, SETTINGS) for p in (picture, painted(picture, mask, "dead"))]
    assert len(searched[0]) == len(searched[1]) > 0
    assert all(np.array_equal(a.carm_from_patient, b.carm_from_patient) for a, b in zip(*searched, strict=True))


def test_at_full_resolution_a_mask_takes_everything_out_as_well(masked):
    picture, mask = masked
    levels = [Ladder(View(p, mask, CARM)).sight(192) for p in (picture, painted(picture, mask, "noise"))]
    assert np.array_equal(levels[0].fixed, levels[1].fixed)
    assert np.array_equal(levels[0].fixed[mask > 0], picture[mask > 0])


def test_a_plate_that_shows_ribs_elsewhere_misleads_less_under_a_mask(model, exact):
    """No robust weight sees ribs as foreign: only a mask does."""
    rows = []
    for seed in POSES:
        noise = np.random.default_rng(3).normal(0, 0.01, CARM.shape)
        picture, mask, plate = (exact[seed] + noise).astype(np.float32), np.ones(CARM.shape), np.s_[50:140, 60:150]
        picture[plate] = np.roll(exact[seed], (10, 20), (0, 1))[plate] + 3
        mask[plate] = 0
        rows.append([error(model.rest(Ladder(View(picture, w, CARM)), FINE, START @ pose(seed)).room_from_body[0],
                           pose(seed)) for w in (mask, np.ones_like(mask))])
    hidden, shown = np.mean(rows, axis=0)
    assert hidden < 0.06 and hidden < 0.6 * shown  # 0.045 and 0.11 mm
