# SPDX-License-Identifier: Apache-2.0
"""Do the outlines of bones propose poses that lay them on a picture's edges? Pictures are exact formulas."""

import numpy as np
import pytest
from ellipsoids import Ellipsoid, line_integrals, voxels

from registration.bone_edges import NAME, BoneEdges, BoneSurface, edges, nearness
from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at
from registration.ladder import Ladder
from registration.model import Settings, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

CARM = CArm.centered((192, 192), 1.0, 1020, 765)
BONE = 0.05  # 1/mm


def forearm():
    """Two long bones of unlike size, one with a knob at one end: no turn makes it look like itself."""
    axes = np.eye(3)
    return [Ellipsoid(np.array([-12.0, 0, 0]), np.array([7, 7, 55.0]), axes, BONE),
            Ellipsoid(np.array([14.0, 4, -10]), np.array([5, 6, 38.0]), axes, BONE),
            Ellipsoid(np.array([-8.0, -6, 44]), np.array([14, 9, 10.0]), axes, BONE)]


def pose(seed):
    rng = np.random.default_rng(seed)
    return Rigid.translation(*rng.uniform(-15, 15, 2), rng.uniform(-60, 60)) @ Rigid.exp(
        [*rng.normal(size=3), 0, 0, 0]) @ carm_from_patient_at(20, 5, np.zeros(3))


def view(true, extra=0.0):
    exact = line_integrals(forearm(), CARM, true) + extra
    noisy = exact + np.random.default_rng(1).normal(0, 0.02, exact.shape)
    return View(noisy.astype(np.float32), np.ones(CARM.shape, np.float32), CARM)


@pytest.fixture(scope="module")
def model():
    return VolumeModel(voxels(forearm(), 1.5, half_mm=(40, 40, 66)), np.zeros(3))


def test_points_lie_on_the_bones_and_their_normals_stand_on_the_surface(model):
    surface = BoneSurface.of(model.attenuation)
    assert 500 < len(surface.points) <= 4000
    off, steep = np.inf, None
    for part in forearm():
        local = (surface.points - part.center) / part.radii
        mm = np.abs(np.linalg.norm(local, axis=1) - 1) * part.radii.min()
        normal = local / part.radii
        agrees = np.abs((normal / np.linalg.norm(normal, axis=1)[:, None] * surface.normals).sum(1))
        steep = agrees if steep is None else np.where(mm < off, agrees, steep)
        off = np.minimum(off, mm)
    assert np.quantile(off, 0.9) < 2.0  # mm: a voxel of 1.7
    assert np.median(steep) > 0.95


def test_edges_of_a_picture_lie_where_outlines_are(model):
    true = pose(0)
    sight = Ladder(view(true)).sight(128)
    outline = BoneSurface.of(model.attenuation).outline(sight.carm, true)
    near = nearness(sight, sight.carm.shape)
    drawn = outline > 0.5 * outline.max()
    assert near[drawn].mean() > 3 * near.mean()
    assert edges(sight).mean() < 0.1


def nearest(poses, true):
    """Of poses: how near the best comes, in steps of the sweep (15 deg of direction, 10 mm aside)."""
    # the roll shows as well, the turn about the bones' own length hardly: where that length points is what is asked for
    center = np.zeros(3)
    steps = []
    for p in poses:
        turn = np.degrees(np.arccos(np.clip(p[:3, 2] @ true[:3, 2], -1, 1)))
        aside = np.linalg.norm(CARM.project_patient(p, center) - CARM.project_patient(true, center))
        steps.append(max(turn / 15, aside * CARM.mm_per_px_at_isocenter / 10))
    return min(steps)


def test_most_pictures_have_a_proposal_near_the_truth_whatever_brightness_does(model):
    """A field as bright as the bones, which varies slowly, changes no edge."""
    v, u = np.mgrid[:192, :192] / 192.0
    field = 4.0 * np.exp(-((u - 0.2) ** 2 + (v - 0.7) ** 2) / 0.2)
    rng, near, by_chance = np.random.default_rng(0), 0, 0
    for seed in range(8):
        seen = view(pose(seed), field)
        found = BoneEdges(model)(seen)
        assert len(found) == 48 and all(s.name == NAME for s in found)
        near += nearest([s.carm_from_patient for s in found], pose(seed)) < 1.5
        some = [Rigid.translation(*rng.uniform(-15, 15, 2), 0) @ Rigid.exp([*rng.normal(size=3) * 2, 0, 0, 0])
                for _ in found]
        by_chance += nearest(some, pose(seed)) < 1.5
    assert near >= 7 and near >= by_chance + 4, (near, by_chance)


def test_they_feed_the_same_search_and_the_same_gate(model):
    knowing = model.aimed_at(np.zeros(3))
    knowing.proposers = (BoneEdges(knowing),)
    true = pose(1)
    starts = knowing.search(view(true), None, Settings())
    assert any(s.name == NAME for s in starts)
    found = knowing.register(view(true), starts, Settings())
    assert found.outcome is not Outcome.ACCEPTED or np.linalg.norm(
        CARM.project_patient(found.carm_from_patient, np.zeros(3)) - CARM.project_patient(true, np.zeros(3))) < 2


def test_without_bone_or_edges_nothing_is_proposed(model):
    flat = View(np.full(CARM.shape, 2.0) + np.linspace(0, 1, 192), np.ones(CARM.shape), CARM)
    closed = View(np.ones(CARM.shape), np.zeros(CARM.shape), CARM)
    soft = VolumeModel(Volume(np.full((30, 30, 30), 0.019, np.float32), np.diag([4.0, 4, 4, 1])))
    assert BoneEdges(model)(closed) == ()
    assert BoneEdges(soft)(flat) == () == BoneEdges(soft)(view(pose(0)))


def test_threads_change_no_bit(model):
    one, two = (VolumeModel(model.attenuation, np.zeros(3), threads=n) for n in (1, 2))
    for a, b in zip(BoneEdges(one)(view(pose(2))), BoneEdges(two)(view(pose(2))), strict=True):
        assert np.array_equal(a.carm_from_patient, b.carm_from_patient)
