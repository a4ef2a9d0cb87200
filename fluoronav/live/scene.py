# SPDX-License-Identifier: Apache-2.0
"""What of a case is drawn over its pictures? Its anatomy, path, device and target as layers of a scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from registration.geometry import Array, CArm, Float64

if TYPE_CHECKING:
    from fluoronav.case import Case
    from overlays.scene import Scene


def scene_of(case: Case | None) -> Scene | None:
    """The scene of a case, None without one. Shapes in the patient frame, mm."""
    if case is None:
        return None
    from overlays.scene import scene_of as layered

    return layered(surfaces=case.surfaces, centerlines=case.centerlines, implant=case.implant, path_mm=case.path_mm,
                   target_mm=case.target_mm, target_assumed=case.target_assumed)


def blended(case: Case, by: str | None, carm: CArm, carm_from_patient: Float64, *, threads: int,
            kept: dict[str, Any]) -> Array:
    """The case's computed picture (DRR) at a pose: (rows, columns) uint8, dense dark, as `display`.

    `kept` is the caller's cache of what is expensive to prepare. Computed at half size where the picture is
    larger than 512 pixels: it is for the eye. Raises BadInput where the case has nothing that absorbs.
    """
    import cv2

    from fluoronav.locate.simulated import body_of
    from registration.projector import Prepared, project

    k = max(1, round(max(carm.shape) / 512))
    small = carm.binned(k)
    if "body" not in kept:
        volume = body_of(case, by)[1]  # type: ignore[arg-type]
        spacing = max(float(volume.spacing_mm.max()), small.mm_per_px_at_isocenter)
        kept["body"] = Prepared(volume.resampled(spacing))
    integrals = project(kept["body"], small, carm_from_patient, threads=threads)
    low, high = (float(x) for x in np.percentile(integrals[::4, ::4], (1.0, 99.5)))
    grey = np.round(255 * (1 - np.clip((integrals - low) / max(high - low, 1e-6), 0, 1))).astype(np.uint8)
    return np.asarray(cv2.resize(grey, (carm.shape[1], carm.shape[0]), interpolation=cv2.INTER_LINEAR))
