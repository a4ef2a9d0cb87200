# SPDX-License-Identifier: Apache-2.0
"""Where does one slice of a DICOM series lie, and what do its numbers mean? Classic files hold one, enhanced ones many.

An enhanced object keeps what differs between its frames in functional groups (PS3.3 C.7.6.16), a frame's own before
those that all share; here each frame gets a header as a classic slice would have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fluoronav.imaging.tags import code, numbers
from registration.errors import BadInput
from registration.geometry import Float64

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

ENHANCED = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2", "1.2.840.10008.5.1.4.1.1.4.1",
            "1.2.840.10008.5.1.4.1.1.4.4")  # CT, converted CT, MR, converted MR
SAME_DIRECTION = 1e-3  # of direction cosines: 0.3 mm over a 300 mm picture; writers round to 6 digits or fewer

# functional group -> what it says of a frame
_GROUPS = {"PlanePositionSequence": ("ImagePositionPatient",), "PlaneOrientationSequence": ("ImageOrientationPatient",),
           "PixelMeasuresSequence": ("PixelSpacing",),
           "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType")}


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice as far as a volume needs it: frame `frame` of the file `path`, whose whole header is `file`."""

    path: Path
    file: FileDataset
    body: bytes | None
    frame: int
    position_mm: Float64
    axes: Float64  # (2, 3): along a row (columns grow), along a column (rows grow)
    spacing_row_col: tuple[float, float]
    slope: float
    intercept: float


def slices_of(path: Path, header: FileDataset, body: bytes | None, modality: str) -> list[Slice]:
    """The slices of one file.

    Raises BadInput where position, orientation, spacing or rescale is missing or impossible.
    """
    if not is_enhanced(header):
        return [_slice(path, header, header, body, 0, modality)]
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    count = int(numbers(header, "NumberOfFrames").first or 1)
    if len(frames) != count:
        raise BadInput(f"functional groups of {path.name}", got=f"{len(frames)} for {count} frames",
                       expected="one for each frame",
                       remedy="export the series again, or as classic single-frame slices")
    return [_slice(path, header, _flat([own, *shared]), body, k, modality) for k, own in enumerate(frames)]


def is_enhanced(header: Dataset) -> bool:
    """Whether a file is an enhanced object, whose frames state their own geometry."""
    return str(header.get("SOPClassUID", "")) in ENHANCED


def _flat(groups: list[Dataset]) -> Dataset:
    """What a frame's functional groups say, the first group first, as the header of a classic slice."""
    from pydicom.dataset import Dataset

    out = Dataset()
    for sequence, keywords in _GROUPS.items():
        said = next((g[sequence][0] for g in groups if sequence in g and len(g[sequence].value)), None)
        for keyword in keywords:
            if said is not None and keyword in said:
                out.add(said[keyword])
    return out


def _slice(path: Path, file: FileDataset, header: Dataset, body: bytes | None, frame: int, modality: str) -> Slice:
    """Position, axes, spacing and rescale of one slice, out of its own header."""
    position = _vector(path, header, "ImagePositionPatient", 3)
    axes = _vector(path, header, "ImageOrientationPatient", 6).reshape(2, 3)
    off = max(float(np.abs(np.linalg.norm(axes, axis=1) - 1).max()), abs(float(axes[0] @ axes[1])))
    if off > SAME_DIRECTION:
        raise BadInput(f"ImageOrientationPatient of {path.name}", got=np.round(axes, 4).tolist(),
                       expected="two unit vectors at right angles", remedy="export the series again")
    spacing = _vector(path, header, "PixelSpacing", 2)
    if (spacing <= 0).any():
        raise BadInput(f"PixelSpacing of {path.name}", got=spacing.tolist(), expected="two numbers above 0 mm",
                       remedy="export the series again")
    slope, intercept = _rescale(path, header, modality)
    return Slice(path, file, body, frame, position, axes, (float(spacing[0]), float(spacing[1])), slope, intercept)


def _vector(path: Path, header: Dataset, keyword: str, count: int) -> Float64:
    found = numbers(header, keyword)
    if found.state != "ok" or len(found.values) != count:
        raise BadInput(f"{keyword} of {path.name}", got=found.text or "nothing", expected=f"{count} finite numbers",
                       remedy="export the series again with its geometry, or give it as NIfTI or NRRD")
    return np.array(found.values)


def _rescale(path: Path, header: Dataset, modality: str) -> tuple[float, float]:
    slope, intercept = numbers(header, "RescaleSlope"), numbers(header, "RescaleIntercept")
    if modality != "CT" and slope.state == intercept.state == "absent":
        return 1.0, 0.0
    for found, keyword in ((slope, "RescaleSlope"), (intercept, "RescaleIntercept")):
        if found.first is None or (keyword == "RescaleSlope" and found.first == 0):
            raise BadInput(f"{keyword} of {path.name}", got=found.text or "nothing", expected="a number",
                           remedy="export the series with its rescale: without it no value is a Hounsfield unit")
    kind = code(header, "RescaleType")
    if modality == "CT" and kind not in ("", "HU"):
        raise BadInput(f"RescaleType of {path.name}", got=kind, expected="HU",
                       remedy="export the series in Hounsfield units")
    return float(slope.first or 0), float(intercept.first or 0)
