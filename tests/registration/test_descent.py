# SPDX-License-Identifier: Apache-2.0
"""Does the descent in one native call lead where solver.py leads, and do measured values become the right pixels?"""

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels

from registration.confidence import with_intrinsics
from registration.descent import Rung, descend
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.ladder import Ladder, measured
from registration.model import View
from registration.projector import Prepared
from registration.similarity import NCC, Correlation
from registration.solver import solve
from registration.volume_model import FINE, TRACK, Plan, VolumeModel

CARM = CArm.centered((128, 128), 2.4, 1020, 765)
TRUE = carm_from_patient_at(10, 5, [0, 0, 0])


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(1)
    picture = line_integrals(chest(), CARM, TRUE) + 0.02 * rng.normal(size=CARM.shape)
    return VolumeModel(voxels(chest()), np.zeros(3)), View(picture, np.ones(CARM.shape), CARM)


def rungs_of(model, ladder, plans):
    return [model._rung(p, ladder.carm(p.edge_px)) for p in plans], [ladder.sight(p.edge_px) for p in plans]


ROBUST = (Plan(64, NCC, 6), Plan(128, Correlation(patch_px=32), 5, robust=True))


@pytest.mark.parametrize("plans", [TRACK, FINE[:1], ROBUST], ids=["track", "fine", "robust"])
def test_it_ends_where_the_solver_ends(scene, plans):
    model, view = scene
    ladder, start = Ladder(view, [p.edge_px for p in plans]), Rigid.exp([0.008, -0.01, 0.01, 2, -1.5, 4]) @ TRUE
    rungs = rungs_of(model, ladder, plans)
    rest, solved = descend(*rungs, start), solve(model.problem(ladder, plans), [start])
    assert rest is not None
    # the same steps; float32 sums are added in another order, and robust weights follow from their residuals
    bound = 3e-4 if any(p.robust for p in plans) else 1e-4
    assert np.abs(Rigid.log(rest.room_from_body[0] @ Rigid.inverse(solved.room_from_body[0]))).max() < bound
    assert rest.renders == solved.renders
    assert np.abs(rest.moving - solved.moving[0]).max() < bound * solved.moving[0].max()
    sight = ladder.sight(plans[-1].edge_px)
    normal = plans[-1].similarity.evaluate(solved.moving[0], sight.fixed, solved.weights[0],
                                           with_intrinsics(solved.jacobians[0], sight.carm)).normal
    # float32 sums, what was foreseen is summed from sums, and robust weights as above
    assert np.allclose(rest.normal.hessian, normal.hessian, atol=1e-4 * np.abs(normal.hessian).max())
    assert np.allclose(rest.normal.scores, normal.scores, atol=10 * bound * np.abs(normal.scores).max())


def test_threads_change_no_bit(scene):
    model, view = scene
    rungs = rungs_of(model, Ladder(view, [64, 128]), TRACK)
    one, two = (descend(*rungs, Rigid.translation(2, 1, 3) @ TRUE, threads=n) for n in (1, 2))
    assert np.array_equal(one.room_from_body[0], two.room_from_body[0])
    assert np.array_equal(one.normal.scores, two.normal.scores)


def test_a_lean_is_put_before_the_last_level(scene):
    model, view = scene
    still = (Plan(64, NCC, 0), Plan(128, NCC, 0))
    lean = np.array([0.01, 0, 0, 1.0, 2.0, 3.0])
    rest = descend(*rungs_of(model, Ladder(view, [64, 128]), still), TRUE, lean=lean)
    assert np.allclose(rest.room_from_body[0], Rigid.exp(lean) @ TRUE)
    assert np.allclose(rest.lean, lean)


def test_where_bytes_do_not_serve_there_is_no_answer_but_the_solvers(scene):
    _, view = scene
    volume = voxels(chest())
    data = volume.data.copy()
    data[50, 30, 50] = 1e4 * data.max()  # metal takes up a byte's range
    metal = Prepared(type(volume)(data, volume.patient_from_index))
    rung = Rung(CARM, metal, NCC, 3, False, 0.3)
    assert descend([rung], [Ladder(view, [128]).sight(128)], TRUE) is None


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_counts_of_larger_pixels_are_the_sums_of_the_valid_ones(kind, k):
    rng = np.random.default_rng(k)
    values, valid = rng.integers(0, 20000, (50, 61)).astype(kind), rng.random((50, 61)) > 0.3
    valid[:8, :8] = False
    found, weight = measured(values, valid, k, dark=30.0, floor=0.5, open_beam=20000.0)
    rows, cols = 50 // k, 61 // k

    def summed(a):
        return a[:rows * k, :cols * k].reshape(rows, k, cols, k).sum((1, 3), dtype=float)

    mass = summed(valid)
    seen = mass > 0
    assert np.allclose(weight, mass / k**2)
    assert weight[0, 0] == 0
    means = summed(np.maximum(values.astype(float) - 30, 0.5) * valid)[seen] / mass[seen]
    assert np.allclose(found[seen], -np.log(means / 20000), atol=1e-5)  # the logarithm is right to 4e-6
    plain, _ = measured(values, valid, k)
    assert np.allclose(plain[seen], summed(values * valid)[seen] / mass[seen], rtol=1e-5)
