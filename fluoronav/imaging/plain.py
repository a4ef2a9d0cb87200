# SPDX-License-Identifier: Apache-2.0
"""What do pictures without a header share? Geometry from a --carm file, one mask, stated or assumed times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fluoronav.imaging.carm_file import StatedCarm, mismatch, no_geometry, read_carm_file
from fluoronav.imaging.dicom_geometry import Given
from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.imaging.mirror import SeenFrom
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.plausible import plausible
from fluoronav.imaging.run import LazyFrames, Run
from fluoronav.imaging.shutters import blank_border
from registration.errors import BadGeometry
from registration.geometry import Array, CArm

Kind = Literal["pictures", "video"]


@dataclass(slots=True)
class PlainDoor:
    """Turns pictures `pixels(k)` of one shape and bit depth into a Run."""

    name: str
    path: Path
    kind: Kind
    count: int
    shape: tuple[int, int]
    bits: int
    pixels: Callable[[int], Array]
    time_ns: Callable[[int], int]
    interval_s: float | None
    notes: Notes
    files: tuple[Path, ...] = ()

    def run(self, carm_file: str | Path | None, given: Given, seen_from: SeenFrom | None) -> Run:
        """The run; a missing or unfitting geometry is told in `run.geometry_error`."""
        stated = read_carm_file(carm_file) if carm_file is not None else None
        carm, error = self._geometry(stated, given)
        angles = stated.angles if stated is not None else None
        flip = self._flips(stated, seen_from)
        intensity = stated.intensity_with(self.bits) if stated else Intensity(
            "display", "dark", self.bits,
            assumed=("display pixels, dense matter dark (no --carm FILE says otherwise)",))
        for line in intensity.assumed:
            self.notes.assumed(line)
        self.notes.read(f"{self.count} frame(s) of {self.shape[0]} x {self.shape[1]}, {self.bits} bits")
        make = _Maker(self, carm, angles, flip, intensity, error)
        return Run(name=self.name, path=self.path, kind=self.kind, frames=LazyFrames(self.count, make.frame),
                   shape=self.shape, notes_list=self.notes, nominal_interval_s=self.interval_s,
                   geometry_error=error, flipped=flip, files=self.files,
                   carm_from_room=stated.carm_from_room if stated else None)

    def _geometry(self, stated: StatedCarm | None, given: Given) -> tuple[CArm | None, BadGeometry | None]:
        if stated is None:
            return None, no_geometry(self.name)
        if stated.carm.shape != self.shape:
            return None, mismatch(stated, self.shape, self.name)
        c = stated.carm
        pitch = (given.pixel_spacing_mm,) * 2 if given.pixel_spacing_mm else c.pitch_mm_row_col
        try:
            carm = plausible(CArm(c.shape, pitch, given.sdd_mm or c.sdd_mm, given.sod_mm or c.sod_mm,
                                  c.principal_px_u_v), self.name)
        except BadGeometry as error:
            return None, error
        self.notes.read(f"geometry from {stated.name}: SDD {carm.sdd_mm:g}, SOD {carm.sod_mm:g}, pitch "
                        f"{carm.pitch_mm_row_col[0]:g} x {carm.pitch_mm_row_col[1]:g} mm")
        return carm, None

    def _flips(self, stated: StatedCarm | None, seen_from: SeenFrom | None) -> bool:
        side = seen_from or (stated.seen_from if stated else None)
        if side is None:
            self.notes.assumed("seen from the detector (seen_from is not stated)")
        else:
            self.notes.read(f"seen from the {side}" + (": columns flipped" if side == "source" else ""))
        return side == "source"


@dataclass(slots=True)
class _Maker:
    """Makes the frames of a plain run; finds the blank border once, from three of them."""

    door: PlainDoor
    carm: CArm | None
    angles: Angles | None
    flip: bool
    intensity: Intensity
    error: BadGeometry | None
    mask: Any = None

    def frame(self, k: int) -> Frame:
        """Frame k, decoded now."""
        picture, valid, carm = self.door.pixels(k), self._valid(), self.carm
        if self.flip:
            picture, valid = picture[:, ::-1], valid[:, ::-1]
            carm = carm.flipped_columns() if carm is not None else None
        return Frame(pixels=picture, index=k, time_ns=self.door.time_ns(k), carm=carm, angles=self.angles,
                     exposure=Exposure(), intensity=self.intensity, valid=valid, source_name=self.door.name,
                     geometry_fault=str(self.error) if self.error else None, notes=tuple(self.door.notes.lines))

    def _valid(self) -> Array:
        if self.mask is None:
            # a video is read forward, so only its first frame; numbered pictures: first, middle, last
            picks = {0} if self.door.kind == "video" else {0, self.door.count // 2, self.door.count - 1}
            self.mask = blank_border([self.door.pixels(k) for k in sorted(picks)])
            if not self.mask.all():
                self.door.notes.derived(f"blank border, {self.mask.mean():.0%} of the picture open "
                                        "(found in the pixels)")
        return self.mask
