# SPDX-License-Identifier: Apache-2.0
"""Every fast path is held to the float64 reference, and the reference to exact formulas."""

from functools import cache

import numpy as np
import pytest
from ellipsoids import Ellipsoid, chest, line_integrals, voxels
from scipy import ndimage

from registration.errors import BadInput
from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at
from registration.projector import PATH_VARIABLE, Prepared, paths, project, projector_path, reference

CARM = CArm((40, 52), (4.6, 5.2), 1020, 765, (23.7, 18.2))  # off-centre, pixels not square, no multiple of a vector
UNITS = (1, 1, 1, 100, 100, 100)  # a step of 1 rad compares with one of 100 mm


def rms(a):
    return float(np.sqrt(np.mean(np.square(np.asarray(a, np.float64)))))


def texture(seed, shape=(30, 36, 28), smooth=1.5):
    rng = np.random.default_rng(seed)
    return np.maximum(0, 0.1 * ndimage.gaussian_filter(rng.normal(size=shape), smooth) + 0.01)


def oblique(seed, data, spacing=(2.0, 3.0)):
    """A volume around the origin in any orientation; axes flipped at random, spacings differ."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    turn = Rigid.exp([*(axis / np.linalg.norm(axis) * rng.uniform(0, 3.1)), 0, 0, 0])
    steps = rng.uniform(*spacing, 3) * np.where(rng.uniform(size=3) < 0.5, -1, 1)
    affine = turn @ np.diag([*steps, 1])
    affine[:3, 3] -= affine[:3, :3] @ ((np.array(data.shape[::-1]) - 1) / 2)
    return Volume(data, affine)


def any_pose(seed):
    rng = np.random.default_rng(seed + 100)
    return Rigid.exp([*rng.normal(size=3), *(10 * rng.normal(size=3))])


def differences(function, pose, step=1e-4):
    """Central differences (6, h, w) by the left perturbation."""
    out = []
    for a, unit in enumerate(UNITS):
        xi = np.eye(6)[a] * step * unit
        out.append((function(Rigid.exp(xi) @ pose) - function(Rigid.exp(-xi) @ pose)) / (2 * step * unit))
    return np.stack(out)


def test_reference_of_a_box_is_density_times_length():
    """Straight through a box of 20 voxels and its fall to zero at both ends: 20 pitches of full density (float32)."""
    volume = Volume(np.full((20, 24, 22), 0.03, np.float32), np.diag([2.0, 2, 2, 1]))
    carm = CArm.centered((1, 1), 1.0, 1020, 765)
    for angles in ((0, 0), (90, 0), (0, 90)):
        pose = carm_from_patient_at(*angles, volume.center_mm)
        along = {(0, 0): 24, (90, 0): 22, (0, 90): 20}[angles]
        assert reference.line_integrals(volume, carm, pose)[0, 0] == pytest.approx(0.03 * along * 2, rel=1e-7)
        assert reference.joseph(volume, carm, pose)[0, 0] == pytest.approx(0.03 * along * 2, rel=1e-7)


def test_reference_agrees_with_very_fine_sampling():
    volume, pose = oblique(3, texture(3)), any_pose(3)
    carm = CArm.centered((5, 7), 25, 1020, 765)
    source, pixels = carm.rays()
    way = (pixels - source).reshape(-1, 3)
    t = (np.arange(60000) + 0.5) / 60000
    to_index = np.linalg.inv(volume.patient_from_index) @ Rigid.inverse(pose)
    padded = np.pad(volume.data.astype(float), 1)
    fine = []
    for w in way:
        places = Rigid.apply(to_index, source + t[:, None] * w) + 1
        fine.append(ndimage.map_coordinates(padded, places.T[::-1], order=1).mean() * np.linalg.norm(w))
    # midpoint rule, 1/100 of a voxel a step
    assert np.allclose(reference.line_integrals(volume, carm, pose).ravel(), fine, rtol=1e-4, atol=1e-6)


def test_ellipsoids_come_out_as_their_formula():
    """Voxels of 1.5 mm against the exact body, away from its rim, where voxels blur a vertical slope."""
    parts = [Ellipsoid(np.array([5.0, -8, 3]), np.array([60.0, 45, 70]), np.eye(3), 0.02)]
    volume = voxels(parts, 1.5, (90, 75, 90))
    pose = any_pose(8)
    exact = line_integrals(parts, CARM, pose)
    inner = exact > 0.5 * exact.max()
    assert inner.sum() > 200
    assert rms((project(volume, CARM, pose) - exact)[inner]) < 3e-3 * rms(exact[inner])


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("seed", range(4))
def test_picture_and_jacobian_follow_the_same_rule_in_float64(path, seed):
    """Random orientations, flips, spacings, all cut off at their faces.

    Picture: float32 positions of some 500 voxels are good to 3e-5 of one, and errors of single taps cancel.
    Jacobian: the rule has a kink at every voxel's centre, which a central difference smears over its step.
    """
    volume, pose = oblique(seed, texture(seed)), any_pose(seed)
    picture, jacobian = project(volume, CARM, pose, jacobian=True, path=path)
    right = reference.joseph(volume, CARM, pose)
    assert picture.dtype == jacobian.dtype == np.float32
    assert picture.shape == CARM.shape and jacobian.shape == (6, *CARM.shape)
    assert rms(picture - right) < 1e-5 * rms(right)
    derivative = differences(lambda p: reference.joseph(volume, CARM, p), pose, 2e-5)
    for a in range(6):
        assert rms(jacobian[a] - derivative[a]) < 0.03 * rms(derivative[a]), f"column {a}"


@pytest.mark.parametrize("path", paths())
def test_chest_is_right_to_two_thousandths_and_each_column_to_five_percent(path):
    """Where pixels and voxels go together (0.6 voxels a pixel), steep and oblique, cut off at head and foot.

    Picture against the exact integral of the trilinear field: what is left is the rule, which does not see the
    field's curvature between planes. Jacobian against central differences of the rule, kinks as above.
    """
    volume = voxels(chest(), 6.0)
    carm = CArm.centered((40, 40), 4.8, 1020, 765)
    for angles in ((0, 0), (25, -12)):
        pose = Rigid.exp([0, 0, 0.5, 3, -4, 20]) @ carm_from_patient_at(*angles, [0, 0, 0])
        picture, jacobian = project(volume, carm, pose, jacobian=True, path=path)
        right = reference.line_integrals(volume, carm, pose)
        assert rms(picture - right) < 2e-3 * rms(right)
        derivative = differences(lambda p: reference.joseph(volume, carm, p), pose, 5e-4)
        for a in range(6):
            assert rms(jacobian[a] - derivative[a]) < 0.05 * rms(derivative[a]), f"column {a}"


def chest_at(edge_px):
    """The chest with voxels of 1 / 0.6 of a pixel, as a level of registration has it, seen at an angle and rolled."""
    spacing = 230.0 / edge_px / 0.6  # the picture is 230 mm wide at the isocenter
    carm = CArm.centered((edge_px, edge_px), 230.0 / edge_px * 1020 / 765, 1020, 765)
    pose = Rigid.exp([0, 0, 0.5, 3, -4, 20]) @ carm_from_patient_at(20, -12, [0, 0, 0])
    return Prepared(voxels(chest(), 3.0).resampled(spacing)), carm, pose


@cache
def truth_at(edge_px):
    """The rule's picture and central differences of it in float64, where `chest_at` looks."""
    prepared, carm, pose = chest_at(edge_px)
    step = 5e-4  # 0.05 mm, as in the benchmark
    return (reference.joseph(prepared.volume, carm, pose),
            differences(lambda p: reference.joseph(prepared.volume, carm, p), pose, step))


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("edge_px", [48, 96])
def test_fast_picture_is_right_to_five_ten_thousandths_and_each_column_to_five_percent(path, edge_px):
    """Where it is used: voxels of 1 / 0.6 of a pixel, cut off at head and foot.

    Picture: rounding to bytes cancels along rays, the less the fewer planes there are. Jacobian: the rule's kinks
    smeared over the step
    (3 to 4 %, as for the exact renderer), weights of 7 bits.
    """
    prepared, carm, pose = chest_at(edge_px)
    right, derivative = truth_at(edge_px)
    picture, jacobian = project(prepared, carm, pose, jacobian=True, fast=True, path=path)
    assert not np.array_equal(picture, project(prepared, carm, pose, path=path))  # it did not fall back
    assert rms(picture - right) < 5e-4 * rms(right)
    for a in range(6):
        assert rms(jacobian[a] - derivative[a]) < 0.05 * rms(derivative[a]), f"column {a}"


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("seed", range(6))
def test_fast_follows_the_exact_renderer_over_any_pose(path, seed):
    """Random orientations, flips, spacings, cut off at their faces, pixels of up to one voxel, windows of all widths.

    Some 30 planes of sharp texture are noisier than a chest.
    """
    volume, pose = oblique(seed, texture(seed)), any_pose(seed)
    prepared = Prepared(volume)
    for pitch in (0.9, 1.6, 2.2):
        carm = CArm((61, 70), (pitch, 1.1 * pitch), 1020, 765, (30.3, 36.1))
        right, exact = project(prepared, carm, pose, jacobian=True, path=path)
        picture, jacobian = project(prepared, carm, pose, jacobian=True, fast=True, path=path)
        assert not np.array_equal(picture, right)  # it did not fall back
        assert rms(picture - right) < 2e-3 * rms(right)
        for a in range(6):
            assert rms(jacobian[a] - exact[a]) < 0.05 * rms(exact[a]), f"column {a}"


