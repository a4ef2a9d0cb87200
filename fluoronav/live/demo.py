# SPDX-License-Identifier: Apache-2.0
"""What does the demo show? The demo patient as files of a case, and as a source of frames whose truth is known."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.live.source import Gap, Pace
from models.patient import DemoPatient
from models.patient.motion import Motion
from models.patient.scene import PULSE_MS, Scene
from registration.errors import BadInput
from registration.geometry import CArm, Volume
from registration.shapes import Mesh, Polylines

CARM = CArm.centered((512, 512), 0.6, sdd_mm=1100.0, sod_mm=750.0)
AHEAD = 90  # frames made before they are due: 6 s at 15 fps, 47 MB
LATE_S = 0.3  # a wait for the maker after which the pace starts anew
EASY = 30  # from this many on the maker rests between frames, and leaves the processor to registration


class DemoSource:
    """The demo patient under a C-arm: a Source that knows its truth.

    patient; seconds and fps of the run; seed of noise and motion; primary_deg, secondary_deg: what the gantry says
    (the patient lies some degrees and mm off). paced: hand frames out when they are due by their time stamps (else
    as fast as they are made); threads: of the maker's projections. Frames are made ahead in a thread of its own, into
    a bounded buffer. A frame is a function of (patient, seconds, fps, seed, angles, index). Raises BadInput.
    """

    def __init__(self, patient: DemoPatient, seconds: float, fps: float = 15.0, seed: int = 0, *, paced: bool = True,
                 primary_deg: float = 12.0, secondary_deg: float = 0.0, threads: int = 1) -> None:
        if not (np.isfinite(seconds) and np.isfinite(fps) and seconds > 0 and 0.5 <= fps <= 60):
            raise BadInput("demo run", got=f"{seconds} s at {fps} frames/s",
                           expected="seconds above 0, 0.5 to 60 frames/s", remedy="give --seconds 20")
        self.name = "demo patient"
        self.nominal_interval_s: float | None = 1.0 / fps
        self.notes = (f"simulated: seed {seed}, {seconds:g} s at {fps:g} frames/s, known truth",
                      "the pose of the bones, the place of the target and the breathing are known for every frame")
        self.frame_count = max(1, round(seconds * fps))
        self.scene = Scene(patient, Motion(patient, seconds, seed), CARM, primary_deg=primary_deg,
                           secondary_deg=secondary_deg, seed=seed, threads=threads)
        self._paced, self._fps = paced, fps
        self._stop = threading.Event()
        self._ahead: queue.Queue[Frame | BaseException] | None = None

    def begin(self) -> None:
        """Start making frames now, so that some are there when the first is asked for (the first breath is slow)."""
        if self._ahead is None:
            self._ahead = queue.Queue(AHEAD)
            threading.Thread(target=self._make, args=(self._ahead,), name="demo-patient", daemon=True).start()

    def __iter__(self) -> Iterator[Frame | Gap]:
        """Frames in order, each when it is due; then a Gap that says that the run has ended."""
        self.begin()
        made, self._ahead = self._ahead, None  # a second iteration is a run of its own
        assert made is not None
        pace, came = Pace(self._stop), time.monotonic()
        for index in range(self.frame_count):
            empty = made.empty()
            frame = self._next(made)
            if frame is None:
                return
            if self._paced:
                if index and empty and time.monotonic() - came > LATE_S:
                    pace = Pace(self._stop)  # the maker stalled: go on at the run's pace, without a burst
                pace.wait(frame.time_ns)
                if self._stop.is_set():
                    return
            came = time.monotonic()
            yield frame
        yield Gap(0.0, "the run of the demo patient is over", ended=True, state="hold")

    def close(self) -> None:
        """Ends the iteration and the maker's thread soon; from any thread."""
        self._stop.set()

    def frame(self, index: int) -> Frame:
        """The frame of an index, made now: the same bits whatever was made before."""
        shot = self.scene.shot(index, self.time_s(index))
        detector = self.scene.detector
        law = Intensity("linear", "dark", detector.bits, i0=shot.i0, i0_source="header", dark=detector.dark,
                        gain=detector.gain, electronic=detector.electronic)
        return Frame(shot.counts, index, round(self.time_s(index) * 1e9), self.scene.carm,
                     Angles(self.scene.primary_deg, self.scene.secondary_deg),
                     Exposure(self.scene.kvp, shot.ma, PULSE_MS, round(shot.dose_ugy, 3)), law,
                     np.ones(shot.counts.shape, bool), self.name)

    def time_s(self, index: int) -> float:
        """Time of a frame since the start of the run."""
        return index / self._fps

    def truth(self, index: int) -> dict[str, Any] | None:
        """carm_from_patient (4x4: pose of spine and pelvis), target_in_carm_mm [3] with breathing and pulse,
        breathing_mm (excursion of the diaphragm); None for an index outside the run."""
        if not 0 <= index < self.frame_count:
            return None
        t = self.time_s(index)
        return {"carm_from_patient": self.scene.carm_from_patient(t).tolist(),
                "target_in_carm_mm": self.scene.target_in_carm(t).tolist(),
                "breathing_mm": self.scene.motion.breathing_mm(t)}

    def _make(self, made: queue.Queue[Frame | BaseException]) -> None:
        """The maker's thread. What it raises is handed over and raised where the frames are read."""
        try:
            for index in range(self.frame_count):
                frame = self.frame(index)
                while not self._stop.is_set():
                    try:
                        made.put(frame, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if self._stop.is_set():
                    return
                if self._paced and made.qsize() > EASY:
                    self._stop.wait(0.6 / self._fps)
        except Exception as error:  # noqa: BLE001 - raised again by _next
            made.put(error)

    def _next(self, made: queue.Queue[Frame | BaseException]) -> Frame | None:
        while not self._stop.is_set():
            try:
                item = made.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item
        return None


# --------------------------------------------------------------------------------------------------
# Files, as a hospital would have them


def write_demo_case_files(patient: DemoPatient, folder: str | Path) -> dict[str, Any]:
    """The patient's CT, vessels, centerline and planned path as files in a folder (made if it is not there).

    Answers what create_case takes: {"ct": Path, "vessels": (Path, Path), "path": Path, "target": (3,) mm}.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    ct, stl, lines, path = (place / name for name in ("ct.nii", "arteries.stl", "arteries_centerline.vtk", "path.csv"))
    _write_nifti(ct, patient.volume_hu)
    _write_stl(stl, patient.vessels)
    _write_vtk(lines, patient.centerline)
    rows = "".join(f"{x:.4f},{y:.4f},{z:.4f}\n" for x, y, z in patient.path_mm)
    path.write_text("L,P,S\n" + rows, "utf-8")
    return {"ct": ct, "vessels": (stl, lines), "path": path, "target": patient.target_mm}


def _write_nifti(path: Path, volume: Volume) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(volume.data.astype(np.int16))
    affine, spacing = volume.patient_from_index, volume.spacing_mm
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))


def _write_stl(path: Path, mesh: Mesh) -> None:
    corners = mesh.vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    record = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("color", "<u2")])
    record["normal"], record["corners"] = normal, corners
    path.write_bytes(b"arteries, L P S, mm".ljust(80, b" ") + np.uint32(len(record)).tobytes() + record.tobytes())


def _write_vtk(path: Path, lines: Polylines) -> None:
    """Legacy VTK polydata: points in L, P, S, one line a branch, the radius at each point."""
    out = ["# vtk DataFile Version 3.0", "centerline, L P S, mm", "ASCII", "DATASET POLYDATA",
           f"POINTS {len(lines.points)} double", *(f"{x:.5f} {y:.5f} {z:.5f}" for x, y, z in lines.points),
           f"LINES {len(lines.lines)} {sum(len(x) + 1 for x in lines.lines)}",
           *(" ".join(map(str, [len(x), *x])) for x in lines.lines)]
    if lines.radius_mm is not None:
        out += [f"POINT_DATA {len(lines.points)}", "SCALARS radius double 1", "LOOKUP_TABLE default",
                *(f"{r:.5f}" for r in lines.radius_mm)]
    path.write_text("\n".join(out) + "\n", "utf-8")
