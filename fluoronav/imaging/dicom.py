# SPDX-License-Identifier: Apache-2.0
"""What run is in this DICOM file? XA and RF, single and multi-frame, classic and enhanced."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fluoronav.imaging.carm_file import StatedCarm, mismatch
from fluoronav.imaging.codecs import LOSSY
from fluoronav.imaging.dicom_geometry import Given, angles_of, carm_of, missing_angles, table_of
from fluoronav.imaging.dicom_pixels import DicomPixels, inflate
from fluoronav.imaging.frame import Angles, Exposure, Frame
from fluoronav.imaging.intensity import intensity_of
from fluoronav.imaging.mirror import SeenFrom, flips
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.run import LazyFrames, Run
from fluoronav.imaging.shutters import blank_border, stated_shutters
from fluoronav.imaging.tags import Header, code
from fluoronav.imaging.times import frame_times
from registration.errors import BadGeometry, BadPixels
from registration.geometry import Array, CArm

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_LE = b"1.2.840.10008.1.2.1\x00"
MODALITIES = ("XA", "RF", "DX", "OT", "")
REFUSED_MODALITY = "give a fluoroscopy run; a CT volume goes to `fluoronav case create --ct`"


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes are those of a DICOM file, or of one without a preamble."""
    return head[128:132] == b"DICM" or head[:4] in (b"\x08\x00\x00\x00", b"\x02\x00\x00\x00", b"\x08\x00\x05\x00",
                                                     b"\x08\x00\x08\x00", b"\x08\x00\x16\x00", b"\x02\x00\x01\x00")


