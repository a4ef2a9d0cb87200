# SPDX-License-Identifier: Apache-2.0
"""What is right? Line integrals of a volume in float64, slow and plain, that every fast path is held to.

The field is trilinear between voxel centers and zero outside: from the outer voxels' centers it falls
linearly to zero over one voxel pitch, as if the volume had a border of zero voxels. Rays begin at the
source and do not end at the detector: what a CT shows behind it (a table, nothing) would be an odd pose.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from registration.geometry import CArm, Float64, Rigid, Volume

# two-point Gauss-Legendre on [0, 1]: exact for cubics, and a trilinear field along a line is one in each cell
_GAUSS = (0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3))


def line_integrals(volume: Volume, carm: CArm, carm_from_patient: Float64) -> Float64:
    """(rows, columns) exact integrals of the trilinear field along every pixel's ray, without unit."""
    data, source, way = _in_index(volume, carm, carm_from_patient)
    length = np.linalg.norm(carm.rays()[1] - carm.rays()[0], axis=-1).ravel()
    return np.array([_exact(data, source, d) for d in way]).reshape(carm.shape) * length.reshape(carm.shape)


def joseph(volume: Volume, carm: CArm, carm_from_patient: Float64) -> Float64:
    """(rows, columns) by the rule that the fast paths follow: the field's value at every plane of the rays' main
    axis times the distance between planes. It differs from `line_integrals` where voxels change faster than
    they are sampled.
    """
    data, source, way = _in_index(volume, carm, carm_from_patient)
    axis = main_axis(way.reshape(*carm.shape, 3))
    out = np.zeros(len(way))
    for k in range(data.shape[2 - axis]):
        at = (k - source[axis]) / way[:, axis]
        places = source + at[:, None] * way
        out += np.where(at > 0, _sampled(data, places), 0.0)
    length = np.linalg.norm(carm.rays()[1] - carm.rays()[0], axis=-1).ravel()
    return (out * length / np.abs(way[:, axis])).reshape(carm.shape)


def main_axis(ways: Float64) -> int:
    """The index axis (0: i, 1: j, 2: k) along which all rays of a picture run most steeply; ways (rows, columns, 3).

    One axis for the whole picture: the one whose flattest ray, at a corner, is the steepest.
    """
    corners = ways[[0, 0, -1, -1], [0, -1, 0, -1]]
    size = np.abs(corners)
    steep = np.stack([size[:, a] / np.maximum(np.delete(size, a, 1).max(1), 1e-30) for a in range(3)], 1)
    turns = (np.sign(corners).min(0) != np.sign(corners).max(0)) | (size.min(0) == 0)
    return int(np.argmax(np.where(turns, -1.0, steep.min(0))))


def _in_index(volume: Volume, carm: CArm, carm_from_patient: Float64) -> tuple[Float64, Float64, Float64]:
    """The voxels with a border of zeros, the source (3,) and the ways to the pixels (n, 3) in its index (i, j, k)."""
    index_from_carm = np.linalg.inv(volume.patient_from_index) @ Rigid.inverse(carm_from_patient)
    source, pixels = carm.rays()
    start = Rigid.apply(index_from_carm, source) + 1
    way = (pixels - source).reshape(-1, 3) @ index_from_carm[:3, :3].T
    return np.pad(volume.data.astype(np.float64), 1), start, way


def _sampled(data: Float64, places: Float64) -> Float64:
    return ndimage.map_coordinates(data, places.T[::-1], order=1, mode="constant", cval=0.0, prefilter=False)


def _exact(data: Float64, source: Float64, way: Float64) -> float:
    """The integral over the parameter, 0 at the source and 1 at the pixel: cell by cell, each exactly."""
    cuts = [np.zeros(1)]
    for a in range(3):
        if abs(way[a]) > 1e-12:
            cuts.append((np.arange(data.shape[2 - a]) - source[a]) / way[a])
    t = np.unique(np.maximum(np.concatenate(cuts), 0.0))
    step = np.diff(t)
    places = [source + (t[:-1] + g * step)[:, None] * way for g in _GAUSS]
    return float(sum(0.5 * (step * _sampled(data, p)).sum() for p in places))
