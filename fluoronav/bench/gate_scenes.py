# SPDX-License-Identifier: Apache-2.0
"""What is put before the gate? Pictures of two anatomies, right and wrong models for them, starts near and far.

Scene n is a function of n alone, so that a run may be cut and go on. Pictures come from the simulator's integrator,
which shares no code with the projector that registers them, tells bone from soft tissue where that does not, and is
several times faster than itk-rtk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import ndimage

from fluoronav.bench.figure import Progress
from fluoronav.bench.truth import Physics, breathed, detected, random_motion, random_view
from models.xray.integrator import line_integrals
from registration.bodies import Spine, spine_and_rest, spine_of
from registration.geometry import Array, CArm, Float64, Rigid, Volume, attenuation_from_hu
from registration.volume_model import VolumeModel

CONDITIONS = ("plain", "other_patient", "wrong_side", "moved_carm", "collimated", "low_dose", "breathing",
              "sdd_1_percent")
ANATOMIES = ("chest", "torso")
CARM = CArm.centered((256, 256), 1.2, 1020.0, 765.0)
SEED = 12
BREATHS, MOST_MM = 12, 12.0  # states of breath of an anatomy, evenly up to that motion of the tissue
FINE_MM = 1.0  # of the chest's voxels in its slices: finer than a pixel, 0.9 mm at the isocenter, and half the time
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Scene:
    """One registration to be tried. person: whose picture; model: by which model it is registered; true (4, 4): the
    pose of the bones in the picture; start (4, 4); real: the C-arm that made the picture, when CARM is what is
    stated; weight (h, w); target (3,), patient frame of the person."""

    index: int
    condition: str
    person: str
    model: str
    true: Float64
    start: Float64
    real: CArm
    physics: Physics
    weight: Array
    target_mm: Float64
    breath: int

    @property
    def right_patient(self) -> bool:
        return self.person == self.model


class People:
    """The anatomies and what is made of them, each once and when asked for. chest_hu: a real CT."""

    def __init__(self, chest_hu: Volume, progress: Progress) -> None:
        from models.patient import DemoPatient

        progress(0.0, "making the second anatomy")
        self._demo = DemoPatient.build(SEED)
        # what a scanner saw (models), and what X-rays meet (pictures)
        self._scans = {"chest": chest_hu, "torso": self._demo.volume_hu}
        self._bodies = {"chest": chest_hu.resampled((FINE_MM, FINE_MM, float(chest_hu.spacing_mm[2]))),
                        "torso": self._demo.anatomy_hu}
        self._made: dict[str, object] = {}
        self._breath: dict[str, tuple[int, Volume]] = {}

    def center_mm(self, name: str) -> Float64:
        """The middle of an anatomy, (3,): where errors are stated, but for a person who breathes."""
        return self._scans[name.split(",")[0]].center_mm

    def spine_mm(self, name: str) -> Float64:
        """The middle of the spine (3,): the body whose pose is the answer where the rest breathes."""
        return self._spine(name).middle_mm

    def model(self, name: str) -> VolumeModel:
        """The model of an anatomy: `chest`, `torso`, and either `, mirrored` or `, bent` into another person's."""
        return self._once(f"model {name}", lambda: VolumeModel(attenuation_from_hu(self._scan(name))))

    def parts(self, name: str) -> dict[str, VolumeModel]:
        """Models of the spine and of the rest of an anatomy."""
        return self._once(f"parts {name}", lambda: {part: VolumeModel(volume) for part, volume in spine_and_rest(
            attenuation_from_hu(self._scan(name)), self._spine(name)).items()})

    def body(self, name: str, breath: int) -> Volume:
        """What X-rays meet of an anatomy in a state of breath (0: as in its CT), HU."""
        if breath == 0:
            return self._bodies[name]
        if self._breath.get(name, (0,))[0] != breath:  # only the last is kept
            self._breath[name] = breath, self._breathing(name, MOST_MM * breath / BREATHS, breath)
        return self._breath[name][1]

    def _spine(self, name: str) -> Spine:
        return self._once(f"spine {name}", lambda: spine_of(attenuation_from_hu(self._scans[name])))

    def _scan(self, name: str) -> Volume:
        who, _, what = name.partition(", ")
        scan = self._scans[who]
        if not what:
            return scan
        coarse = scan.resampled(2.0)
        if what == "mirrored":
            return Volume(coarse.data[:, :, ::-1], coarse.patient_from_index)
        return bent(coarse, 12.0, 0.94, SEED)

    def _breathing(self, name: str, excursion_mm: float, seed: int) -> Volume:
        if name == "torso":
            return self._demo.breathing.volume(self._demo.anatomy_hu, excursion_mm)
        way = np.random.default_rng([SEED, seed]).normal(size=3) * (0.2, 0.4, 1.0)  # mostly towards head or feet
        return breathed(self._bodies[name], self._spine(name), way / np.linalg.norm(way) * excursion_mm)

    def _once(self, key: str, make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]


