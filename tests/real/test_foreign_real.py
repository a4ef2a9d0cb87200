# SPDX-License-Identifier: Apache-2.0
"""What only the frame has, over a real chest: is the pose the same whatever it is, with a mask and without?

Pictures are itk-rtk's, with two materials, scatter and noise; what is foreign hardens the beam as bone does.
"""

import numpy as np
import pytest
from scipy import ndimage

if not hasattr(pytest.importorskip("itk"), "RTK"):
    pytest.skip("itk-rtk makes the truth (pip install 'fluoronav[test]')", allow_module_level=True)

from fluoronav.bench.real_chest import CARM, chest_volume
from fluoronav.bench.truth import (
    Physics,
    detected,
    enlarged,
    random_motion,
    random_view,
    rtk_line_integrals,
    target_errors,
    targets_around,
    two_materials,
)
from registration.geometry import attenuation_from_hu
from registration.model import Settings, Start, View
from registration.result import Outcome
from registration.volume_model import VolumeModel

pytestmark = pytest.mark.real
EDGE = CARM.shape[0]
V, U = np.mgrid[:EDGE, :EDGE].astype(float)


@pytest.fixture(scope="module")
def scene(shared_data):
    """The model, a pose, mm of soft tissue and bone behind every pixel, a start 10 deg / 20 mm off, targets."""
    chest, rng = chest_volume(lambda done, text: None), np.random.default_rng(21)
    true = random_view(rng, chest.center_mm)
    soft, bone = (enlarged(p, 2) for p in rtk_line_integrals(two_materials(chest), CARM.binned(2), true))
    start = Start(random_motion(rng, 10.0, 20.0) @ true)
    return VolumeModel(attenuation_from_hu(chest)), true, soft, bone, start, targets_around(chest.center_mm, rng)


def strokes(count, length_px, width_px, seed=5):
    """(512, 512), 1 in the middle of strokes in all directions."""
    rng, out = np.random.default_rng(seed), np.zeros((EDGE, EDGE))
    for _ in range(count):
        (v, u), way, t = rng.uniform(60, EDGE - 60, 2), rng.uniform(0, np.pi), np.arange(length_px * 2) / 2
        at = np.clip([v + t * np.sin(way), u + t * np.cos(way)], 0, EDGE - 1).astype(int)
        out[at[0], at[1]] = 1
    return np.clip(1.5 - ndimage.distance_transform_edt(out == 0) / width_px, 0, 1)


# mm of cortical bone that attenuate as much: staples and coil of metal, a wire, vessels with contrast, a table's edge
FOREIGN = {
    "nothing": 0 * U,
    "bright staples": 50 * strokes(40, 14, 1.2),
    "coil": 60 * (np.abs(np.hypot(V - 240, U - 260) - 30) < 4),
    "faint wire": 4 * (np.abs(U - 200 - 60 * np.sin(V / 90)) < 1.2),
    "vessels": 16 * np.sqrt(strokes(6, 320, 9.0)),
    "table edge": 12.0 * (V > 0.9 * EDGE + 0.06 * U - 20),
    "collimator": 150.0 * ((U < 70 + 0.1 * V) | (V < 60)),
}


@pytest.mark.parametrize("covered", [False, True], ids=["without a mask", "under a mask"])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_chest_is_found_to_a_tenth_of_a_millimeter_whatever_lies_over_it(scene, what, covered):
    model, true, soft, bone, start, targets = scene
    picture = detected(soft, bone + FOREIGN[what], Physics(wire=0), np.random.default_rng(2))
    weight = np.float32(ndimage.maximum_filter(FOREIGN[what], 7) < 0.5) if covered else np.ones_like(picture)
    found = model.register(View(picture, weight, CARM), [start], Settings())
    assert found.outcome is Outcome.ACCEPTED, found.why
    _, projected = target_errors(CARM, found.carm_from_patient, true, targets)
    assert projected < 0.1  # mm; without anything foreign 0.03
    if covered:
        assert found.similarity > 0.95  # what is left is explained as well as if there were nothing
