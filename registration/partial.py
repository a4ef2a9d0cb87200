# SPDX-License-Identifier: Apache-2.0
"""What does a picture show that its volume does not hold? The rest of a patient whose CT ends, or all around a bone.

A CT ends where the scan did, the patient does not. A projection of what is left has an edge there that no picture
has, and too little attenuation wherever rays leave through the cut. So the cut faces are continued with themselves for
what coarse pictures need, and fine pictures are compared only where rays met nothing of the continuation. A bone
on its own says nothing about what lies beside its shadow; there the picture is not compared at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from registration.geometry import Array, CArm, Float64, Volume
from registration.ladder import Ladder
from registration.model import View

if TYPE_CHECKING:
    from registration.volume_model import VolumeModel

REACH_MM = 160.0  # of the continuation: beyond it no ray of a 40 cm detector comes from the volume's middle
_MATTER = 0.008  # 1/mm: half of water's attenuation at the beam's energy
_CUT_SHARE = 0.02  # of a face in matter: less is the table or a finger
_LEAST_SHADOW = 0.02  # of the darkest line integral: less is air
_MASK_EDGE_PX = 64
# A ray may have met this share of its attenuation beyond the volume: a loose bound while the pose is
# rough, a strict one for the last word. And how far beside the shadow a picture is still compared, in mm at the
# isocenter: as far as a rough pose may be off, then as far as edges reach.
ROUGH, FINAL = (0.5, 30.0), (0.2, 6.0)


def cut_faces(attenuation: Volume) -> tuple[tuple[bool, bool], ...]:
    """For each array axis [k, j, i]: whether matter reaches its first and its last face."""
    data = attenuation.data
    faces = [(np.take(data, 0, axis), np.take(data, -1, axis)) for axis in range(3)]
    return tuple((_is_cut(first), _is_cut(last)) for first, last in faces)


def _is_cut(face: Array) -> bool:
    return bool((face > _MATTER).mean() > _CUT_SHARE)


def continued(attenuation: Volume, reach_mm: float = REACH_MM) -> Volume:
    """The volume with its cut faces repeated outward; itself where nothing is cut."""
    pads = [tuple(int(reach_mm / step) if cut else 0 for cut in pair)
            for pair, step in zip(cut_faces(attenuation), attenuation.spacing_mm[::-1], strict=True)]
    if not any(map(any, pads)):
        return attenuation
    affine = attenuation.patient_from_index.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array([first for first, _ in pads[::-1]], float)
    return Volume(np.pad(attenuation.data, pads, mode="edge"), affine)


def told_by(model: VolumeModel, ladder: Ladder, pose: Float64, bounds: tuple[float, float]) -> Ladder:
    """The view with the pixels that the volume at a pose can explain; bounds: ROUGH or FINAL."""
    view = ladder.view
    k = max(1, round(max(view.carm.shape) / _MASK_EDGE_PX))
    trust = _trusted(model, view.carm.binned(k), pose, bounds)
    whole = np.zeros(view.carm.shape, np.float32)
    large = np.repeat(np.repeat(trust, k, 0), k, 1)
    whole[:large.shape[0], :large.shape[1]] = large
    return Ladder(View(view.line_integrals, view.weight * whole, view.carm, view.relative), ladder.edges_px)


def _trusted(model: VolumeModel, carm: CArm, pose: Float64, bounds: tuple[float, float]) -> Array:
    """Weight 0..1 of each pixel (h, w) float32."""
    share, margin_mm = bounds
    inside = model.render(carm)(carm, pose, False)[0]
    wide = model.continued()
    everything = inside if wide is model else wide.render(carm)(carm, pose, False)[0]
    beyond = np.maximum(everything - inside, 0) / np.maximum(everything, np.float32(1e-6))
    shadow = everything > _LEAST_SHADOW * everything.max()
    near = ndimage.binary_dilation(shadow, iterations=max(1, round(margin_mm / carm.mm_per_px_at_isocenter)))
    return np.asarray(np.clip(1 - beyond / share, 0, 1) * near, np.float32)
