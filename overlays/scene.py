# SPDX-License-Identifier: Apache-2.0
"""What is there to draw? Vessels, centerlines, planned path, device, landmarks, target, and where each comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array, Float64, read_only
from registration.shapes import Mesh, Polylines

Style = Literal["shaded", "outline", "line", "device", "dots", "target"]
STYLES: dict[Style, type] = {"shaded": Mesh, "outline": Mesh, "line": Polylines, "device": Polylines,
                             "dots": np.ndarray, "target": np.ndarray}

# Red is for alarms alone, never for anatomy.
COLORS = {"vessels": "#35d6f2", "centerline": "#7df3d2", "path": "#ffb52e", "device": "#ffffff",
          "implant": "#9fd0ff", "landmarks": "#b9a8ff", "target": "#ff4df0"}


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing that can be switched on and off.

    name: short and unique (`vessels`); label: what a person reads; color `#rrggbb`; opacity 0 to 1 and
    visible: how it begins. shape, patient frame, mm: Mesh for `shaded` (surface with darkened rims) and
    `outline` (border of the silhouette); Polylines for `line` and `device` (a line with a marked tip, its
    last point); points (n, 3) for `dots` and `target` (cross and ring). provenance: where it comes from,
    in words ("from the CT's label", "planned"). Raises BadInput.
    """

    name: str
    label: str
    color: str
    opacity: float
    visible: bool
    shape: Mesh | Polylines | Array
    style: Style
    provenance: str

    def __post_init__(self) -> None:
        what = f"overlay layer {self.name!r}"
        if not self.name or not self.provenance:
            raise BadInput(what, got="no name or no provenance", expected="both",
                           remedy="say what it is and where it comes from")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.color):
            raise BadInput(f"{what}, color", got=self.color, expected="#rrggbb", remedy="give six hex digits")
        if not 0 <= self.opacity <= 1:
            raise BadInput(f"{what}, opacity", got=self.opacity, expected="0 to 1", remedy="give a share")
        shape = self.shape
        if self.style in ("dots", "target") and not isinstance(shape, Mesh | Polylines):
            shape = read_only(np.atleast_2d(np.array(shape, np.float64)))
            if shape.ndim != 2 or shape.shape[1] != 3 or len(shape) < 1 or not np.isfinite(shape).all():
                raise BadInput(f"{what}, points", got=f"shape {shape.shape}", expected="(n >= 1, 3) finite mm",
                               remedy="give points in the patient frame")
            object.__setattr__(self, "shape", shape)
        if self.style not in STYLES or not isinstance(shape, STYLES[self.style]):
            raise BadInput(what, got=f"a {type(shape).__name__} as {self.style!r}",
                           expected=", ".join(f"{k}: {v.__name__}" for k, v in STYLES.items()),
                           remedy="choose a style that fits the shape")

    @property
    def points_mm(self) -> Float64:
        """All points of the shape (n, 3), patient frame, mm."""
        if isinstance(self.shape, Mesh):
            return self.shape.vertices
        return self.shape.points if isinstance(self.shape, Polylines) else self.shape

    @property
    def rgb(self) -> Float64:
        """The color (3,), 0 to 1."""
        return np.array([int(self.color[k:k + 2], 16) for k in (1, 3, 5)]) / 255


@dataclass(frozen=True, slots=True)
class Scene:
    """All layers, the first at the bottom. Names are unique. Raises BadInput."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise BadInput("overlay layers", got=", ".join(names), expected="a name once", remedy="rename one")

    def switches(self) -> dict[str, tuple[bool, float]]:
        """How the layers begin: name -> (visible, opacity), as `compose` takes it."""
        return {layer.name: (layer.visible, layer.opacity) for layer in self.layers}

    def described(self) -> list[dict[str, Any]]:
        """The layers as plain JSON for the console and the report: name, label, color, opacity, visible,
        provenance."""
        return [{"name": x.name, "label": x.label, "color": x.color, "opacity": x.opacity, "visible": x.visible,
                 "provenance": x.provenance} for x in self.layers]

    @property
    def corners_mm(self) -> Float64:
        """The corners (8, 3) of the box around everything, patient frame; (0, 3) for an empty scene."""
        if not self.layers:
            return np.zeros((0, 3))
        low = np.min([x.points_mm.min(0) for x in self.layers], axis=0)
        high = np.max([x.points_mm.max(0) for x in self.layers], axis=0)
        pick = np.indices((2, 2, 2)).reshape(3, 8).T.astype(bool)
        return np.where(pick, high, low)


def scene_of(*, surfaces: Mapping[str, Mesh] | None = None, centerlines: Mapping[str, Polylines] | None = None,
             implant: Mesh | None = None, path_mm: Float64 | None = None, device: Polylines | None = None,
             landmarks_mm: Float64 | None = None, target_mm: Float64 | None = None,
             target_assumed: bool = False, provenance: Mapping[str, str] | None = None) -> Scene:
    """The usual layers of a case, bottom to top: implant, vessels, centerline, path, device, landmarks, target.

    Several surfaces or centerlines become layers `vessels:NAME`, `centerline:NAME`. provenance: layer
    name (or its part before the colon) -> words; else "from the case". An assumed target is none that a
    person chose: it begins switched off and says so.
    """
    said = dict(provenance or {})

    def layer(name: str, label: str, shape: Mesh | Polylines | Array, style: Style, opacity: float,
              default: str = "from the case", visible: bool = True) -> Layer:
        kind = name.partition(":")[0]
        return Layer(name, label, COLORS[kind], opacity, visible, shape, style,
                     said.get(name, said.get(kind, default)))

    layers = []
    if implant is not None:
        layers.append(layer("implant", "implant", implant, "outline", 0.9))
    layers += [layer(name, label, mesh, "shaded", 0.75) for name, label, mesh in _named("vessels", surfaces or {})]
    layers += [layer(name, label, line, "line", 0.9) for name, label, line in _named("centerline", centerlines or {})]
    if path_mm is not None:
        layers.append(layer("path", "planned path", _polyline(path_mm), "line", 1.0, "planned"))
    if device is not None:
        layers.append(layer("device", "device", device, "device", 1.0, "detected in the picture"))
    if landmarks_mm is not None:
        layers.append(layer("landmarks", "landmarks", landmarks_mm, "dots", 1.0))
    if target_mm is not None:
        label, why = ("target (assumed)", "assumed: no target was given") if target_assumed else ("target", "planned")
        layers.append(layer("target", label, np.asarray(target_mm), "target", 1.0, why, not target_assumed))
    return Scene(tuple(layers))


def _named(kind: str, shapes: Mapping[str, Any]) -> Sequence[tuple[str, str, Any]]:
    if len(shapes) == 1:
        return [(kind, kind, shape) for shape in shapes.values()]
    return [(f"{kind}:{name}", f"{kind} {name}", shape) for name, shape in shapes.items()]


def _polyline(points_mm: Float64) -> Polylines:
    points = np.asarray(points_mm, np.float64)
    return Polylines(points, (np.arange(len(points)),))
