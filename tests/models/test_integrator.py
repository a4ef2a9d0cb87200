# SPDX-License-Identifier: Apache-2.0
"""Are the simulator's line integrals right? Against spheres, boxes and cylinders that can be computed by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from models.xray.integrator import BONE_HU, SOFT_HU, deformed, line_integrals, tube_integrals
from registration.errors import BadInput
from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at

CARM = CArm((60, 80), (1.6, 1.4), 1000.0, 700.0, (41.0, 27.5))
POSES = {"front": (0, 0), "oblique": (35, -20), "side": (90, 0), "from below": (0, 80)}


def volume_of(hu: np.ndarray, spacing: float = 1.0) -> Volume:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -(np.array(hu.shape[::-1]) - 1) / 2 * spacing
    return Volume(hu, affine)


def coordinates(n: int, spacing: float = 1.0) -> np.ndarray:
    axis = (np.arange(n) - (n - 1) / 2) * spacing
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)[..., ::-1]


def ray_distance(carm: CArm, carm_from_patient: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Distance of each pixel's ray from a point, mm."""
    source, pixels = carm.rays()
    d = (pixels - source) / np.linalg.norm(pixels - source, axis=-1, keepdims=True)
    w = Rigid.apply(carm_from_patient, center) - source
    return np.linalg.norm(w - (d @ w)[..., None] * d, axis=-1)


@pytest.mark.parametrize("name", POSES)
def test_a_water_sphere_has_the_chords_of_a_sphere(name: str) -> None:
    r = 30.0
    soft = np.clip(0.5 - (np.linalg.norm(coordinates(81), axis=-1) - r), 0, 1)
    pose = carm_from_patient_at(*POSES[name], (3, -2, 4))
    water, bone = line_integrals(volume_of((1000 * soft - 1000).astype(np.float32)), CARM, pose)
    expected = 2 * np.sqrt(np.maximum(0, r**2 - ray_distance(CARM, pose, np.zeros(3)) ** 2))
    inside = expected > 30  # mm: where rays graze the surface the voxels' own width counts
    assert np.abs(water - expected)[inside].max() < 0.35  # mm, a third of a voxel at the two ends of a chord
    assert abs(float((water - expected).mean())) < 0.03
    assert bone.max() == 0


def test_a_box_is_exact_along_its_axis() -> None:
    """40 planes of 1 mm between two planes of voxel centers with air beyond: sums are exact for a linear field."""
    hu = np.full((60, 60, 60), -1000, np.float32)
    hu[:, 10:50, :] = 0
    pose = carm_from_patient_at(0, 0, (0, 0, 0))
    water, _ = line_integrals(volume_of(hu), CARM, pose)
    source, pixels = CARM.rays()
    slant = np.linalg.norm(pixels - source, axis=-1) / (CARM.sdd_mm)
    middle = np.s_[20:36, 30:52]
    assert water[middle] == pytest.approx((40 * slant)[middle], rel=1e-5)


def test_hounsfield_units_split_into_water_and_bone() -> None:
    hu = np.full((40, 40, 40), -1000, np.float32)
    mixed = (SOFT_HU + BONE_HU) / 2
    for value, density, share in ((-500, 0.5, 0.0), (40, 1.04, 0.0), (mixed, 0.5 * (1 + SOFT_HU / 1000), 0.5),
                                  (BONE_HU, 0.0, 1.0)):
        hu[:] = value
        water, bone = line_integrals(volume_of(hu), CARM, carm_from_patient_at(0, 0, (0, 0, 0)))
        center = CARM.principal_px_u_v
        at = int(center[1]), int(center[0])
        assert water[at] == pytest.approx(40 * density, rel=1e-3, abs=1e-3)
        assert bone[at] == pytest.approx(40 * share, rel=1e-3, abs=1e-3)


def test_oblique_rays_agree_with_a_plain_sum_over_fine_steps() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(3)
    hu = ndimage.gaussian_filter(rng.normal(0, 900, (50, 44, 40)), 2).astype(np.float32) * 6
    affine = np.diag([1.2, 1.2, 1.2, 1.0])
    affine[:3, 3] = -25, -27, -31
    volume = Volume(hu, affine)
    pose = Rigid.exp([0.3, -0.2, 0.4, 5, -3, 8]) @ carm_from_patient_at(20, 10, (0, 0, 0))
    maps = line_integrals(volume, CARM, pose)
    index_from_carm = np.linalg.inv(pose @ affine)
    source, pixels = CARM.rays()
    for row, column in ((15, 20), (30, 40), (44, 66)):
        length = np.linalg.norm(pixels[row, column] - source)
        step = 0.02
        along = source + np.arange(500, 900, step)[:, None] / length * (pixels[row, column] - source)
        values = ndimage.map_coordinates(hu, Rigid.apply(index_from_carm, along).T[::-1], order=1, mode="constant",
                                         cval=-1000.0)
        bone = np.maximum(0, (values - SOFT_HU) / (BONE_HU - SOFT_HU))
        water = np.maximum(0, np.minimum(1 + values / 1000, 1 + SOFT_HU / 1000) - bone * (1 + SOFT_HU / 1000))
        # one plane a voxel against fifty: the field bends within a voxel, and the outermost half voxel differs
        assert maps[0, row, column] == pytest.approx(water.sum() * step, rel=0.03)
        assert maps[1, row, column] == pytest.approx(bone.sum() * step, rel=0.05, abs=0.1)


