# SPDX-License-Identifier: Apache-2.0
"""DICOM runs: what is read, derived, assumed, refused."""

from __future__ import annotations

import json
from pathlib import Path

import dicom_files as files
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from fluoronav.imaging import open_run
from registration.errors import BadGeometry, BadPixels


def test_frames_geometry_and_times_are_what_the_file_says(tmp_path: Path) -> None:
    pixels = files.picture()
    run = open_run(files.write(tmp_path / "a.dcm", pixels, KVP=70, XRayTubeCurrent=6, AveragePulseWidth=5))
    assert len(run.frames) == 3 and run.nominal_interval_s == pytest.approx(0.04)
    frame = run.frames[2]
    assert np.array_equal(frame.pixels, pixels[2])
    assert frame.carm is not None and frame.carm.pitch_mm_row_col == (0.4, 0.2)  # row first, as in the tag
    assert (frame.carm.sdd_mm, frame.carm.sod_mm, frame.carm.principal_px_u_v) == (1000, 750, (29.5, 19.5))
    assert frame.angles is not None and (frame.angles.primary_deg, frame.angles.secondary_deg) == (30, -10)
    assert frame.time_ns == 80_000_000
    assert (frame.exposure.kvp, frame.exposure.ma, frame.exposure.ms) == (70, 6, 5)
    assert any("SOD 750" in note and note.startswith("assumed") for note in run.notes)
    assert run.geometry_error is None


def test_the_isocenter_distance_goes_before_the_patient_distance(tmp_path: Path) -> None:
    run = open_run(files.write(tmp_path / "a.dcm", DistanceSourceToIsocenter=780))
    assert run.frames[0].carm is not None and run.frames[0].carm.sod_mm == 780
    assert any("differs" in note for note in run.notes)


def test_sod_follows_from_magnification_and_a_contradiction_is_told(tmp_path: Path) -> None:
    tags = {"EstimatedRadiographicMagnificationFactor": 1.25}
    run = open_run(files.write(tmp_path / "a.dcm", leave_out=("DistanceSourceToPatient",), **tags))
    assert run.frames[0].carm is not None and run.frames[0].carm.sod_mm == pytest.approx(800)
    told = open_run(files.write(tmp_path / "b.dcm", EstimatedRadiographicMagnificationFactor=2.0))
    assert any(note.startswith("warning") and "magnification" in note for note in told.notes)


def test_pitch_is_derived_from_the_field_of_view_and_said(tmp_path: Path) -> None:
    pixels = files.picture(1, 50, 50)
    run = open_run(files.write(tmp_path / "a.dcm", pixels, leave_out=("ImagerPixelSpacing",),
                               FieldOfViewShape="RECTANGLE", FieldOfViewDimensions=[200, 200], IntensifierSize=230))
    assert run.frames[0].carm is not None and run.frames[0].carm.pitch_mm_row_col == (4.0, 4.0)
    assert any(note.startswith("derived: pitch 4") for note in run.notes)
    assert any("IntensifierSize" in note and note.startswith("warning") for note in run.notes)


def test_detector_elements_times_binning_give_the_pitch(tmp_path: Path) -> None:
    run = open_run(files.write(tmp_path / "a.dcm", leave_out=("ImagerPixelSpacing",),
                               DetectorElementSpacing=[0.154, 0.154], DetectorBinning=[2, 2]))
    assert run.frames[0].carm is not None and run.frames[0].carm.pitch_mm_row_col == pytest.approx((0.308, 0.308))


@pytest.mark.parametrize(("tags", "word"), [
    ({"ImagerPixelSpacing": [0, 0]}, "ImagerPixelSpacing"),
    ({"ImagerPixelSpacing": None}, "ImagerPixelSpacing"),
    ({"DistanceSourceToDetector": 0}, "DistanceSourceToDetector"),
    ({"DistanceSourceToDetector": 500}, "below"),
    ({"DistanceSourceToDetector": None, "DistanceSourceToPatient": None}, "SDD and SOD")])