def open_dicom(path: Path, given: Given, seen_from: SeenFrom | None = None,
               stated: StatedCarm | None = None) -> Run:
    """The run in one DICOM file; frames are decoded when asked for.

    `stated` is the geometry of a --carm file, which then goes before all that the header says of it.
    Raises BadPixels where the pixels cannot be used. A fault of geometry is told in
    `run.geometry_error` and in every frame, and does not stop the pictures.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old files have odd UIDs and dates; what matters is checked here
        header, body = read_header(path)
        _check_modality(header, path.name)
        pixels = DicomPixels(path, header, body)
        return _DicomDoor(path, header, pixels, given, seen_from, stated).run()


def read_header(path: Path) -> tuple[FileDataset, bytes | None]:
    """Everything before the pixels, and the inflated file where it was deflated. Raises BadPixels."""
    import pydicom

    remedy = "give a DICOM file (XA or RF), or a PNG or TIFF with --carm"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(132)
    if size == 0 or not is_dicom(head):
        raise BadPixels(path.name, got="an empty file" if size == 0 else "no DICOM header",
                        expected="a DICOM file", remedy=remedy)
    body: bytes | None = None
    try:
        body = _inflated(path)
        with path.open("rb") if body is None else io.BytesIO(body) as source:
            header = pydicom.dcmread(source, stop_before_pixels=True, force=True)
            header.fluoronav_pixels_at = source.tell()  # where the pixel element begins
    except BadPixels:
        raise
    except Exception as error:  # a broken header fails in many ways
        raise BadPixels(path.name, got=f"a header that cannot be read ({type(error).__name__})",
                        expected="a whole DICOM file", remedy="copy it again from the archive") from error
    if not len(header):
        raise BadPixels(path.name, got="a DICOM file without any content", expected="a picture", remedy=remedy)
    _check_syntax(header, path.name)
    return header, body


def _inflated(path: Path) -> bytes | None:
    """A deflated file as a plain explicit little-endian one, None where it is not deflated."""
    from pydicom.filereader import read_file_meta_info

    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
        meta = read_file_meta_info(path)
        if str(meta.get("TransferSyntaxUID", "")) != DEFLATED:
            return None
        file.seek(132)
        start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomIO
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import ExplicitVRLittleEndian

    plain = FileMetaDataset()
    plain.TransferSyntaxUID = ExplicitVRLittleEndian
    out = io.BytesIO()
    out.write(bytes(128) + b"DICM")
    write_file_meta_info(DicomIO(out), plain, enforce_standard=False)
    out.write(inflate(path, start))
    return out.getvalue()


def _check_syntax(header: FileDataset, name: str) -> None:
    from pydicom.uid import UID

    stated = getattr(header.file_meta, "TransferSyntaxUID", None)
    if stated is None:
        return
    uid = UID(str(stated))
    if not (uid.is_transfer_syntax and not uid.is_private and uid.name != str(uid)):
        raise BadPixels(f"transfer syntax of {name}", got=str(stated), expected="one that the standard knows",
                        remedy="export the run again in a standard transfer syntax")


def _check_modality(header: FileDataset, name: str) -> None:
    modality = code(header, "Modality")
    sop = str(header.get("SOPClassUID", ""))
    refused = modality not in MODALITIES or sop.startswith("1.2.840.10008.5.1.4.1.1.2")
    if refused and not (modality in ("XA", "RF") and not sop.startswith("1.2.840.10008.5.1.4.1.1.2")):
        raise BadPixels(f"modality of {name}", got=modality or sop, expected="XA or RF", remedy=REFUSED_MODALITY)


class _DicomDoor:
    """Turns one header and its pixels into a Run; one small method for each thing a frame carries."""

    def __init__(self, path: Path, header: FileDataset, pixels: DicomPixels, given: Given,
                 seen_from: SeenFrom | None, stated: StatedCarm | None = None) -> None:
        self.stated = stated
        self.path, self.dataset, self.pixels, self.given = path, header, pixels, given
        self.name, self.notes, self.header = path.name, Notes(), Header(header)
        self.shape = (pixels.format.rows, pixels.format.columns)
        self.error: BadGeometry | None = None
        self.carm = self._try_carm(self.header)
        self._try_angles(0)
        side = seen_from or (stated.seen_from if stated else None)
        self.flip = flips(self.header, self._angles(0), side, self.name, self.notes)
        self.intensity = intensity_of(self.header, pixels.format.stored, self.notes)
        self._mask: Array | None = None

    def run(self) -> Run:
        """The run, with everything said that was read, derived or assumed."""
        f = self.pixels.format
        self.notes.read(f"{f.frames} frame(s) of {f.rows} x {f.columns}, {f.stored} bits stored of {f.allocated}, "
                        f"{f.photometric}")
        if f.signed:
            self.notes.derived(f"signed pixels, shifted by {1 << (f.stored - 1)} to be counted from 0")
        if self.pixels.syntax in LOSSY or code(self.dataset, "LossyImageCompression") == "01":
            self.notes.warn("the pictures went through a lossy compression "
                            f"({LOSSY.get(self.pixels.syntax, 'earlier')}): noise and lines are altered")
        self.times, interval = frame_times(self.header, f.frames, self.notes)
        stated_shutters(self.header, self.shape, self.notes)
        table_of(self.header, self.notes)
        exposure_of(self.header, f.frames, self.notes)
        frames = LazyFrames(f.frames, self.frame)
        return Run(name=self.name, path=self.path, kind="dicom", frames=frames, shape=self.shape,
                   notes_list=self.notes, nominal_interval_s=interval, geometry_error=self.error, flipped=self.flip,
                   signed=f.signed, carm_from_room=self.stated.carm_from_room if self.stated else None)

    def frame(self, k: int) -> Frame:
        """Frame k, decoded now."""
        header = self.header.of(k)
        picture = unsigned(self.pixels.stored(k), self.pixels.format.signed, self.pixels.format.stored)
        valid, angles = self._valid(), self._angles(k)
        carm, fault = self._carm(header)
        if fault is None and angles is None:
            fault = str(missing_angles(self.name))
        if self.flip:
            picture, valid = picture[:, ::-1], valid[:, ::-1]
            carm = carm.flipped_columns() if carm is not None else None
        silent = Notes()
        return Frame(
            pixels=picture, index=k, time_ns=int(self.times[k]), carm=carm, angles=angles,
            exposure=exposure_of(header, self.pixels.format.frames, silent), intensity=self.intensity, valid=valid,
            source_name=self.name, table_in_room_mm=table_of(header, silent),
            geometry_fault=fault, notes=tuple(self.notes.lines))

    def _try_carm(self, header: Header) -> CArm | None:
        if self.stated is not None:
            if self.stated.carm.shape != self.shape:
                self.error = mismatch(self.stated, self.shape, self.name)
                return None
            self.notes.read(f"geometry from {self.stated.name}, in place of the header's")
            return self.stated.carm
        try:
            return carm_of(header, self.shape, self.given, self.name, self.notes)
        except BadGeometry as error:
            self.error = error
            return None

    def _try_angles(self, k: int) -> None:
        """A broken angle is a fault of geometry; one that is not stated leaves the C-arm as it is."""
        if self.stated is not None:
            return
        try:
            angles = angles_of(self.header.of(k), k, self.given, self.name, self.notes)
        except BadGeometry as error:
            self.error, self.carm = self.error or error, None
            return
        if angles is None and self.error is None:
            self.error = missing_angles(self.name)

    def _angles(self, k: int) -> Angles | None:
        if self.stated is not None:
            return self.stated.angles
        try:
            return angles_of(self.header.of(k), k, self.given, self.name, Notes())
        except BadGeometry:
            return None

    def _carm(self, header: Header) -> tuple[CArm | None, str | None]:
        """The C-arm of a frame and its fault; per frame where the file keeps geometry per frame."""
        told = str(self.error) if self.error else None
        if self.carm is None or not header.enhanced or self.stated is not None:
            return self.carm, told
        try:
            return carm_of(header, self.shape, self.given, self.name, Notes()), told
        except BadGeometry as error:
            return None, str(error)

    def _valid(self) -> Array:
        """Stated shutters, or a blank border where none is stated; from first, middle and last frame."""
        if self._mask is None:
            stated = stated_shutters(self.header, self.shape, Notes())
            picks = sorted({0, len(self.pixels) // 2, len(self.pixels) - 1})
            f = self.pixels.format
            found = blank_border([unsigned(self.pixels.stored(k), f.signed, f.stored) for k in picks])
            self._mask = stated & found if (stated & found).any() else stated
            if not found.all():
                self.notes.derived(f"blank border, {found.mean():.0%} of the picture open (found in the pixels)")
        return self._mask


def unsigned(picture: Array, signed: bool, stored: int) -> Array:
    """Stored pixels as uint8 or uint16, signed ones counted from their lowest possible value."""
    if signed:
        wide = picture.astype(np.int32) << (32 - stored) >> (32 - stored)  # sign of the bits stored
        picture = wide + (1 << (stored - 1))
    return np.ascontiguousarray(picture, np.uint8 if stored <= 8 else np.uint16)


def exposure_of(header: Header, frames: int, notes: Notes) -> Exposure:
    """kVp, mA, ms and dose of a frame, where stated (PS3.3 C.8.7.2)."""
    kvp, ma = header.numbers("KVP").first, header.numbers("XRayTubeCurrent").first
    if ma is None and (fine := header.numbers("XRayTubeCurrentInmA").first) is not None:
        ma = fine
    elif ma is None and (micro := header.numbers("XRayTubeCurrentInuA").first) is not None:
        ma = micro / 1000
    pulse, whole = header.numbers("AveragePulseWidth").first, header.numbers("ExposureTime").first
    if pulse is None and header.enhanced:
        pulse = header.numbers("ExposureTimeInms").first  # Enhanced XA states it for each frame
    ms = pulse
    if pulse is not None:
        notes.read(f"pulse width {pulse:g} ms")
    elif whole is not None and frames == 1:
        ms = whole
        notes.read(f"exposure time {whole:g} ms (ExposureTime)")
    elif whole is not None:
        notes.warn(f"ExposureTime {whole:g} ms is the whole run's; the pulse width is not stated")
    dose = header.numbers("EntranceDoseInmGy").first
    per_frame = dose * 1000 if dose is not None and frames == 1 else None
    notes.read("exposure " + ", ".join(
        f"{v:g} {unit}" if v is not None else f"{unit} not stated"
        for v, unit in ((kvp, "kVp"), (ma, "mA"), (ms, "ms"), (per_frame, "uGy"))))
    return Exposure(kvp, ma, ms, per_frame)
