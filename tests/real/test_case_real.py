# SPDX-License-Identifier: Apache-2.0
"""Cases from real images: chest CT by DICOM, CTA with labels, vessel phantom, knee implant."""

from __future__ import annotations

import time

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree

from fluoronav.case import Case, create_case, read_ct
from fluoronav.case.fit import signed_distance

pytestmark = pytest.mark.real
VESSELS = ("aorta", "brachiocephalic_trunk", "common_carotid_artery_left", "subclavian_artery_left", "celiac_trunk")


@pytest.fixture(scope="module")
def chest(shared_data, tmp_path_factory):
    return create_case(tmp_path_factory.mktemp("chest") / "case", ct=shared_data / "chest_ct")


@pytest.fixture(scope="module")
def aorta(shared_data, tmp_path_factory):
    data = shared_data / "aorta_cta"
    return create_case(tmp_path_factory.mktemp("aorta") / "case", ct=data / "ct_cropped.nii.gz",
                       vessels=[data / f"{name}.nii.gz" for name in VESSELS])


def test_the_chest_ct_is_what_simpleitk_reads_at_the_same_places(shared_data, chest):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(shared_data / "chest_ct")))
    image = reader.Execute()
    volume = chest.volume_hu
    assert volume.data.shape == (133, 512, 512)
    for i, j, k in ((0, 0, 0), (511, 0, 0), (0, 511, 0), (0, 0, 132), (200, 300, 66)):
        place = np.array(image.TransformIndexToPhysicalPoint((i, j, k)))
        index = np.linalg.solve(volume.patient_from_index, [*place, 1])[:3]
        assert np.abs(index - np.round(index)).max() < 1e-3
        a, b, c = np.round(index).astype(int)
        assert volume.data[c, b, a] == image.GetPixel(i, j, k)
    assert (volume.data.min(), volume.data.max()) == (-2048, 3071)  # README: as stored, none clipped


def test_a_feet_first_patient_has_the_head_up_and_the_liver_on_the_right(chest):
    volume = chest.volume_hu
    assert volume.patient_from_index[2, 2] > 0 and volume.patient_from_index[0, 0] > 0
    low = volume.data[:30].astype(float)  # the lowest 75 mm: liver on the patient's right (-L), air on the left
    soft = (low > 40) & (low < 200)
    half = volume.data.shape[2] // 2
    assert soft[:, :, :half].sum() > soft[:, :, half:].sum()


def test_a_ct_of_35_million_voxels_opens_in_two_seconds(chest):
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        Case.open(chest.folder)
        times.append(time.perf_counter() - begun)
    assert min(times) < 2.0


def test_no_name_or_uid_of_the_headers_is_in_the_folder(shared_data, chest):
    words = set()
    for file in sorted((shared_data / "chest_ct").glob("*.dcm"))[::10]:
        for element in pydicom.dcmread(file, stop_before_pixels=True).iterall():
            if element.VR in ("PN", "LO", "UI") and len(str(element.value)) > 3:
                words.add(str(element.value))
    written = b"".join(path.read_bytes() for path in chest.folder.iterdir())
    assert len(words) > 20
    assert {word for word in words if word.encode() in written} == set()


def test_the_pelvis_loads_and_metal_is_kept(shared_data):
    volume, _ = read_ct(shared_data / "pelvis_spine_ct" / "example_ct.nii.gz")
    assert volume.data.shape == (112, 101, 122) and (volume.data.min(), volume.data.max()) == (-1207, 3382)


def test_labels_become_vessels_that_lie_on_the_labels(shared_data, aorta):
    assert list(aorta.surfaces) == [name.replace("_", " ") for name in VESSELS] == list(aorta.centerlines)
    for file, name in zip(VESSELS, aorta.surfaces, strict=True):
        image = sitk.ReadImage(str(shared_data / "aorta_cta" / f"{file}.nii.gz"))
        mask = sitk.GetArrayFromImage(image) > 0
        origin, spacing = np.array(image.GetOrigin()), np.array(image.GetSpacing())  # identity direction: L, P, S
        inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
        line = aorta.centerlines[name]
        index = (line.points - origin) / spacing
        depth = ndimage.map_coordinates(inside, index[:, ::-1].T, order=1, mode="nearest") * 1.5
        assert np.mean(depth > 0) > 0.97 and depth.min() > -1.5  # within the label, a voxel at its ends
        assert np.median(np.abs(depth - line.radius_mm)) < 1.5
        assert line.radius_mm.min() > 0.7
        volume = _volume(aorta.surfaces[name])
        assert volume == pytest.approx(mask.sum() * 1.5**3, rel=0.06)
        assert np.quantile(signed_distance(aorta.surfaces[name], line.points), 0.98) < 0.75


