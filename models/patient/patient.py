# SPDX-License-Identifier: Apache-2.0
"""Who lies on the table of the demo? A torso with bones, organs and arteries, all of it known.

The patient is a function of (seed, size) alone: the same call gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.patient.breathing import Breathing
from models.patient.canvas import Canvas, smooth_noise
from models.patient.organs import paint_body
from models.patient.skeleton import paint_skeleton
from models.patient.surface import vessel_mesh
from models.patient.tree import ArterialTree, arterial_tree, planned_path
from registration.errors import BadInput
from registration.geometry import Array, Float64, Volume, read_only
from registration.shapes import Mesh, Polylines

SPACING_MM = {"small": 1.5, "full": 1.0, "coarse": 3.0}
CT_NOISE_HU = 14.0  # of an abdominal CT at 1.5 mm
SOFT_TEXTURE_HU = 5.0


@dataclass(frozen=True, slots=True)
class DemoPatient:
    """The demo patient at end expiration, in the patient frame (L, P, S mm).

    volume_hu: the CT as a scanner would give it (with noise); anatomy_hu: the same without the scanner's noise, what
    X-rays meet; vessels, centerline, path_mm (n, 3), target_mm (3,) the ostium of the left renal artery; tree: the
    arteries themselves; breathing: how organs move from here.
    """

    seed: int
    size: str
    volume_hu: Volume
    anatomy_hu: Volume
    vessels: Mesh
    centerline: Polylines
    path_mm: Float64
    target_mm: Float64
    tree: ArterialTree
    breathing: Breathing

    @classmethod
    def build(cls, seed: int = 0, size: str = "small") -> DemoPatient:
        """The patient of a seed. size: `small` (1.5 mm voxels), `full` (1 mm) or `coarse` (3 mm, for tests).

        Raises BadInput.
        """
        if size not in SPACING_MM:
            raise BadInput("size of the demo patient", got=size, expected=f"one of {sorted(SPACING_MM)}",
                           remedy="use small")
        rng = np.random.default_rng([seed, 1])
        tree = arterial_tree(rng)
        canvas, noise = _painted(tree, rng, SPACING_MM[size])
        path = planned_path(tree)
        anatomy = canvas.volume()
        shown = tree.planned()
        return cls(seed, size, _scanned(anatomy, noise), anatomy, vessel_mesh(shown), shown.centerline(),
                   read_only(path), read_only(tree.ostium("renal_left")), tree, Breathing.of(canvas, tree))


def _painted(tree: ArterialTree, rng: np.random.Generator, spacing_mm: float) -> tuple[Canvas, Array]:
    """The canvas with everything on it, and a field of fine noise (standard deviation 1) for the scanner."""
    from scipy import ndimage

    canvas = Canvas(spacing_mm, -1000.0)
    rough = smooth_noise(canvas, rng, 14.0)
    fine = rng.standard_normal(canvas.hu.shape, np.float32)
    fine = ndimage.gaussian_filter(fine, 1.0 / spacing_mm, mode="wrap", truncate=3.0)  # trabeculae: some 2 mm
    fine /= fine.std()
    grain = smooth_noise(canvas, rng, 5.0)
    paint_body(canvas, tree, rng, rough, grain)
    soft = (canvas.hu > -150) & (canvas.hu < 120)
    canvas.hu += np.float32(SOFT_TEXTURE_HU) * grain * soft
    paint_skeleton(canvas, fine)
    return canvas, np.roll(fine, [n // 2 for n in fine.shape], (0, 1, 2))


def _scanned(anatomy: Volume, noise: Array) -> Volume:
    """The volume as a CT shows it: rounded to HU, with the scanner's noise where there is matter."""
    hu = anatomy.data + np.float32(CT_NOISE_HU) * noise
    return Volume(np.rint(np.clip(hu, -1024, 3071)), anatomy.patient_from_index)