def test_broken_geometry_leaves_the_pictures_and_says_why(tmp_path: Path, tags: dict[str, object], word: str) -> None:
    run = open_run(files.write(tmp_path / "a.dcm", **tags))
    assert isinstance(run.geometry_error, BadGeometry) and word in str(run.geometry_error)
    frame = run.frames[0]
    assert frame.carm is None and frame.geometry_fault == str(run.geometry_error)


def test_the_command_line_fills_what_the_file_does_not_say(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.dcm", leave_out=("ImagerPixelSpacing", "DistanceSourceToDetector",
                                                      "DistanceSourceToPatient"))
    run = open_run(path, sdd_mm=1100, sod_mm=700, pixel_spacing_mm=0.3)
    assert run.geometry_error is None and run.frames[0].carm is not None
    assert run.frames[0].carm.sdd_mm == 1100 and run.frames[0].carm.pitch_mm_row_col == (0.3, 0.3)


def test_frames_without_angles_keep_their_c_arm(tmp_path: Path) -> None:
    run = open_run(files.write(tmp_path / "a.dcm", leave_out=("PositionerPrimaryAngle",)))
    assert run.frames[0].carm is not None and run.frames[0].angles is None
    assert "angles" in str(run.geometry_error)


def test_a_moving_positioner_gives_each_frame_its_angle(tmp_path: Path) -> None:
    run = open_run(files.write(tmp_path / "a.dcm", PositionerMotion="DYNAMIC",
                               PositionerPrimaryAngleIncrement=[0, 1.5, 3],
                               PositionerSecondaryAngleIncrement=[0, 0, 1]))
    assert [f.angles.primary_deg for f in run.frames if f.angles] == [30, 31.5, 33]
    bare = open_run(files.write(tmp_path / "b.dcm", PositionerMotion="DYNAMIC"))
    assert bare.frames[0].angles is not None and bare.frames[2].angles is None


def test_frame_time_vector_goes_before_frame_time(tmp_path: Path) -> None:
    run = open_run(files.write(tmp_path / "a.dcm", FrameTimeVector=[0, 50, 100]))
    assert [f.time_ns for f in run.frames] == [0, 50_000_000, 150_000_000]


def test_an_unknown_rate_is_said(tmp_path: Path) -> None:
    run = open_run(files.write(tmp_path / "a.dcm", leave_out=("FrameTime",)))
    assert run.nominal_interval_s is None and any("not stated" in n and "frame times" in n for n in run.notes)


@pytest.mark.parametrize(("letters", "flipped"), [("L\\F", False), ("R\\F", True), ("", False)])
def test_patient_orientation_decides_about_the_mirror(tmp_path: Path, letters: str, flipped: bool) -> None:
    pixels = files.picture()
    run = open_run(files.write(tmp_path / "a.dcm", pixels, PositionerPrimaryAngle=5, PositionerSecondaryAngle=0,
                               PatientOrientation=letters.split("\\") if letters else None))
    assert run.flipped is flipped
    assert np.array_equal(run.frames[0].pixels, pixels[0][:, ::-1] if flipped else pixels[0])


def test_seen_from_source_flips_once_with_shutter_and_principal_point(tmp_path: Path) -> None:
    pixels = files.picture()
    path = files.write(tmp_path / "a.dcm", pixels, ShutterShape="RECTANGULAR", ShutterLeftVerticalEdge=10,
                       ShutterRightVerticalEdge=61, ShutterUpperHorizontalEdge=0, ShutterLowerHorizontalEdge=41,
                       FieldOfViewHorizontalFlip="YES")
    plain, turned = open_run(path).frames[0], open_run(path, seen_from="source").frames[0]
    assert np.array_equal(plain.pixels, pixels[0])  # FieldOfViewHorizontalFlip causes nothing
    assert np.array_equal(turned.pixels, pixels[0][:, ::-1])
    assert np.array_equal(turned.valid, plain.valid[:, ::-1]) and not plain.valid[:, :10].any()
    assert plain.valid[:, 10:].all()