def test_threads_change_no_bit() -> None:
    hu = np.random.default_rng(1).normal(0, 400, (30, 30, 30)).astype(np.float32)
    pose = carm_from_patient_at(20, 10, (0, 0, 0))
    assert np.array_equal(line_integrals(volume_of(hu), CARM, pose, threads=1),
                          line_integrals(volume_of(hu), CARM, pose, threads=3))


def test_a_constant_displacement_moves_the_volume_and_none_copies_it() -> None:
    hu = np.random.default_rng(2).normal(0, 300, (24, 24, 24)).astype(np.float32)
    volume = volume_of(hu)
    field = np.zeros((3, 5, 5, 5), np.float32)
    assert np.array_equal(deformed(volume, field, 6.0, 2.0).data, hu)
    field[2] = 1.5  # along k
    out = deformed(volume, field, 6.0, 2.0).data
    assert np.allclose(out[3:], hu[:-3], atol=1e-3)


def test_a_tube_across_the_beam_has_the_chords_of_a_cylinder() -> None:
    carm = CArm.centered((100, 100), 0.5, 1000.0, 700.0)
    points = np.array([[-60.0, 0, 0], [60.0, 0, 0]])
    out = tube_integrals(points, np.full(2, 6.0), np.full(2, 0.1), np.zeros(2), carm)
    for row in (50, 55, 60, 64):
        source, pixels = carm.rays()
        d = (pixels[row, 50] - source) / np.linalg.norm(pixels[row, 50] - source)
        across = abs(source[2] * d[1]) / np.hypot(d[1], d[2])  # distance of the ray from the tube's axis
        expected = 2 * np.sqrt(max(0, 36 - across**2)) / np.hypot(d[1], d[2])
        assert out[row, 50] == pytest.approx(0.1 * expected, abs=1e-4)
    assert out[85, 50] == 0


def test_a_bent_tube_in_many_pieces_is_one_tube() -> None:
    """Cut at the bisecting planes, neither the number of pieces nor a bend counts matter twice or leaves a gap."""
    carm = CArm.centered((160, 160), 0.5, 1000.0, 700.0)
    angle = np.linspace(0, np.pi, 400)
    arc = np.stack([22 * np.cos(angle), 22 * np.sin(angle) - 8, 0 * angle], -1)
    fine = tube_integrals(arc, np.full(400, 4.0), np.ones(400), np.zeros(400), carm)
    few = tube_integrals(arc[::21], np.full(20, 4.0), np.ones(20), np.zeros(20), carm)
    area = carm.mm_per_px_at_isocenter**2
    assert fine.sum() * area == pytest.approx(np.pi * 16 * np.pi * 22, rel=0.01)  # Pappus: section times the way
    assert few.sum() * area == pytest.approx(np.pi * 16 * np.pi * 22, rel=0.015)
    assert fine[fine > 0].min() >= 0 and fine.max() < 8.6  # never more than the diameter, slightly slanted


def test_overlapping_branches_count_once() -> None:
    carm = CArm.centered((100, 100), 0.5, 1000.0, 700.0)
    points = np.array([[-60.0, 0, 0], [60.0, 0, 0]])
    one = tube_integrals(points, np.full(2, 6.0), np.ones(2), np.zeros(2), carm)
    two = tube_integrals(np.vstack([points, points]), np.full(4, 6.0), np.ones(4), np.array([0, 0, 1, 1]), carm)
    assert np.allclose(one, two, atol=1e-5)


def test_a_wire_thinner_than_a_pixel_keeps_its_matter() -> None:
    carm = CArm.centered((100, 100), 0.6, 1000.0, 700.0)
    points = np.array([[-15.0, -8.0, 3.0], [13.0, 6.3, -3.0]])
    out = tube_integrals(points, np.full(2, 0.15), np.ones(2), np.zeros(2), carm, fine=4)
    seen = np.pi * 0.15**2 * np.linalg.norm(points[1] - points[0])  # mm3; magnification at the isocenter on average
    assert out.sum() * carm.mm_per_px_at_isocenter**2 == pytest.approx(seen, rel=0.03)


def test_a_sheared_volume_is_refused() -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    with pytest.raises(BadInput, match="right angles"):
        line_integrals(Volume(np.zeros((4, 4, 4), np.float32), affine), CARM, np.eye(4))


def test_the_simulator_never_loads_registrations_projector() -> None:
    code = ("import sys, models.patient.scene, models.xray.integrator;"
            "print(any(m.startswith('registration.projector') for m in sys.modules))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert out.stdout.strip() == "False", out.stderr
