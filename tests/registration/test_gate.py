# SPDX-License-Identifier: Apache-2.0
"""Does the gate tell a right pose from a wrong one, also where few photons arrive?"""

import numpy as np
import pytest
from ellipsoids import chest, line_integrals
from scipy import ndimage

from registration.gate import ACCEPT, REFUSE, fit_of
from registration.geometry import CArm, carm_from_patient_at

CARM = CArm.centered((128, 128), 2.4, 1020, 765)


def seen(picture, photons, rng):
    """Two halves of a measurement, as the gate gets them: their mean, and half of their difference."""
    halves = [-np.log(np.maximum(rng.poisson(np.exp(-picture) * photons / 2), 0.5) / (photons / 2)) for _ in range(2)]
    return (0.5 * (halves[0] + halves[1])).astype(np.float32), (0.5 * (halves[0] - halves[1])).astype(np.float32)


@pytest.fixture(scope="module")
def pictures():
    pose = carm_from_patient_at(10, 5, [0, 0, 0])
    return [ndimage.gaussian_filter(line_integrals(chest(n), CARM, pose), 0.7).astype(np.float32) for n in (0, 1)]


@pytest.mark.parametrize("photons", [2e4, 500])
def test_noise_alone_costs_a_right_pose_no_agreement_and_a_wrong_one_gains_none(pictures, photons):
    right, other = pictures
    rng = np.random.default_rng(0)
    fixed, noise = seen(right, photons, rng)
    # a wire that no volume has: where photons are few it is what stands out most
    rows = np.arange(128)
    fixed[rows, (40 + 0.3 * rows).astype(int)] += 0.8
    weight = np.ones_like(fixed)
    good, bad = fit_of(right, fixed, weight, noise), fit_of(other, fixed, weight, noise)
    assert good.patches > 40 and good.clear and good.agreement > ACCEPT
    assert bad.agreement < REFUSE


def test_nothing_but_noise_is_no_patch_to_judge_by(pictures):
    rng = np.random.default_rng(1)
    flat = np.zeros_like(pictures[0])
    fixed, noise = seen(flat + 3, 500, rng)
    fit = fit_of(pictures[0], fixed, np.ones_like(fixed), noise)
    assert fit.patches < 6 and not fit.clear
