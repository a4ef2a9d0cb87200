# SPDX-License-Identifier: Apache-2.0
"""How does VTK draw a layer? Off-screen, opaque within the layer, twice as fine as the picture, then averaged."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from overlays.camera import set_camera, view_of
from overlays.opengl import new_window
from overlays.scene import Layer
from overlays.strokes import ribbon, strokes_of
from registration.contours import welded
from registration.geometry import Array, Box, CArm, Float64, Rigid
from registration.shapes import Mesh

FINE = 2  # samples a pixel in each direction; four samples of Mesa's own multisampling cost twice as much
LARGEST = 8192  # px: beyond it no finer grid is drawn (OpenGL promises 16384, memory does not)
GL_BLEND, GL_DEPTH_TEST, GL_FUNC_ADD, GL_MAX = 0x0BE2, 0x0B71, 0x8006, 0x8008

# rays meet in the source; a wall seen edge on is darker and denser, so that the picture shows through the middle
SURFACE = """
  vec3 ray = normalize(vertexVC.xyz - vec3(0.0, 0.0, -sddMm));
  vec3 normal = normalize(normalVCVSOutput);
  float facing = dot(normal, ray);
  normal *= facing < 0.0 ? -1.0 : 1.0;
  facing = abs(facing);
  float light = max(dot(normal, normalize(vec3(-0.45, 0.55, 0.75))), 0.0);
  float rim = 1.0 - smoothstep(0.15, 0.65, facing);
  float shine = pow(light, 24.0) * 0.35;
  vec3 color = mix(layerColor * (0.70 + 0.30 * light) + shine, layerColor * 0.24, rim);
  float alpha = mix(0.52, 1.0, rim);
  fragOutput0 = vec4(min(color, vec3(1.0)) * alpha, alpha);
"""
FLAT = "  fragOutput0 = vec4(layerColor, 1.0);\n"
# how far a pixel's center lies within the line, as the plain painter counts it
STROKE = """
  float cover = clamp(halfWidth + 0.5 - length(fromLine), 0.0, 1.0) * layerAlpha;
  fragOutput0 = vec4(layerColor * cover, cover);
