# SPDX-License-Identifier: Apache-2.0
"""Is a volume found with no start at all, and refused where it is not there? Do many poses in one native call do what
one pose does?"""

import numpy as np
import pytest
from ellipsoids import chest, line_integrals, voxels

from registration import search
from registration.everywhere import Everywhere, seen_from_all_sides
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.ladder import Ladder
from registration.model import Settings, Start, View
from registration.projector import PATH_VARIABLE, Prepared, paths, project
from registration.projector.batch import Batch, sweep
from registration.result import Outcome
from registration.similarity import GRADIENT, NCC
from registration.solver import Problem, Sight, Stage, solve
from registration.volume_model import VolumeModel

CARM = CArm.centered((192, 192), 1.6, 1020, 765)
SMALL = CArm.centered((32, 32), 9.6, 1020, 765)
SETTINGS = Settings()


def anywhere(seed, lateral_mm=100.0, depth_mm=150.0):
    """From all around the body, 35 deg toward head or foot, any roll; the centre up to 100 mm aside, 150 mm nearer
    or farther. (Along the body these smooth ellipsoids tell nothing apart: tests/real has any rotation.)"""
    rng = np.random.default_rng(seed)
    way, roll = rng.normal(size=2), Rigid.exp([0, 0, rng.uniform(-np.pi, np.pi), 0, 0, 0])
    aside = way / np.linalg.norm(way) * lateral_mm * np.sqrt(rng.uniform())
    view = carm_from_patient_at(rng.uniform(-180, 180), rng.uniform(-35, 35), [0, 0, 0])
    return Rigid.translation(*aside, rng.uniform(-depth_mm, depth_mm)) @ roll @ view


def measured(exact, rng, photons=20000, scatter=0.3):
    signal = np.exp(-exact)
    signal = signal + scatter * signal.mean() * (1 + 0.3 * np.linspace(-1, 1, signal.shape[1]))
    return -np.log(rng.uniform(0.5, 2) * np.maximum(rng.poisson(signal * photons), 1) / photons).astype(np.float32)


def projected_error(found, true):
    at = np.array([[0, 0, 0], [30, 20, 10], [-25, 30, -30], [0, 50, 35.0]])
    apart = CARM.project_patient(found, at) - CARM.project_patient(true, at)
    return np.linalg.norm(apart, axis=1).mean() * CARM.mm_per_px_at_isocenter


def whole(person):
    """All of a person, head to foot: views along the body see its ends."""
    return voxels(person, 4.0, half_mm=(168, 112, 212))


@pytest.fixture(scope="module")
def model():
    return VolumeModel(whole(chest()), np.zeros(3))


@pytest.fixture(scope="module")
def frames():
    """Ten pictures from all around, one of them from straight behind."""
    rng = np.random.default_rng(5)
    poses = [*(anywhere(s) for s in range(9)), carm_from_patient_at(180, 0, [20, 0, 30.0])]
    return [(p, measured(line_integrals(chest(), CARM, p), rng)) for p in poses]


@pytest.fixture(scope="module")
def prepared():
    return Prepared(voxels(chest()).resampled(10.0))


def found_in(model, picture, weight=None):
    view = View(picture, np.ones_like(picture) if weight is None else weight, CARM)
    return model.register(view, model.search(view, None, SETTINGS), SETTINGS)


def test_found_from_all_around_100_mm_aside_and_150_mm_deep_or_refused(model, frames):
    right = 0
    for true, picture in frames:
        found = found_in(model, picture)
        if found.outcome is Outcome.ACCEPTED:
            assert projected_error(found.carm_from_patient, true) < 0.5
            assert found.start == "search"
            right += 1
    assert right >= 0.8 * len(frames)  # a body of smooth ellipsoids is turned upside down by mistake at times


def test_a_half_closed_collimator_and_a_half_empty_picture_are_found_or_refused(model, frames):
    true, picture = frames[0]
    weight = np.zeros_like(picture)
    weight[40:150, 30:170] = 1
    aside = Rigid.translation(95, 0, 0) @ carm_from_patient_at(20, 5, [0, 0, 0])
    half_empty = measured(line_integrals(chest(), CARM, aside), np.random.default_rng(2))
    for pose, seen, open_ in ((true, picture, weight), (aside, half_empty, None)):
        found = found_in(model, seen, open_)
        assert found.outcome is not Outcome.ACCEPTED or projected_error(found.carm_from_patient, pose) < 1.0


@pytest.mark.parametrize("who", ["another patient", "the other side"])
def test_thousands_of_trials_do_not_make_another_patient_acceptable(frames, who):
    person = chest(seed=3) if who == "another patient" else chest(mirrored=True)
    other = VolumeModel(whole(person), np.zeros(3))
    for _, picture in frames[::3]:
        found = found_in(other, picture)
        assert found.outcome is not Outcome.ACCEPTED, found.why


