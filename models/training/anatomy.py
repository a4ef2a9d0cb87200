# SPDX-License-Identifier: Apache-2.0
"""What does a whole body look like behind the detector? Projections of demo patients, seen from anywhere.

Line integrals by the simulator's own integrator (models.xray), with the texture that voxels of 3 mm cannot hold.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from models.patient import DemoPatient
from models.training.fields import clip, power_law
from models.xray.integrator import line_integrals
from registration.geometry import Array, CArm, Rigid, Volume, carm_from_room

PATIENTS = 3  # seeds of the demo patient: more are more time, and the view makes the difference
SEEDS_FROM = 1000  # apart from the patients that demos and tests use
PER_MM = {"water": 0.0205, "bone": 0.055}  # linear attenuation at about 60 keV, 1/mm


def projected(side: int, random: np.random.Generator) -> Array:
    """A body: a demo patient from any side, magnified at random, with fine texture and clips. Line integrals."""
    anatomy = _patient(int(random.integers(PATIENTS)))
    across_mm = random.uniform(90, 260)  # of the detector
    carm = CArm((side, side), (across_mm / side,) * 2, 1100.0, 740.0, ((side - 1) / 2,) * 2)
    offset = -anatomy.center_mm + random.uniform(-1, 1, 3) * (50, 15, 110)
    pose = carm_from_room(random.uniform(-50, 50), random.uniform(-30, 30)) @ Rigid.translation(*offset)
    water, bone = line_integrals(anatomy, carm, pose, threads=1)
    out = PER_MM["water"] * water + PER_MM["bone"] * bone
    out += random.uniform(2.0, 3.2) - float(np.mean(out))  # compressed or large: the same noise for all
    out += random.uniform(0.01, 0.06) * power_law(side, random.uniform(1.0, 1.6), random)
    for _ in range(random.integers(0, 3)):
        out += random.uniform(0.2, 1.5) * clip(side, random)
    return np.clip(out, 0.3, 6).astype(np.float32)


@lru_cache(maxsize=PATIENTS)
def _patient(number: int) -> Volume:
    return DemoPatient.build(SEEDS_FROM + number, "coarse").anatomy_hu
