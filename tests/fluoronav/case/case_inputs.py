# SPDX-License-Identifier: Apache-2.0
"""Small CTs, labels, meshes and lines for tests, written by pydicom, SimpleITK and VTK, apart from the doors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

NAMES = {"PatientName": "Doe^Jane Quenby", "PatientID": "MRN-4711-XYZ", "InstitutionName": "St. Elsewhere Hospital",
         "ReferringPhysicianName": "House^Gregory", "OperatorsName": "Ratched^Mildred", "StationName": "CTROOM9Q",
         "StudyDescription": "Thorax Quenby", "AccessionNumber": "ACC778899", "StudyDate": "20010203"}
SHAPE = (8, 20, 24)  # slices, rows, columns
STEP, PITCH = 2.5, (0.8, 0.7)  # mm; row spacing, column spacing
ORIGIN = (-8.0, 12.0, -30.0)


def hounsfield(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Air outside, tissue with texture, a bone; int16 [k, j, i]."""
    rng = np.random.default_rng(seed)
    out = np.full(shape, -1000, np.int16)
    out[:, 3:-3, 3:-3] = rng.integers(-80, 120, (shape[0], shape[1] - 6, shape[2] - 6))
    out[:, 8:11, 9:13] = 900
    return out


def write_series(folder: Path, hu: np.ndarray | None = None, *, skip: tuple[int, ...] = (), change: Any = None,
                 axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0), step: np.ndarray | None = None, order: Any = None,
                 **tags: Any) -> Path:
    """A CT series; `change(k, ds)` spoils slice k, `tags` set or (None) remove elements in all."""
    data = hounsfield() if hu is None else hu
    folder.mkdir(parents=True, exist_ok=True)
    shared = {key: generate_uid() for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    normal = np.cross(axes[:3], axes[3:])
    step = normal * STEP if step is None else step
    for n, k in enumerate(order or range(len(data))):
        if k in skip:
            continue
        ds = pydicom.Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        values = {"Modality": "CT", **NAMES, **shared, "InstanceNumber": k + 1, "PatientPosition": "HFS",
                  "ImagePositionPatient": [float(f"{x:.6f}") for x in np.add(ORIGIN, k * step)],
                  "ImageOrientationPatient": [float(f"{x:.6f}") for x in axes], "PixelSpacing": list(PITCH),
                  "Rows": data.shape[1], "Columns": data.shape[2], "SamplesPerPixel": 1, "BitsAllocated": 16,
                  "PhotometricInterpretation": "MONOCHROME2", "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
                  "RescaleSlope": 1, "RescaleIntercept": -1024, **tags}
        for key, value in values.items():
            if value is not None:
                setattr(ds, key, value)
        ds.PixelData = (data[k].astype(np.int32) + 1024).astype(np.uint16).tobytes()
        if change is not None:
            change(k, ds)
        pydicom.dcmwrite(folder / f"slice{n:03d}.dcm", ds, enforce_file_format=True)
    return folder


def write_enhanced(path: Path, hu: np.ndarray | None = None, *, order: Any = None, shared_rescale: bool = True,
                   change: Any = None) -> Path:
    """The same CT as one enhanced object; `change(ds)` spoils it."""
    data = hounsfield() if hu is None else hu
    order = list(order or range(len(data)))
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for key, value in {"Modality": "CT", **NAMES, "StudyInstanceUID": generate_uid(), "PatientPosition": "HFS",
                       "SeriesInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid(),
                       "NumberOfFrames": len(order), "Rows": data.shape[1], "Columns": data.shape[2],
                       "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
                       "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0}.items():
        setattr(ds, key, value)

    def group(name: str, **values: Any) -> pydicom.Dataset:
        inner, outer = pydicom.Dataset(), pydicom.Dataset()
        for key, value in values.items():
            setattr(inner, key, value)
        setattr(outer, name, [inner])
        return outer

    def merged(*groups: pydicom.Dataset) -> pydicom.Dataset:
        out = pydicom.Dataset()
        for g in groups:
            out.update(g)
        return out

    def rescale(slope: float) -> pydicom.Dataset:
        return group("PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU")

    ds.SharedFunctionalGroupsSequence = [merged(
        group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        group("PixelMeasuresSequence", PixelSpacing=list(PITCH)), *([rescale(1)] if shared_rescale else []))]
    ds.PerFrameFunctionalGroupsSequence = [merged(
        group("PlanePositionSequence", ImagePositionPatient=[ORIGIN[0], ORIGIN[1], ORIGIN[2] + k * STEP]),
        *([] if shared_rescale else [rescale(1 + k % 2)])) for k in order]
    stored = data.astype(np.int32) + 1024
    if not shared_rescale:
        stored = stored // (1 + np.arange(len(data)) % 2)[:, None, None]
    ds.PixelData = stored[order].astype(np.uint16).tobytes()
    if change is not None:
        change(ds)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def affine_of_series() -> np.ndarray:
    """patient_from_index of `write_series` as it is without changes."""
    out = np.diag([PITCH[1], PITCH[0], STEP, 1.0])
    out[:3, 3] = ORIGIN
    return out


def write_volume(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    """An array [k, j, i] with its affine (L, P, S) as NIfTI, NRRD or MHA."""
    image = sitk.GetImageFromArray(data)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing([float(x) for x in spacing])
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin([float(x) for x in affine[:3, 3]])
    sitk.WriteImage(image, str(path), useCompression=path.suffix != ".mha")
    return path


def flipped(data: np.ndarray, affine: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same places with index axes (0 = i, 1 = j, 2 = k) turned around."""
    out = affine.copy()
    for axis in axes:
        out[:3, 3] += out[:3, axis] * (data.shape[2 - axis] - 1)
        out[:3, axis] *= -1
    return np.flip(data, [2 - axis for axis in axes]), out


def tree_mask(shape: tuple[int, int, int], affine: np.ndarray, lines: list[np.ndarray], radius_mm: float) -> np.ndarray:
    """Voxels within a radius of line segments (2, 3) in mm, uint8."""
    k, j, i = np.indices(shape)
    at = np.stack([i, j, k], -1) @ affine[:3, :3].T + affine[:3, 3]
    near = np.full(shape, np.inf)
    for a, b in lines:
        t = np.clip(((at - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        near = np.minimum(near, np.linalg.norm(at - a - t[..., None] * (b - a), axis=-1))
    return (near <= radius_mm).astype(np.uint8)


def ball(center: tuple[float, float, float], radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A sphere's vertices and outward faces."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersSources import vtkSphereSource

    source = vtkSphereSource()
    source.SetCenter(*center)
    source.SetRadius(radius)
    source.SetThetaResolution(24)
    source.SetPhiResolution(24)
    source.Update()
    out = source.GetOutput()
    return (vtk_to_numpy(out.GetPoints().GetData()).astype(float),
            vtk_to_numpy(out.GetPolys().GetConnectivityArray()).reshape(-1, 3))


def write_stl(path: Path, vertices: np.ndarray, faces: np.ndarray, head: bytes = b"test") -> Path:
    """A binary STL, byte by byte as its format says."""
    rows = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("count", "<u2")])
    rows["corners"] = vertices[faces]
    path.write_bytes(head.ljust(80, b" ") + np.uint32(len(faces)).tobytes() + rows.tobytes())
    return path


def write_lines(path: Path, points: np.ndarray, lines: list[list[int]], title: str = "lines") -> Path:
    """Legacy ASCII VTK polylines."""
    text = [f"# vtk DataFile Version 3.0\n{title}\nASCII\nDATASET POLYDATA\nPOINTS {len(points)} double"]
    text += [" ".join(f"{x:.6f}" for x in p) for p in points]
    text.append(f"LINES {len(lines)} {sum(map(len, lines)) + len(lines)}")
    text += [" ".join(map(str, [len(x), *x])) for x in lines]
    path.write_text("\n".join(text) + "\n")
    return path
