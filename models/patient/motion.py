# SPDX-License-Identifier: Apache-2.0
"""What happens in the patient, and when? Breathing, heartbeat, table, wire and contrast as functions of time alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.patient.patient import DemoPatient
from models.patient.tree import Branch
from registration.geometry import Array, Float64

EXCURSION_STEP_MM = 1.0  # breathing states of the diaphragm are multiples of it, so that a picture's truth is exact
EXCURSION_MM = 12.0  # of the diaphragm in quiet breathing (Seppenwoolde et al. 2002)
BREATH_S, HEART_S = 4.3, 0.86
PULSE_RADIUS = 0.03  # the aorta widens by some 3 % of its radius in systole
PULSE_SHIFT_MM = 0.4  # and its branches' mouths move out and forward with it
TABLE_SHIFT_MM = (9.0, 0.0, -12.0)  # room axes (left, posterior, head): 15 mm
TABLE_SHIFT_S = 2.0
INJECTION_S, INJECTION_EVERY_S, FIRST_INJECTION_S = 1.8, 11.0, 3.0
NO_IODINE = 2e-4  # g/cm3: less is not seen
IODINE_G_PER_ML = 0.105  # in the aorta during the injection: 350 mg/ml at 15 ml/s into 35 ml/s of blood
AORTIC_VELOCITY_MM_S = 190.0  # mean, above the celiac trunk; by Murray's law flow ~ r^3, so velocity ~ r
CATHETER_TIP_S_MM = 96.0  # a flush catheter from the left groin, its holes above the celiac trunk


@dataclass(frozen=True, slots=True)
class Round:
    """Round things at one moment, at rest positions: points (n, 3) mm in the patient frame at end expiration, radius
    (n,) mm, amount (n,) (1 for solid matter, g/cm3 for iodine), branch (n,)."""

    points: Float64
    radius: Float64
    amount: Float64
    branch: Array


class Motion:
    """The course of one run. Everything is a function of (patient, seed, seconds, time)."""

    def __init__(self, patient: DemoPatient, seconds: float, seed: int = 0) -> None:
        self.patient, self.seconds = patient, float(seconds)
        rng = np.random.default_rng([seed, 2])
        breaths = int(seconds / (0.7 * BREATH_S)) + 3
        length = BREATH_S * rng.uniform(0.92, 1.08, breaths)
        self._breath_start = np.concatenate([[-length[0] * rng.uniform(0.55, 0.75)], np.cumsum(length)])
        self._breath_start[1:] += self._breath_start[0]
        self._breath_depth = EXCURSION_MM * rng.uniform(0.85, 1.1, breaths + 1)
        self._heart_phase = float(rng.uniform(0, 1))
        self._aorta_out = _outward(patient)
        self._arteries, self._branch_start = _all_arteries(patient)


    # ---------------------------------------------------------------------------------------------- body

    def breathing_mm(self, t: float) -> float:
        """Excursion of the diaphragm (mm, 0 at end expiration), on the grid of EXCURSION_STEP_MM.

        Source: Lujan et al., Med. Phys. 26:715, 1999 (even power of a sine, more time at end expiration).
        """
        n = int(np.searchsorted(self._breath_start, t, "right")) - 1
        part = (t - self._breath_start[n]) / (self._breath_start[n + 1] - self._breath_start[n])
        a = self._breath_depth[n] * np.sin(np.pi * part) ** 4
        return float(np.round(a / EXCURSION_STEP_MM) * EXCURSION_STEP_MM)

    def pulse(self, t: float) -> float:
        """Filling of the aorta, 0 (diastole) to 1 (systole): a quick rise, a slow fall."""
        phase = (t / HEART_S + self._heart_phase) % 1.0
        return float((phase / 0.14) ** 2 * np.exp(2 * (1 - phase / 0.14)))

    def table_mm(self, t: float) -> Float64:
        """Shift of the table since the start in room axes (left, posterior, head), mm (3,)."""
        part = np.clip((t - self.shift_start_s) / TABLE_SHIFT_S, 0, 1)
        return np.asarray(TABLE_SHIFT_MM) * (part**3 * (10 - 15 * part + 6 * part**2))

    @property
    def shift_start_s(self) -> float:
        """When the table begins to move."""
        return (self.seconds - TABLE_SHIFT_S) / 2

    def table_moves(self, t: float) -> bool:
        return bool(self.shift_start_s < t < self.shift_start_s + TABLE_SHIFT_S)

    def moved(self, points_mm: Float64, t: float) -> Float64:
        """Where particles (..., 3) of the arteries at rest are at a time: breathing, and the pulse near the aorta."""
        near = np.linalg.norm(points_mm[..., None, :] - self._aorta_out[0], axis=-1)
        weight = np.exp(-((near.min(-1) / 26.0) ** 2))
        out = self._aorta_out[1][near.argmin(-1)]
        pulse = PULSE_SHIFT_MM * self.pulse(t) * weight[..., None] * out
        return np.asarray(self.patient.breathing.moved(points_mm, self.breathing_mm(t)) + pulse)

    def target_mm(self, t: float) -> Float64:
        """Where the target is at a time, in the frame of the resting skeleton, mm (3,)."""
        return self.moved(self.patient.target_mm, t)

    # ---------------------------------------------------------------------------------------------- devices

    def wire(self, t: float) -> tuple[Round, Round]:
        """The guidewire at a time: its steel shaft and its platinum tip (30 mm). It advances in pushes."""
        path = self.patient.path_mm
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        part = np.clip(t / max(self.seconds, 1e-9), 0, 1)
        pushes = part + 0.035 * np.sin(2 * np.pi * 6 * part) * (1 - part)  # the hand pushes, rests, draws back a little
        tip = along[-1] * (0.50 + 0.48 * np.clip(pushes, 0, 1))
        at = np.append(np.arange(0, tip, 2.0), tip)
        line = np.stack([np.interp(at, along, path[:, c]) for c in range(3)], -1)
        soft = at > tip - 30.0
        first = int(np.argmax(soft))
        return _rod(line[: first + 1], 0.445), _rod(line[first:], 0.42)

    def catheter(self, t: float) -> tuple[Float64, Float64]:
        """The flush catheter at rest: axis (n, 3) mm and outer radius; 5 F, wall 0.35 mm, loaded with barium."""
        tree = self.patient.tree
        aorta, common, outer = tree["aorta"], tree["common_iliac_left"], tree["external_iliac_left"]
        top = int(np.argmin(np.abs(aorta.points[:, 2] - CATHETER_TIP_S_MM)))
        line = np.concatenate([outer.points[::-1], common.points[::-1][1:],
                               aorta.points[top: common.leaves_at][::-1] + np.array([2.5, 2.0, 0.0])])
        from scipy.ndimage import gaussian_filter1d

        return gaussian_filter1d(line, 4.0, axis=0, mode="nearest"), np.full(len(line), 0.83)

    # ---------------------------------------------------------------------------------------------- contrast

    def contrast(self, t: float) -> Round | None:
        """Iodine in the arteries at a time, None where there is none; the pulse widens what is filled."""
        everything = self._arteries
        iodine = self._iodine(t, everything.amount)
        filled = np.maximum.reduceat(iodine, self._branch_start) > NO_IODINE
        if not filled.any():
            return None
        of = filled[everything.branch]
        return Round(everything.points[of], everything.radius[of] * (1 + PULSE_RADIUS * self.pulse(t)),
                     np.where(iodine > NO_IODINE, iodine, 0)[of], everything.branch[of])

    def _iodine(self, t: float, arrival_s: Float64) -> Float64:
        """g/cm3 at places that the contrast reaches after arrival_s: a bolus that lengthens on its way."""
        total = np.zeros(len(arrival_s))
        later = np.maximum(arrival_s, 0)
        start = FIRST_INJECTION_S
        while start < t + 1:
            spread = 0.10 + 0.22 * later
            since = t - start - later
            total += _step(since / spread) - _step((since - INJECTION_S) / (1.8 * spread + 0.25))
            start += INJECTION_EVERY_S
        beat = 1 - 0.22 * self.pulse(t)  # blood of each systole thins the contrast
        reflux = np.clip(1 + arrival_s / 0.1, 0, 1)  # the jet also fills some 2 cm above the holes, ever thinner
        return IODINE_G_PER_ML * beat * reflux * total


def _step(x: Float64) -> Float64:
    return 1 / (1 + np.exp(-np.clip(3 * x, -40, 40)))


def arrivals(patient: DemoPatient) -> list[tuple[Branch, Float64]]:
    """For each branch the time (s) that blood from the catheter's holes needs to each of its points; negative
    upstream of them."""
    tree = patient.tree
    trunk = tree["aorta"].radius[0]
    out: dict[str, Float64] = {}
    for b in tree.branches:
        step = np.linalg.norm(np.diff(b.points, axis=0), axis=1)
        speed = AORTIC_VELOCITY_MM_S * (b.radius[1:] + b.radius[:-1]) / 2 / trunk
        time = np.concatenate([[0], np.cumsum(step / speed)])
        if b.parent is None:
            time -= time[int(np.argmin(np.abs(b.points[:, 2] - CATHETER_TIP_S_MM - 4)))]
        else:
            time += out[b.parent][b.leaves_at]
        out[b.name] = time
    return [(b, out[b.name]) for b in tree.branches]


def _all_arteries(patient: DemoPatient) -> tuple[Round, Array]:
    """The whole tree with the arrival times (s) as amounts, and where each branch starts in it."""
    found = arrivals(patient)
    length = [len(b.points) for b, _ in found]
    tree = Round(np.concatenate([b.points for b, _ in found]), np.concatenate([b.radius for b, _ in found]),
                 np.concatenate([a for _, a in found]), np.repeat(np.arange(len(found)), length))
    return tree, np.concatenate([[0], np.cumsum(length)[:-1]])


def _rod(line: Float64, radius: float) -> Round:
    return Round(line, np.full(len(line), radius), np.ones(len(line)), np.zeros(len(line), int))


def _outward(patient: DemoPatient) -> tuple[Float64, Float64]:
    """Points near the aorta's offspring and the directions in which systole moves them."""
    tree = patient.tree
    points, out = [], []
    for b in tree.branches:
        if b.parent == "aorta" and b.points[0, 2] > -40:
            way = b.points[min(6, len(b.points) - 1)] - b.points[0]
            points.append(b.points[min(4, len(b.points) - 1)])
            out.append(way / np.linalg.norm(way))
    return np.array(points), np.array(out)
