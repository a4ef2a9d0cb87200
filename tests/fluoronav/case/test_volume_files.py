# SPDX-License-Identifier: Apache-2.0
"""NIfTI, NRRD and MHA: placed by their own affine, refused where they do not state it."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from case_inputs import hounsfield, write_volume

from fluoronav.case import read_ct
from registration.errors import BadInput
from registration.geometry import Rigid

AFFINE = Rigid.exp([0.1, -0.2, 0.3, 5, -6, 7]) @ np.diag([0.7, 0.8, 2.5, 1.0])


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha"])
def test_values_and_places_survive_each_format(tmp_path, name):
    volume, notes = read_ct(write_volume(tmp_path / name, hounsfield(), AFFINE))
    assert np.array_equal(volume.data, hounsfield())
    assert np.allclose(volume.patient_from_index, AFFINE, atol=1e-4)  # NIfTI keeps float32
    assert any("assumed: CT: the values are Hounsfield units" in note for note in notes)


def nifti(path, changes):
    """A plain NIfTI with bytes of its header changed: {offset: (format, values)}."""
    raw = bytearray(write_volume(path.with_name("plain.nii"), hounsfield(), AFFINE).read_bytes())
    for offset, (form, values) in changes.items():
        struct.pack_into(form, raw, offset, *values)
    path.write_bytes(bytes(raw))
    return path


def test_a_nifti_without_orientation_codes_is_refused(tmp_path):
    with pytest.raises(BadInput, match="neither qform nor sform"):
        read_ct(nifti(tmp_path / "n.nii", {252: ("<hh", (0, 0))}))


def test_forms_that_disagree_are_told_and_mirrored_ones_refused(tmp_path):
    ras = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    moved = ras.copy()
    moved[0, 3] += 3
    volume, notes = read_ct(nifti(tmp_path / "n.nii", {252: ("<hh", (1, 1)), 280: ("<12f", moved[:3].ravel())}))
    assert any("disagree by up to 3 mm" in note for note in notes)
    assert np.allclose(volume.patient_from_index[0, 3], AFFINE[0, 3] - 3, atol=1e-4)  # the sform's; L is -R
    mirrored = ras @ np.diag([-1, 1, 1, 1])
    with pytest.raises(BadInput, match="mirror image"):
        read_ct(nifti(tmp_path / "m.nii", {252: ("<hh", (1, 1)), 280: ("<12f", mirrored[:3].ravel())}))


@pytest.mark.parametrize("codes", [(1, 0), (0, 1)])
def test_either_form_alone_places_the_volume(tmp_path, codes):
    volume, _ = read_ct(nifti(tmp_path / "n.nii", {252: ("<hh", codes)}))
    assert np.allclose(volume.patient_from_index, AFFINE, atol=1e-4)


def test_meters_become_millimeters_and_are_told(tmp_path):
    in_meters = (np.diag([-1.0, -1, 1, 1]) @ AFFINE)[:3] * 1e-3
    volume, notes = read_ct(nifti(tmp_path / "n.nii", {123: ("<B", (1,)), 252: ("<hh", (0, 1)),
                                                       280: ("<12f", in_meters.ravel())}))
    assert np.allclose(volume.spacing_mm, [0.7, 0.8, 2.5], rtol=1e-5)
    assert any("turned from m into mm" in note for note in notes)


def test_a_sheared_grid_is_refused(tmp_path):
    sheared = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    sheared[:3, 2] += 0.3 * sheared[:3, 0]
    with pytest.raises(BadInput, match="right angles"):
        read_ct(nifti(tmp_path / "n.nii", {252: ("<hh", (0, 1)), 280: ("<12f", sheared[:3].ravel())}))


@pytest.mark.parametrize("line, said", [("space:", "space not stated"), ("space directions:", "space directions"),
                                        ("space origin:", "origin")])
def test_an_nrrd_without_its_place_is_refused(tmp_path, line, said):
    raw = write_volume(tmp_path / "a.nrrd", hounsfield(), AFFINE).read_bytes()
    head, _, data = raw.partition(b"\n\n")
    kept = b"\n".join(x for x in head.split(b"\n") if not x.startswith(line.encode()))
    (tmp_path / "b.nrrd").write_bytes(kept + b"\n\n" + data)
    with pytest.raises(BadInput, match=said):
        read_ct(tmp_path / "b.nrrd")


@pytest.mark.parametrize("line", ["TransformMatrix", "Offset", "ElementSpacing"])
def test_an_mha_without_its_place_is_refused(tmp_path, line):
    raw = write_volume(tmp_path / "a.mha", hounsfield(), AFFINE).read_bytes()
    at = raw.index(line.encode())
    (tmp_path / "b.mha").write_bytes(raw[:at] + raw[raw.index(b"\n", at) + 1:])
    with pytest.raises(BadInput, match=line):
        read_ct(tmp_path / "b.mha")


def test_a_time_series_a_cut_file_and_noise_are_refused(tmp_path):
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(hounsfield())] * 2), str(tmp_path / "4d.nrrd"))
    raw = write_volume(tmp_path / "a.nii.gz", hounsfield(), AFFINE).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(raw[: len(raw) // 2])
    plain = gzip.decompress(raw)
    (tmp_path / "cut.nii").write_bytes(plain[:-500])
    (tmp_path / "noise.mha").write_bytes(bytes(range(256)))
    (tmp_path / "ct.txt").write_text("x")
    for name in ("4d.nrrd", "cut.nii.gz", "cut.nii", "noise.mha", "ct.txt"):
        with pytest.raises(BadInput):
            read_ct(tmp_path / name)


def test_values_that_are_not_finite_are_refused(tmp_path):
    data = hounsfield().astype(np.float32)
    data[0, 0, 0] = np.nan
    with pytest.raises(BadInput, match="1 voxels that are NaN"):
        read_ct(write_volume(tmp_path / "n.nrrd", data, AFFINE))


@pytest.mark.parametrize("data, said", [(hounsfield() + 1024, "no air"), (np.minimum(hounsfield(), 60), "no bone"),
                                        (hounsfield().astype(np.int32) * 100, "cannot all be Hounsfield")])
def test_values_that_can_hardly_be_hounsfield_units_are_told(tmp_path, data, said):
    _, notes = read_ct(write_volume(tmp_path / "n.nrrd", data, AFFINE))
    assert any(note.startswith("warning") and said in note for note in notes)


@pytest.mark.parametrize("name", ["nan.nii", "nan.nii.gz", "nan.mha"])
def test_voxels_that_are_not_finite_are_refused_in_each_format(tmp_path, name):
    values = hounsfield().astype(np.float32)
    values[2, 3, 4] = np.nan  # ITK's NIfTI reader would hand out 0
    with pytest.raises(BadInput, match="1 voxels that are NaN"):
        read_ct(write_volume(tmp_path / name, values, AFFINE))


def test_a_ct_of_one_value_is_no_picture(tmp_path):
    with pytest.raises(BadInput, match="the value 0 in every voxel"):
        read_ct(write_volume(tmp_path / "ct.mha", np.zeros_like(hounsfield()), AFFINE))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_voxels_in_other_units_than_mm_are_refused(tmp_path, scale):
    with pytest.raises(BadInput, match="lengths are mm"):
        read_ct(write_volume(tmp_path / "ct.mha", hounsfield(), AFFINE @ np.diag([scale, scale, scale, 1.0])))