@pytest.mark.parametrize("path", paths())
def test_fast_paths_agree_to_rounding(path):
    """The same bytes everywhere; where a position's last of 12 bits is rounded otherwise, a weight differs by 1/127."""
    carm = CArm((40, 52), (1.6, 1.7), 1020, 765, (23.7, 18.2))
    for seed in range(3):
        volume, pose = oblique(seed, texture(seed)), any_pose(seed)
        one = project(volume, carm, pose, jacobian=True, fast=True, path=paths()[0])
        other = project(volume, carm, pose, jacobian=True, fast=True, path=path)
        assert rms(one[0] - other[0]) < 1e-4 * rms(one[0])
        for a in range(6):
            assert rms(one[1][a] - other[1][a]) < 0.01 * rms(one[1][a])


@pytest.mark.parametrize("path", paths())
def test_fast_sees_metal_negative_values_and_cut_off_faces(path):
    """The byte's unit follows the range of the volume; what does not fit a byte is computed the slow way."""
    data = texture(2, smooth=3.0)
    data[10:20, 10:25, 8:18] = 0.9
    for signed in (data, data - 0.05, np.full_like(data, 0.02)):
        volume, pose = oblique(2, signed), any_pose(2)
        carm = CArm.centered((160, 170), 1.6, 1020, 765)
        right = project(volume, carm, pose)
        assert rms(project(volume, carm, pose, fast=True, path=path) - right) < 0.01 * rms(right)  # sharp edges


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("fast", [False, True])
def test_number_of_threads_changes_no_bit(path, fast):
    prepared, carm, pose = chest_at(100)  # large enough that threads are used
    one = project(prepared, carm, pose, jacobian=True, threads=1, path=path, fast=fast)
    for threads in (2, 3, 64):
        other = project(prepared, carm, pose, jacobian=True, threads=threads, path=path, fast=fast)
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    # nor does asking for the Jacobian, beyond the rounding of another order
    assert np.allclose(project(prepared, carm, pose, path=path, fast=fast), one[0], rtol=1e-5, atol=1e-6)


