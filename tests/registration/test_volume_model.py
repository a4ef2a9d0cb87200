# SPDX-License-Identifier: Apache-2.0
"""Is a volume found where it is, and refused where it is not? Pictures come from exact formulas."""

import numpy as np
import pytest
from ellipsoids import WATER, Ellipsoid, chest, line_integrals, voxels

from registration.errors import BadInput, BadPixels
from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

CARM = CArm.centered((192, 192), 1.6, 1020, 765)
TARGETS = np.array([[0, 0, 0], [30, 20, 10], [-25, 30, -30], [0, 50, 35.0]])
SETTINGS = Settings()


def pose(seed):
    rng = np.random.default_rng(seed)
    return Rigid.exp(rng.normal(size=6) * (0.05, 0.05, 0.05, 8, 8, 15)) @ carm_from_patient_at(
        rng.uniform(-30, 30), rng.uniform(-15, 15), [0, 0, 0])


def off(seed, angle_deg, offset_mm, depth_mm=0.0):
    rng = np.random.default_rng(seed)
    axis, way = (x / np.linalg.norm(x) for x in rng.normal(size=(2, 3)))
    shift = way * offset_mm * rng.uniform() + [0, 0, rng.uniform(-depth_mm, depth_mm)]
    return Rigid.translation(*shift) @ Rigid.exp([*(axis * np.radians(angle_deg) * rng.uniform()), 0, 0, 0])


def measured(exact, rng, photons=20000, scatter=0.3, gain=1.0):
    """What a detector makes of exact line integrals: scatter, quantum noise, a gain nobody told."""
    signal = np.exp(-exact)
    signal = signal + scatter * signal.mean() * (1 + 0.3 * np.linspace(-1, 1, signal.shape[1]))
    return -np.log(gain * np.maximum(rng.poisson(signal * photons), 1) / photons).astype(np.float32)


def view(picture, weight=None, relative=False):
    return View(picture, np.ones_like(picture) if weight is None else weight, CARM, relative)


def error_3d(found, true):
    return np.linalg.norm(Rigid.apply(found, TARGETS) - Rigid.apply(true, TARGETS), axis=1).mean()


def error_projected(found, true):
    apart = CARM.project_patient(found, TARGETS) - CARM.project_patient(true, TARGETS)
    return np.linalg.norm(apart, axis=1).mean() * CARM.mm_per_px_at_isocenter


@pytest.fixture(scope="module")
def model():
    return VolumeModel(voxels(chest()), np.zeros(3))


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(7)
    exact = [line_integrals(chest(), CARM, pose(s)) for s in range(3)]
    return [(pose(s), e, measured(e, rng, gain=rng.uniform(0.5, 2))) for s, e in enumerate(exact)]


@pytest.mark.parametrize("bounds", [(10, 20), (20, 40, 100)], ids=["10deg-20mm", "20deg-40mm-100mm-depth"])
def test_found_within_a_millimeter_from_far_starts(model, frames, bounds):
    for n, (true, _, picture) in enumerate(frames):
        for trial in range(2):
            found = model.register(view(picture), [Start(off(10 * n + trial, *bounds) @ true)], SETTINGS)
            assert found.outcome is Outcome.ACCEPTED, found.why
            assert error_3d(found.carm_from_patient, true) < 1.0
            assert error_projected(found.carm_from_patient, true) < 0.2


def test_stated_bounds_hold_and_are_not_idle(model):
    """95 % bounds: where they are right, fewer than 10 of 12 poses hold in 2 % of such tests. What one misses is the
    same for every start and every noise (coarse voxels of smooth ellipsoids), so the poses are what is drawn."""
    held, rng = 0, np.random.default_rng(7)
    for seed in range(12):
        true = pose(seed)
        picture = measured(line_integrals(chest(), CARM, true), rng, gain=rng.uniform(0.5, 2))
        found = model.register(view(picture), [Start(off(3, 5, 10) @ true)], SETTINGS)
        at_target = np.linalg.norm((found.carm_from_patient - true)[:3, 3])  # the target is the origin
        assert at_target < found.error.target_mm < 30  # mostly the prior of SDD: 1 % are 7.65 mm of depth
        apart = CARM.project_patient(found.carm_from_patient, np.zeros(3)) - CARM.project_patient(true, np.zeros(3))
        in_picture = np.linalg.norm(apart) * CARM.mm_per_px_at_isocenter
        assert found.error.projected_mm < 1.0 and in_picture < 2 * found.error.projected_mm
        assert np.linalg.eigvalsh(found.covariance).min() > 0
        held += in_picture < found.error.projected_mm
    assert held >= 10


