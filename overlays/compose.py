# SPDX-License-Identifier: Apache-2.0
"""What may be shown, and how does it lie over the picture? Outcomes, switches, premultiplied blending."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from overlays.renderer import Overlay
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
    is None, is drawn at full opacity. Premultiplied blending, layer after layer (Porter and Duff 1984,
    "over"): out = rgb * opacity + (1 - alpha * opacity) * below, rounded once. Raises BadInput.
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
            _over(out, rgba, opacity)
    return out


def straight(rgba: Array) -> Array:
    """Premultiplied RGBA (rows, columns, 4) uint8 as straight RGBA, which PNG and web pages expect."""
    out = rgba.copy()
    for rows, cols in [_box(rgba[:, :, 3])]:
        part = rgba[rows, cols].astype(np.uint16)
        alpha = part[:, :, 3:]
        color = np.where(alpha > 0, (part[:, :, :3] * 255 + alpha // 2) // np.maximum(alpha, 1), 0)
        out[rows, cols, :3] = np.minimum(color, 255)
    return out


def shifted(overlay: Overlay, du_px: int, dv_px: int) -> Overlay:
    """The overlay moved by whole pixels, for a frame in which the pose moved but nothing was rendered; it says so."""
    if overlay.method == "none" or (du_px == 0 and dv_px == 0):
        return overlay
    layers = {name: _moved(rgba, int(du_px), int(dv_px)) for name, rgba in overlay.layers.items()}
    carm = None if overlay.carm is None else overlay.carm.shifted(du_px, dv_px)
    return Overlay(layers, carm, overlay.method, (*overlay.badges, f"overlay shifted by ({du_px}, {dv_px}) px"))


def _over(below: Array, rgba: Array, opacity: float) -> None:
    rows, cols = _box(rgba[:, :, 3])
    part = rgba[rows, cols].astype(np.float32)
    under = below[rows, cols]
    part *= np.float32(opacity)
    keep = 1 - part[:, :, 3:] / np.float32(255)
    below[rows, cols] = (part[:, :, :3] + keep * under + np.float32(0.5)).astype(np.uint8)


def _box(alpha: Array) -> tuple[slice, slice]:
    """The rows and columns that hold everything that is not clear."""
    rows = np.flatnonzero(alpha.any(axis=1))
    if len(rows) == 0:
        return slice(0, 0), slice(0, 0)
    cols = np.flatnonzero(alpha[rows[0]:rows[-1] + 1].any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)


def _moved(rgba: Array, du: int, dv: int) -> Array:
    out = np.zeros_like(rgba)
    rows, cols = rgba.shape[:2]
    if abs(du) < cols and abs(dv) < rows:
        out[max(dv, 0):rows + min(dv, 0), max(du, 0):cols + min(du, 0)] = \
            rgba[max(-dv, 0):rows + min(-dv, 0), max(-du, 0):cols + min(-du, 0)]
    return read_only(out)