def test_thick_slices_seen_obliquely_are_the_same_field():
    """Slices 5 times as thick as pixels, from along the slices to across them: no view may skip over any."""
    volume = oblique(5, texture(5, (9, 40, 40)), (2.0, 2.0))
    thick = Volume(volume.data, volume.patient_from_index @ np.diag([1, 1, 5.0, 1]))
    center = Rigid.translation(*(-thick.center_mm))
    for n in range(4):
        pose = any_pose(n) @ center
        right = reference.line_integrals(thick, CARM, pose)
        assert rms(project(thick, CARM, pose) - right) < 0.01 * rms(right)  # random voxels are all curvature


@pytest.mark.parametrize("fast", [False, True])
def test_what_lies_behind_the_source_does_not_count(fast):
    volume = Volume(np.full((40, 40, 40), 0.01, np.float32), np.diag([5.0, 5, 5, 1]))
    carm = CArm.centered((8, 8), 4, 150, 50)  # the source is in the box of 200 mm, 50 mm off its middle
    picture, jacobian = project(volume, carm, carm_from_patient_at(0, 0, volume.center_mm), jacobian=True, fast=fast)
    assert np.isfinite(picture).all() and np.isfinite(jacobian).all()
    source, pixels = carm.rays()
    slant = np.linalg.norm(pixels - source, axis=-1) / 150
    assert np.abs(picture - 0.01 * 150 * slant).max() <= 0.01 * 5 * 1.05  # whole planes: right to one pitch of 5 mm