def test_a_wrong_sdd_is_inside_the_3d_bound_and_hardly_in_the_picture(model):
    true = pose(1)
    real = CArm(CARM.shape, CARM.pitch_mm_row_col, 1030.2, 765.0, CARM.principal_px_u_v)
    picture = measured(line_integrals(chest(), real, true), np.random.default_rng(0))
    found = model.register(view(picture), [Start(true)], SETTINGS)
    apart = Rigid.apply(found.carm_from_patient, np.zeros(3)) - Rigid.apply(true, np.zeros(3))
    assert 3 < np.linalg.norm(apart) < found.error.target_mm
    seen = CARM.project_patient(found.carm_from_patient, np.zeros(3))
    real_place = real.project_patient(true, np.zeros(3))
    assert np.linalg.norm(seen - real_place) * CARM.mm_per_px_at_isocenter < 0.3


@pytest.mark.parametrize("who", [dict(mirrored=True), dict(seed=1), dict(seed=2)], ids=["mirrored", "other", "third"])
def test_another_patient_or_side_is_never_accepted(frames, who):
    wrong = VolumeModel(voxels(chest(**who)), np.zeros(3))
    for true, _, picture in frames:
        found = wrong.register(view(picture), [Start(true)], SETTINGS)
        assert found.outcome is not Outcome.ACCEPTED
        tracked = wrong.track(view(picture), Start(true), SETTINGS)
        assert tracked.outcome is not Outcome.ACCEPTED


def garbage():
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:192, :192] / 192.0
    yield "zeros", np.zeros((192, 192))
    yield "constant", np.full((192, 192), 3.3)
    yield "white noise", rng.normal(size=(192, 192))
    yield "ramp", u + 2 * v
    yield "checkers", np.sign(np.sin(40 * u) * np.sin(40 * v))
    yield "disc", (np.hypot(u - 0.5, v - 0.5) < 0.3).astype(float)
    yield "coarse noise", np.kron(rng.normal(size=(12, 12)), np.ones((16, 16)))


@pytest.mark.parametrize("name", [n for n, _ in garbage()])
def test_garbage_is_lost_with_a_reason(model, name):
    picture = dict(garbage())[name].astype(np.float32)
    for found in (model.register(view(picture), [Start(pose(0))], SETTINGS),
                  model.track(view(picture), Start(pose(0)), SETTINGS)):
        assert found.outcome is Outcome.LOST
        assert found.carm_from_patient is None
        assert len(found.why) > 20


def test_a_closed_collimator_and_a_start_without_the_volume_are_lost(model, frames):
    true, _, picture = frames[0]
    closed = np.zeros_like(picture)
    closed[90:100, 90:100] = 1
    assert model.register(view(picture, closed), [Start(true)], SETTINGS).outcome is Outcome.LOST
    assert model.register(view(picture), [], SETTINGS).outcome is Outcome.LOST
    away = Rigid.translation(900, 0, 0) @ true  # the volume throws no shadow on the detector
    assert model.register(view(picture), [Start(away)], SETTINGS).outcome is Outcome.LOST
    assert model.track(view(picture), Start(away), SETTINGS).outcome is Outcome.LOST


def test_bad_input_is_refused_with_a_sentence(frames):
    picture = frames[0][2].copy()
    picture[3, 4] = np.nan
    with pytest.raises(BadPixels, match="NaN"):
        view(picture)
    empty = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(BadInput, match="attenuation"):
        VolumeModel(empty)
    with pytest.raises(BadInput, match="attenuation"):
        VolumeModel(Volume(np.full((8, 8, 8), -1000, np.float32), np.eye(4)))  # HU by mistake
    with pytest.raises(BadInput, match="target"):
        VolumeModel(voxels(chest()), np.array([0, np.nan, 0]))
    scaled = np.diag([2.0, 2, 2, 1])
    with pytest.raises(BadInput, match="rigid"):
        VolumeModel(voxels(chest())).register(view(frames[0][2]), [Start(scaled)], SETTINGS)


def test_display_pictures_with_an_unknown_curve_are_found(model, frames):
    true, _, picture = frames[0]
    low, high = np.quantile(picture, [0.01, 0.99])
    curve = np.clip((picture - low) / (high - low), 0, 1) ** 0.6  # the monitor's, nobody knows it
    eight_bits = np.round(curve * 255).astype(np.float32)
    found = model.register(view(eight_bits, relative=True), [Start(off(1, 10, 20) @ true)], SETTINGS)
    assert found.outcome is Outcome.ACCEPTED, found.why
    assert error_projected(found.carm_from_patient, true) < 0.5