"""
STROKE_VERTEX = (("//VTK::Normal::Dec", "//VTK::Normal::Dec\nin vec2 aside;\nout vec2 fromLine;\n"),
                 ("//VTK::Normal::Impl", "//VTK::Normal::Impl\n  fromLine = aside;\n"))
STROKE_FRAGMENT = ("//VTK::Normal::Dec", "//VTK::Normal::Dec\nin vec2 fromLine;\n")


class Canvas:
    """One off-screen window and the layers in it. Any thread may draw, one at a time: the context is made by the
    first `draw`, and let go after each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window: Any = None
        self._renderer: Any = None
        self._samples: Any = None
        self._lines = False  # what is being drawn
        self._actors: dict[int, list[Any]] = {}

    def draw(self, layers: tuple[Layer, ...], carm: CArm, carm_from_patient: Float64) -> dict[str, Array]:
        """Each layer alone: name -> (rows, columns, 4) uint8 RGBA, premultiplied."""
        with self._lock:
            if self._window is None:
                self._open()
            fine = FINE if FINE * max(carm.shape) <= LARGEST else 1
            self._window.SetSize(carm.shape[1] * fine, carm.shape[0] * fine)
            self._window.MakeCurrent()
            try:
                return {layer.name: self._layer(k, layer, carm, carm_from_patient, fine)
                        for k, layer in enumerate(layers)}
            finally:
                self._window.ReleaseCurrent()

    def close(self) -> None:
        """Give the context back."""
        with self._lock:
            if self._window is not None:
                self._actors.clear()
                self._window.MakeCurrent()
                self._window.Finalize()
                self._window = self._renderer = None

    def _open(self) -> None:
        from vtkmodules.vtkRenderingCore import vtkRenderer

        self._window = new_window()
        self._window.SetMultiSamples(0)
        self._window.SetAlphaBitPlanes(True)
        self._window.SetSwapBuffers(False)
        self._renderer = vtkRenderer()
        self._renderer.SetBackground(0, 0, 0)
        self._renderer.SetBackgroundAlpha(0)
        self._renderer.GetCullers().RemoveAllItems()  # they go by the camera's own frustum, which is not ours
        # after the window's own start, which would set them back
        self._renderer.AddObserver("StartEvent", lambda *_: self._set_blending())
        self._window.AddRenderer(self._renderer)
        self._window.Initialize()

    def _layer(self, k: int, layer: Layer, carm: CArm, carm_from_patient: Float64, fine: int) -> Array:
        """One layer, drawn and read back only where it is."""
        out = np.zeros((*carm.shape, 4), np.uint8)
        for actor in (a for actors in self._actors.values() for a in actors):
            actor.SetVisibility(False)
        self._lines = not isinstance(layer.shape, Mesh)
        if self._lines:
            used, grain = self._show_strokes(k, layer, carm, carm_from_patient), 1
        else:
            used, grain = self._show_surface(k, layer, carm, carm_from_patient), fine
        box = _box_of(used, carm.shape)
        if box is None:
            return out
        rows, cols = (n * grain for n in box.shape)
        self._renderer.SetViewport(0, 0, cols / (carm.shape[1] * fine), rows / (carm.shape[0] * fine))
        set_camera(self._renderer.GetActiveCamera(), view_of(carm.cropped(box), carm_from_patient))
        self._window.Render()
        pixels = self._pixels(rows, cols)
        if grain == 1:
            out[box.slices] = pixels
        else:
            _average(pixels, grain, out[box.slices])
        return out

    def _show_surface(self, k: int, layer: Layer, carm: CArm, carm_from_patient: Float64) -> Float64:
        """Make the surface visible; returns the pixels (n, 2) that it touches."""
        assert isinstance(layer.shape, Mesh)
        if k not in self._actors:
            actor = _actor(SURFACE if layer.style == "shaded" else FLAT)
            actor.GetMapper().SetInputData(_with_normals(*welded(layer.shape)))
            self._renderer.AddActor(actor)
            self._actors[k] = [actor]
        actor = self._actors[k][0]
        _paint(actor, layerColor=layer.rgb, sddMm=carm.sdd_mm)
        actor.SetVisibility(True)
        return carm.project_patient(carm_from_patient, layer.shape.vertices)

    def _show_strokes(self, k: int, layer: Layer, carm: CArm, carm_from_patient: Float64) -> Float64:
        """Make the lines visible; returns the pixels (n, 2) that they touch."""
        used = [np.zeros((0, 2))]
        strokes = strokes_of(layer, carm, carm_from_patient)
        actors = self._actors.setdefault(k, [])
        while len(actors) < len(strokes):
            actors.append(_stroke_actor())
            self._renderer.AddActor(actors[-1])
        plane = Rigid.inverse(carm_from_patient)
        for actor, stroke in zip(actors, strokes, strict=True):
            pixels, faces, aside = ribbon(stroke, carm)
            if len(faces):
                at_isocenter = carm.source + (carm.detector_points(pixels) - carm.source) * carm.sod_mm / carm.sdd_mm
                data = _polydata(Rigid.apply(plane, at_isocenter), faces)
                data.GetPointData().AddArray(_named(aside, "aside"))
                actor.GetMapper().SetInputData(data)
                _paint(actor, layerColor=stroke.rgb, layerAlpha=stroke.alpha, halfWidth=stroke.width_px / 2)
                actor.SetVisibility(True)
                used.append(pixels)
        return np.concatenate(used)

    def _set_blending(self) -> None:
        """Within a surface the nearest wall hides all others; of lines that overlap, the fullest counts."""
        state = self._window.GetState()
        switch = (state.vtkglDisable, state.vtkglEnable)
        switch[self._lines](GL_BLEND)
        switch[not self._lines](GL_DEPTH_TEST)
        state.vtkglBlendEquation(GL_MAX if self._lines else GL_FUNC_ADD)

    def _pixels(self, rows: int, cols: int) -> Array:
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        if self._samples is None:
            self._samples = vtkUnsignedCharArray()  # kept: fresh memory costs more than the copy into it
        self._window.GetRGBACharPixelData(0, 0, cols - 1, rows - 1, 0, self._samples)
        return np.asarray(vtk_to_numpy(self._samples)).reshape(rows, cols, 4)[::-1]  # OpenGL's rows go up