def test_enhanced_xa_reads_functional_groups_and_turns_isocenter_angles(tmp_path: Path) -> None:
    def groups(primary: float) -> Dataset:
        angles, item = Dataset(), Dataset()
        angles.PositionerIsocenterPrimaryAngle, angles.PositionerIsocenterSecondaryAngle = primary, 5.0
        item.IsocenterReferenceSystemSequence = Sequence([angles])
        return item

    shared, geometry = Dataset(), Dataset()
    geometry.DistanceSourceToDetector, geometry.DistanceSourceToIsocenter = 1195.0, 785.0
    shared.XRayGeometrySequence = Sequence([geometry])
    tags = {"SharedFunctionalGroupsSequence": Sequence([shared]),
            "PerFrameFunctionalGroupsSequence": Sequence([groups(a) for a in (10.0, 20.0, 30.0)])}
    gone = ("PositionerPrimaryAngle", "PositionerSecondaryAngle", "DistanceSourceToDetector", "DistanceSourceToPatient")
    run = open_run(files.write(tmp_path / "s.dcm", leave_out=gone, PatientPosition="HFS", **tags))
    assert [f.angles.primary_deg for f in run.frames if f.angles] == [10, 20, 30]
    assert run.frames[1].carm is not None and run.frames[1].carm.sdd_mm == 1195
    prone = open_run(files.write(tmp_path / "p.dcm", leave_out=gone, PatientPosition="HFP", **tags))
    assert prone.frames[0].angles is not None and prone.frames[0].angles.primary_deg == pytest.approx(-170)
    feet = open_run(files.write(tmp_path / "f.dcm", leave_out=gone, PatientPosition="FFS", **tags))
    assert "FFS" in str(feet.geometry_error) and feet.frames[0].carm is None


def test_enhanced_xa_times_come_from_each_frame(tmp_path: Path) -> None:
    def groups(stamp: str) -> Dataset:
        content, item = Dataset(), Dataset()
        content.FrameAcquisitionDateTime = stamp
        item.FrameContentSequence = Sequence([content])
        return item

    stamps = ("20260101235959.900000", "20260102000000.000000", "20260102000000.150000")
    each = Sequence([groups(stamp) for stamp in stamps])
    run = open_run(files.write(tmp_path / "a.dcm", PerFrameFunctionalGroupsSequence=each))
    assert [f.time_ns for f in run.frames] == [0, 100_000_000, 250_000_000]


def test_a_grey_picture_in_a_color_jpeg_is_taken(tmp_path: Path) -> None:
    import imagecodecs
    from pydicom.encaps import encapsulate

    grey = np.tile(np.linspace(30, 200, 64).astype(np.uint8), (64, 1))
    ds = pydicom.dcmread(files.write(tmp_path / "a.dcm", grey[None]))
    ds.PixelData = encapsulate([bytes(imagecodecs.jpeg8_encode(np.repeat(grey[..., None], 3, axis=2), level=98))])
    ds["PixelData"].VR = "OB"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_FULL_422", 0
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    ds.save_as(tmp_path / "b.dcm")
    run = open_run(tmp_path / "b.dcm")
    assert np.abs(run.frames[0].pixels.astype(int) - grey).max() <= 2  # quality 98
    assert any("JPEG baseline" in note for note in run.notes)


def test_ten_bits_sixteen_bits_and_signed_pixels_are_counted_from_zero(tmp_path: Path) -> None:
    ten = files.picture(2, bits=10)
    run = open_run(files.write(tmp_path / "a.dcm", ten, bits=10))
    assert run.frames[1].intensity.bits == 10 and np.array_equal(run.frames[1].pixels, ten[1])
    signed = np.array([[[-2048, 0, 2047]]], np.int16)
    low = open_run(files.write(tmp_path / "b.dcm", signed, bits=12)).frames[0]
    assert low.pixels.tolist() == [[0, 2048, 4095]]


def test_overlay_bits_above_the_stored_bits_do_not_count(tmp_path: Path) -> None:
    ten = files.picture(1, bits=10)
    run = open_run(files.write(tmp_path / "a.dcm", ten | np.uint16(0x8000), bits=10))
    assert np.array_equal(run.frames[0].pixels, ten[0])