def test_contrast_fills_the_labeled_aorta_in_the_ct(aorta):
    """The vessels lie in the CT where the blood is bright: frames of CT and labels agree."""
    volume = aorta.volume_hu
    index = (aorta.centerlines["aorta"].points - volume.patient_from_index[:3, 3]) @ np.linalg.inv(
        volume.patient_from_index[:3, :3]).T
    values = ndimage.map_coordinates(volume.data, index[:, ::-1].T, order=1)
    assert np.median(values) > 200  # iodine; unenhanced blood has 40


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_a_flipped_label_of_the_aorta_lands_on_the_same_vessels(shared_data, aorta, tmp_path, axes):
    image = sitk.ReadImage(str(shared_data / "aorta_cta" / "aorta.nii.gz"))
    turned = sitk.Flip(image, [axis in axes for axis in range(3)])  # turns the voxels and the origin and direction
    sitk.WriteImage(turned, str(tmp_path / "aorta.nrrd"))
    made = create_case(tmp_path / "case", vessels=[tmp_path / "aorta.nrrd"])
    for a, b in ((aorta.surfaces["aorta"].vertices, made.surfaces["aorta"].vertices),
                 (aorta.centerlines["aorta"].points, made.centerlines["aorta"].points)):
        assert max(cKDTree(a).query(b)[0].max(), cKDTree(b).query(a)[0].max()) < 0.75  # half a voxel


def test_the_phantom_is_read_as_it_stands_and_in_other_axes_lands_on_itself(shared_data, tmp_path):
    data = shared_data / "vessel_phantom"
    made = create_case(tmp_path / "a", vessels=[data / "surface.stl", data / "centerlines.vtk"])
    lines = made.centerlines["vessels"]
    assert len(lines.lines) == 11 and len(lines.points) == 464 and len(made.surfaces["vessels"].faces) == 12960
    assert any("11 of 464 points belong to no line" in note for note in made.notes)
    published = data / "as_published"
    files = [published / "surface.stl", published / "centerlines.vtk"]
    other = create_case(tmp_path / "b", axes="-z,y,x", vessels=files)
    for a, b in ((made.surfaces["vessels"].vertices, other.surfaces["vessels"].vertices),
                 (lines.points, other.centerlines["vessels"].points)):
        assert max(cKDTree(a).query(b)[0].max(), cKDTree(b).query(a)[0].max()) < 0.01


def test_a_surface_alone_gets_a_centerline_where_the_authors_have_theirs(shared_data, tmp_path):
    data = shared_data / "vessel_phantom"
    both = create_case(tmp_path / "a", vessels=[data / "surface.stl", data / "centerlines.vtk"])
    alone = create_case(tmp_path / "b", vessels=[data / "surface.stl"])
    theirs, ours = both.centerlines["vessels"].sampled(0.5), alone.centerlines["vessels"].sampled(0.5)
    apart = cKDTree(ours).query(theirs)[0]
    assert np.median(apart) < 0.5 and np.quantile(apart, 0.95) < 1.5  # vessels are 2 to 5 mm in radius
    assert np.quantile(cKDTree(theirs).query(ours)[0], 0.95) < 1.5  # and nothing of ours is elsewhere
    depth = signed_distance(both.surfaces["vessels"], alone.centerlines["vessels"].points)
    assert np.quantile(depth, 0.98) < 0.6  # a voxel, at the open ends
    assert any("no centerline was given" in note for note in alone.notes)


def test_the_phantoms_line_in_other_axes_does_not_fit_its_surface(shared_data, tmp_path):
    from registration.errors import BadInput

    data = shared_data / "vessel_phantom"
    with pytest.raises(BadInput, match="near the surface"):
        create_case(tmp_path / "c", vessels=[data / "surface.stl", data / "as_published" / "centerlines.vtk"])


def test_the_knee_implants_are_cases(shared_data, tmp_path):
    for name, faces in (("KR_right_7_fem.stl", 12412), ("KR_right_6_tib.stl", 15000)):
        made = create_case(tmp_path / name, implant=shared_data / "knee_implant" / name)
        assert len(made.implant.faces) == faces and _volume(made.implant) > 0
        assert made.target_assumed and np.allclose(made.target_mm, made.implant.vertices.mean(axis=0))


def _volume(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