def _box_of(pixels: Float64, shape: tuple[int, int]) -> Box | None:
    """The part of a picture that holds points (n, 2) and two pixels around; all of it where a point has no
    picture (it lies at the source), None where nothing is in the picture."""
    if len(pixels) == 0:
        return None
    if not np.isfinite(pixels).all():
        return Box((0, 0), shape)
    low = np.clip(np.floor(pixels.min(axis=0)[::-1]) - 2, 0, shape)
    high = np.clip(np.ceil(pixels.max(axis=0)[::-1]) + 3, 0, shape)
    if (low >= high).any():
        return None
    return Box((int(low[0]), int(low[1])), (int(high[0]), int(high[1])))


def _average(samples: Array, fine: int, out: Array) -> None:
    """Write the mean, rounded, of blocks of fine x fine samples (fine * rows, fine * columns, 4) uint8 into out
    (rows, columns, 4); clear blocks are passed over."""
    words = samples.view(np.uint32)[:, :, 0]
    parts = [words[i::fine, j::fine] for i in range(fine) for j in range(fine)]
    any_of = parts[0].copy()
    for part in parts[1:]:
        any_of |= part
    at = np.nonzero(any_of != 0)
    total = np.full((len(at[0]), 4), fine * fine // 2, np.uint16)
    for part in parts:
        total += part[at].view(np.uint8).reshape(-1, 4)
    out[at] = total // (fine * fine)


def _actor(shader: str) -> Any:
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    actor = vtkActor()
    actor.SetMapper(vtkPolyDataMapper())
    actor.GetMapper().ScalarVisibilityOff()
    actor.GetShaderProperty().AddFragmentShaderReplacement("//VTK::Light::Impl", True, shader, False)
    return actor


def _stroke_actor() -> Any:
    from vtkmodules.vtkCommonDataModel import vtkDataObject

    actor = _actor(STROKE)
    shaders = actor.GetShaderProperty()
    for place, code in STROKE_VERTEX:
        shaders.AddVertexShaderReplacement(place, True, code, False)
    shaders.AddFragmentShaderReplacement(STROKE_FRAGMENT[0], True, STROKE_FRAGMENT[1], False)
    actor.GetMapper().MapDataArrayToVertexAttribute("aside", "aside", vtkDataObject.FIELD_ASSOCIATION_POINTS, -1)
    return actor


def _paint(actor: Any, **values: float | Float64) -> None:
    uniforms = actor.GetShaderProperty().GetFragmentCustomUniforms()
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            uniforms.SetUniform3f(name, value.tolist())
        else:
            uniforms.SetUniformf(name, value)


def _named(values: Float64, name: str) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk

    array = numpy_to_vtk(np.ascontiguousarray(values, np.float32), deep=True)
    array.SetName(name)
    return array


def _polydata(vertices: Float64, faces: Array) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    points, cells, data = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices, np.float64), deep=True))
    cells.SetData(3, numpy_to_vtkIdTypeArray(np.ascontiguousarray(faces, np.int64).ravel(), deep=True))
    data.SetPoints(points)
    data.SetPolys(cells)
    return data


def _with_normals(vertices: Float64, faces: Array) -> Any:
    """A surface with a normal at each corner; triangles turned either way are made to agree."""
    from vtkmodules.vtkFiltersCore import vtkPolyDataNormals

    filtered = vtkPolyDataNormals()
    filtered.SetInputData(_polydata(vertices, faces))
    filtered.SplittingOff()
    filtered.ConsistencyOn()
    filtered.Update()
    return filtered.GetOutput()
