# SPDX-License-Identifier: Apache-2.0
"""What may be shown, and how does it lie over the picture? Outcomes, switches, premultiplied blending."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from overlays.renderer import Overlay
from overlays.rgba import blend_over, moved
from registration.errors import BadInput
from registration.geometry import Array, CArm, read_only
from registration.result import Outcome

Switches = Mapping[str, tuple[bool, float]]


def may_show(outcome: Outcome) -> bool:
    """Whether anatomy may be drawn at this outcome: only where the registration was ACCEPTED."""
    return outcome is Outcome.ACCEPTED


def nothing(carm: CArm | None = None, *badges: str) -> Overlay:
    """The overlay of a frame over which nothing may be drawn."""
    return Overlay({}, carm, "none", tuple(badges))


def compose(display: Array, overlay: Overlay, switches: Switches | None = None) -> Array:
    """The picture (rows, columns, 3) uint8: grey display (rows, columns) uint8 under the overlay's layers.

    switches: name -> (visible, opacity 0 to 1); a layer that is not named, and every layer where switches
    is None, is drawn at full opacity. Premultiplied blending, layer after layer. Raises BadInput.
    """
    if display.ndim != 2 or display.dtype != np.uint8:
        raise BadInput("display picture", got=f"{display.dtype} {display.shape}", expected="(rows, columns) uint8",
                       remedy="window it first")
    out = np.repeat(display[:, :, None], 3, axis=2)
    given = switches or {}
    for name, rgba in overlay.layers.items():
        visible, opacity = given.get(name, (True, 1.0))
        if not 0 <= opacity <= 1:
            raise BadInput(f"opacity of layer {name!r}", got=opacity, expected="0 to 1", remedy="give a share")
        if rgba.shape != (*display.shape, 4) or rgba.dtype != np.uint8:
            raise BadInput(f"overlay layer {name!r}", got=f"{rgba.dtype} {rgba.shape}",
                           expected=f"uint8 {(*display.shape, 4)}", remedy="render it for this picture's C-arm")
        if visible and opacity > 0:
            blend_over(out, rgba, opacity)
    return out


def shifted(overlay: Overlay, du_px: int, dv_px: int) -> Overlay:
    """The overlay moved by whole pixels, for a frame in which the pose moved but nothing was rendered; it says so."""
    if overlay.method == "none" or (du_px == 0 and dv_px == 0):
        return overlay
    layers = {name: read_only(moved(rgba, int(du_px), int(dv_px))) for name, rgba in overlay.layers.items()}
    carm = None if overlay.carm is None else overlay.carm.shifted(du_px, dv_px)
    return Overlay(layers, carm, overlay.method, (*overlay.badges, f"overlay shifted by ({du_px}, {dv_px}) px"))
