# SPDX-License-Identifier: Apache-2.0
"""Is the demo patient an anatomy? Murray's law, Hounsfield units, sides, closed vessels, and what a breath moves."""

from __future__ import annotations

import numpy as np
import pytest

from models.patient import DemoPatient
from models.patient.skeleton import vertebrae
from registration.errors import BadInput
from registration.shapes import Mesh


def hu_around(patient: DemoPatient, at_mm: tuple[float, float, float], radius_mm: float = 5.0) -> np.ndarray:
    """HU of the CT within a ball."""
    volume = patient.volume_hu
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.data.shape[::-1]], indexing="ij"), -1)
    low = (np.array(at_mm) - volume.patient_from_index[:3, 3]) / volume.spacing_mm
    cut = tuple(slice(max(0, int(c - radius_mm / s) - 1), int(c + radius_mm / s) + 2)
                for c, s in zip(low, volume.spacing_mm, strict=True))
    here = index[cut] * volume.spacing_mm + volume.patient_from_index[:3, 3]
    inside = np.linalg.norm(here - at_mm, axis=-1) <= radius_mm
    return volume.data[cut[::-1]].transpose(2, 1, 0)[inside]


def test_every_fork_obeys_murrays_law(patient: DemoPatient) -> None:
    assert len(patient.tree.forks) > 20
    for fork in patient.tree.forks:
        assert fork.parent_mm**3 == pytest.approx(sum(r**3 for r in fork.children_mm), rel=1e-9), fork.place


def test_branches_have_the_radii_of_their_forks(patient: DemoPatient) -> None:
    """The law holds for the vessels themselves: what leaves each parent's end, from the branches' own radii."""
    tree = patient.tree
    ends = [b for b in tree.branches if any(c.parent == b.name and c.leaves_at == len(b.points) - 1
                                            for c in tree.branches)]
    assert len(ends) > 15
    for b in ends:
        children = [c for c in tree.branches if c.parent == b.name and c.leaves_at == len(b.points) - 1]
        assert b.radius[-1] ** 3 == pytest.approx(sum(c.radius[0] ** 3 for c in children), rel=1e-9), b.name
    aorta = tree["aorta"]
    last = len(aorta.points) - 1
    given_off = sum(c.radius[0] ** 3 for c in tree.branches if c.parent == "aorta" and c.leaves_at < last)
    assert aorta.radius[0] ** 3 == pytest.approx(aorta.radius[-1] ** 3 + given_off, rel=1e-9)


def test_branches_begin_on_their_parents_axis(patient: DemoPatient) -> None:
    for b in patient.tree.branches:
        if b.parent is not None:
            assert np.allclose(b.points[0], patient.tree[b.parent].points[b.leaves_at], atol=1e-6), b.name


@pytest.mark.parametrize(("what", "at", "low", "high"), [
    ("liver", (-75, -10, 80), 45, 75), ("spleen", (106, 40, 90), 35, 65), ("kidney", (66, 52, 33), 15, 50),
    ("fat under the skin", (0, -90, 20), -110, -70), ("lung", (-70, 40, 160), -900, -700),
    ("psoas", (41, 22, -60), 35, 70)])
def test_organs_have_their_hounsfield_units(
    patient: DemoPatient, what: str, at: tuple[float, float, float], low: float, high: float
) -> None:
    assert low <= np.median(hu_around(patient, at, 3.0)) <= high, what


def test_vertebrae_are_trabecular_within_a_cortex(patient: DemoPatient) -> None:
    l3 = next(v for v in vertebrae() if v.name == "L3")
    inside = hu_around(patient, tuple(l3.center), 8.0)
    assert 150 <= inside.mean() <= 300 and inside.std() > 30
    shell = hu_around(patient, tuple(l3.center), 30.0)
    assert 700 <= np.percentile(shell, 99) <= 1500


def test_scanner_noise_is_that_of_a_ct(patient: DemoPatient) -> None:
    noise = patient.volume_hu.data - patient.anatomy_hu.data
    assert 10 < noise[patient.anatomy_hu.data > -500].std() < 18


def test_the_liver_lies_on_the_patients_right(patient: DemoPatient) -> None:
    """x is negative on the right (L, P, S): liver there, spleen and stomach gas on the left."""
    assert np.median(hu_around(patient, (-95, -5, 85), 6)) > 45
    assert hu_around(patient, (62, -58, 105), 6).mean() < -700
    mirrored = patient.anatomy_hu.data[:, :, ::-1]
    assert np.abs(mirrored - patient.anatomy_hu.data).mean() > 40  # HU: far from symmetric


