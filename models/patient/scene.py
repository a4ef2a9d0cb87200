# SPDX-License-Identifier: Apache-2.0
"""What does the C-arm see of the demo patient at a time? Pose, true places, and the picture in counts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np

from models.patient.motion import Motion, Round
from models.patient.patient import DemoPatient
from models.xray.detector import Detector, scatter
from models.xray.integrator import line_integrals, tube_integrals
from models.xray.spectrum import Spectrum, spectrum_at
from registration.geometry import Array, CArm, Float64, Rigid, Volume, carm_from_room

CENTER_QUANTA = 450.0  # a pixel and frame in the middle of the picture: some 40 nGy at the detector, fluoroscopy
PULSE_MS = 8.0
CATHETER_WALL_MM = 0.35
BARIUM_AS_IODINE_G_PER_ML = 0.45  # of the catheter's wall: barium sulfate attenuates much like iodine
# how the patient lies against what the gantry's angles say with the isocenter in the middle of the CT
SETUP_XI = (np.radians(1.4), np.radians(-1.6), np.radians(1.1), 7.5, -5.0, -8.5)
KEPT_MAPS = 40  # of 3 MB
KEPT_BODIES = 16  # of 18 MB


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: counts uint16, mA, i0 (counts above dark without a patient), dose (uGy at the reference point)."""

    counts: Array
    ma: float
    i0: float
    dose_ugy: float


@dataclass(frozen=True, slots=True)
class _Map:
    water: Array
    bone: Array
    transmission: Array
    level: float  # median of primary and scattered radiation in the middle half of the picture, without devices


