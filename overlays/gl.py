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
from registration.geometry import Array, CArm, Float64, Rigid
from registration.shapes import Mesh

FINE = 2  # samples a pixel in each direction; four samples of Mesa's own multisampling cost twice as much
LARGEST = 8192  # px: beyond it no finer grid is drawn (OpenGL promises 16384, memory does not)
GL_BLEND = 0x0BE2

# rays meet in the source; a wall seen edge on is darker and denser, so that the picture shows through the middle
SURFACE = """
  vec3 ray = normalize(vertexVC.xyz - vec3(0.0, 0.0, -sddMm));
  vec3 normal = normalize(normalVCVSOutput);
  float facing = dot(normal, ray);
  normal *= facing < 0.0 ? -1.0 : 1.0;
  facing = abs(facing);
  float light = max(dot(normal, normalize(vec3(-0.45, 0.55, 0.75))), 0.0);
  float rim = 1.0 - smoothstep(0.10, 0.62, facing);
  float shine = pow(light, 24.0) * 0.35;
  vec3 color = mix(layerColor * (0.40 + 0.60 * light) + shine, layerColor * 0.22, rim);
  float alpha = mix(0.62, 1.0, rim);
  fragOutput0 = vec4(min(color, vec3(1.0)) * alpha, alpha);
"""
FLAT = "  fragOutput0 = vec4(layerColor * layerAlpha, layerAlpha);\n"


class Canvas:
    """One off-screen window and the layers in it. Any thread may draw, one at a time: the context is made by the
    first `draw`, and let go after each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window: Any = None
        self._renderer: Any = None
        self._actors: dict[int, list[Any]] = {}

    def draw(self, layers: tuple[Layer, ...], carm: CArm, carm_from_patient: Float64) -> dict[str, Array]:
        """Each layer alone: name -> (rows, columns, 4) uint8 RGBA, premultiplied."""
        with self._lock:
            if self._window is None:
                self._open()
            fine = FINE if FINE * max(carm.shape) <= LARGEST else 1
            self._window.SetSize(carm.shape[1] * fine, carm.shape[0] * fine)
            self._window.MakeCurrent()
            set_camera(self._renderer.GetActiveCamera(), view_of(carm, carm_from_patient))
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
        self._window.AddRenderer(self._renderer)
        self._window.Initialize()

    def _layer(self, k: int, layer: Layer, carm: CArm, carm_from_patient: Float64, fine: int) -> Array:
        for actor in (a for actors in self._actors.values() for a in actors):
            actor.SetVisibility(False)
        if isinstance(layer.shape, Mesh):
            self._show_surface(k, layer, carm)
        else:
            self._show_strokes(k, layer, carm, carm_from_patient)
        self._window.GetState().vtkglDisable(GL_BLEND)  # within a layer the nearest surface hides all others
        self._renderer.ResetCameraClippingRange()
        self._window.Render()
        return _averaged(self._pixels(), fine)

    def _show_surface(self, k: int, layer: Layer, carm: CArm) -> None:
        assert isinstance(layer.shape, Mesh)
        if k not in self._actors:
            actor = _actor(SURFACE if layer.style == "shaded" else FLAT)
            actor.GetMapper().SetInputData(_with_normals(*welded(layer.shape)))
            self._renderer.AddActor(actor)
            self._actors[k] = [actor]
        actor = self._actors[k][0]
        _paint(actor, layer.rgb, 1.0, carm.sdd_mm)
        actor.SetVisibility(True)

    def _show_strokes(self, k: int, layer: Layer, carm: CArm, carm_from_patient: Float64) -> None:
        strokes = strokes_of(layer, carm, carm_from_patient)
        actors = self._actors.setdefault(k, [])
        while len(actors) < len(strokes):
            actors.append(_actor(FLAT))
            self._renderer.AddActor(actors[-1])
        patient_from_carm = Rigid.inverse(carm_from_patient)
        for actor, stroke in zip(actors, strokes, strict=True):
            vertices, faces = ribbon(stroke, carm)
            if len(faces):
                actor.GetMapper().SetInputData(_polydata(Rigid.apply(patient_from_carm, vertices), faces))
                _paint(actor, stroke.rgb, stroke.alpha, carm.sdd_mm)
                actor.SetVisibility(True)

    def _pixels(self) -> Array:
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        cols, rows = self._window.GetSize()
        data = vtkUnsignedCharArray()
        self._window.GetRGBACharPixelData(0, 0, cols - 1, rows - 1, 0, data)
        return np.asarray(vtk_to_numpy(data)).reshape(rows, cols, 4)[::-1]  # OpenGL's rows go up


def _averaged(pixels: Array, fine: int) -> Array:
    """Blocks of fine x fine samples averaged, rounded; clear borders are passed over."""
    rows, cols = pixels.shape[0] // fine, pixels.shape[1] // fine
    out = np.zeros((rows, cols, 4), np.uint8)
    words = np.ascontiguousarray(pixels).view(np.uint32)[:, :, 0]
    used = np.flatnonzero(words.any(axis=1))
    if len(used) == 0:
        return out
    r = slice(used[0] // fine, used[-1] // fine + 1)
    used = np.flatnonzero(words[r.start * fine:r.stop * fine].any(axis=0))
    c = slice(used[0] // fine, used[-1] // fine + 1)
    part = pixels[r.start * fine:r.stop * fine, c.start * fine:c.stop * fine]
    total = np.full((r.stop - r.start, c.stop - c.start, 4), fine * fine // 2, np.uint16)
    for i in range(fine):
        for j in range(fine):
            total += part[i::fine, j::fine]
    out[r, c] = total // (fine * fine)
    return out


def _actor(shader: str) -> Any:
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    actor = vtkActor()
    actor.SetMapper(vtkPolyDataMapper())
    actor.GetMapper().ScalarVisibilityOff()
    actor.GetShaderProperty().AddFragmentShaderReplacement("//VTK::Light::Impl", True, shader, False)
    return actor


def _paint(actor: Any, rgb: Float64, alpha: float, sdd_mm: float) -> None:
    uniforms = actor.GetShaderProperty().GetFragmentCustomUniforms()
    uniforms.SetUniform3f("layerColor", rgb.tolist())
    uniforms.SetUniformf("layerAlpha", alpha)
    uniforms.SetUniformf("sddMm", sdd_mm)


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