def scene(people: People, index: int) -> Scene:
    """Scene number `index` (conditions in turn, anatomies in turn). SDD and principal point are off in all of them,
    as the prior says: 1 % and 2 mm, one standard deviation."""
    turn, which = divmod(index, len(CONDITIONS))
    condition, person = CONDITIONS[which], ANATOMIES[turn % 2]
    rng = np.random.default_rng([SEED, index])
    true = random_view(rng, people.center_mm(person))
    physics = Physics(photons=3000.0 if condition == "low_dose" else 20000.0, gain=rng.uniform(0.5, 2))
    real = real_carm(rng, 0.01 if condition == "sdd_1_percent" else None)
    weight = collimated(rng) if condition == "collimated" else np.ones(CARM.shape, np.float32)
    bounds = (25.0, 60.0, 150.0) if condition == "moved_carm" else (6.0, 15.0, None)
    model = person
    if condition == "wrong_side":
        model = f"{person}, mirrored"
    elif condition == "other_patient":
        model = ANATOMIES[1 - turn % 2] if turn // 2 % 2 else f"{person}, bent"
    # the model lies where the person does, middle on middle
    across = Rigid.translation(*(people.center_mm(person) - people.center_mm(model)))
    start = random_motion(rng, *bounds) @ true @ across
    breathes = condition == "breathing"
    target = people.spine_mm(person) if breathes else people.center_mm(person)
    # four turns in the same state, which takes a second to make; all states within 48 turns
    breath = 1 + turn // 4 * 5 % BREATHS if breathes else 0
    return Scene(index, condition, person, model, true, start, real, physics, weight, target, breath)


def picture(people: People, of: Scene) -> Array:
    """Line integrals (h, w) float32 of a scene."""
    soft, bone = line_integrals(people.body(of.person, of.breath), of.real, of.true, threads=1)
    return detected(soft, bone, of.physics, np.random.default_rng([SEED, of.index, 1]))


def real_carm(rng: np.random.Generator, sdd_share: float | None) -> CArm:
    """The C-arm as it is, when CARM is what the header says: SDD 1 %, principal point 2 mm (one sigma)."""
    share = rng.choice([-1, 1]) * sdd_share if sdd_share is not None else 0.01 * rng.normal()
    shift = 2.0 * rng.normal(size=2) / CARM.pitch_mm_row_col[0]
    cu, cv = CARM.principal_px_u_v
    return replace(CARM, sdd_mm=CARM.sdd_mm * (1 + share), principal_px_u_v=(cu + shift[0], cv + shift[1]))


def collimated(rng: np.random.Generator) -> Array:
    """A weight (h, w) that is open over a random 45 to 70 % of each side."""
    out = np.zeros(CARM.shape, np.float32)
    (h, w), open_ = CARM.shape, rng.uniform(0.45, 0.7, 2)
    top, left = (int(rng.uniform(0.3, 0.7) * n * (1 - o)) for n, o in zip((h, w), open_, strict=True))
    out[top:top + int(h * open_[0]), left:left + int(w * open_[1])] = 1
    return out


def bent(volume_hu: Volume, amplitude_mm: float, scale: float, seed: int) -> Volume:
    """The same kind of anatomy in another shape: scaled, and bent smoothly by that many mm (standard deviation)."""
    rng = np.random.default_rng(seed)
    shape = volume_hu.data.shape
    index = np.indices(shape, np.float32)
    for axis, n in enumerate(shape):
        bend = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 12)
        bend *= amplitude_mm / float(volume_hu.spacing_mm[2 - axis]) / max(float(bend.std()), 1e-9)
        index[axis] = (index[axis] - (n - 1) / 2) / scale + (n - 1) / 2 + bend
    return Volume(ndimage.map_coordinates(volume_hu.data, index, order=1, mode="nearest"), volume_hu.patient_from_index)
