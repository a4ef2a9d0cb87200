# SPDX-License-Identifier: Apache-2.0
"""How far may the answer of one view be off? What it cannot see, and the bounds that follow."""

from __future__ import annotations

import numpy as np

from registration.geometry import CArm, Float64, Rigid
from registration.result import ErrorEstimate

SDD_SD = 0.01  # relative; 1 % of it is 7 mm of depth at 0.04 mm of residual: a prior, not a finding
PRINCIPAL_SD_MM = 2.0  # at the detector
SINGLE_TURN_DEG = 4.0  # poses closer than that are one for a person: no twin


def intrinsics_covariance(carm: CArm, carm_from_patient: Float64, point_mm: Float64) -> Float64:
    """(6, 6): what a wrong SDD and principal point do to the pose of one view: it answers with a shift
    along the ray through a point of the patient (3,) and across it, invisible in the picture."""
    x = Rigid.apply(carm_from_patient, point_mm)
    ray = np.array([x[0], x[1], x[2] - carm.sod_mm])
    out = np.zeros((6, 6))
    out[3:, 3:] = np.outer(ray, ray) * SDD_SD**2
    across = PRINCIPAL_SD_MM * (carm.sod_mm - x[2]) / carm.sdd_mm
    out[3, 3] += across**2
    out[4, 4] += across**2
    return out


def error_at(carm: CArm, carm_from_patient: Float64, covariance: Float64, target_mm: Float64) -> ErrorEstimate:
    """95 % bounds at a target (3,) of the patient frame, in 3D and in the picture's plane.

    The projected one leaves out what a wrong principal point does: there the overlay stays on the anatomy.
    """
    x = Rigid.apply(carm_from_patient, target_mm)
    jac = np.zeros((3, 6))
    jac[:, :3] = -np.array([[0, -x[2], x[1]], [x[2], 0, -x[0]], [-x[1], x[0], 0]])
    jac[:, 3:] = np.eye(3)
    space = jac @ covariance @ jac.T
    depth = carm.sod_mm - x[2]
    flat = np.array([[1, 0, x[0] / depth], [0, 1, x[1] / depth]])
    hidden = np.eye(2) * (PRINCIPAL_SD_MM * depth / carm.sdd_mm) ** 2
    return ErrorEstimate(bound_95(space), bound_95(flat @ space @ flat.T - hidden), target_mm)


def bound_95(covariance: Float64) -> float:
    """Radius that holds 95 % of a normal error. Source: Satterthwaite's approximation of a sum of
    scaled chi squares, which is exact for one axis and for a round error."""
    from scipy.stats import chi2

    values = np.maximum(np.linalg.eigvalsh(covariance), 0)
    total = float(values.sum())
    if total <= 0:
        return 0.0
    freedom = total**2 / float((values**2).sum())
    return float(np.sqrt(total / freedom * chi2.ppf(0.95, freedom)))
