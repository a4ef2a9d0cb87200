# SPDX-License-Identifier: Apache-2.0
"""How does a rigid motion act, what is its logarithm, and is a matrix one?

In plain numbers: on sixteen of them numpy's calls cost ten times the arithmetic, and a tracked frame needs a dozen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registration.errors import BadGeometry, BadInput

Float64 = NDArray[np.float64]


class Rigid:
    """SE(3) as plain 4x4 float64 matrices: exponential, logarithm, inverse, checks.

    Tangent vectors are xi = (rx, ry, rz, tx, ty, tz), radians and mm.
    """

    @staticmethod
    def exp(xi: ArrayLike) -> Float64:
        """The 4x4 motion of a tangent vector (6,). Source: Murray, Li, Sastry 1994, eq. 2.36."""
        v = np.asarray(xi, np.float64)
        if v.shape != (6,) or not np.isfinite(v).all():
            raise BadInput("tangent vector", got=f"{v.shape} {v}", expected="six finite numbers",
                           remedy="give (rx, ry, rz, tx, ty, tz) in rad and mm")
        x, y, z, *t = v.tolist()
        w = (x, y, z)
        q = _dot(w, w)
        angle = math.sqrt(q)
        if angle < 1e-5:  # series: below it (1 - cos) / angle^2 loses all its digits
            a, b, c = 1 - q / 6, 0.5 - q / 24, 1 / 6 - q / 120
        else:
            a, b, c = math.sin(angle) / angle, (1 - math.cos(angle)) / q, (angle - math.sin(angle)) / (q * angle)
        # with K the cross product by w: K^2 v = w (w . v) - q v
        slide = [p + b * k + c * (n * _dot(w, t) - q * p) for p, k, n in zip(t, _cross(w, t), w, strict=True)]
        return np.array([[1 + b * (x * x - q), b * x * y - a * z, b * x * z + a * y, slide[0]],
                         [b * x * y + a * z, 1 + b * (y * y - q), b * y * z - a * x, slide[1]],
                         [b * x * z - a * y, b * y * z + a * x, 1 + b * (z * z - q), slide[2]], [0.0, 0.0, 0.0, 1.0]])

    @staticmethod
    def log(b_from_a: ArrayLike) -> Float64:
        """The tangent vector (6,) of a rigid 4x4 motion; rotation angle in [0, pi]."""
        m = Rigid.checked(b_from_a, "matrix")
        w, t = _rotation_vector(m[:3, :3]), m[:3, 3].tolist()
        q = _dot(w, w)
        angle = math.sqrt(q)
        if angle < 0.03:  # series: below it the difference loses its digits
            d = 1 / 12 + q / 720 + q * q / 30240
        else:
            d = (1 - angle * math.sin(angle) / (2 * (1 - math.cos(angle)))) / q
        shift = [p - 0.5 * k + d * (n * _dot(w, t) - q * p) for p, k, n in zip(t, _cross(w, t), w, strict=True)]
        return np.array([*w, *shift])

    @staticmethod
    def inverse(b_from_a: ArrayLike) -> Float64:
        """a_from_b of a rigid b_from_a."""
        (a, b, c, x), (d, e, f, y), (g, h, i, z), _ = np.asarray(b_from_a, np.float64).tolist()
        return np.array([[a, d, g, -a * x - d * y - g * z], [b, e, h, -b * x - e * y - h * z],
                         [c, f, i, -c * x - f * y - i * z], [0.0, 0.0, 0.0, 1.0]])

    @staticmethod
    def apply(b_from_a: ArrayLike, points: ArrayLike) -> Float64:
        """Points (..., 3) of frame a, mm, in frame b."""
        m = np.asarray(b_from_a, np.float64)
        return np.asarray(points, np.float64) @ m[:3, :3].T + m[:3, 3]

    @staticmethod
    def translation(x: float, y: float, z: float) -> Float64:
        """The 4x4 shift by (x, y, z) mm."""
        out = np.eye(4)
        out[:3, 3] = x, y, z
        return out

    @staticmethod
    def angle_deg(b_from_a: ArrayLike) -> float:
        """Rotation angle of a rigid motion in degrees, in [0, 180]."""
        return math.degrees(math.hypot(*_rotation_vector(np.asarray(b_from_a, np.float64)[:3, :3])))

    @staticmethod
    def checked(matrix: ArrayLike, name: str) -> Float64:
        """The matrix as 4x4 float64, refused unless it is a finite, right-handed rigid motion.

        The rotation may be off by 1e-4 (matrices that went through text) and is then made exact.
        """
        m = np.array(matrix, np.float64)
        if m.shape == (4, 4) and _exact(m.tolist()):
            return m  # what was made here: nothing to mend
        remedy = "give a 4x4 matrix of a rotation (determinant +1) and a shift in mm, row by row"
        if m.shape != (4, 4) or not np.isfinite(m).all():
            raise BadGeometry(name, got=f"shape {m.shape}, finite: {bool(np.isfinite(m).all())}",
                              expected="a finite 4x4 matrix", remedy=remedy)
        off = float(np.abs(m[:3, :3] @ m[:3, :3].T - np.eye(3)).max())
        if off > 1e-4 or np.linalg.det(m[:3, :3]) < 0 or not np.allclose(m[3], [0, 0, 0, 1]):
            raise BadGeometry(name, got=f"off a rotation by {off:.2g}, determinant "
                              f"{np.linalg.det(m[:3, :3]):.3f}, last row {m[3].tolist()}",
                              expected="a rigid, right-handed motion", remedy=remedy)
        u, _, vt = np.linalg.svd(m[:3, :3])
        m[:3, :3] = u @ vt
        return m


def _exact(rows: list[list[float]]) -> bool:
    """Whether a 4x4 matrix is a right-handed rigid motion to the last digits."""
    a, b, c, last = rows
    off = [_dot(a, a) - 1, _dot(b, b) - 1, _dot(c, c) - 1, _dot(a, b), _dot(a, c), _dot(b, c)]
    return (all(-1e-12 < o < 1e-12 for o in off) and _dot(_cross(a, b), c) > 0 and last == [0, 0, 0, 1]
            and math.isfinite(a[3] + b[3] + c[3]))


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _rotation_vector(rotation: Float64) -> list[float]:
    """Axis times angle of a rotation (3, 3); stays accurate near 0 and near pi."""
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    twice = [h - f, c - g, d - b]  # of axis times sine
    if a + e + i > 0:
        s = math.hypot(*twice)
        return [v * (math.atan2(s, a + e + i - 1) / s if s > 1e-12 else 0.5) for v in twice]
    k = np.array([[a - e - i, 0, 0, 0], [b + d, e - a - i, 0, 0], [c + g, f + h, i - a - e, 0],
                  [*twice, a + e + i]]) / 3
    _, vectors = np.linalg.eigh(k)  # Bar-Itzhack 2000: the quaternion is the top eigenvector
    x, y, z, real = (vectors[:, -1] * (1 if vectors[3, -1] >= 0 else -1)).tolist()
    s = math.hypot(x, y, z)
    return [v / s * 2 * math.atan2(s, real) for v in (x, y, z)]