def test_a_hint_leads_where_it_is_right_and_does_no_harm_where_it_is_wrong(model, frames):
    true, picture = frames[2]
    view = View(picture, np.ones_like(picture), CARM)
    near = Rigid.exp([0.1, -0.08, 0.05, 12, -10, 20]) @ true
    assert model.search(view, near, SETTINGS)[0].name == "angles"
    astray = Rigid.exp([1.2, 0.5, 0, 40, 0, 0]) @ true
    starts = model.search(view, astray, SETTINGS)
    assert starts[0].name == "search"
    assert projected_error(starts[0].carm_from_patient, true) < 5


def test_a_proposer_is_a_plain_callable_and_says_who_won(model, frames):
    true, picture = frames[2]
    view = View(picture, np.ones_like(picture), CARM)
    asked = []

    def oracle(seen):
        asked.append(seen)
        return [Start(Rigid.exp([0.05, 0.05, 0, 5, 5, 5]) @ true, "network")]

    knowing = model.aimed_at(np.zeros(3))
    knowing.proposers = (oracle, lambda seen: ())
    found = knowing.register(view, knowing.search(view, None, SETTINGS), SETTINGS)
    assert asked and found.outcome is Outcome.ACCEPTED and found.start == "network"
    assert model.proposers == ()


def test_threads_and_repetition_change_no_bit(frames):
    answers = []
    for threads in (1, 2, 2):
        model = VolumeModel(whole(chest()), np.zeros(3), threads=threads)
        view = View(frames[0][1], np.ones_like(frames[0][1]), CARM)
        answers.append(np.stack([s.carm_from_patient for s in model.search(view, None, SETTINGS)]))
    assert np.array_equal(answers[0], answers[1]) and np.array_equal(answers[1], answers[2])


@pytest.mark.parametrize("path", paths())
def test_pictures_in_a_batch_are_the_projectors(prepared, path, monkeypatch):
    monkeypatch.setenv(PATH_VARIABLE, path)
    poses = np.stack([anywhere(s) for s in range(6)])  # rays along each of the three axes among them
    pictures = Batch(prepared).pictures(SMALL, poses)
    for picture, pose in zip(pictures, poses, strict=True):
        alone = project(prepared, SMALL, pose)
        assert np.abs(picture - alone).max() < 1e-5 * alone.max()  # the same kernel; rays in float32 from other sums


@pytest.mark.parametrize("measure", [NCC, GRADIENT], ids=["picture", "gradient"])
def test_a_climb_is_the_solvers(prepared, measure):
    true = anywhere(1, 20, 20)
    starts = np.stack([Rigid.exp(np.array([0.08, -0.05, 0.06, 8, -5, 20]) * k) @ true for k in (1.0, -0.7)])
    batch, weight = Batch(prepared), np.ones(SMALL.shape, np.float32)
    weight[:5] = 0.3
    fixed = batch.pictures(SMALL, true[None])[0]
    scored, at_start = batch.climb(SMALL, fixed, weight, starts, gradient=measure is GRADIENT, iterations=0)
    assert np.array_equal(scored, starts)
    once, _ = batch.climb(SMALL, fixed, weight, starts, gradient=measure is GRADIENT, iterations=1)

    def render(carm, pose, jacobian):
        return project(prepared, carm, pose, jacobian=True) if jacobian else (project(prepared, carm, pose), None)

    stage = Stage((Sight(fixed, weight, SMALL),), (render,), measure, 1)
    for start, value, pose in zip(starts, at_start, once, strict=True):
        moving = project(prepared, SMALL, start)
        assert measure.evaluate(moving, fixed, weight).value == pytest.approx(value, abs=1e-4)
        other = solve(Problem((stage,)), [start]).room_from_body[0]
        assert np.abs(Rigid.apply(pose, np.eye(3) * 50) - Rigid.apply(other, np.eye(3) * 50)).max() < 0.1  # rounding
    top, values = batch.climb(SMALL, fixed, weight, starts, gradient=measure is GRADIENT, iterations=15)
    assert (values > 0.999).all() and (values > at_start).all()
    for pose in top:
        apart = Rigid.apply(pose, np.eye(3) * 50) - Rigid.apply(true, np.eye(3) * 50)
        assert np.abs(apart[:, :2]).max() < 0.7  # a tenth of a pixel, where a climb ends


