# SPDX-License-Identifier: Apache-2.0
"""Truth for registration tests: bodies of ellipsoids, whose line integrals are exact formulas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registration.geometry import CArm, Rigid, Volume

WATER = 0.02  # 1/mm


@dataclass(frozen=True)
class Ellipsoid:
    """center (3,) mm, radii (3,) mm, axes (3, 3) with the ellipsoid's axes as rows, density 1/mm (adds)."""

    center: np.ndarray
    radii: np.ndarray
    axes: np.ndarray
    density: float


def chest(seed=0, mirrored=False):
    """Something like a chest: body, lungs, heart on one side, vertebrae, twelve pairs of ribs.

    Every seed is another person: other sizes, other spacing of vertebrae and ribs, other asymmetry.
    """
    rng = np.random.default_rng(seed)
    build, pitch, slope = rng.uniform(0.92, 1.05), rng.uniform(22, 26), rng.uniform(16, 28)
    parts = [Ellipsoid(np.zeros(3), np.array([150, 95, 190.0]) * build, np.eye(3), WATER)]
    for side in (-1, 1):
        parts.append(Ellipsoid(np.array([side * 68, -8, 10.0]) + 6 * rng.normal(size=3), np.array([48, 66, 110.0]),
                               np.eye(3), -0.7 * WATER))
    parts.append(Ellipsoid(np.array([30, -30, -30.0]) + 6 * rng.normal(size=3), np.array([48, 40, 56.0]), np.eye(3),
                           0.35 * WATER))
    bend = rng.normal(size=2) * (10, 6)  # nobody's spine is straight
    for n in range(12):
        z = -132 + pitch * n + 2 * rng.normal()
        sway = bend[0] * np.sin(n / 11 * np.pi) + bend[1] * np.sin(n / 11 * 2 * np.pi)
        wide = rng.uniform(0.85, 1.15)
        parts.append(Ellipsoid(np.array([sway, 55, z]), np.array([19 * wide, 15, 9.0]), np.eye(3), 0.9 * WATER))
        parts.append(Ellipsoid(np.array([sway + 2 * rng.normal(), 82, z - 8]), np.array([4, 14, 6.0]), np.eye(3),
                               0.9 * WATER))
        for side in (-1, 1):
            size = (0.75 + 0.3 * np.sin(np.pi * n / 11)) * build * rng.uniform(0.96, 1.04)
            drop = slope + 3 * rng.normal()
            for t in np.linspace(0.25, 2.6, 9):
                at = np.array([side * 112 * np.sin(t) * size, 70 * np.cos(t), z - drop * t + rng.normal()])
                along = np.array([side * 112 * np.cos(t) * size, -70 * np.sin(t), -drop])
                first = along / np.linalg.norm(along)
                second = np.cross(first, [0, 0, 1.0])
                second /= np.linalg.norm(second)
                axes = np.stack([first, second, np.cross(first, second)])
                parts.append(Ellipsoid(at, np.array([19, 3.5, 6.0]), axes, 1.0 * WATER))
    if mirrored:
        flip = np.diag([-1.0, 1, 1])
        parts = [Ellipsoid(flip @ p.center, p.radii, p.axes @ flip, p.density) for p in parts]
    return parts


def line_integrals(parts, carm: CArm, carm_from_patient) -> np.ndarray:
    """Exact line integrals (h, w) from the source to the detector."""
    patient_from_carm = Rigid.inverse(carm_from_patient)
    source, pixels = carm.rays()
    source = Rigid.apply(patient_from_carm, source)
    way = (Rigid.apply(patient_from_carm, pixels) - source).reshape(-1, 3)
    length = np.linalg.norm(way, axis=1)
    total = np.zeros(len(way))
    for p in parts:
        o = p.axes @ (source - p.center) / p.radii
        d = way @ p.axes.T / p.radii
        a, b, c = (d * d).sum(1), d @ o, o @ o - 1
        total += p.density * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a * length
    return total.reshape(carm.shape)


def voxels(parts, spacing_mm=3.0, half_mm=(160, 105, 150)) -> Volume:
    """The same body as a volume, each voxel the mean of 2 x 2 x 2 samples."""
    n = [round(2 * h / spacing_mm) for h in half_mm]
    fine = [(np.arange(2 * m) - (2 * m - 1) / 2) * spacing_mm / 2 for m in n]
    x, y, z = fine
    data = np.zeros((len(z), len(y), len(x)), np.float32)
    for p in parts:
        reach = np.sqrt(((p.axes * p.radii[:, None]) ** 2).sum(0))
        lo = [int(np.searchsorted(g, c - r)) for g, c, r in zip(fine, p.center, reach, strict=True)]
        hi = [int(np.searchsorted(g, c + r)) for g, c, r in zip(fine, p.center, reach, strict=True)]
        gx, gy, gz = (g[a:b] for g, a, b in zip(fine, lo, hi, strict=True))
        at = np.stack(np.meshgrid(gz, gy, gx, indexing="ij")[::-1], -1) - p.center
        inside = ((at @ p.axes.T / p.radii) ** 2).sum(-1) <= 1
        data[lo[2]:hi[2], lo[1]:hi[1], lo[0]:hi[0]] += p.density * inside
    data = data.reshape(n[2], 2, n[1], 2, n[0], 2).mean((1, 3, 5))
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = [-(m - 1) / 2 * spacing_mm for m in n]
    return Volume(np.maximum(data, 0), affine)
