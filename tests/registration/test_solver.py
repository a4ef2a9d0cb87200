# SPDX-License-Identifier: Apache-2.0
"""Does the solver find poses, with one or several views and bodies? Pictures are exact formulas here."""

from dataclasses import replace

import numpy as np
import pytest
from ellipsoids import Ellipsoid, line_integrals

from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.similarity import GRADIENT, NCC
from registration.solver import Problem, Sight, Stage, adjoint, solve

CARM = CArm.centered((48, 48), 5.0, 1000, 750)


def blobs(seed, count=9, spread=55):
    rng = np.random.default_rng(seed)
    return [Ellipsoid(spread * rng.uniform(-1, 1, 3), rng.uniform(9, 24, 3), np.eye(3), 0.02) for _ in range(count)]


def renderer(parts):
    def render(carm, carm_from_body, jacobian):
        picture = line_integrals(parts, carm, carm_from_body).astype(np.float32)
        if not jacobian:
            return picture, None
        h = np.array([1e-3] * 3 + [0.1] * 3)
        columns = [(line_integrals(parts, carm, Rigid.exp(s) @ carm_from_body)
                    - line_integrals(parts, carm, Rigid.exp(-s) @ carm_from_body)) / (2 * s.max()) for s in np.diag(h)]
        return picture, np.stack(columns).astype(np.float32)

    return render


def stages(sights, renders):
    return (Stage(sights, renders, NCC, 12), Stage(sights, renders, GRADIENT, 10, tolerance_px=0.002))


def test_one_view_finds_the_pose_from_five_degrees_and_ten_millimeters():
    parts = blobs(0)
    true = carm_from_patient_at(20, -10, [3, 2, 1])
    fixed = line_integrals(parts, CARM, true).astype(np.float32)
    problem = Problem(stages((Sight(fixed, np.ones_like(fixed), CARM),), (renderer(parts),)))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        axis, way = (x / np.linalg.norm(x) for x in rng.normal(size=(2, 3)))
        start = Rigid.exp([*(np.radians(5) * axis), *(10 * way)]) @ true
        found = solve(problem, [start]).room_from_body[0]
        assert np.abs(Rigid.log(found @ Rigid.inverse(true)) * [100, 100, 100, 1, 1, 0.2]).max() < 0.5


def test_two_views_see_the_depth_that_one_does_not():
    parts, rng = blobs(1), np.random.default_rng(1)
    room_from_body = Rigid.exp([0.05, 0.02, -0.03, 3, -2, 1])
    places = (carm_from_patient_at(0, 0, [0, 0, 0]), carm_from_patient_at(80, 5, [0, 0, 0]))
    sights = []
    for place in places:
        exact = line_integrals(parts, CARM, place @ room_from_body)
        fixed = (exact + 0.05 * exact.max() * rng.normal(size=exact.shape)).astype(np.float32)
        sights.append(Sight(fixed, np.ones_like(fixed), CARM, place))
    start = Rigid.exp([0.08, -0.05, 0.06, 8, 9, -8]) @ room_from_body

    def depth_error(used):
        problem = Problem(stages(tuple(used), (renderer(parts),)))
        error = solve(problem, [start]).room_from_body[0] @ Rigid.inverse(room_from_body)
        return abs((places[0] @ error @ Rigid.inverse(places[0]))[2, 3])

    assert depth_error(sights) < 0.3  # mm; along the first view's rays
    assert depth_error(sights) < depth_error(sights[:1])


def test_two_bodies_that_overlap_move_each_by_its_own_pose():
    bodies = (blobs(2), blobs(3))
    true = [carm_from_patient_at(10, 0, [0, 0, 0]),
            Rigid.translation(6, -8, 4) @ carm_from_patient_at(14, 3, [0, 0, 0])]
    fixed = sum(line_integrals(b, CARM, t) for b, t in zip(bodies, true, strict=True)).astype(np.float32)
    problem = Problem(stages((Sight(fixed, np.ones_like(fixed), CARM),), tuple(renderer(b) for b in bodies)))
    rng = np.random.default_rng(4)
    start = [Rigid.exp([*(0.03 * rng.normal(size=3)), *(3 * rng.normal(size=3))]) @ t for t in true]
    found = solve(problem, start).room_from_body
    for f, t in zip(found, true, strict=True):
        assert np.abs((f @ Rigid.inverse(t))[:2, 3]).max() < 0.2
    held = solve(replace(problem, free=(True, False)), start).room_from_body
    assert np.array_equal(held[1], start[1])
    assert not np.array_equal(held[0], start[0])


def test_a_motion_seen_from_another_frame_is_the_same_motion():
    place = carm_from_patient_at(33, -12, [10, 20, 30])
    xi = np.array([0.1, -0.2, 0.05, 3, 4, -5])
    assert np.allclose(Rigid.exp(adjoint(place) @ xi), place @ Rigid.exp(xi) @ Rigid.inverse(place))


def test_nothing_in_the_picture_moves_nothing():
    parts = blobs(5)
    blank = np.zeros(CARM.shape, np.float32)
    start = carm_from_patient_at(0, 0, [0, 0, 0])
    solution = solve(Problem(stages((Sight(blank, blank + 1, CARM),), (renderer(parts),))), [start])
    assert solution.likeness.value == pytest.approx(0, abs=1e-6)
    assert np.allclose(solution.room_from_body[0], start)
