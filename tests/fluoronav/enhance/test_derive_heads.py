# SPDX-License-Identifier: Apache-2.0
"""`fluoronav enhance` with more asked for: contrast, finer pixels, a still picture, the standard deviation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from fluoronav.cli.app import app
from fluoronav.imaging import open_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "imaging"))
import dicom_files as files


def run(frames: int = 6, bits: int = 8, sway: float = 0.0, sigma: float = 0.02) -> np.ndarray:
    """A textured picture with a dark wire that sways, and noise."""
    v, u = np.mgrid[:96, :128].astype(float)
    out = []
    for k in range(frames):
        x = u - sway * np.sin(2 * np.pi * k / 12)
        clean = 0.55 + 0.12 * np.sin(x / 9) * np.cos(v / 7) + 0.06 * np.cos((x + v) / 4)
        clean -= 0.15 * np.clip(1.5 - np.abs(x - 60), 0, 1)
        out.append(clean + np.random.default_rng([1, k]).normal(0, sigma, u.shape))
    return np.rint(np.clip(out, 0, 1) * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def enhanced(source: Path, output: Path, *options: object) -> dict[str, Any]:
    """What the command told."""
    result = CliRunner().invoke(app, ["enhance", str(source), str(output), "--json", *map(str, options)])
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_without_options_nothing_is_added(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", run(), PixelIntensityRelationship="DISP")
    told = enhanced(source, tmp_path / "b.dcm")
    enhanced(source, tmp_path / "c.dcm", "--contrast", 0)
    assert told["uncertainty"] is None and told["shifts_px"] == [] and "raised" not in told["chain"]
    assert pydicom.dcmread(tmp_path / "b.dcm").PixelData == pydicom.dcmread(tmp_path / "c.dcm").PixelData


def test_contrast_darkens_the_wire_and_is_in_the_header(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", run(), PixelIntensityRelationship="DISP")
    enhanced(source, tmp_path / "b.dcm")
    enhanced(source, tmp_path / "c.dcm", "--contrast", 1)
    plain, more = (pydicom.dcmread(tmp_path / name) for name in ("b.dcm", "c.dcm"))
    assert "raised by up to 2" in more.DerivationDescription and "raised" not in plain.DerivationDescription

    def depth(ds: pydicom.Dataset) -> float:
        p = ds.pixel_array[-1].astype(float)
        return float(np.mean(0.5 * (p[20:76, 55] + p[20:76, 65]) - p[20:76, 60]))

    assert depth(more) > 1.3 * depth(plain)


def test_superres_doubles_matrix_and_halves_spacing_and_the_geometry_reads_back(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", run(bits=12), bits=12, ShutterShape="RECTANGULAR",
                         ShutterLeftVerticalEdge=10, ShutterRightVerticalEdge=120, ShutterUpperHorizontalEdge=5,
                         ShutterLowerHorizontalEdge=90)
    told = enhanced(source, tmp_path / "b.dcm", "--superres")
    enhanced(source, tmp_path / "plain.dcm")
    out = pydicom.dcmread(tmp_path / "b.dcm")
    assert (out.Rows, out.Columns, out.BitsStored) == (192, 256, 12)
    assert [float(x) for x in out.ImagerPixelSpacing] == [0.2, 0.1] and "half the size" in told["chain"]
    fine, coarse = open_run(tmp_path / "b.dcm").frames[5], open_run(tmp_path / "plain.dcm").frames[5]
    assert fine.carm is not None and fine.carm.binned(2) == coarse.carm
    assert np.array_equal(fine.valid[::2, ::2], coarse.valid)
    binned = fine.pixels.reshape(96, 2, 128, 2).mean(axis=(1, 3))
    inside = coarse.valid
    assert np.abs(binned - coarse.pixels)[inside].max() < 0.02 * 4095  # within its noise, less than that of a frame
    assert np.array_equal(fine.pixels[~fine.valid], coarse.pixels.repeat(2, 0).repeat(2, 1)[~fine.valid])


def test_stabilise_tells_its_shifts_and_the_file_says_that_its_geometry_is_gone(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", run(13, sway=4.0), PixelIntensityRelationship="DISP")
    told = enhanced(source, tmp_path / "b.dcm", "--stabilise")
    moves = np.array(told["shifts_px"])
    assert moves.shape == (13, 2) and np.abs(moves[:, 0] + 4 * np.sin(2 * np.pi * np.arange(13) / 12)).max() < 0.7
    assert any("moved by up to" in w for w in told["warnings"])
    back = open_run(tmp_path / "b.dcm")
    assert back.geometry_error is not None and "stabilised" in str(back.geometry_error)
    columns = open_run(tmp_path / "b.dcm").frames[3].pixels[20:76, 52:68].astype(float).mean(axis=0)
    assert abs(int(np.argmin(columns)) - 8) <= 1  # the wire stands where it stood in the first frame
    assert not open_run(tmp_path / "b.dcm").frames[3].pixels[:, -3:].any()  # black where nothing is known


@pytest.mark.parametrize("bits", [8, 12])
def test_the_uncertainty_is_the_scatter_of_the_clean_picture_in_stored_units(tmp_path: Path, bits: int) -> None:
    source = files.write(tmp_path / "a.dcm", run(10, bits), bits=bits, PixelIntensityRelationship="DISP")
    told = enhanced(source, tmp_path / "b.dcm", "--uncertainty", tmp_path / "u.dcm")
    assert f"x {2.0 ** (bits - 18):g};" in told["uncertainty_unit"]
    sure, clean = pydicom.dcmread(tmp_path / "u.dcm"), pydicom.dcmread(tmp_path / "b.dcm")
    assert sure.NumberOfFrames == clean.NumberOfFrames == 10 and sure.BitsStored == 16
    assert sure.SOPInstanceUID != clean.SOPInstanceUID and "standard deviation" in sure.DerivationDescription
    sigma = sure.pixel_array[-1] * float(sure.RescaleSlope)
    noise = 0.02 * ((1 << bits) - 1)
    still = np.s_[30:70, 90:120]
    error = clean.pixel_array[-1].astype(float) - run(10, bits, sigma=0.0)[-1]
    assert 0.1 * noise < np.median(sigma) < noise
    assert 0.5 < np.sqrt((error[still] ** 2).mean()) / np.sqrt((sigma[still] ** 2).mean()) < 1.6  # one small patch


def test_a_folder_of_pictures_gets_a_folder_of_uncertainties(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for k, picture in enumerate(run(3, 16)):
        cv2.imwrite(str(folder / f"p{k}.png"), picture)
    told = enhanced(folder, tmp_path / "out", "--uncertainty", tmp_path / "sd")
    assert sorted(p.name for p in (tmp_path / "sd").iterdir()) == ["p0.png", "p1.png", "p2.png"]
    sigma = cv2.imread(str(tmp_path / "sd" / "p2.png"), cv2.IMREAD_UNCHANGED)
    assert sigma.dtype == np.uint16 and sigma.shape == (96, 128) and "x 0.25;" in told["uncertainty_unit"]


@pytest.mark.parametrize("option", [["--contrast", "1"], ["--superres"], ["--stabilise"]])
def test_uncertainty_of_a_picture_that_is_no_measurement_is_refused(tmp_path: Path, option: list[str]) -> None:
    source = files.write(tmp_path / "a.dcm", run(2))
    result = CliRunner().invoke(app, ["enhance", str(source), str(tmp_path / "b.dcm"), "--uncertainty",
                                      str(tmp_path / "u.dcm"), *option])
    assert result.exit_code != 0 and not (tmp_path / "b.dcm").exists()
    assert option[0] in str(result.exception or result.output)


def test_an_uncertainty_never_replaces_input_or_output(tmp_path: Path) -> None:
    source = files.write(tmp_path / "a.dcm", run(2))
    before = source.read_bytes()
    for place in (source, tmp_path / "b.dcm"):
        result = CliRunner().invoke(app, ["enhance", str(source), str(tmp_path / "b.dcm"), "--uncertainty", str(place)])
        assert result.exit_code != 0
    assert source.read_bytes() == before


def test_a_real_run_takes_all_that_goes_together(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "xa_cines" / "atherectomy_catheter_12f_jpeg_lossless.dcm"
    told = enhanced(source, tmp_path / "b.dcm", "--contrast", 0.5, "--stabilise")
    out, before = pydicom.dcmread(tmp_path / "b.dcm"), pydicom.dcmread(source)
    assert out.ImageType[0] == "DERIVED" and (out.Rows, out.NumberOfFrames) == (before.Rows, before.NumberOfFrames)
    assert "stabilised" in out.DerivationDescription and "raised" in out.DerivationDescription
    assert len(told["shifts_px"]) == before.NumberOfFrames