@pytest.mark.parametrize(("tags", "kind", "dense"), [
    ({"PixelIntensityRelationship": "LIN"}, "linear", "dark"),
    ({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}, "log", "bright"),
    ({"PixelIntensityRelationship": "DISP"}, "display", "dark"),
    ({"PixelIntensityRelationship": "DISP", "PhotometricInterpretation": "MONOCHROME1"}, "display", "bright"),
    ({"PixelIntensityRelationship": None}, "display", "dark"),
    ({"ImageType": ["DERIVED", "PRIMARY", "SINGLE PLANE", "SUBTRACTION"]}, "subtracted", "dark")])
def test_what_the_numbers_mean_is_told_apart(tmp_path: Path, tags: dict[str, object], kind: str, dense: str) -> None:
    meaning = open_run(files.write(tmp_path / "a.dcm", **tags)).frames[0].intensity
    assert (meaning.kind, meaning.dense) == (kind, dense)


def test_uncompressed_bytes_that_are_missing_are_refused_before_decoding(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.dcm", NumberOfFrames=4)
    with pytest.raises(BadPixels, match="end in frame 3"):
        open_run(path)


def test_more_bytes_than_the_header_says_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPixels, match="7200 bytes, expected 6000"):
        open_run(files.write(tmp_path / "a.dcm", Rows=50, NumberOfFrames=2))
    with pytest.raises(BadPixels, match="7200 bytes"):
        open_run(files.write(tmp_path / "b.dcm", NumberOfFrames=1))


def test_a_carm_file_goes_before_the_header(tmp_path: Path) -> None:
    stated = {"shape_rows_cols": [40, 60], "pitch_mm_row_col": [0.3, 0.3], "sdd_mm": 1200, "sod_mm": 800,
              "primary_deg": -20, "secondary_deg": 4}
    (tmp_path / "c.json").write_text(json.dumps(stated))
    path = files.write(tmp_path / "a.dcm", leave_out=("DistanceSourceToDetector", "PositionerPrimaryAngle"))
    run = open_run(path, carm_file=tmp_path / "c.json")
    frame = run.frames[1]
    assert run.geometry_error is None and frame.carm is not None and frame.carm.sdd_mm == 1200
    assert frame.angles is not None and frame.angles.primary_deg == -20 and run.carm_from_room is not None


def test_a_claim_of_terabytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPixels, match="Rows"):
        open_run(files.write(tmp_path / "a.dcm", Rows=65535, Columns=65535, NumberOfFrames=9999))


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    ds = pydicom.dcmread(files.write(tmp_path / "a.dcm", syntax=ImplicitVRLittleEndian))
    bare = tmp_path / "bare"
    del ds.file_meta
    pydicom.dcmwrite(bare, ds, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert np.array_equal(open_run(bare).frames[0].pixels, files.picture()[0])


def test_colors_are_refused_and_grey_rgb_is_taken(tmp_path: Path) -> None:
    grey = np.repeat(files.picture(1)[..., None], 3, axis=3)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    assert np.array_equal(open_run(files.write(tmp_path / "a.dcm", grey, **tags)).frames[0].pixels, grey[0, ..., 0])
    grey[..., 1] += 20
    with pytest.raises(BadPixels, match="color"):
        open_run(files.write(tmp_path / "b.dcm", grey, **tags)).frames[0]


def test_random_damage_never_crashes_the_door(tmp_path: Path) -> None:
    whole = files.write(tmp_path / "a.dcm").read_bytes()
    random = np.random.default_rng(7)
    outcomes = set()
    for trial in range(120):
        data = bytearray(whole[: random.integers(1, len(whole))] if trial % 3 == 0 else whole)
        for _ in range(random.integers(1, 12)):
            data[random.integers(0, min(len(data), 1400))] = random.integers(0, 256)
        path = tmp_path / "damaged.dcm"
        path.write_bytes(bytes(data))
        try:
            open_run(path).frames[0]
            outcomes.add("read")
        except BadPixels:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
