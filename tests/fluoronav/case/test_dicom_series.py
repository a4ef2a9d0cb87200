# SPDX-License-Identifier: Apache-2.0
"""The CT door for DICOM folders: the right voxels at the right places, or a refusal that says why."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from case_inputs import ORIGIN, PITCH, SHAPE, STEP, affine_of_series, hounsfield, write_enhanced, write_series
from pydicom.uid import generate_uid
from scipy import ndimage

from fluoronav.case import read_ct
from registration.errors import BadInput


def test_values_and_affine_are_those_of_the_headers(tmp_path):
    volume, notes = read_ct(write_series(tmp_path / "ct", order=[5, 0, 7, 2, 1, 6, 3, 4]))
    assert np.array_equal(volume.data, hounsfield())
    assert np.allclose(volume.patient_from_index, affine_of_series(), atol=1e-9)
    assert any(note.startswith("read: CT: 8 slices") for note in notes)


def test_an_oblique_series_stacked_downward_is_placed_voxel_by_voxel(tmp_path):
    a, b = np.radians([20, -12])
    axes = (np.cos(a), np.sin(a), 0, -np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b))
    step = -np.cross(axes[:3], axes[3:]) * STEP
    volume, _ = read_ct(write_series(tmp_path / "ct", axes=axes, step=step))
    hu = hounsfield()
    for k, j, i in ((0, 0, 0), (7, 19, 23), (3, 9, 10)):
        place = np.array(ORIGIN) + k * step + np.array(axes[:3]) * i * PITCH[1] + np.array(axes[3:]) * j * PITCH[0]
        index = np.linalg.solve(volume.patient_from_index, [*place, 1])[:3]
        nearest = np.round(index).astype(int)
        assert np.abs(index - nearest).max() < 1e-3  # positions and cosines were written with 6 decimals
        assert volume.data[tuple(nearest[::-1])] == hu[k, j, i]


def test_signed_pixels_and_a_slope_a_slice_become_hounsfield_units(tmp_path):
    def change(k, ds):
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 1, 12, 11
        ds.RescaleSlope, ds.RescaleIntercept = 2 if k % 2 else 1, 0
        stored = hounsfield()[k] // (2 if k % 2 else 1)
        ds.PixelData = (stored.astype(np.int16) & 0x0FFF).astype(np.uint16).tobytes()

    volume, _ = read_ct(write_series(tmp_path / "ct", change=change))
    assert np.array_equal(volume.data[0::2], hounsfield()[0::2])
    assert np.array_equal(volume.data[1::2], hounsfield()[1::2] // 2 * 2)


def test_other_files_in_the_folder_are_left_out_and_told(tmp_path):
    folder = write_series(tmp_path / "ct")
    (folder / "README.txt").write_text("notes")
    report = pydicom.dcmread(folder / "slice000.dcm")
    for key in ("PixelData", "Rows", "Columns"):
        delattr(report, key)
    report.SOPInstanceUID, report.Modality = generate_uid(), "SR"
    pydicom.dcmwrite(folder / "report.dcm", report)
    volume, notes = read_ct(folder)
    assert volume.data.shape == SHAPE
    assert sum(note.startswith("warning: 1 ") and "left out" in note for note in notes) == 2


@pytest.mark.parametrize("shared_rescale", [True, False])
@pytest.mark.parametrize("as_folder", [True, False])
def test_an_enhanced_file_holds_the_same_volume_as_classic_slices(tmp_path, as_folder, shared_rescale):
    hu = hounsfield() // 2 * 2  # even values: a slope of 2 keeps them
    file = write_enhanced(tmp_path / "ct.dcm", hu, order=[3, 0, 7, 2, 1, 6, 5, 4], shared_rescale=shared_rescale)
    volume, notes = read_ct(tmp_path if as_folder else file)
    assert np.array_equal(volume.data, hu)
    assert np.allclose(volume.patient_from_index, affine_of_series(), atol=1e-9)
    assert any("8 slices" in note and "1 enhanced file" in note for note in notes)


def _no_positions(ds):
    for frame in ds.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence


def _two_phases(ds):
    for k, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + k % 4 * STEP]


ENHANCED_REFUSED = {
    "a group too few": (lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(), "7 for 8 frames"),
    "no groups": (lambda ds: delattr(ds, "PerFrameFunctionalGroupsSequence"), "0 for 8 frames"),
    "no positions": (_no_positions, "ImagePositionPatient"),
    "two phases": (_two_phases, "at the place of another"),
    "no spacing": (lambda ds: delattr(ds.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"), "PixelSpacing"),
    "no rescale": (lambda ds: delattr(ds.SharedFunctionalGroupsSequence[0], "PixelValueTransformationSequence"),
                   "RescaleSlope"),
}


@pytest.mark.parametrize("name", ENHANCED_REFUSED)
def test_an_enhanced_file_that_leaves_its_geometry_open_is_refused(tmp_path, name):
    change, said = ENHANCED_REFUSED[name]
    with pytest.raises(BadInput) as refused:
        read_ct(write_enhanced(tmp_path / "ct.dcm", change=change))
    assert said in str(refused.value)


@pytest.mark.parametrize("tilt_deg", [-22.0, 15.0])
def test_a_tilted_scan_becomes_straight_with_every_structure_in_its_place(tmp_path, tilt_deg):
    """The gantry turns about x: slices lie oblique, the table goes along z. The body is linear in place within a
    slice, which linear interpolation keeps: what is left is the rounding of stored values."""
    def body(at):
        return np.round(300 + 6 * at[..., 0] + 9 * at[..., 1] - 4 * at[..., 2]).astype(np.int16)

    t = np.radians(tilt_deg)
    axes, step = (1, 0, 0, 0, np.cos(t), np.sin(t)), np.array([0, 0, STEP])
    k, j, i = np.indices((8, 40, 24))
    places = (np.array(ORIGIN) + i[..., None] * np.array(axes[:3]) * PITCH[1]
              + j[..., None] * np.array(axes[3:]) * PITCH[0] + k[..., None] * step)
    folder = write_series(tmp_path / "ct", body(places), axes=axes, step=step, GantryDetectorTilt=tilt_deg)
    volume, notes = read_ct(folder)
    axes = volume.patient_from_index[:3, :3] / volume.spacing_mm
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    k, j, i = np.indices(volume.data.shape)
    at = np.stack([i, j, k], -1) @ volume.patient_from_index[:3, :3].T + volume.patient_from_index[:3, 3]
    inside = volume.data > -900
    assert inside.sum() > 0.9 * places[..., 0].size
    # away from the rim, where air is mixed in
    core = np.stack([ndimage.binary_erosion(s, iterations=2) for s in inside])
    assert core.sum() > 0.6 * places[..., 0].size
    assert np.abs(volume.data - body(at))[core].max() <= 1.5
    assert any(f"tilted by {abs(tilt_deg):.2f} deg" in note for note in notes)
    assert not any("header states a gantry tilt" in note for note in notes)


def _set(key, value, only=None):
    def change(k, ds):
        if only is None or k in only:
            if value is None:
                delattr(ds, key)
            else:
                setattr(ds, key, value)
    return change


def _raw_spacing(text):
    def change(k, ds):
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import Tag
        value = text.encode()
        ds._dict[Tag(0x00280030)] = RawDataElement(Tag(0x00280030), "DS", len(value), value, 0, False, True)
    return change


def _fewer_rows(k, ds):
    if k == 3:
        ds.Rows, ds.PixelData = 10, ds.PixelData[: len(ds.PixelData) // 2]


def _shift(k, ds):
    if k == 3:
        ds.ImagePositionPatient = [ORIGIN[0] + 1.5, ORIGIN[1], ORIGIN[2] + 3 * STEP]


def _uneven(k, ds):
    if k > 3:
        ds.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + 3 * STEP + (k - 3) * STEP * 1.3]


TOO_FAR = np.array([0, np.sin(np.radians(50)), np.cos(np.radians(50))]) * STEP
REFUSED = {
    "two series": (dict(change=_set("SeriesInstanceUID", "1.2.3", {2})), "2 series"),
    "two patients": (dict(change=_set("PatientID", "ID-Zebra", {2})), "2 patients"),
    "two studies": (dict(change=_set("StudyInstanceUID", "1.2.3", {2})), "2 studies"),
    "two frames of reference": (dict(change=_set("FrameOfReferenceUID", "1.2.3", {2})), "2 frames of reference"),
    "missing slice": (dict(skip=(4,)), "1 missing slice"),
    "missing slices": (dict(skip=(2, 4, 5)), "3 missing slice"),
    "duplicate place": (dict(change=_set("ImagePositionPatient", [*ORIGIN[:2], ORIGIN[2] + 2 * STEP], {3})),
                        "at the place of another"),
    "non-uniform spacing": (dict(change=_uneven), "slice spacing"),
    "no gantry tilts so far": (dict(step=TOO_FAR), "50.00 deg"),
    "sideways shift": (dict(change=_shift), "sideways"),
    "zero spacing": (dict(change=_raw_spacing("0\\0.7")), "PixelSpacing"),
    "NaN spacing": (dict(change=_raw_spacing("nan\\nan")), "PixelSpacing"),
    "no spacing": (dict(PixelSpacing=None), "PixelSpacing"),
    "two spacings": (dict(change=_set("PixelSpacing", [1.0, 1.0], {3})), "PixelSpacing"),
    "no position": (dict(change=_set("ImagePositionPatient", None, {3})), "ImagePositionPatient"),
    "no orientation": (dict(ImageOrientationPatient=None), "ImageOrientationPatient"),
    "skewed orientation": (dict(ImageOrientationPatient=[1, 0, 0, 0.3, 0.9, 0]), "right angles"),
    "two orientations": (dict(change=_set("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], {3})), "another plane"),
    "no slope": (dict(RescaleSlope=None), "RescaleSlope"),
    "no intercept": (dict(RescaleIntercept=None), "RescaleIntercept"),
    "another unit": (dict(RescaleType="US"), "RescaleType"),
    "two sizes": (dict(change=_fewer_rows), "10 x 24 and 20 x 24"),
    "not a CT": (dict(Modality="MR"), "modality"),
    "two modalities": (dict(change=_set("Modality", "PT", {3})), "CT, PT"),
    "multi-frame": (dict(NumberOfFrames=2), "2 frames without a position"),
    "enhanced in name only": (dict(change=lambda k, ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2.1")),
                              "functional groups"),
    "one slice": (dict(skip=tuple(range(1, 8))), "one slice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_one_whole_straight_series_is_refused(tmp_path, name):
    changes, said = REFUSED[name]
    with pytest.raises(BadInput) as refused:
        read_ct(write_series(tmp_path / "ct", **changes))
    assert said in str(refused.value)
    for secret in ("Quenby", "4711", "Zebra"):
        assert secret not in str(refused.value)  # patients are counted, never named


def test_a_file_twice_is_refused(tmp_path):
    folder = write_series(tmp_path / "ct")
    shutil.copy(folder / "slice003.dcm", folder / "copy.dcm")
    with pytest.raises(BadInput, match="twice"):
        read_ct(folder)


def test_a_cut_slice_is_refused(tmp_path):
    folder = write_series(tmp_path / "ct")
    cut = folder / "slice003.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"slice003\.dcm"):
        read_ct(folder)


def test_a_folder_without_slices_and_a_single_file_say_what_to_give(tmp_path):
    folder = write_series(tmp_path / "study" / "ct")
    with pytest.raises(BadInput, match="folder that holds the slices"):
        read_ct(tmp_path / "study")
    with pytest.raises(BadInput, match="one DICOM slice"):
        read_ct(folder / "slice000.dcm")
    with pytest.raises(BadInput, match="no such file"):
        read_ct(tmp_path / "nowhere")


def test_a_stated_tilt_that_the_positions_do_not_show_is_told(tmp_path):
    _, notes = read_ct(write_series(tmp_path / "ct", GantryDetectorTilt=10))
    assert any("gantry tilt of 10 deg" in note for note in notes)