def test_a_volume_out_of_sight_throws_no_shadow():
    volume = oblique(2, texture(2))
    for shift in ((900, 0, 0), (0, -900, 0), (0, 0, 900)):
        picture, jacobian = project(volume, CARM, Rigid.translation(*shift) @ any_pose(2), jacobian=True)
        assert not picture.any() and not jacobian.any()


def test_sum_of_two_volumes_is_the_sum_of_their_pictures():
    a, b, pose = oblique(6, texture(6)), oblique(6, texture(7)), any_pose(6)
    both = project(Volume(a.data + b.data, a.patient_from_index), CARM, pose)
    assert np.allclose(both, project(a, CARM, pose) + project(b, CARM, pose), rtol=1e-4, atol=1e-5)


def test_binned_geometry_sees_the_mean_of_the_pixels():
    volume, pose = voxels(chest(), 6.0), carm_from_patient_at(10, 5, [0, 0, 0])
    fine = CArm.centered((80, 80), 2.4, 1020, 765)
    blocks = project(volume, fine, pose).reshape(40, 2, 40, 2).mean((1, 3))
    assert rms(project(volume, fine.binned(2), pose) - blocks) < 5e-3 * rms(blocks)  # curvature within a block


def test_other_projectors_agree():
    """itk-rtk's Joseph (all of it its own): trilinear too, but its outer voxels end at their faces."""
    if not hasattr(pytest.importorskip("itk"), "RTK"):
        pytest.skip("itk-rtk is not installed (pip install 'fluoronav[test]')")
    from fluoronav.bench.truth import rtk_line_integrals

    data = np.zeros((30, 36, 28), np.float32)
    data[3:-3, 3:-3, 3:-3] = texture(4, (24, 30, 22), 3.0)
    affine = np.diag([2.5, 2.0, 3.0, 1])
    affine[:3, 3] = -30, -40, -45
    volume = Volume(data, affine)
    for seed in range(3):
        pose = any_pose(seed)
        theirs = rtk_line_integrals([volume], CARM, pose)[0]
        assert rms(project(volume, CARM, pose) - theirs) < 5e-3 * rms(theirs)


def test_path_can_be_chosen_and_an_unknown_one_is_refused(monkeypatch):
    volume = oblique(0, texture(0))
    monkeypatch.setenv(PATH_VARIABLE, paths()[0])
    assert projector_path().startswith(paths()[0])
    assert np.array_equal(project(volume, CARM, any_pose(0)), project(volume, CARM, any_pose(0), path=paths()[0]))
    monkeypatch.setenv(PATH_VARIABLE, "abacus")
    with pytest.raises(BadInput, match="abacus"):
        project(volume, CARM, any_pose(0))


def test_a_pose_that_is_not_rigid_is_refused():
    with pytest.raises(BadInput, match="rigid"):
        project(oblique(0, texture(0)), CARM, np.diag([2.0, 2, 2, 1]))
