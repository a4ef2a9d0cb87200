# SPDX-License-Identifier: Apache-2.0
"""Where does a NIfTI file place its voxels? Its header, read here, because readers differ in which form they trust.

Source: nifti1.h and nifti2.h (NIfTI Data Format Working Group): sform and qform give R, A, S.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Float64

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}  # xyzt_units & 7: unknown, meter, mm, micrometer
FLOATS = {16: "f4", 64: "f8"}  # data types of nifti1.h that can hold NaN
CHUNK = 1 << 22  # bytes read at once
AGREE_MM = 0.05  # forms that differ by less at every corner are one form, rounded


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """What a NIfTI header says about the grid."""

    dim: tuple[int, ...]
    order: str  # of the bytes: < or >
    datatype: int
    bits: int  # of a voxel
    data_at: int  # offset of the voxels
    pixdim: tuple[float, ...]
    units: int
    qform_code: int
    sform_code: int
    quatern: tuple[float, ...]  # b, c, d, x, y, z
    srow: Float64  # (3, 4)


def nifti_affine(path: Path, label: str, notes: Notes) -> Float64:
    """patient_from_index (4, 4) in L, P, S mm. Raises BadInput where the file does not say it, or twice."""
    header = _header(path, label)
    _whole(path, header, label)
    _finite(path, header, label)
    sform = np.vstack([header.srow, [0, 0, 0, 1]]) if header.sform_code > 0 else None
    qform = _from_quaternion(header) if header.qform_code > 0 else None
    if sform is None and qform is None:
        raise BadInput(f"orientation of {label}", got="neither qform nor sform code", expected="one of them",
                       remedy="write the file with its affine: without it left and right are not known")
    if sform is not None and qform is not None:
        _compare(sform, qform, header, label, notes)
    ras = sform if sform is not None else qform
    assert ras is not None
    scale = UNITS_MM.get(header.units & 7, 1.0)
    if header.units & 7 in (1, 3):
        notes.derived(f"{label}: lengths turned from {'m' if scale > 1 else 'micrometers'} into mm")
    elif header.units & 7 == 0:
        notes.assumed(f"{label}: lengths are mm (the file states no unit)")
    return LPS_FROM_RAS @ np.diag([scale, scale, scale, 1.0]) @ ras


def _header(path: Path, label: str) -> NiftiHeader:
    raw = _first_bytes(path, label)
    for order in "<>":
        size = struct.unpack_from(f"{order}i", raw)[0] if len(raw) >= 348 else 0
        if size == 348:
            at = struct.unpack_from(f"{order}hh3f3f12f", raw, 252)
            datatype, bits = struct.unpack_from(f"{order}2h", raw, 70)
            return NiftiHeader(struct.unpack_from(f"{order}8h", raw, 40), order, datatype, bits,
                               int(struct.unpack_from(f"{order}f", raw, 108)[0]),
                               struct.unpack_from(f"{order}8f", raw, 76), raw[123], at[0], at[1], at[2:8],
                               np.array(at[8:20], float).reshape(3, 4))
        if size == 540 and len(raw) >= 540:
            at = struct.unpack_from(f"{order}ii3d3d12d", raw, 344)
            datatype, bits = struct.unpack_from(f"{order}2h", raw, 12)
            return NiftiHeader(struct.unpack_from(f"{order}8q", raw, 16), order, datatype, bits,
                               struct.unpack_from(f"{order}q", raw, 168)[0], struct.unpack_from(f"{order}8d", raw, 104),
                               struct.unpack_from(f"{order}i", raw, 500)[0], at[0], at[1], at[2:8],
                               np.array(at[8:20], float).reshape(3, 4))
    raise BadInput(label, got="no NIfTI header", expected="a NIfTI file", remedy="export it again")


def _whole(path: Path, header: NiftiHeader, label: str) -> None:
    """Refuse a file that ends before its voxels do: ITK fills the rest without a word."""
    count = 1
    for n in header.dim[1:1 + max(0, min(7, header.dim[0]))]:
        count *= max(1, int(n))
    expected = header.data_at + count * header.bits // 8
    have = path.stat().st_size
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        if zipped:
            file.seek(-4, 2)  # RFC 1952: the length, modulo 2^32, stands last
            have = expected if int.from_bytes(file.read(4), "little") == expected % 2**32 else -1
    if have == -1:
        have = _unzipped_length(path)
    if have < expected:
        raise BadInput(label, got=f"{have} bytes", expected=f"{expected} bytes of header and voxels",
                       remedy="copy or export it again")


def _finite(path: Path, header: NiftiHeader, label: str) -> None:
    """Refuse NaN and infinite voxels: ITK makes them 0, which is soft tissue, without a word."""
    if header.datatype not in FLOATS:
        return
    kind = np.dtype(header.order + FLOATS[header.datatype])
    left, bad = int(np.prod([max(1, n) for n in header.dim[1:1 + header.dim[0]]])) * kind.itemsize, 0
    try:
        with gzip.open(path) if _zipped(path) else path.open("rb") as file:
            file.seek(header.data_at)
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                bad += int((~np.isfinite(np.frombuffer(chunk, kind))).sum())
                left -= len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(label, got=f"a file that cannot be read ({type(error).__name__})", expected="a whole NIfTI file",
                       remedy="copy it again") from error
    if bad:
        raise BadInput(label, got=f"{bad} voxels that are NaN or infinite", expected="finite values",
                       remedy="repair the file first")


def _zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _unzipped_length(path: Path) -> int:
    total = 0
    try:
        with gzip.open(path) as file:
            while chunk := file.read(CHUNK):
                total += len(chunk)
    except (OSError, EOFError, zlib.error):  # what could be read up to the damage counts
        return total
    return total


def _first_bytes(path: Path, label: str) -> bytes:
    try:
        with gzip.open(path) if _zipped(path) else path.open("rb") as file:
            return file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(label, got=f"a file that cannot be read ({type(error).__name__})", expected="a NIfTI file",
                       remedy="copy it again") from error


def _from_quaternion(header: NiftiHeader) -> Float64:
    """Method 2 of nifti1.h: rotation from the quaternion, voxel sizes, qfac for a left-handed grid."""
    b, c, d, x, y, z = header.quatern
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array([[a*a + b*b - c*c - d*d, 2*(b*c - a*d), 2*(b*d + a*c)],
                         [2*(b*c + a*d), a*a + c*c - b*b - d*d, 2*(c*d - a*b)],
                         [2*(b*d - a*c), 2*(c*d + a*b), a*a + d*d - b*b - c*c]])
    qfac = -1.0 if header.pixdim[0] < 0 else 1.0
    out = np.eye(4)
    out[:3, :3] = rotation * np.array([header.pixdim[1], header.pixdim[2], header.pixdim[3] * qfac])
    out[:3, 3] = x, y, z
    return out


def _compare(sform: Float64, qform: Float64, header: NiftiHeader, label: str, notes: Notes) -> None:
    n = np.array(header.dim[1:4], float) - 1
    corners = np.array([[i, j, k, 1] for i in (0, n[0]) for j in (0, n[1]) for k in (0, n[2])])
    apart = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise BadInput(f"orientation of {label}", got="an sform that is the mirror image of the qform",
                       expected="one orientation", remedy="write the file again with one of them")
    if apart > AGREE_MM:
        notes.warn(f"{label}: sform and qform disagree by up to {apart:.3g} mm; the sform is used")
