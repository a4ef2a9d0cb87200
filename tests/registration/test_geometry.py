# SPDX-License-Identifier: Apache-2.0
"""Geometry is held to vectors computed apart from this code, to group axioms and to finite differences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, logm

from registration.errors import BadGeometry, BadInput
from registration.geometry import Box, CArm, Rigid, Volume, attenuation_from_hu, carm_from_patient_at

SMALL = Path(__file__).parent / "geometry_vectors.json"

tangents = st.tuples(*[st.floats(-1.7, 1.7)] * 3, *[st.floats(-300, 300)] * 3).map(np.array)


def _check_vectors(path: Path) -> None:
    vectors = json.loads(path.read_text())
    assert len(vectors["cases"]) >= 8
    for case in vectors["cases"]:
        carm = CArm(tuple(case["shape_rows_cols"]), tuple(case["pitch_mm_row_col"]), case["sdd_mm"],
                    case["sod_mm"], tuple(case["principal_px_u_v"]))
        pose = carm_from_patient_at(case["primary_deg"], case["secondary_deg"],
                                    case["isocenter_in_patient_mm"])
        np.testing.assert_allclose(pose, case["carm_from_patient"], atol=1e-9)
        pixels = carm.project_patient(pose, case["points_patient_mm"])
        np.testing.assert_allclose(pixels, case["pixels_u_v"], atol=vectors["tolerance_px"])


def test_projection_meets_the_independent_vectors() -> None:
    _check_vectors(SMALL)


@pytest.mark.real
def test_projection_meets_all_the_shared_vectors(shared_checks: Path) -> None:
    _check_vectors(shared_checks / "geometry_vectors.json")


def test_frontal_view_shows_the_patient_left_on_the_right_and_the_head_up() -> None:
    carm = CArm.centered((512, 512), 0.4, 1000, 600)
    center, left, head, back = carm.project_patient(
        carm_from_patient_at(0, 0, [0, 0, 0]), [[0, 0, 0], [50, 0, 0], [0, 0, 50], [50, 50, 0]])
    assert left[0] > center[0] and head[1] < center[1]
    assert back[0] > left[0]  # tube below the table: posterior is nearer the source and magnified more


@given(tangents)
@settings(max_examples=200, deadline=None)
def test_exp_is_the_matrix_exponential_and_log_its_inverse(xi: np.ndarray) -> None:
    generator = np.zeros((4, 4))
    generator[:3, :3] = [[0, -xi[2], xi[1]], [xi[2], 0, -xi[0]], [-xi[1], xi[0], 0]]
    generator[:3, 3] = xi[3:]
    motion = Rigid.exp(xi)
    np.testing.assert_allclose(motion, expm(generator), atol=1e-9 * (1 + np.abs(xi).max()))
    if np.linalg.norm(xi[:3]) < np.pi - 1e-3:  # beyond pi the logarithm takes the shorter way round
        np.testing.assert_allclose(Rigid.log(motion), xi, atol=1e-7 * (1 + np.abs(xi).max()))


@given(tangents, tangents, tangents)
@settings(max_examples=100, deadline=None)
def test_rigid_motions_form_a_group(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = Rigid.exp(a), Rigid.exp(b), Rigid.exp(c)
    np.testing.assert_allclose((x @ y) @ z, x @ (y @ z), atol=1e-9)
    np.testing.assert_allclose(x @ Rigid.inverse(x), np.eye(4), atol=1e-9)
    np.testing.assert_allclose(Rigid.checked(x @ y, "product"), x @ y, atol=1e-9)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, -0.8, 0]])
@pytest.mark.parametrize("angle", [0, 1e-12, 1e-7, 1e-3, np.pi / 2, np.pi - 1e-9])
def test_log_stays_accurate_near_zero_and_near_half_a_turn(axis: list[float], angle: float) -> None:
    xi = np.concatenate([np.array(axis) * angle, [3.0, -2.0, 1.0]])
    back = Rigid.log(Rigid.exp(xi))
    np.testing.assert_allclose(Rigid.exp(back), Rigid.exp(xi), atol=1e-9)
    assert np.isclose(np.linalg.norm(back[:3]), angle, atol=1e-9)
    if 1e-7 <= angle <= 2:
        assert np.abs(logm(Rigid.exp(xi)).real[:3, 3] - back[3:]).max() < 1e-6


@pytest.mark.parametrize("matrix", [np.diag([1, 1, -1, 1.0]), np.diag([2, 1, 1, 1.0]),
                                    np.full((4, 4), np.nan),
                                    np.eye(3), np.diag([1, 1, 1, 2.0])])
def test_what_is_not_rigid_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(BadGeometry, match="expected"):
        Rigid.checked(matrix, "pose")


def test_binning_cropping_and_flipping_move_pixels_and_geometry_together() -> None:
    carm = CArm((480, 640), (0.25, 0.4), 1100, 720, (300.25, 250.5))
    points = np.random.default_rng(1).uniform(-60, 60, (50, 3))
    u, v = carm.project(points).T
    np.testing.assert_allclose(carm.binned(4).project(points).T, [(u + 0.5) / 4 - 0.5, (v + 0.5) / 4 - 0.5])
    np.testing.assert_allclose(carm.cropped(Box((30, 50), (430, 600))).project(points).T, [u - 50, v - 30])
    np.testing.assert_allclose(carm.shifted(3.5, -2).project(points).T, [u + 3.5, v - 2])
    mirrored = carm.flipped_columns().project(points * [-1, 1, 1])
    np.testing.assert_allclose(mirrored.T, [639 - u, v])


def test_rays_run_through_the_points_that_meet_their_pixels() -> None:
    carm = CArm((6, 8), (5.0, 4.0), 1000, 700, (3.1, 2.2))
    source, ends = carm.rays()
    middle = source + 0.6 * (ends - source)
    v, u = np.mgrid[:6, :8]
    np.testing.assert_allclose(carm.project(middle), np.stack([u, v], -1), atol=1e-9)


def test_points_behind_the_source_have_no_picture() -> None:
    assert np.isnan(CArm.centered((64, 64), 1, 1000, 600).project([[0, 0, 600], [5, 5, 700]])).all()


@pytest.mark.parametrize("bad", [dict(pitch_mm_row_col=(0, 1)), dict(pitch_mm_row_col=(np.nan, 1)),
                                 dict(sdd_mm=0), dict(sod_mm=1200), dict(sod_mm=np.inf), dict(shape=(0, 5)),
                                 dict(principal_px_u_v=(np.nan, 0))])
def test_an_impossible_carm_is_refused(bad: dict[str, object]) -> None:
    good: dict[str, object] = dict(shape=(64, 64), pitch_mm_row_col=(1, 1), sdd_mm=1000, sod_mm=600,
                                   principal_px_u_v=(31.5, 31.5))
    with pytest.raises(BadGeometry, match="expected"):
        CArm(**{**good, **bad})  # type: ignore[arg-type]


def _ramp_volume(oblique: bool = True) -> Volume:
    """A field that is linear in patient coordinates: any correct resampling reproduces it."""
    affine = np.diag([0.8, 1.1, 2.0, 1.0])
    if oblique:
        affine = Rigid.exp([0.3, -0.2, 0.5, 10, -20, 30]) @ affine @ np.diag([1, -1, 1, 1.0])
    k, j, i = np.mgrid[:20, :24, :28]
    xyz = np.stack([i, j, k], -1) @ affine[:3, :3].T + affine[:3, 3]
    return Volume(xyz @ [1.0, 2.0, -0.5], affine)


@pytest.mark.parametrize("spacing", [0.5, 1.7, (1.6, 2.2, 4.0)])
def test_resampling_keeps_values_where_they_are(spacing: float) -> None:
    volume = _ramp_volume()
    new = volume.resampled(spacing)
    np.testing.assert_allclose(new.spacing_mm, np.broadcast_to(spacing, 3))
    k, j, i = np.mgrid[tuple(slice(3, n - 3) for n in new.data.shape)]
    xyz = np.stack([i, j, k], -1) @ new.patient_from_index[:3, :3].T + new.patient_from_index[:3, 3]
    np.testing.assert_allclose(new.data[3:-3, 3:-3, 3:-3], xyz @ [1.0, 2.0, -0.5], atol=2e-3)
    assert np.abs(new.corners_mm - volume.corners_mm).max() <= np.max(spacing)


def test_cropping_a_volume_leaves_its_voxels_in_place() -> None:
    volume = _ramp_volume()
    part = volume.cropped(Box((2, 3, 4), (10, 20, 25)))
    here = part.patient_from_index @ [1, 2, 3, 1]
    there = volume.patient_from_index @ [5, 5, 5, 1]
    np.testing.assert_allclose(here, there)
    assert part.data[3, 2, 1] == volume.data[5, 5, 5]


def test_center_is_the_mean_of_the_corners() -> None:
    volume = _ramp_volume()
    np.testing.assert_allclose(volume.corners_mm.mean(0), volume.center_mm)


def test_volumes_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="NaN"):
        Volume(np.full((3, 3, 3), np.nan), np.eye(4))
    with pytest.raises(BadInput, match="invertible"):
        Volume(np.zeros((3, 3, 3)), np.zeros((4, 4)))
    with pytest.raises(BadInput, match="2 x 2 x 2"):
        Volume(np.zeros((1, 3, 3)), np.eye(4))


def test_water_and_air_have_their_attenuation() -> None:
    hu = Volume(np.array([[[-1000, 0], [1000, -2000]]] * 2, float), np.eye(4))
    mu = attenuation_from_hu(hu, 60).data
    np.testing.assert_allclose(mu[0], [[0, 0.02059], [0.04118, 0]], rtol=1e-6)  # NIST XCOM, water, 60 keV


def test_arrays_in_types_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        _ramp_volume().data[0, 0, 0] = 1
