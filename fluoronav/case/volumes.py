# SPDX-License-Identifier: Apache-2.0
"""Which volume is in a file or folder, and where in the patient? DICOM folder, NIfTI, NRRD, MHA."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluoronav.case.dicom_series import Progress, Series, read_series
from fluoronav.case.dicom_slice import is_enhanced
from fluoronav.case.nifti import nifti_affine
from fluoronav.imaging.dicom import is_dicom, read_header
from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Array, Float64, Volume

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
VOXEL_MM = (0.01, 50.0)  # edges of a voxel of anything in a patient; outside them the unit is not mm
SQUARE = 1e-3  # cosine between axes: above it the grid is sheared
AIR_HU, METAL_HU = -500.0, 65535.0


@dataclass(frozen=True, slots=True)
class Grid:
    """Values [k, j, i] as stored in a file, and where they are."""

    data: Array
    patient_from_index: Float64


def is_volume_file(path: Path) -> bool:
    """Whether the name is that of a volume file."""
    return path.name.lower().endswith(SUFFIXES)


def read_ct(path: str | Path, progress: Progress | None = None) -> tuple[Volume, tuple[str, ...]]:
    """A CT in Hounsfield units, patient frame, with notes of what was read, derived, assumed.

    path: folder of DICOM slices, or one enhanced DICOM, NIfTI, NRRD or MHA file. Raises BadInput.
    """
    notes = Notes()
    return read_patient_volume(Path(path), "CT", notes, progress).volume, tuple(notes.lines)


def read_patient_volume(path: Path, modality: str, notes: Notes, progress: Progress | None = None) -> Series:
    """CT or MR from a DICOM folder or a volume file; no frame of reference where a file states none."""
    if not path.exists():
        raise BadInput(f"{modality} {path.name}", got="no such file or folder",
                       expected="a DICOM folder, NIfTI, NRRD or MHA", remedy="check the path")
    one_dicom = path.is_file() and not is_volume_file(path) and _is_dicom(path)
    if path.is_dir() or (one_dicom and is_enhanced(read_header(path)[0])):
        series = read_series(path, modality, notes, progress)
    elif is_volume_file(path):
        grid = read_grid(path, modality, notes)
        if grid.data.dtype.kind == "f" and not np.isfinite(grid.data).all():
            count = int((~np.isfinite(grid.data)).sum())
            raise BadInput(f"{modality} file", got=f"{count} voxels that are NaN or infinite",
                           expected="finite values", remedy="repair the file first")
        series = Series(Volume(grid.data, grid.patient_from_index), "")
        n, mm = grid.data.shape[::-1], series.volume.spacing_mm
        notes.read(f"{modality}: {n[0]} x {n[1]} x {n[2]} voxels of {mm[0]:.4g} x {mm[1]:.4g} x {mm[2]:.4g} mm, "
                   "placed by the file's own affine")
        if modality == "CT":
            notes.assumed("CT: the values are Hounsfield units (such a file does not say what they are)")
    else:
        raise BadInput(f"{modality} {path.name}", got="one DICOM slice" if one_dicom else "a file of another kind",
                       expected="a DICOM folder, an enhanced DICOM file, or one NIfTI, NRRD or MHA file",
                       remedy="give the folder of the slices" if one_dicom else "convert it to one of them")
    if modality == "CT":
        _plausible_hu(series.volume, notes)
    return series


def read_grid(path: Path, label: str, notes: Notes) -> Grid:
    """The voxels of a NIfTI, NRRD or MHA file with their affine. Raises BadInput where it states no affine."""
    import SimpleITK as sitk

    name = path.name.lower()
    label = f"{label} file"
    affine = None
    if name.endswith((".nii", ".nii.gz")):
        affine = nifti_affine(path, label, notes)
        _checked_affine(affine, label)
    else:
        _states_its_frame(path, label)
    sitk.ProcessObject_GlobalWarningDisplayOff()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if len(size) != 3 or min(size) < 2 or reader.GetNumberOfComponents() != 1:
            values = reader.GetNumberOfComponents()
            raise BadInput(label, got=f"{' x '.join(map(str, size))} voxels with {values} value(s) each",
                           expected="one volume of single values, two slices or more",
                           remedy="give one time point or one channel")
        image = reader.Execute()
    except RuntimeError as error:
        raise BadInput(label, got=f"a file that cannot be read ({_reason(error)})",
                       expected="a whole NIfTI, NRRD or MHA file", remedy="export or copy it again") from error
    if affine is None:
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
    _checked_affine(affine, label)
    return Grid(sitk.GetArrayFromImage(image), affine)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return is_dicom(file.read(132))


def _states_its_frame(path: Path, label: str) -> None:
    """Refuse an NRRD or MetaImage header that leaves its place in the patient open: ITK fills in defaults."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        head = head.split(b"\n\n")[0].split(b"\r\n\r\n")[0]
        text = head.decode("latin-1").lower()
        space = re.search(r"^space:\s*(\S+)", text, re.MULTILINE)
        known = {"lps", "ras", "las", "left-posterior-superior", "right-anterior-superior", "left-anterior-superior"}
        if space is None or space[1] not in known or not re.search(r"^space directions:\s*\(", text, re.MULTILINE):
            raise BadInput(f"orientation of {label}", got=f"space {space[1] if space else 'not stated'}",
                           expected="space and space directions of a patient",
                           remedy="write the file with its affine: without it left and right are not known")
        if not re.search(r"^space origin:\s*\(", text, re.MULTILINE):
            raise BadInput(f"origin of {label}", got="nothing", expected="a space origin",
                           remedy="write the file with its affine")
        return
    text = head.split(b"ElementDataFile")[0].decode("latin-1")
    for names, what in ((("TransformMatrix", "Rotation", "Orientation"), "orientation"),
                        (("Offset", "Position", "Origin"), "origin"), (("ElementSpacing", "ElementSize"), "spacing")):
        if not re.search(rf"^(?:{'|'.join(names)})\s*=", text, re.MULTILINE):
            raise BadInput(f"{what} of {label}", got="nothing", expected=names[0],
                           remedy="write the file with its affine")


