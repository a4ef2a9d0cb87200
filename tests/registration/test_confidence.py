# SPDX-License-Identifier: Apache-2.0
"""Do the bounds hold what they say?"""

import numpy as np
import pytest
from ellipsoids import chest, line_integrals
from scipy import ndimage

from registration.confidence import IntrinsicPrior, Spread, error_at, length_bound, spread_of
from registration.geometry import CArm, Rigid, carm_from_patient_at
from registration.similarity import GRADIENT

CARM = CArm.centered((96, 96), 3.2, 1020, 765)


@pytest.mark.parametrize("sd", [(1, 1, 1), (5, 0.1, 0.1), (3, 2, 0.5), (1, 1, 0)])
def test_length_bound_holds_95_percent_of_drawn_vectors(sd):
    rng = np.random.default_rng(0)
    lengths = np.linalg.norm(rng.normal(size=(200_000, 3)) * sd, axis=1)
    inside = (lengths < length_bound(np.diag(sd) ** 2.0)).mean()
    assert inside == pytest.approx(0.95, abs=0.008)  # the gamma distribution is an approximation


def picture_and_jacobian(parts, carm, pose):
    h = np.array([1e-3] * 3 + [0.1] * 3)
    columns = [(line_integrals(parts, carm, Rigid.exp(s) @ pose)
                - line_integrals(parts, carm, Rigid.exp(-s) @ pose)) / (2 * s.max()) for s in np.diag(h)]
    return smooth(line_integrals(parts, carm, pose)), smooth(np.stack(columns))


def smooth(pictures):
    """Edges of the formulas are infinitely sharp; a detector's are not."""
    return ndimage.gaussian_filter(pictures, [0] * (pictures.ndim - 2) + [1.5, 1.5]).astype(np.float32)


@pytest.fixture(scope="module")
def at_truth():
    parts = [p for p in chest() if p.density > 0]
    pose = carm_from_patient_at(15, 5, [0, 0, 0])
    return parts, pose, *picture_and_jacobian(parts, CARM, pose)


def test_one_percent_of_sdd_is_most_of_the_depth_error_and_hardly_any_in_the_picture(at_truth):
    _, pose, picture, jacobian = at_truth
    rng = np.random.default_rng(0)
    fixed = picture + 0.01 * rng.normal(size=picture.shape).astype(np.float32)
    weight = np.ones_like(fixed)
    known = spread_of(GRADIENT, picture, fixed, weight, jacobian, CARM, IntrinsicPrior(0.0, 0.0))
    usual = spread_of(GRADIENT, picture, fixed, weight, jacobian, CARM, IntrinsicPrior(0.01, 0.0))
    by_sdd = np.sqrt(usual.covariance[5, 5] - known.covariance[5, 5])
    assert by_sdd == pytest.approx(7.65, rel=0.25)  # 1 % of SOD; bone lies before and behind it
    target = np.array([0, 55.0, 0])
    in_picture = [error_at(s, CARM, pose, target).projected_mm for s in (known, usual)]
    assert in_picture[1] - in_picture[0] < 0.5
    assert error_at(usual, CARM, pose, target).target_mm > 12  # 1.96 standard deviations of depth


def test_a_wrong_principal_point_moves_the_pose_but_hardly_the_picture(at_truth):
    parts, pose, picture, jacobian = at_truth
    spread = spread_of(GRADIENT, picture, picture, np.ones_like(picture), jacobian, CARM, IntrinsicPrior(0, 2.0))
    error = error_at(spread, CARM, pose, np.zeros(3))
    assert 2.0 < error.target_mm < 8.0  # 2 mm at the detector are 1.5 mm at the isocenter, in each direction
    assert error.projected_mm < 0.4 * error.target_mm
    # what the pose does is what a fit to the shifted picture would do
    shifted = CArm(CARM.shape, CARM.pitch_mm_row_col, 1020, 765, (47.5 + 0.5, 47.5))
    seen = smooth(line_integrals(parts, shifted, pose))
    normal = GRADIENT.evaluate(picture, seen, np.ones_like(picture), jacobian).normal
    step = -np.linalg.solve(normal.hessian, normal.gradient)
    predicted = spread.slip @ [0, 0.5, 0]
    assert np.abs((step - predicted) * [100, 100, 100, 1, 1, 0.1]).max() < 0.35 * np.abs(
        predicted * [100, 100, 100, 1, 1, 0.1]).max()


def test_more_noise_is_a_wider_bound_and_nothing_seen_is_a_very_wide_one(at_truth):
    _, pose, picture, jacobian = at_truth
    rng = np.random.default_rng(0)
    noise = rng.normal(size=picture.shape).astype(np.float32)
    weight = np.ones_like(picture)
    bounds = [error_at(spread_of(GRADIENT, picture, picture + s * noise, weight, jacobian, CARM,
                                 IntrinsicPrior(0, 0)), CARM, pose, np.zeros(3)).projected_mm for s in (0.01, 0.1)]
    assert bounds[1] > 2 * bounds[0]
    blind = spread_of(GRADIENT, 0 * picture, picture, weight, 0 * jacobian, CARM)
    assert error_at(blind, CARM, pose, np.zeros(3)).projected_mm > 100


def test_a_bound_far_from_the_isocenter_counts_the_rotation():
    spread = Spread(np.diag([0, 0, 1e-4, 0, 0, 0.0]), np.zeros((6, 3)), np.zeros(3))  # 0.57 deg about the beam
    near = error_at(spread, CARM, np.eye(4), np.zeros(3))
    far = error_at(spread, CARM, np.eye(4), np.array([100.0, 0, 0]))
    assert near.projected_mm == pytest.approx(0, abs=1e-9)
    assert far.projected_mm == pytest.approx(1.96, rel=0.03)


def test_a_target_in_moving_tissue_widens_both_bounds_by_what_is_stated() -> None:
    still = Spread(np.zeros((6, 6)), np.zeros((6, 3)), np.zeros(3))
    carm = CArm.centered((256, 256), 1.0, 1000.0, 700.0)
    bound = error_at(still, carm, np.eye(4), np.zeros(3), tissue_mm=0.5)
    # chi with two and with three degrees of freedom: 95 % within 2.448 and 2.795 standard deviations
    np.testing.assert_allclose([bound.projected_mm, bound.target_mm], [0.5 * 2.448, 0.5 * 2.795], rtol=2e-3)
    assert error_at(still, carm, np.eye(4), np.zeros(3)).projected_mm == 0.0
