# SPDX-License-Identifier: Apache-2.0
"""What does the header of an enhanced DICOM run say? DERIVED, by which chain, from which instance."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from fluoronav.files import whole_or_nothing
from fluoronav.imaging.dicom import read_header
from fluoronav.imaging.run import Run
from registration.geometry import Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

DROPPED = ("IconImageSequence", "SmallestImagePixelValue", "LargestImagePixelValue", "ExtendedOffsetTable",
           "ExtendedOffsetTableLengths", "DigitalSignaturesSequence", "MACParametersSequence",
           "DataSetTrailingPadding", "PlanarConfiguration")


# where the shutter's edges are, in pixels of the matrix (PS3.3 C.7.6.11)
SHUTTERS = ("ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge",
            "ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter",
            "VerticesOfThePolygonalShutter")
SPACINGS = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing", "ObjectPixelSpacingInCenterOfBeam",
            "DetectorBinning")
# what says how grey becomes brightness: not true of standard deviations
GREYS = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTSequence", "VOILUTFunction",
         "ModalityLUTSequence", "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "PresentationLUTShape",
         "MaskSubtractionSequence", "RecommendedViewingMode", "PixelPaddingValue", "PixelPaddingRangeLimit")


@dataclass(frozen=True, slots=True)
class Derivation:
    """What was done to a run: description for the header, word behind the series, how many times finer the pixels
    are, and for pictures of standard deviations the step of their numbers."""

    description: str
    word: str = "enhanced"
    factor: int = 1
    step: float | None = None


def program_version() -> str:
    """The version of the installed package."""
    try:
        return version("fluoronav")
    except PackageNotFoundError:  # run from a tree that was never installed
        return "not installed"


def write_dicom(run: Run, pictures: Iterator[Array], output: Path, derivation: Derivation) -> list[str]:
    """Write the pictures with the header of the run's file, derived; answers with warnings.

    Patient, study and geometry tags stay; UIDs of instance and series are new; private tags, overlay
    planes and curves go. Pixels are written uncompressed (explicit VR little endian).
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd dates and UIDs of the input are kept as they were
        header, _ = read_header(run.path)
        lost = _readable(header)
        _derive(header, derivation)
        with whole_or_nothing(output) as part, tempfile.TemporaryFile(dir=output.resolve().parent) as pixels:
            for picture in pictures:
                pixels.write(as_stored(picture, bool(header.PixelRepresentation), int(header.BitsStored)).tobytes())
            if pixels.tell() % 2:
                pixels.write(b"\0")
            pixels.seek(0)
            header.add_new(0x7FE00010, "OW" if int(header.BitsAllocated) > 8 else "OB", cast(BinaryIO, pixels))
            pydicom.dcmwrite(part, header, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return [f"tags that could not be read are left out: {', '.join(lost)}"] if lost else []


def as_stored(picture: Array, signed: bool, stored: int) -> Array:
    """Pixels counted from 0 back in the stored form (signed ones in two's complement)."""
    if not signed:
        return picture.astype(picture.dtype.newbyteorder("<"))
    wide = picture.astype(np.int32) - (1 << (stored - 1))
    return wide.astype("<i1" if picture.dtype == np.uint8 else "<i2")


def _readable(header: FileDataset) -> list[str]:
    """Convert every element, so that it can be written in another encoding; names of those that fail."""
    from pydicom.datadict import keyword_for_tag

    lost = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header.remove_private_tags()
        for tag in list(header.keys()):
            try:
                _touch(header, int(tag))
            except Exception:  # noqa: BLE001 - whatever the file did to this element, it cannot be written
                lost.append(keyword_for_tag(tag) or str(tag))
                del header[tag]
    return lost


def _touch(item: Dataset, tag: int) -> None:
    value = item[tag].value
    if item[tag].VR == "SQ":
        for inner in value:
            for inner_tag in list(inner.keys()):
                _touch(inner, int(inner_tag))


def _derive(header: FileDataset, derivation: Derivation) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    for tag in [t for t in header.keys() if 0x5000 <= t.group <= 0x50FF or 0x6000 <= t.group <= 0x60FF]:  # noqa: SIM118
        del header[tag]  # curves and overlay planes
    for keyword in DROPPED:
        if keyword in header:
            delattr(header, keyword)
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    header.SourceImageSequence = Sequence([source])
    stated = list(header.get("ImageType") or [])
    stated = [str(header.ImageType)] if isinstance(header.get("ImageType"), str) else [str(part) for part in stated]
    header.ImageType = ["DERIVED", *(stated[1:] or ["PRIMARY"])]
    header.DerivationDescription = f"fluoronav {program_version()}: {derivation.description}"
    if derivation.factor > 1:
        _divided(header, derivation.factor)
    if derivation.step is not None:
        _counted(header, derivation.step)
    equipment, purpose = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109103", "DCM", "Modifying Equipment"
    equipment.PurposeOfReferenceCodeSequence = Sequence([purpose])
    equipment.Manufacturer, equipment.ManufacturerModelName = "fluoronav", "fluoronav enhance"
    equipment.SoftwareVersions = program_version()
    equipment.ContributionDescription = "image processing; research use only"
    header.ContributingEquipmentSequence = Sequence([*header.get("ContributingEquipmentSequence", []), equipment])
    header.SOPInstanceUID, header.SeriesInstanceUID = generate_uid(None), generate_uid(None)
    header.SamplesPerPixel = 1
    if not str(header.get("PhotometricInterpretation", "")).startswith("MONOCHROME"):
        header.PhotometricInterpretation = "MONOCHROME2"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta = meta
    described = str(header.get("SeriesDescription", "") or "")
    header.SeriesDescription = f"{described} {derivation.word}".strip()[:64]


def _divided(header: FileDataset, factor: int) -> None:
    """Rows, columns, spacings and shutters of pixels that many times finer. DICOM counts pixels from 1: n of the
    coarse grid begins at factor (n - 1) + 1 of the fine one and ends at factor n. Edges are closed: the inner end of
    theirs is taken; of centers and vertices the middle."""
    from pydicom.multival import MultiValue

    header.Rows, header.Columns = int(header.Rows) * factor, int(header.Columns) * factor
    for keyword in SPACINGS:
        given = header.get(keyword)
        if given not in (None, ""):
            values = [float(v) for v in given] if isinstance(given, MultiValue | list) else [float(given)]
            text = [f"{v / factor:.10g}" for v in values]
            setattr(header, keyword, text if len(text) > 1 else text[0])
    for keyword in SHUTTERS:
        given = header.get(keyword)
        if given not in (None, ""):
            values = [int(v) for v in given] if isinstance(given, MultiValue | list) else [int(given)]
            first, last = ("Right" in keyword or "Lower" in keyword), ("Left" in keyword or "Upper" in keyword)
            whole = [factor * v if last or keyword == "RadiusOfCircularShutter" else factor * (v - 1) + 1 if first
                     else round(factor * (v - 0.5) + 0.5) for v in values]
            setattr(header, keyword, whole if len(whole) > 1 else whole[0])


def _counted(header: FileDataset, step: float) -> None:
    """16 unsigned bits, the larger the brighter; the rescale slope turns them into stored units of the run."""
    for keyword in GREYS:
        if keyword in header:
            delattr(header, keyword)
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.PhotometricInterpretation = "MONOCHROME2"
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = "0", f"{step:.10g}", "US"