def _checked_affine(affine: Float64, label: str) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not all(VOXEL_MM[0] <= mm <= VOXEL_MM[1] for mm in spacing):
        raise BadInput(f"voxel size of {label}", got=np.round(spacing, 6).tolist(),
                       expected=f"three numbers from {VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm",
                       remedy="repair the header; lengths are mm")
    axes = affine[:3, :3] / spacing
    shear = max(abs(float(axes[:, a] @ axes[:, b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    if shear > SQUARE:
        raise BadInput(f"axes of {label}", got=f"{np.degrees(np.arccos(shear)):.2f} deg between two of them",
                       expected="right angles (no gantry tilt, no shear)", remedy="resample the volume first")


def _plausible_hu(volume: Volume, notes: Notes) -> None:
    low, high = float(volume.data.min()), float(volume.data.max())
    if low == high:
        raise BadInput("CT", got=f"the value {low:g} in every voxel", expected="a picture of a patient",
                       remedy="export it again")
    notes.read(f"CT: values {low:g} to {high:g}, none clipped")
    below = int((volume.data < -1024).sum())
    if low < -4096 or high > METAL_HU:
        notes.warn(f"CT: values {low:g} to {high:g} cannot all be Hounsfield units")
    elif below:
        notes.warn(f"CT: {below} voxels lie below -1024 HU (padding, or streaks beside metal); kept as they are")
    if low > AIR_HU:
        notes.warn(f"CT: no value lies below {AIR_HU:g}: no air. Are these Hounsfield units?")
    elif high < 100:
        notes.warn(f"CT: no value lies above {high:g}: no bone. Are these Hounsfield units?")


def _reason(error: RuntimeError) -> str:
    """The last sentence of ITK's long message, without the file's path."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\S*[/\\]\S+", "the file", lines[-1])[:160] if lines else "no reason given"
