# SPDX-License-Identifier: Apache-2.0
"""Scene and pose become pictures: one RGBA image a layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy.ndimage import uniform_filter

from overlays.opengl import OFF, REMEDY, why_not_vtk
from overlays.scene import Layer, Scene
from overlays.strokes import paint, strokes_of
from registration.contours import Contours
from registration.errors import BadInput
from registration.geometry import Array, CArm, Float64, read_only
from registration.shapes import Mesh

if TYPE_CHECKING:
    from overlays.gl import Canvas

Method = Literal["auto", "vtk", "lines", "none"]
PLAIN = f"overlay drawn as plain lines: VTK found no OpenGL ({REMEDY})"
PLAIN_BY_SWITCH = "overlay drawn as plain lines: OpenGL is switched off"

__all__ = ["PLAIN", "Method", "Overlay", "Renderer", "why_not_vtk"]


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn over one frame. layers: name -> (rows, columns, 4) uint8 RGBA, premultiplied,
    each at full opacity; `carm` belongs to these pixels. method says who drew it: `vtk`, `lines`
    (no OpenGL was found; said on the screen) or `none` (nothing may be drawn at this outcome)."""

    layers: dict[str, Array]
    carm: CArm | None
    method: Literal["vtk", "lines", "none"]
    badges: tuple[str, ...] = field(default=())


class Renderer:
    """Draws a scene at any pose of any C-arm. The same scene, C-arm and pose give the same bits.

    method: `vtk`, `lines` (plain projected lines), `none`, or `auto`: VTK where it finds OpenGL, else lines
    with a badge. The OpenGL context is made by the first draw. Raises BadInput for `vtk` without OpenGL.
    """

    def __init__(self, scene: Scene, method: Method = "auto") -> None:
        if method not in get_args(Method):
            raise BadInput("overlay method", got=method, expected="auto, vtk, lines or none", remedy="choose one")
        why = why_not_vtk() if method in ("auto", "vtk") else None
        if method == "vtk" and why is not None:
            raise BadInput("overlay method vtk", got=why.rstrip("."), expected="OpenGL off-screen",
                           remedy=f"{REMEDY}, or take lines")
        self.scene = scene
        self.badges: tuple[str, ...] = () if why is None else (PLAIN_BY_SWITCH if OFF in why else PLAIN,)
        self.method: Literal["vtk", "lines", "none"] = (
            "none" if method == "none" else "lines" if method == "lines" or why is not None else "vtk")
        self._canvas: Canvas | None = None
        self._contours: dict[str, Any] = {}

    def draw(self, carm: CArm, carm_from_patient: Float64) -> Overlay:
        """Every layer of the scene at a pose, switched on or not, for the pixels of `carm`."""
        if self.method == "none":
            return Overlay({}, carm, "none", self.badges)
        if self.method == "vtk":
            if self._canvas is None:
                from overlays.gl import Canvas

                self._canvas = Canvas()
            layers = self._canvas.draw(self.scene.layers, carm, carm_from_patient)
            for layer in self.scene.layers:
                if layer.style == "outline":
                    layers[layer.name] = outlined(layers[layer.name][:, :, 3], layer)
        else:
            layers = {layer.name: self._plain(layer, carm, carm_from_patient) for layer in self.scene.layers}
        return Overlay({name: read_only(rgba) for name, rgba in layers.items()}, carm, self.method, self.badges)

    def close(self) -> None:
        """Give the OpenGL context back; the next draw makes a new one."""
        if self._canvas is not None:
            self._canvas.close()

    def _plain(self, layer: Layer, carm: CArm, carm_from_patient: Float64) -> Array:
        if not isinstance(layer.shape, Mesh):
            return paint(strokes_of(layer, carm, carm_from_patient), carm)
        if layer.name not in self._contours:
            self._contours[layer.name] = Contours(layer.shape)
        silhouette = self._contours[layer.name].silhouette(carm, carm_from_patient)
        return outlined(silhouette.astype(np.uint8) * np.uint8(255), layer)


def outlined(mask: Array, layer: Layer) -> Array:
    """The border of a mask (rows, columns) uint8, 0 to 255, as a soft line in the layer's color: RGBA,
    premultiplied. Its middle is the border itself, where a blurred mask is one half."""
    wide = 3 if min(mask.shape) <= 768 else 5
    out = np.zeros((*mask.shape, 4), np.uint8)
    rows, cols = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return out
    part = tuple(slice(max(used[0] - wide, 0), used[-1] + 1 + wide) for used in (rows, cols))
    soft = uniform_filter(mask[part].astype(np.float32) / 255, wide, mode="nearest")
    alpha = 4 * soft * (1 - soft)
    at = np.nonzero(alpha > 1 / 512)
    out[part][at] = np.round(alpha[at][:, None] * np.append(layer.rgb, 1.0).astype(np.float32) * 255)
    return out
