# SPDX-License-Identifier: Apache-2.0
"""All lossless codings decode to the same pixels; every damaged file is refused with its sentence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fluoronav.imaging import open_run
from registration.errors import BadGeometry, BadPixels

pytestmark = pytest.mark.real
SHA256 = "279d279d268f560e91e469ca60ff47bc4b78aa6aa38b67c04bbf7432093abdb7"  # README.vessel.md of the data
GEOMETRY = {  # file: a word of its sentence
    "no_spacing_no_fov": "pixel pitch", "no_distances": "SDD and SOD", "no_angles": "positioner angles",
    "spacing_zero": "ImagerPixelSpacing", "spacing_nan": "ImagerPixelSpacing", "spacing_negative": "ImagerPixelSpacing",
    "spacing_text": "ImagerPixelSpacing", "spacing_one_value": "ImagerPixelSpacing",
    "spacing_inf": "ImagerPixelSpacing", "spacing_empty": "ImagerPixelSpacing", "sdd_zero": "DistanceSourceToDetector",
    "sdd_less_than_spd": "below SOD", "angle_text": "LAO30"}
PIXELS = {
    "truncated_raw": "end in frame 1", "truncated_jpegls": "ends early", "corrupt_j2k_stream": "damaged stream",
    "frames_mismatch": "at least 50", "wrong_rows": "600 x 512", "huge_claim": "65535",
    "wrong_syntax": "does not decode",
    "no_pixel_data": "no PixelData", "not_a_dicom": "no DICOM header", "empty": "an empty file",
    "preamble_only": "without any content", "png_renamed": "PNG picture", "wrong_modality": "CT",
    "unknown_syntax": "1.2.840.10008.1.2.4.99"}


def test_thirteen_codings_decode_to_the_same_pixels(shared_data: Path) -> None:
    files = sorted((shared_data / "xa_codings").glob("*.dcm"))
    assert len(files) == 13
    for file in files:
        run = open_run(file)
        digest = hashlib.sha256(b"".join(frame.pixels.tobytes() for frame in run.frames)).hexdigest()
        assert digest == SHA256, file.name
        assert run.geometry_error is None


def test_other_vendors_encoders_decode_identically(shared_data: Path) -> None:
    folder = shared_data / "xa_codings" / "wg04_xa1"
    reference = open_run(folder / "XA1_UNC").frames[0].pixels
    for name in ("XA1_J2KR", "XA1_JLSL", "XA1_JPLL", "XA1_RLE", "XA1_explicit_be"):
        assert np.array_equal(open_run(folder / name).frames[0].pixels, reference), name
    # lossy; 8 and 4 are the README's; JPEG of 12 bits rings at the field's edge, so 99 of 100 pixels
    for name, most, share in (("XA1_J2KI", 8, 1), ("XA1_JLSN", 4, 1), ("XA1_JPLY", 12, 0.99)):
        run = open_run(folder / name)
        off = np.abs(run.frames[0].pixels.astype(int) - reference)
        assert np.quantile(off, share) <= most, name
        assert any("lossy" in note for note in run.notes), name


@pytest.mark.parametrize("name", GEOMETRY)
def test_a_fault_of_geometry_leaves_the_pictures_and_says_why(shared_data: Path, name: str) -> None:
    run = open_run(shared_data / "xa_codings" / "bad" / f"{name}.dcm")
    assert isinstance(run.geometry_error, BadGeometry) and GEOMETRY[name] in str(run.geometry_error)
    frame = run.frames[0]
    assert frame.pixels.shape == (512, 512) and frame.geometry_fault == str(run.geometry_error)
    assert frame.angles is None if name == "no_angles" else frame.carm is None


@pytest.mark.parametrize("name", PIXELS)
def test_a_fault_of_pixels_is_refused_in_one_sentence(shared_data: Path, name: str) -> None:
    with pytest.raises(BadPixels) as caught:
        list(open_run(shared_data / "xa_codings" / "bad" / f"{name}.dcm").frames)
    sentence = str(caught.value)
    assert PIXELS[name] in sentence
    assert all(part in sentence for part in ("got ", "expected ", "; ")) and "\n" not in sentence


def test_every_damaged_file_is_known_here(shared_data: Path) -> None:
    names = {file.stem for file in (shared_data / "xa_codings" / "bad").glob("*.dcm")}
    assert names == set(GEOMETRY) | set(PIXELS)


def test_the_phantom_runs_say_what_their_readme_says(shared_data: Path) -> None:
    angles = {"IM1": (31.30, 0.1, 860), "IM2": (-27.30, -0.1, 865), "IM3": (-0.8, -23.20, 891),
              "IM4": (0.1, 28.70, 907)}
    for name, (primary, secondary, sdd) in angles.items():
        run = open_run(shared_data / "vessel_phantom" / name)
        frame = run.frames[0]
        assert frame.angles is not None and frame.carm is not None
        assert (frame.angles.primary_deg, frame.angles.secondary_deg) == (primary, secondary)
        assert (frame.carm.sdd_mm, frame.carm.sod_mm) == (sdd, 720)
        assert frame.carm.pitch_mm_row_col == (0.390625, 0.390625)
        assert any("IntensifierSize" in note for note in run.notes)  # the other reading is told
        assert frame.intensity.kind == "display" and run.nominal_interval_s == pytest.approx(1 / 15, rel=1e-4)
        assert 0.9 < frame.valid.mean() < 1
        assert (frame.exposure.kvp, frame.exposure.ms) == (pytest.approx(60, abs=15), 3)
