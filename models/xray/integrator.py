# SPDX-License-Identifier: Apache-2.0
"""How much of each material does every ray meet? The demo patient's own integrator, apart from registration's.

Volumes by Joseph's method in two materials, thin round things as exact chords; compiled (native/). It shares no
code with registration.projector, so that a truth made here can judge a pose found there.
"""

from __future__ import annotations

import numpy as np

from models.xray import _integrator
from registration.errors import BadInput
from registration.geometry import Array, CArm, Float64, Rigid, Volume

SOFT_HU = 80.0  # above it a voxel holds bone
BONE_HU = 1590.0  # cortical bone (ICRU, 1.92 g/cm3) at 70 keV, the mean energy of a CT beam: mu 0.500 / 0.193 per cm


def line_integrals(volume_hu: Volume, carm: CArm, carm_from_patient: Float64, *, threads: int = 2) -> Array:
    """(2, rows, columns) float32: mm of water-like matter (density 1) and mm of cortical bone on each ray.

    volume_hu in Hounsfield units, axes at right angles; the pose as in DESIGN (b_from_a). Outside the volume is
    air. Raises BadInput for a sheared volume. Source: Joseph, IEEE TMI 1:192, 1982.
    """
    spacing = volume_hu.spacing_mm
    axes = volume_hu.patient_from_index[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-6:
        raise BadInput("volume of the simulator", got="axes that are not at right angles",
                       expected="a rectangular grid", remedy="resample the volume first")
    index_from_carm = np.linalg.inv(np.asarray(carm_from_patient, np.float64) @ volume_hu.patient_from_index)
    corners = carm.detector_points(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    ends = Rigid.apply(index_from_carm, np.vstack([carm.source, corners]))
    beam = np.stack([ends[0], ends[1], ends[2] - ends[1], ends[3] - ends[1]])
    return _integrator.line_integrals(volume_hu.data, np.ascontiguousarray(beam), np.ascontiguousarray(spacing),
                                      carm.shape[0], carm.shape[1], SOFT_HU, BONE_HU, threads)


def deformed(volume: Volume, field: Array, ratio: float, amplitude: float, *, threads: int = 2) -> Volume:
    """The volume moved by a displacement field: out(x) = volume(x - amplitude * d(x)).

    field (3, K, J, I) float32: displacement in voxels along i, j, k; node (I, J, K) lies at voxel ratio * (I, J, K).
    """
    out = _integrator.deform(volume.data, np.ascontiguousarray(field, np.float32), ratio, amplitude, threads)
    return Volume(out, volume.patient_from_index)


def tube_integrals(
    points_in_carm: Float64, radius_mm: Float64, concentration: Float64, branch: Array, carm: CArm, *, fine: int = 1
) -> Array:
    """(rows, columns) float32: concentration times mm of the round things that each ray meets.

    points_in_carm (n, 3) mm, radius_mm (n,), concentration (n,), branch (n,) integers: consecutive points of one
    branch are joined by cylinders. Overlapping branches count once, at the concentration met first. Each pixel is
    the mean over fine x fine places: use 2 or more for things thinner than two pixels.
    """
    (pitch_v, pitch_u), (cu, cv) = carm.pitch_mm_row_col, carm.principal_px_u_v
    detector = np.array([carm.sdd_mm, carm.sod_mm, pitch_u, pitch_v, cu, cv], np.float64)
    return _integrator.tubes(np.ascontiguousarray(points_in_carm, np.float64),
                             np.ascontiguousarray(radius_mm, np.float64),
                             np.ascontiguousarray(concentration, np.float64),
                             np.ascontiguousarray(branch, np.int64), detector, carm.shape[0], carm.shape[1], fine)
