# SPDX-License-Identifier: Apache-2.0
"""Which volume is in a folder of DICOM slices? One series, complete, on one grid, or a refusal that says why.

The affine is built from ImagePositionPatient, ImageOrientationPatient and PixelSpacing (PS3.3 C.7.6.2.1.1);
slices are sorted along their normal, and those of a tilted gantry moved onto a straight grid. Nothing is guessed, and
no value is clipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fluoronav.case.dicom_slice import SAME_DIRECTION, Slice, is_enhanced, slices_of
from fluoronav.case.straight import TILT_DEG, straightened, tilt_deg
from fluoronav.imaging.dicom import is_dicom, read_header
from fluoronav.imaging.dicom_pixels import DicomPixels
from fluoronav.imaging.folder import files_of
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.tags import code, numbers, text_of
from registration.errors import BadInput
from registration.geometry import Float64, Volume

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

Progress = Callable[[float, str], None]
SAME_PLACE_MM = 1e-3  # two slices nearer than this are one place
OFF_GRID = 0.05  # of the spacing: scanners round positions to 0.01-0.1 mm, a missing slice is off by 1
OFF_GRID_MM = 0.02
MOST_TILT_DEG = 35.0  # no gantry tilts further


@dataclass(frozen=True, slots=True)
class Series:
    """A volume read from a series, and the frame of reference that places it (compared, never kept)."""

    volume: Volume
    frame_of_reference: str


def read_series(folder: Path, modality: str, notes: Notes, progress: Progress | None = None) -> Series:
    """The volume of the one series in a folder, or in one enhanced file; HU for CT, the stored values for MR.

    Raises BadInput for anything that is not exactly one complete series.
    """
    label = f"DICOM {'folder' if folder.is_dir() else 'file'} {folder.name}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd UIDs and dates; what matters is checked here
        headers = _image_headers(folder, label, notes)
        _one_series(headers, label, modality)
        slices = [s for path, header, body in headers for s in slices_of(path, header, body, modality)]
        _one_grid(slices, label)
        ordered, step = _stacked(slices, label)
        data = _pixels(ordered, progress)
    first = ordered[0]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.axes[0] * first.spacing_row_col[1], first.axes[1] * first.spacing_row_col[0]
    affine[:3, 2], affine[:3, 3] = step, first.position_mm
    _describe(ordered, affine, modality, notes)
    volume = Volume(data, affine)
    if tilt_deg(affine) > TILT_DEG:
        volume = straightened(data, affine, outside=-1000.0 if modality == "CT" else 0.0)
        notes.derived(f"{modality}: scanned with the gantry tilted by {tilt_deg(affine):.2f} deg; each slice was moved "
                      "within its plane onto a straight grid (linear interpolation; air outside)")
    return Series(volume, (text_of(first.file, "FrameOfReferenceUID") or "").strip())


def _image_headers(folder: Path, label: str, notes: Notes) -> list[tuple[Path, FileDataset, bytes | None]]:
    """Headers of the DICOM pictures of a folder; all other files are counted and left out."""
    found, other, no_picture = [], 0, 0
    for file in files_of(folder) if folder.is_dir() else [folder]:
        with file.open("rb") as handle:
            head = handle.read(132)
        if not is_dicom(head):
            other += 1
            continue
        header, body = read_header(file)
        if "Rows" not in header or "Columns" not in header:  # DICOMDIR, reports, presentation states
            no_picture += 1
            continue
        found.append((file, header, body))
    if other:
        notes.warn(f"{other} file(s) of the folder are not DICOM and were left out")
    if no_picture:
        notes.warn(f"{no_picture} DICOM file(s) of the folder hold no picture and were left out")
    if not found:
        below = sum(1 for path in folder.iterdir() if path.is_dir())
        raise BadInput(label, got="no DICOM pictures" + (f" ({below} folder(s) in it)" if below else ""),
                       expected="the slices of one series", remedy="give the folder that holds the slices themselves")
    return found


def _one_series(headers: list[tuple[Path, FileDataset, bytes | None]], label: str, modality: str) -> None:
    """Refuse what is not one series of one patient of single frames of the right modality."""
    for path, header, _ in headers:
        frames = numbers(header, "NumberOfFrames").first or 1
        if frames > 1 and not is_enhanced(header):
            raise BadInput(path.name, got=f"{frames:g} frames without a position of each (not an enhanced object)",
                           expected="single-frame slices, or an enhanced CT or MR",
                           remedy="export the series as classic single-frame slices, or as NIfTI or NRRD")
    kinds = sorted({code(header, "Modality") or "none" for _, header, _ in headers})
    if kinds != [modality]:
        raise BadInput(f"modality of {label}", got=", ".join(kinds), expected=modality,
                       remedy=f"keep one {modality} series in the folder")
    patients = {(text_of(h, "PatientID") or "", text_of(h, "PatientName") or "") for _, h, _ in headers}
    if len(patients) > 1:
        raise BadInput(label, got=f"slices of {len(patients)} patients", expected="one patient",
                       remedy="keep one series of one patient in the folder")
    for keyword, what in (("StudyInstanceUID", "studies"), ("SeriesInstanceUID", "series"),
                          ("FrameOfReferenceUID", "frames of reference")):
        count = len({text_of(h, keyword) or "" for _, h, _ in headers})
        if count > 1:
            raise BadInput(label, got=f"slices of {count} {what}", expected="one",
                           remedy="keep one series in the folder (localizers and other reconstructions go elsewhere)")
    uids = [text_of(h, "SOPInstanceUID") or "" for _, h, _ in headers]
    if len(set(filter(None, uids))) < len(list(filter(None, uids))):
        raise BadInput(label, got=f"{len(uids) - len(set(uids))} slice(s) twice (the same SOPInstanceUID)",
                       expected="each slice once", remedy="take the copies out")


def _one_grid(slices: list[Slice], label: str) -> None:
    """Refuse slices of several sizes, spacings or orientations."""
    first = slices[0]
    sizes = {(int(s.file.Rows), int(s.file.Columns)) for s in slices}
    if len(sizes) > 1:
        raise BadInput(f"matrix of {label}", got=" and ".join(f"{a} x {b}" for a, b in sorted(sizes)),
                       expected="one size", remedy="keep one series in the folder")
    for s in slices:
        if np.abs(s.axes - first.axes).max() > SAME_DIRECTION:
            raise BadInput(f"orientation of {label}", got=f"{s.path.name} lies in another plane than {first.path.name}",
                           expected="parallel slices", remedy="take localizers and reformats out of the folder")
        if not np.allclose(s.spacing_row_col, first.spacing_row_col, rtol=1e-4, atol=0):
            raise BadInput(f"PixelSpacing of {label}", got=f"{first.spacing_row_col} and {s.spacing_row_col}",
                           expected="one spacing", remedy="keep one reconstruction in the folder")


def _stacked(slices: list[Slice], label: str) -> tuple[list[Slice], Float64]:
    """The slices in order along their normal, and the step from one to the next (3,), mm."""
    if len(slices) < 2:
        raise BadInput(label, got="one slice", expected="a volume of two slices or more",
                       remedy="give the folder of the whole series")
    normal = np.cross(*slices[0].axes)
    ordered = sorted(slices, key=lambda s: float(s.position_mm @ normal))
    places = np.array([s.position_mm for s in ordered])
    along = places @ normal
    gaps = np.diff(along)
    twice = int((gaps < SAME_PLACE_MM).sum())
    if twice:
        raise BadInput(label, got=f"{twice} slice(s) at the place of another", expected="each place once",
                       remedy="keep one phase or reconstruction in the folder")
    usual = float(np.median(gaps[gaps < 1.5 * gaps.min()]))
    steps = np.round(gaps / usual)
    if (steps > 1.5).any() and np.abs(gaps - steps * usual).max() <= 0.1 * usual:  # whole steps: slices are missing
        at = int(np.argmax(steps > 1.5))
        raise BadInput(label, got=f"{int((steps - 1).sum())} missing slice(s), the first after {ordered[at].path.name} "
                       f"(a gap of {gaps[at]:.3g} mm where {usual:.3g} is usual)", expected="every slice",
                       remedy="export the series again, whole")
    even = along[0] + np.arange(len(along)) * (along[-1] - along[0]) / (len(along) - 1)
    off = float(np.abs(along - even).max())
    if off > max(OFF_GRID * usual, OFF_GRID_MM):
        raise BadInput(f"slice spacing of {label}", got=f"{gaps.min():.4g} to {gaps.max():.4g} mm",
                       expected="one spacing", remedy="give a series with evenly spaced slices")
    step = (places[-1] - places[0]) / (len(places) - 1)
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    sideways = places - places[0] - np.arange(len(places))[:, None] * step
    if tilt > MOST_TILT_DEG:
        raise BadInput(label, got=f"slices stacked {tilt:.2f} deg off their normal",
                       expected=f"a gantry's tilt, at most {MOST_TILT_DEG:g} deg", remedy="export the series again")
    if np.abs(sideways).max() > max(OFF_GRID * usual, 0.1 * min(slices[0].spacing_row_col)):
        raise BadInput(label, got=f"slices shifted sideways by up to {np.abs(sideways).max():.3g} mm",
                       expected="a straight stack", remedy="export the series again")
    return ordered, step


def _pixels(ordered: list[Slice], progress: Progress | None) -> np.ndarray:
    out = np.empty((len(ordered), int(ordered[0].file.Rows), int(ordered[0].file.Columns)), np.float32)
    opened: dict[Path, DicomPixels] = {}
    for k, s in enumerate(ordered):
        pixels = opened.get(s.path) or DicomPixels(s.path, s.file, s.body)
        if len(pixels) > 1:
            opened[s.path] = pixels  # finding the frames of a file takes time; classic slices are asked once
        stored = pixels.stored(s.frame)
        if pixels.format.signed:
            free = 32 - pixels.format.stored
            stored = stored.astype(np.int32) << free >> free  # the sign of the bits stored
        out[k] = stored * s.slope + s.intercept
        if progress is not None:
            progress((k + 1) / len(ordered), f"slice {k + 1} of {len(ordered)}")
    return out


def _describe(ordered: list[Slice], affine: Float64, modality: str, notes: Notes) -> None:
    first = ordered[0]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    files = len({s.path for s in ordered})
    notes.read(f"{modality}: {len(ordered)} slices of {int(first.file.Rows)} x {int(first.file.Columns)}"
               f"{f' in {files} enhanced file(s)' if files < len(ordered) else ''}, "
               f"{spacing[0]:.4g} x {spacing[1]:.4g} mm, {spacing[2]:.4g} mm apart"
               + (f", patient position {p}" if (p := code(first.file, "PatientPosition")) else ""))
    notes.derived(f"{modality}: order along the normal and affine from position, orientation and spacing")
    tilt = numbers(first.file, "GantryDetectorTilt").first
    if tilt is not None and abs(tilt) > TILT_DEG >= tilt_deg(affine):
        notes.warn(f"{modality}: the header states a gantry tilt of {tilt:g} deg; the slices' positions stack straight "
                   "and are used")
    if files < len(ordered):
        return  # instance numbers count files
    instances = [numbers(s.file, "InstanceNumber").first for s in ordered]
    counted = [int(n) for n in instances if n is not None]
    if len(counted) == len(ordered) and (span := max(counted) - min(counted) + 1) != len(ordered):
        notes.warn(f"{modality}: instance numbers span {span} for {len(ordered)} slices; the positions have no gaps, "
                   "the ends may have been cut off")
