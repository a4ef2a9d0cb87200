# SPDX-License-Identifier: Apache-2.0
"""How does a CT scanned with a tilted gantry become a straight volume? Each slice moves within its own plane."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from registration.geometry import Array, Float64, Volume

TILT_DEG = 0.1  # of the stacking against the normal: 0.5 mm over a 300 mm scan


def tilt_deg(patient_from_index: Float64) -> float:
    """Angle between the step from slice to slice and the normal of the slices."""
    axes = patient_from_index[:3, :3] / np.linalg.norm(patient_from_index[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(abs(np.cross(axes[:, 0], axes[:, 1]) @ axes[:, 2]), 0, 1))))


def straightened(data: Array, patient_from_index: Float64, *, outside: float) -> Volume:
    """The volume on a grid at right angles that holds all of it.

    data [k, j, i] with a sheared patient_from_index (4, 4) whose first two axes are at right angles; outside: the value
    where nothing was scanned. A voxel's value is interpolated linearly within its own slice, never between slices.
    """
    rows_cols = patient_from_index[:3, :2]
    normal = np.cross(rows_cols[:, 0], rows_cols[:, 1])
    normal /= np.linalg.norm(normal)
    step = patient_from_index[:3, 2]
    # how far a slice lies beside the one before, in voxels along i and j
    beside = np.array([step @ a / (a @ a) for a in rows_cols.T])
    shifts = np.arange(len(data))[:, None] * beside
    first = np.floor(shifts.min(axis=0) + 1e-6).astype(int)
    size = np.array(data.shape[:0:-1]) + np.ceil(shifts.max(axis=0) - 1e-6).astype(int) - first
    out = np.empty((len(data), size[1], size[0]), np.float32)
    for k, (slice_, shift) in enumerate(zip(data, shifts, strict=True)):
        ndimage.affine_transform(slice_, np.ones(2), offset=(first - shift)[::-1], output_shape=out.shape[1:],
                                 output=out[k], order=1, cval=outside)
    affine = patient_from_index.copy()
    affine[:3, 2] = normal * (step @ normal)
    affine[:3, 3] += rows_cols @ first
    return Volume(out, affine)