def edge_counts(mesh: Mesh) -> np.ndarray:
    edges = np.sort(np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]), axis=1)
    return np.unique(edges, axis=0, return_counts=True)[1]


def test_vessel_surface_is_closed_and_outward(patient: DemoPatient) -> None:
    mesh = patient.vessels
    assert (edge_counts(mesh) == 2).all()
    a, b, c = (mesh.vertices[mesh.faces[:, n]] for n in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    tubes = sum(np.pi * (b.radius[:-1] ** 2 * np.linalg.norm(np.diff(b.points, axis=0), axis=1)).sum()
                for b in patient.tree.planned().branches)
    assert volume == pytest.approx(tubes, rel=0.08)  # forks overlap, round ends add


def test_surface_lies_at_the_radius_from_the_axis(patient: DemoPatient) -> None:
    from scipy.spatial import cKDTree

    near = cKDTree(patient.vessels.vertices)
    for name in ("aorta", "renal_left", "external_iliac_right", "ima"):
        b = patient.tree[name]
        middle = len(b.points) * 2 // 3
        # 0.2 mm: marching cubes on 1.2 mm shrink a tube of 1.7 mm radius by 0.12
        assert near.query(b.points[middle])[0] == pytest.approx(b.radius[middle], abs=0.2), name


def test_path_runs_inside_the_arteries_to_the_left_kidney(patient: DemoPatient) -> None:
    path, tree = patient.path_mm, patient.tree
    assert path[0, 0] < -50 and path[0, 2] < -150  # from the right groin
    assert path[-1, 0] > 35 and abs(path[-1, 2] - patient.target_mm[2]) < 15  # to the left hilum
    points = np.concatenate([b.points for b in tree.branches])
    radius = np.concatenate([b.radius for b in tree.branches])
    depth = (np.linalg.norm(path[:, None] - points[None], axis=2) - radius[None]).min(1)
    assert depth.max() < 0
    assert np.linalg.norm(path - patient.target_mm, axis=1).min() < 4  # it passes the target
    aorta = tree["aorta"]
    wall = np.linalg.norm(aorta.points - patient.target_mm, axis=1)
    assert wall.min() == pytest.approx(aorta.radius[wall.argmin()], abs=0.3)  # the ostium lies on the aorta's wall


def test_same_seed_same_bits_other_seed_another_patient(coarse: DemoPatient) -> None:
    again, other = DemoPatient.build(0, "coarse"), DemoPatient.build(1, "coarse")
    assert np.array_equal(coarse.volume_hu.data, again.volume_hu.data)
    assert np.array_equal(coarse.vessels.vertices, again.vessels.vertices)
    assert np.array_equal(coarse.path_mm, again.path_mm)
    assert not np.array_equal(coarse.volume_hu.data, other.volume_hu.data)


def test_a_size_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match="size"):
        DemoPatient.build(0, "huge")


def test_a_breath_moves_organs_and_leaves_the_skeleton(patient: DemoPatient) -> None:
    def moved(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(patient.breathing.moved(points, 12.0) - points, axis=-1)

    assert moved(np.array([65.0, 36.0, 33.0])) == pytest.approx(7.5, abs=2.0)  # kidney
    assert moved(np.array([-70.0, -10.0, 90.0])) > 8  # liver
    renal = moved(patient.tree["renal_left"].points)
    assert 2.0 < renal.max() < 6.0 and moved(patient.target_mm) < 1.5
    assert moved(patient.tree["aorta"].points).max() < 1.0
    for v in vertebrae():
        body = v.center + np.array([[0, 0, 0], [v.width / 2, 0, 0], [-v.width / 2, 0, 0], [0, v.depth / 2 + 40, 0]])
        assert moved(body).max() < 0.1, v.name
    assert moved(np.array([[128.0, -20, -80], [-128.0, -20, -80], [89.0, -8, -181]])).max() < 0.6  # crests, hip


def test_moved_and_displacement_are_one_field(patient: DemoPatient) -> None:
    rng = np.random.default_rng(5)
    rest = rng.uniform((-120, -70, -150), (120, 70, 170), (400, 3))
    for excursion in (3.0, 14.0):
        at = patient.breathing.moved(rest, excursion)
        assert np.abs(at - patient.breathing.displacement(at, excursion) - rest).max() < 1e-4  # mm: the iteration ended
