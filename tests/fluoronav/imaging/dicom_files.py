# SPDX-License-Identifier: Apache-2.0
"""Small DICOM files for tests, written by pydicom, apart from the door that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

XA = "1.2.840.10008.5.1.4.1.1.12.1"
GEOMETRY = {"DistanceSourceToDetector": 1000, "DistanceSourceToPatient": 750, "ImagerPixelSpacing": [0.4, 0.2],
            "PositionerPrimaryAngle": 30, "PositionerSecondaryAngle": -10, "FrameTime": 40}


def picture(frames: int = 3, rows: int = 40, columns: int = 60, bits: int = 8, seed: int = 0) -> np.ndarray:
    """Frames of noise around the middle of the range."""
    noise = np.random.default_rng(seed).normal(0.5, 0.05, (frames, rows, columns))
    return (np.clip(noise, 0, 1) * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def write(path: Path, pixels: np.ndarray | None = None, *, bits: int = 8, syntax: str = ExplicitVRLittleEndian,
          leave_out: tuple[str, ...] = (), **tags: Any) -> Path:
    """An XA file with a whole geometry, changed by `tags`."""
    data = picture() if pixels is None else pixels
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = XA, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = XA, ds.SOPInstanceUID
    ds.Modality, ds.ImageType = "XA", ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
    ds.PatientName, ds.PatientID = "Doe^Jane", "4711"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = data.shape[:3]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = data.dtype.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation, ds.PixelIntensityRelationship = int(data.dtype.kind == "i"), "LIN"
    for key, value in {**GEOMETRY, **tags}.items():
        if key not in leave_out:
            setattr(ds, key, value)
    ds.PixelData = data.tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path
