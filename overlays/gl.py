# SPDX-License-Identifier: Apache-2.0
"""How does VTK draw a layer? Off-screen, opaque within the layer, twice as fine as the picture, then averaged."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from overlays.camera import set_camera, view_of
from overlays.opengl import new_window
from overlays.scene import Layer
from overlays.strokes import CASING, DARK, ribbon, strokes_of
from registration.contours import welded
from registration.geometry import Array, Box, CArm, Float64, Rigid
from registration.shapes import Mesh

FINE = 2  # (1 or 2) samples a pixel in each direction; four samples of Mesa's own multisampling cost twice as much
# A marching-cubes surface has ten times the triangles that its shape needs, and each costs at every frame
MOST_TRIANGLES = 30_000
LARGEST = 8192  # px: beyond it no finer grid is drawn (OpenGL promises 16384, memory does not)
GL_BLEND = 0x0BE2

# rays meet in the source; a wall seen edge on is darker and denser, so that the picture shows through the middle
SURFACE = """
  vec3 ray = vertexVC.xyz - vec3(0.0, 0.0, -sddMm);
  vec3 normal = normalVCVSOutput * inversesqrt(dot(normalVCVSOutput, normalVCVSOutput));
  float along = dot(normal, ray) * inversesqrt(dot(ray, ray));
  float facing = abs(along);
  float light = max(dot(normal, vec3(-0.436, 0.533, 0.726)) * (along < 0.0 ? -1.0 : 1.0), 0.0);
  float rim = 1.0 - smoothstep(0.15, 0.65, facing);
  float shine = light * light; shine *= shine; shine *= shine; shine *= shine * shine * 0.35;
  vec3 color = mix(layerColor * (0.70 + 0.30 * light) + shine, layerColor * 0.24, rim);
  float alpha = mix(0.52, 1.0, rim);
  fragOutput0 = vec4(min(color, vec3(1.0)) * alpha, alpha);
"""
FLAT = "  fragOutput0 = vec4(layerColor, 1.0);\n"
# line over casing, as the plain painter lays them; where strokes overlap, the pixel belongs to the one whose line
# it is deepest in: that is no depth of the scene, so that lines have no gaps where they cross or run along a ray
STROKE = f"""
  float beside = length(fromLine) - halfWidth;
  float line = clamp(0.5 - beside, 0.0, 1.0);
  float casing = clamp(0.5 - beside + casingWidth, 0.0, 1.0) * {CASING};
  if (casing <= 0.0) discard;
  fragOutput0 = vec4(layerColor, 1.0) * line + vec4(layerColor * {DARK}, 1.0) * casing * (1.0 - line);
  gl_FragDepth = clamp(0.5 + beside / 256.0, 0.0, 1.0);
"""
STROKE_VERTEX = (("//VTK::Normal::Dec", "//VTK::Normal::Dec\nin vec2 aside;\nout vec2 fromLine;\n"),
                 ("//VTK::Normal::Impl", "//VTK::Normal::Impl\n  fromLine = aside;\n"))
STROKE_FRAGMENT = ("//VTK::Normal::Dec", "//VTK::Normal::Dec\nin vec2 fromLine;\n")


class Canvas:
    """Two off-screen windows, one for surfaces and one for lines. Any thread may draw, one at a time: the contexts
    are made by the first `draw` that needs them, and let go after each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[bool, _Stage] = {}

    def draw(self, layers: tuple[Layer, ...], carm: CArm, carm_from_patient: Float64) -> dict[str, Array]:
        """Each layer alone: name -> (rows, columns, 4) uint8 RGBA, premultiplied."""
        out = {}
        with self._lock:
            for layer in layers:
                lines = not isinstance(layer.shape, Mesh)
                if lines not in self._stages:
                    self._stages[lines] = _Stage(lines)
                out[layer.name] = self._stages[lines].draw(layer, carm, carm_from_patient)
        return out

    def close(self) -> None:
        """Give the contexts back."""
        with self._lock:
            for stage in self._stages.values():
                stage.close()
            self._stages.clear()