def test_a_sweep_finds_the_turn_and_the_shift(prepared):
    batch = Batch(prepared)
    size = 61
    large = CArm.centered((size, size), 9.6, 1020, 765)
    pose = anywhere(3, 0, 0)
    rolled = np.eye(4)
    rolled[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    picture = batch.pictures(large, (rolled @ pose)[None])[0]
    fixed = np.ascontiguousarray(picture[17:17 + 32, 12:12 + 32])
    carm = CArm((32, 32), (9.6, 9.6), 1020, 765, (15.0, 15.0))
    for stride in (1, 2, 3):  # shifts that are left out at first are found beside the best
        score, shift = sweep(batch.pictures(large, pose[None]), 9.6, carm, fixed, np.ones_like(fixed),
                             np.array([0.0, 0.25, 0.5, 0.75]), (8, 6), stride=stride)
        assert int(np.argmax(score[0])) == 2
        assert score[0, 2] > 0.99  # interpolated once
        assert shift[0, 2].tolist() == [12 - 15, 17 - 15]


def slowly_spoiled(seed, amount):
    """A pose, and its picture under a field as broad as scatter's, in which what differs slowly is not the body's."""
    true = anywhere(seed, 60, 60)
    v, u = np.mgrid[:192, :192] / 192.0
    field = amount * np.exp(-((u - 0.8) ** 2 + (v - 0.25) ** 2) / (2 * 0.3**2))
    rng = np.random.default_rng(seed)
    return true, (line_integrals(chest(), CARM, true) + field + rng.normal(0, 0.02, CARM.shape)).astype(np.float32)


@pytest.mark.parametrize("seed", [11, 15])
def test_search_sees_through_a_broad_field_by_a_second_look(model, monkeypatch, seed):
    true, picture = slowly_spoiled(seed, 4.0)
    view = View(picture, np.ones_like(picture), CARM)
    found = model.search(view, None, SETTINGS)
    assert projected_error(found[0].carm_from_patient, true) < 2
    monkeypatch.setattr(search, "REFUSE", -1.0)
    once = model.search(view, None, SETTINGS)
    assert projected_error(once[0].carm_from_patient, true) > 10  # 40 mm and more


def test_directions_cover_the_sphere_within_twelve_degrees():
    looks = seen_from_all_sides(np.zeros(3))[:, 2, :3]
    way = np.random.default_rng(0).normal(size=(2000, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    nearest = np.degrees(np.arccos(np.clip((way @ looks.T).max(1), -1, 1)))
    assert nearest.max() < 12 and np.median(nearest) < 7


def test_promising_poses_lay_the_volume_where_it_is_seen(model):
    """With nothing between picture and volume but the steps of the sweep, the first is near the truth."""
    ladder = Ladder(View(project(model.attenuation, CARM, anywhere(8)), np.ones(CARM.shape, np.float32), CARM))
    small = ladder.sight(16)
    poses = model.everywhere(small.carm).promising(small.fixed, small.weight, 10)
    apart = [Rigid.angle_deg(p @ Rigid.inverse(anywhere(8))) for p in poses]
    assert min(apart) < 20
    for p in poses:
        Rigid.checked(p, "pose")


def test_a_field_anywhere_within_a_long_volume_is_in_reach(prepared):
    carm = CArm.centered((16, 16), 19.2, 1020, 765)
    short, long = (Everywhere(Batch(prepared), np.zeros(3), extent, carm) for extent in (300.0, 800.0))
    per_px = carm.mm_per_px_at_isocenter
    assert short.reach_px[0] * per_px >= 100 and long.reach_px[0] * per_px >= (800 - 230) / 2


def test_where_the_first_poses_explain_the_picture_no_others_climb(model, frames, monkeypatch):
    true, picture = frames[0]
    view, climbing = View(picture, np.ones_like(picture), CARM), []

    def counted(model, ladder, starts, settings):
        climbing.append(len(starts))
        return climbed(model, ladder, starts, settings)

    climbed = search.climbed
    monkeypatch.setattr(search, "climbed", counted)
    found = model.search(view, None, SETTINGS)
    assert climbing == [search.FIRST] and projected_error(found[0].carm_from_patient, true) < 1
    monkeypatch.setattr(VolumeModel, "explains", lambda *_: False)
    model.search(view, None, SETTINGS)
    assert climbing[1:3] == [search.FIRST, search.PROMISING]


def test_of_candidates_near_each_other_only_the_best_stays():
    base = anywhere(0)
    poses = np.stack([base, Rigid.exp([0.02, 0, 0, 3, 0, 10]) @ base, Rigid.exp([0.3, 0, 0, 0, 0, 0]) @ base])
    kept = search.distinct(poses, np.array([0.5, 0.9, 0.7]), np.zeros(3))
    assert kept == [1, 2]