class Scene:
    """The patient under the C-arm. Every answer is a function of (patient, seed, seconds, geometry, index or time)."""

    def __init__(self, patient: DemoPatient, motion: Motion, carm: CArm, *, primary_deg: float, secondary_deg: float,
                 kvp: float = 80.0, seed: int = 0, threads: int = 1, detector: Detector | None = None) -> None:
        self.patient, self.motion, self.carm = patient, motion, carm
        self.primary_deg, self.secondary_deg, self.kvp = primary_deg, secondary_deg, kvp
        self.detector = detector or Detector()
        self._seed, self._threads = seed, threads
        self._spectrum: Spectrum = spectrum_at(kvp)
        self._bodies: OrderedDict[float, Array] = OrderedDict()
        self._maps: OrderedDict[tuple[float, ...], _Map] = OrderedDict()

    # ---------------------------------------------------------------------------------------------- truth

    def carm_from_patient(self, t: float) -> Float64:
        """The pose of the resting skeleton (spine and pelvis) at a time, 4x4."""
        room_from_patient = Rigid.translation(*self.motion.table_mm(t)) @ Rigid.exp(SETUP_XI) @ Rigid.translation(
            *(-self.patient.volume_hu.center_mm))
        return carm_from_room(self.primary_deg, self.secondary_deg) @ room_from_patient

    def target_in_carm(self, t: float) -> Float64:
        """The true place of the target in the C-arm frame, with breathing and pulse, mm (3,)."""
        return Rigid.apply(self.carm_from_patient(t), self.motion.target_mm(t))

    # ---------------------------------------------------------------------------------------------- picture

    def shot(self, index: int, t: float) -> Shot:
        """The picture of frame `index` at time t: the noise is drawn from (seed, index) alone."""
        body = self._map(t)
        through = self._with_devices(body, t)
        through = self.detector.spot_blur(through)
        ma, open_quanta, dose = self._exposure(body)
        quanta = np.float32(open_quanta) * (through + scatter(through, self.carm.pitch_mm_row_col[1]))
        rng = np.random.Generator(np.random.SFC64([self._seed, 3, index]))
        return Shot(self.detector.read_out(quanta, rng), ma, open_quanta * self.detector.counts_per_quantum, dose)

    def _with_devices(self, body: _Map, t: float) -> Array:
        """Transmission with contrast, wire and catheter in the body's."""
        shaft, tip = self.motion.wire(t)
        lengths = {"steel": self._tubes(shaft, t, 3), "platinum": self._tubes(tip, t, 3), "iodine": self._catheter(t)}
        contrast = self.motion.contrast(t)
        if contrast is not None:
            lengths["iodine"] = lengths["iodine"] + self._tubes(contrast, t, 1)
        hit = (lengths["steel"] > 0) | (lengths["platinum"] > 0) | (lengths["iodine"] > 0)
        out = body.transmission.copy()
        if hit.any():
            here = {"water": body.water[hit], "bone": body.bone[hit], **{k: v[hit] for k, v in lengths.items()}}
            out[hit] = self._spectrum.transmission(here)
        return out

    def _tubes(self, thing: Round, t: float, fine: int) -> Array:
        points = Rigid.apply(self.carm_from_patient(t), self.motion.moved(thing.points, t))
        return tube_integrals(points, thing.radius, thing.amount, thing.branch, self.carm, fine=fine)

    def _catheter(self, t: float) -> Array:
        line, radius = self.motion.catheter(t)
        amount = np.full(len(line), BARIUM_AS_IODINE_G_PER_ML)
        branch = np.zeros(len(line), int)
        outer = self._tubes(Round(line, radius, amount, branch), t, 2)
        inner = self._tubes(Round(line, radius - CATHETER_WALL_MM, amount, branch), t, 2)
        return np.maximum(outer - inner, 0)

    def _exposure(self, body: _Map) -> tuple[float, float, float]:
        """(mA, quanta of a pixel without a patient, dose in uGy): the automatic exposure holds the middle's signal.

        The tube current follows the thickness in the middle half of the picture. Quanta: detected energy over the
        beam's mean energy; the dose is the kerma at the reference point, 150 mm from the isocenter (IEC 60601-2-43).
        """
        s, carm = self._spectrum, self.carm
        pixel_mm2 = carm.pitch_mm_row_col[0] * carm.pitch_mm_row_col[1]
        per_mas = float(s.detected_kev.sum()) / s.mean_kev * (1000.0 / carm.sdd_mm) ** 2 * pixel_mm2
        wanted = CENTER_QUANTA / body.level / per_mas * 1000.0 / PULSE_MS
        ma = float(np.round(np.clip(wanted, 2.0, 800.0), 1))
        mas = ma * PULSE_MS / 1000.0
        return ma, mas * per_mas, mas * s.kerma_ugy_per_mas * (1000.0 / (carm.sod_mm - 150.0)) ** 2

    # ---------------------------------------------------------------------------------------------- body

    def _map(self, t: float) -> _Map:
        """Line integrals of the body at a time; kept, since breathing states come again while the table rests."""
        breath = self.motion.breathing_mm(t)
        key = (breath, *self.motion.table_mm(t))
        found = self._maps.get(key)
        if found is None:
            found = self._rendered(self._body(breath), t)
            if self.motion.table_moves(t):
                return found
            self._maps[key] = found
            while len(self._maps) > KEPT_MAPS:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return found

    def _rendered(self, body: Volume, t: float) -> _Map:
        """One ray for 2 x 2 pixels, interpolated by a cubic, where those are smaller than the body's voxels by half:
        the body holds no finer detail (0.1 mm of water rms against a ray for each pixel), and it takes a quarter."""
        every = 2 if 2 * self.carm.mm_per_px_at_isocenter < 0.6 * float(body.spacing_mm.min()) else 1
        water, bone = line_integrals(body, self.carm.binned(every), self.carm_from_patient(t), threads=self._threads)
        if every > 1:
            size = self.carm.shape[::-1]
            water, bone = (np.maximum(cv2.resize(m, size, interpolation=cv2.INTER_CUBIC), 0) for m in (water, bone))
        through = self._spectrum.transmission({"water": water, "bone": bone})
        rows, columns = (n // 4 for n in through.shape)
        seen = (through + scatter(through, self.carm.pitch_mm_row_col[1]))[rows: -rows: 4, columns: -columns: 4]
        return _Map(water, bone, through, float(np.median(seen)))

    def _body(self, breath: float) -> Volume:
        """The body at a breathing state; kept as int16, since the table's move asks for the states again."""
        anatomy = self.patient.anatomy_hu
        if breath == 0:
            return anatomy
        if breath not in self._bodies:
            moved = self.patient.breathing.volume(anatomy, breath, self._threads)
            self._bodies[breath] = np.rint(moved.data).astype(np.int16)
            while len(self._bodies) > KEPT_BODIES:
                self._bodies.popitem(last=False)
        self._bodies.move_to_end(breath)
        return Volume(self._bodies[breath].astype(np.float32), anatomy.patient_from_index)
