# SPDX-License-Identifier: Apache-2.0
"""What is drawn over this frame? A new overlay, or the last one moved along where the clock asks for it."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import numpy as np

from fluoronav.live.state import Drawn
from overlays.renderer import Overlay
from registration.geometry import Array, CArm, Float64, carm_from_patient_at

AROUND_MM = 60.0  # points this far from the target must agree on the shift
STILL_PX = 0.25  # anywhere in the picture: what the camera itself is held to; less is noise of the pose, not motion
LEFT_PX = 1.0  # that a shift may leave unexplained: beyond it the overlay is drawn anew


class Drawing:
    """Draws the scene of a case; keeps the last overlay, which depends on nothing but geometry and pose."""

    def __init__(self, scene: Any, method: Literal["auto", "vtk", "lines", "none"]) -> None:
        self.scene, self.method = scene, method
        self._renderer: Any = None
        self._last: tuple[Any, Overlay] | None = None

    def draw(self, carm: CArm, carm_from_patient: Float64) -> Overlay:
        """Every layer at a pose; `none` where nothing is to be drawn."""
        if self.scene is None or self.method == "none":
            return Overlay({}, carm, "none")
        key = (carm, carm_from_patient.tobytes())
        if self._last is None or self._last[0] != key:
            if self._renderer is None:
                from overlays.renderer import Renderer

                self._renderer = Renderer(self.scene, method=self.method)
            self._last = (key, self._renderer.draw(carm, carm_from_patient))
        return self._last[1]

    def warm(self, target_mm: Float64) -> None:
        """Draw once at some pose and forget it: the first drawing makes the OpenGL context and its shaders."""
        self.draw(CArm.centered((256, 256), 1.2, 1000.0, 700.0), carm_from_patient_at(0, 0, target_mm))
        self._last = None

    def moved(self, drawn: Drawn, shift_px: tuple[int, int]) -> Overlay:
        """The overlay of an earlier frame, moved by whole pixels; it says so."""
        from overlays.compose import shifted

        return shifted(self.draw(drawn.carm, drawn.carm_from_patient), *shift_px)


def still(drawn: Drawn, carm: CArm, carm_from_patient: Float64) -> bool:
    """Whether an earlier overlay still lies where it should, nowhere more than a quarter of a pixel off."""
    from overlays.camera import moved_px

    return carm == drawn.carm and moved_px(carm, drawn.carm_from_patient, carm_from_patient) <= STILL_PX


def shift_between(drawn: Drawn, carm: CArm, carm_from_patient: Float64, target_mm: Float64) -> tuple[int, int] | None:
    """The shift (du, dv) in whole px of the target from an earlier overlay to now; None where a shift does not explain
    the motion of what is around it, or the pictures have another size."""
    if carm.shape != drawn.carm.shape:
        return None
    corners = np.array(list(product((-1, 1), repeat=3)), np.float64) * AROUND_MM
    points = np.concatenate([target_mm[None], target_mm + corners])
    change = (carm.project_patient(carm_from_patient, points)
              - drawn.carm.project_patient(drawn.carm_from_patient, points))
    if not np.isfinite(change).all() or float(np.abs(change[1:] - change[0]).max()) > LEFT_PX:
        return None
    return round(float(change[0, 0])), round(float(change[0, 1]))


def grey_picture(display: Array) -> Array:
    """A grey display as (rows, columns, 3) uint8."""
    return np.repeat(display[:, :, None], 3, axis=2)