def test_collimated_frame_with_wire_clips_and_a_contrast_filled_vessel_is_found(model, frames):
    true, exact, _ = frames[1]
    v, u = np.mgrid[:192, :192].astype(float)
    extra = 1.5 * (np.abs(u - 60 - 20 * np.sin(v / 25)) < 0.8) + 0.5 * np.exp(-(((u - 120 - 0.3 * v) / 4) ** 2))
    extra += 3.0 * ((np.abs(u - 130) < 2) & (np.abs(v - 70) < 4))
    picture = measured(exact + extra, np.random.default_rng(1))
    weight = ((np.abs(u - 96) < 70) & (np.abs(v - 96) < 60)).astype(np.float32)
    picture[weight == 0] = 0
    found = model.register(view(picture, weight), [Start(off(5, 10, 20) @ true)], SETTINGS)
    assert found.outcome is Outcome.ACCEPTED, found.why
    assert error_projected(found.carm_from_patient, true) < 0.5


def arteries(iodine=4.0):
    """Branches that contrast fills: (parts of an exact picture, points on their walls)."""
    rng = np.random.default_rng(3)
    parts, walls = [], []
    for _ in range(24):
        along = rng.normal(size=3)
        first = along / np.linalg.norm(along)
        second = np.cross(first, [0.3, 0.5, 0.8])
        second /= np.linalg.norm(second)
        axes, radii = np.stack([first, second, np.cross(first, second)]), np.array([45.0, 5.0, 5.0])
        center = rng.uniform(-1, 1, 3) * (70, 30, 80)
        parts.append(Ellipsoid(center, radii, axes, iodine * WATER))
        way = rng.normal(size=(300, 3))
        walls.append(center + way / np.linalg.norm(way, axis=1)[:, None] * radii @ axes)
    return parts, np.concatenate(walls)


def test_contrast_in_known_vessels_does_not_hide_the_patient_nor_admit_another(frames):
    true = frames[0][0]
    parts, walls = arteries()
    picture = view(measured(line_integrals(chest() + parts, CARM, true), np.random.default_rng(4)))
    start = Start(off(9, 2, 3) @ true)
    blind = VolumeModel(voxels(chest()), np.zeros(3)).track(picture, start, SETTINGS)
    found = VolumeModel(voxels(chest()), np.zeros(3), vessels_mm=walls).track(picture, start, SETTINGS)
    assert blind.outcome is not Outcome.ACCEPTED  # else this picture proves nothing
    assert found.outcome is Outcome.ACCEPTED, found.why
    assert error_projected(found.carm_from_patient, true) < 0.5
    assert found.error.projected_mm > 0.5 * error_projected(found.carm_from_patient, true)
    other = VolumeModel(voxels(chest(1)), np.zeros(3), vessels_mm=walls).register(picture, [start], SETTINGS)
    assert other.outcome is not Outcome.ACCEPTED


def test_found_without_any_start(model, frames):
    true, _, picture = frames[2]
    starts = model.search(view(picture), None, SETTINGS)
    found = model.register(view(picture), starts, SETTINGS)
    assert found.outcome is Outcome.ACCEPTED, found.why
    assert found.start == "search"
    assert error_3d(found.carm_from_patient, true) < 1.0


def test_search_of_another_patient_ends_in_refusal(frames):
    wrong = VolumeModel(voxels(chest(1)), np.zeros(3))
    picture = view(frames[0][2])
    found = wrong.register(picture, wrong.search(picture, frames[0][0], SETTINGS), SETTINGS)
    assert found.outcome is not Outcome.ACCEPTED


def test_threads_and_repetition_change_no_bit(frames):
    true, _, picture = frames[0]
    start = Start(off(2, 10, 20) @ true)
    answers = [VolumeModel(voxels(chest()), threads=t).register(view(picture), [start], Settings(threads=t))
               for t in (1, 2, 2)]
    for other in answers[1:]:
        assert np.array_equal(answers[0].carm_from_patient, other.carm_from_patient)
        assert np.array_equal(answers[0].covariance, other.covariance)


def test_tracking_follows_a_step_and_notices_when_the_patient_is_gone(model, frames):
    true, _, picture = frames[0]
    found = model.track(view(picture), Start(off(4, 3, 10) @ true, "last"), SETTINGS)
    assert found.outcome is Outcome.ACCEPTED, found.why
    assert error_projected(found.carm_from_patient, true) < 0.3
    elsewhere = model.track(view(frames[1][2]), Start(true, "last"), SETTINGS)  # the C-arm moved 20 deg
    if elsewhere.outcome is Outcome.ACCEPTED:
        assert error_projected(elsewhere.carm_from_patient, frames[1][0]) < 1.0
