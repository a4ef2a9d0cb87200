# SPDX-License-Identifier: Apache-2.0
"""Enhanced runs go back as the same kind of file, derived, whole or not at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from fluoronav.cli.app import app
from fluoronav.enhance.derive import enhance_path
from fluoronav.imaging import open_run
from registration.errors import BadInput, BadPixels

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "imaging"))
import dicom_files as files


def noisy(frames: int = 4, bits: int = 8) -> np.ndarray:
    """A ramp with noise."""
    ramp = np.tile(np.linspace(0.2, 0.8, 96), (64, 1))
    out = ramp + np.random.default_rng(0).normal(0, 0.03, (frames, 64, 96))
    return np.rint(np.clip(out, 0, 1) * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("bits", [8, 12])
def test_a_dicom_run_comes_back_derived_with_its_patient_and_geometry(tmp_path: Path, bits: int) -> None:
    source = files.write(tmp_path / "a.dcm", noisy(bits=bits), bits=bits, PixelIntensityRelationship="DISP",
                         ImageComments="as it was")
    ds = pydicom.dcmread(source)
    ds.add_new(0x00091001, "LO", "secret")
    ds.add_new(0x00090010, "LO", "VENDOR")
    ds.add_new(0x60000010, "US", 64)
    ds.save_as(source)
    report = enhance_path(source, tmp_path / "b.dcm")
    out = pydicom.dcmread(tmp_path / "b.dcm")
    assert out.ImageType[0] == "DERIVED" and out.ImageType[2] == "SINGLE PLANE"
    assert out.SOPInstanceUID != ds.SOPInstanceUID and out.SeriesInstanceUID != ds.SeriesInstanceUID
    assert out.file_meta.MediaStorageSOPInstanceUID == out.SOPInstanceUID
    assert (out.StudyInstanceUID, out.PatientID, out.PatientName) == (ds.StudyInstanceUID, "4711", "Doe^Jane")
    assert (out.BitsStored, out.BitsAllocated, out.PhotometricInterpretation, out.NumberOfFrames) == (
        ds.BitsStored, ds.BitsAllocated, ds.PhotometricInterpretation, 4)
    assert list(out.ImagerPixelSpacing) == [0.4, 0.2] and out.PositionerPrimaryAngle == 30
    assert "gate" in out.DerivationDescription and report.chain in out.DerivationDescription
    assert out.ContributingEquipmentSequence[0].Manufacturer == "fluoronav"
    assert out.SourceImageSequence[0].ReferencedSOPInstanceUID == ds.SOPInstanceUID
    assert not [e for e in out if e.tag.is_private or 0x6000 <= e.tag.group <= 0x60FF]
    before, after = open_run(source).frames[3], open_run(tmp_path / "b.dcm").frames[3]
    assert after.pixels.dtype == before.pixels.dtype and after.carm == before.carm
    middle = np.s_[8:-8, 8:-8]
    flat = [np.diff(f.pixels[middle].astype(float), axis=0).std() for f in (before, after)]
    assert flat[1] < 0.6 * flat[0]
    assert abs(float(after.pixels.mean()) - float(before.pixels.mean())) < 0.01 * (1 << bits)


def test_signed_pixels_and_mirrored_pictures_go_back_as_they_came(tmp_path: Path) -> None:
    signed = (noisy(2, 12).astype(np.int32) - 2048).astype(np.int16)
    source = files.write(tmp_path / "a.dcm", signed, bits=12, PositionerPrimaryAngle=0, PositionerSecondaryAngle=0,
                         PatientOrientation=["R", "F"])
    assert open_run(source).flipped
    enhance_path(source, tmp_path / "b.dcm")
    out = pydicom.dcmread(tmp_path / "b.dcm")
    assert out.PixelRepresentation == 1
    assert np.abs(out.pixel_array.astype(float) - signed).mean() < 200 < np.abs(
        out.pixel_array.astype(float) - signed[:, :, ::-1]).mean()


def test_pixels_outside_the_shutter_are_not_touched(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", noisy(), ShutterShape="RECTANGULAR", ShutterLeftVerticalEdge=10,
                         ShutterRightVerticalEdge=90, ShutterUpperHorizontalEdge=5, ShutterLowerHorizontalEdge=60)
    enhance_path(source, tmp_path / "b.dcm")
    assert np.array_equal(pydicom.dcmread(tmp_path / "b.dcm").pixel_array[:, :, :9], noisy()[:, :, :9])


def test_a_folder_of_pictures_comes_back_under_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for k, picture in enumerate(noisy(3, 16)):
        cv2.imwrite(str(folder / f"p{k}.png"), picture)
    enhance_path(folder, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["p0.png", "p1.png", "p2.png"]
    assert open_run(tmp_path / "out").frames[0].pixels.dtype == np.uint16


def test_a_folder_of_dicom_runs_names_those_it_cannot_use(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    files.write(folder / "a.dcm", noisy())
    files.write(folder / "b.dcm", noisy())
    (folder / "c.dcm").write_bytes(b"")
    report = enhance_path(folder, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.dcm", "b.dcm"] and report.frames == 8
    assert len(report.refused) == 1 and "c.dcm" in report.refused[0]
    for name in ("a.dcm", "b.dcm"):
        (folder / name).write_bytes(b"")
    assert len(enhance_path(folder, tmp_path / "none").refused) == 3
    assert not (tmp_path / "none").exists(), "nothing could be written, so no empty folder is left"


def test_a_video_comes_back_as_a_lossless_one(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=15)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "gray"
        for picture in noisy():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        out.mux(stream.encode())
    enhance_path(tmp_path / "a.mkv", tmp_path / "b.mkv")
    run = open_run(tmp_path / "b.mkv")
    assert len(run.frames) == 4 and not any("lossy" in note for note in run.notes)
    with pytest.raises(BadInput, match=r"\.mkv"):
        enhance_path(tmp_path / "a.mkv", tmp_path / "b.mp4")


def test_the_input_is_never_replaced_and_nothing_half_written_stays(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", noisy())
    with pytest.raises(BadInput, match="the input itself"):
        enhance_path(source, source)
    import imagecodecs
    from pydicom.encaps import encapsulate

    ds = pydicom.dcmread(source)
    streams = [bytes(imagecodecs.jpegls_encode(f)) for f in noisy()]
    streams[2] = streams[2][:40] + bytes(30)
    ds.PixelData = encapsulate(streams)
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    ds.save_as(tmp_path / "bad.dcm")
    with pytest.raises(BadPixels, match="frame 2"):
        enhance_path(tmp_path / "bad.dcm", tmp_path / "b.dcm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.dcm", "bad.dcm"]


def test_a_fault_of_geometry_is_a_warning_for_enhance(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", noisy(1), DistanceSourceToDetector=0)
    result = CliRunner().invoke(app, ["enhance", str(source), str(tmp_path / "b.dcm"), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["frames"] == 1 and any("DistanceSourceToDetector" in w for w in told["warnings"])


def test_frames_show_prints_what_was_read_and_assumed(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", noisy(1))
    result = CliRunner().invoke(app, ["frames", "show", str(source), "--json"])
    run = json.loads(result.stdout)["runs"][0]
    assert run["geometry"]["sdd_mm"] == 1000 and any(n.startswith("assumed") for n in run["notes"])
    table = CliRunner().invoke(app, ["frames", "show", str(source)])
    assert table.exit_code == 0 and "SDD 1000" in table.stdout
    (tmp_path / "no.dcm").write_text("text")
    assert CliRunner().invoke(app, ["frames", "show", str(tmp_path / "no.dcm")]).exit_code == 2