class _Stage:
    """One window and the layers of one kind in it: lines at the picture's own grain, surfaces at a finer one."""

    def __init__(self, lines: bool) -> None:
        from vtkmodules.vtkRenderingCore import vtkRenderer

        renderer: Any = vtkRenderer()
        self._lines = lines
        self._actors: dict[str, list[Any]] = {}
        self._samples: Any = None
        self._window: Any = new_window()
        self._window.SetMultiSamples(0)
        self._window.SetAlphaBitPlanes(True)
        self._window.SetSwapBuffers(False)
        self._renderer = renderer
        self._renderer.SetBackground(0, 0, 0)
        self._renderer.SetBackgroundAlpha(0)
        self._renderer.GetCullers().RemoveAllItems()  # they go by the camera's own frustum, which is not ours
        # within a layer what is in front hides the rest; the window's own start switches blending on
        self._renderer.AddObserver("StartEvent", lambda *_: self._window.GetState().vtkglDisable(GL_BLEND))
        self._window.AddRenderer(self._renderer)
        self._window.Initialize()

    def draw(self, layer: Layer, carm: CArm, carm_from_patient: Float64) -> Array:
        """One layer, read back only where it is."""
        out = np.zeros((*carm.shape, 4), np.uint8)
        for actor in (a for actors in self._actors.values() for a in actors):
            actor.SetVisibility(False)
        used = (self._show_strokes if self._lines else self._show_surface)(layer, carm, carm_from_patient)
        box = _box_of(used, carm.shape)
        if box is None:
            return out
        fine = 1 if self._lines or FINE * max(carm.shape) > LARGEST else FINE
        self._window.SetSize(carm.shape[1] * fine, carm.shape[0] * fine)
        set_camera(self._renderer.GetActiveCamera(), view_of(carm, carm_from_patient))
        self._window.MakeCurrent()
        try:
            self._window.Render()
            samples = self._read(box, carm.shape[0], fine)
        finally:
            self._window.ReleaseCurrent()
        if fine == 1:
            out[box.slices] = samples
        else:
            _halve(samples, out[box.slices])
        return out

    def close(self) -> None:
        """Give the context back."""
        self._actors.clear()
        self._window.MakeCurrent()
        self._window.Finalize()

    def _show_surface(self, layer: Layer, carm: CArm, carm_from_patient: Float64) -> Float64:
        """Make the surface visible; returns the pixels (n, 2) that it touches."""
        assert isinstance(layer.shape, Mesh)
        if layer.name not in self._actors:
            actor = _actor(SURFACE if layer.style == "shaded" else FLAT)
            vertices, faces = thinned(*welded(layer.shape))
            solid = _closed(faces)
            actor.GetMapper().SetInputData(_with_normals(vertices, faces, solid))
            actor.GetProperty().SetBackfaceCulling(solid)  # never seen, but drawn: a third of the time
            self._renderer.AddActor(actor)
            self._actors[layer.name] = [actor]
        actor = self._actors[layer.name][0]
        _paint(actor, layerColor=layer.rgb, sddMm=carm.sdd_mm)
        actor.SetVisibility(True)
        return carm.project_patient(carm_from_patient, layer.shape.vertices)

    def _show_strokes(self, layer: Layer, carm: CArm, carm_from_patient: Float64) -> Float64:
        """Make the lines visible; returns the pixels (n, 2) that they touch."""
        used = [np.zeros((0, 2))]
        strokes = strokes_of(layer, carm, carm_from_patient)
        actors = self._actors.setdefault(layer.name, [])
        while len(actors) < len(strokes):
            actors.append(_stroke_actor())
            self._renderer.AddActor(actors[-1])
        patient_from_carm = Rigid.inverse(carm_from_patient)
        for actor, stroke in zip(actors, strokes, strict=True):
            pixels, faces, aside = ribbon(stroke, carm)
            if len(faces):
                at_isocenter = carm.source + (carm.detector_points(pixels) - carm.source) * carm.sod_mm / carm.sdd_mm
                data = _polydata(Rigid.apply(patient_from_carm, at_isocenter), faces)
                data.GetPointData().AddArray(_named(aside, "aside"))
                actor.GetMapper().SetInputData(data)
                _paint(actor, layerColor=stroke.rgb, halfWidth=stroke.width_px / 2,
                       casingWidth=(stroke.casing_px - stroke.width_px) / 2)
                actor.SetVisibility(True)
                used.append(pixels)
        return np.concatenate(used)

    def _read(self, box: Box, rows: int, fine: int) -> Array:
        """The samples (rows, columns, 4) of a box of pixels."""
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        if self._samples is None:
            self._samples = vtkUnsignedCharArray()  # kept: fresh memory costs more than the copy into it
        (top, left), (bottom, right) = box.start, box.stop
        self._window.GetRGBACharPixelData(left * fine, (rows - bottom) * fine, right * fine - 1,
                                          (rows - top) * fine - 1, 0, self._samples)
        high, wide = (n * fine for n in box.shape)
        return np.asarray(vtk_to_numpy(self._samples)).reshape(high, wide, 4)[::-1]  # OpenGL's rows go up


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


def _halve(samples: Array, out: Array) -> None:
    """Write the mean, rounded, of blocks of 2 x 2 samples (2 * rows, 2 * columns, 4) uint8 into out (rows, columns,
    4); clear blocks are passed over."""
    rows, cols = samples.shape[:2]
    pairs = samples.reshape(rows, cols // 2, 8).view(np.uint64)[:, :, 0]  # two samples of a row
    upper, lower = pairs[0::2], pairs[1::2]
    at = np.nonzero((upper | lower) != 0)
    total = np.full((len(at[0]), 4), 2, np.uint16)
    for half in (upper, lower):
        both = half[at].view(np.uint8).reshape(-1, 2, 4)
        total += both[:, 0]
        total += both[:, 1]
    out[at] = total // 4


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


def thinned(vertices: Float64, faces: Array) -> tuple[Float64, Array]:
    """A surface (n, 3) mm with at most MOST_TRIANGLES triangles (m, 3), for drawing: 99 % of the demo
    patient's arteries (103,000 triangles) stay within 0.06 mm.

    Source: quadric error, Garland & Heckbert 1997, in VTK."""
    if len(faces) <= MOST_TRIANGLES:
        return vertices, faces
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkQuadricDecimation

    filtered = vtkQuadricDecimation()
    filtered.SetInputData(_polydata(vertices, faces))
    filtered.SetTargetReduction(1 - MOST_TRIANGLES / len(faces))
    filtered.VolumePreservationOn()
    filtered.Update()
    out = filtered.GetOutput()
    corners = vtk_to_numpy(out.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return np.array(vtk_to_numpy(out.GetPoints().GetData()), np.float64), np.array(corners, np.int64)


def _closed(faces: Array) -> bool:
    """Whether a surface has an inside: each edge has two triangles."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    return bool((count == 2).all())


def _with_normals(vertices: Float64, faces: Array, solid: bool) -> Any:
    """A surface with a normal at each corner; triangles turned either way are made to agree, outwards of a solid."""
    from vtkmodules.vtkFiltersCore import vtkPolyDataNormals

    filtered = vtkPolyDataNormals()
    filtered.SetInputData(_polydata(vertices, faces))
    filtered.SplittingOff()
    filtered.ConsistencyOn()
    filtered.SetAutoOrientNormals(solid)
    filtered.Update()
    return filtered.GetOutput()
