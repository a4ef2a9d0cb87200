# SPDX-License-Identifier: Apache-2.0
"""How does VTK see what the C-arm sees? A camera at the detector with the perspective of the source.

Displayed X-ray pictures look from the detector to the source, but their rays meet in the source. So the
eye stands on the detector and looks along +z of the C-arm frame: right is +x, up is -y, which is a plain
rotation (diag(1, -1, -1), determinant +1): nothing is mirrored, windings and normals keep their meaning,
and what lies nearer to the detector hides what lies behind it. Only the perspective is unusual: its center
is behind the scene, so the divisor w = distance from the source in z is positive and grows towards the eye.
A projection matrix written out does that; VTK's own field of view cannot.

Pixel centers are integers: pixel u covers [u - 0.5, u + 0.5), so a window of `columns` pixels runs from
-0.5 to columns - 0.5. OpenGL's rows go up, so the picture read back has to be turned upside down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from registration.geometry import CArm, Float64, Rigid, read_only

NEAREST_TO_SOURCE = 0.02  # of the SOD: what is nearer to the source than this is cut away
BEYOND_DETECTOR = 1.5  # of the SDD: what is farther from the source than this is cut away


@dataclass(frozen=True, slots=True)
class View:
    """eye_from_patient (4, 4) rigid, mm: x right, y up, -z into the picture, origin on the detector;
    clip_from_eye (4, 4): OpenGL clip coordinates, w = distance from the source along the C-arm's z;
    source_in_eye (3,): the focal spot, mm."""

    eye_from_patient: Float64
    clip_from_eye: Float64
    source_in_eye: Float64


def view_of(carm: CArm, carm_from_patient: Float64) -> View:
    """The view that puts each point on the pixel that `carm.project_patient` names."""
    eye_from_carm = np.diag([1.0, -1.0, -1.0, 1.0]) @ Rigid.translation(0, 0, carm.sdd_mm - carm.sod_mm)
    rows, cols = carm.shape
    (pv, pu), (cu, cv) = carm.pitch_mm_row_col, carm.principal_px_u_v
    # w = SOD - z_carm = SDD + z_eye; u = cu + x * SDD / (pu * w); ndc = 2 (u + 0.5) / columns - 1
    w = np.array([0.0, 0.0, 1.0, carm.sdd_mm])
    x = (2 * (cu + 0.5) / cols - 1) * w + np.array([2 * carm.sdd_mm / (pu * cols), 0, 0, 0])
    # v = cv - y_eye * SDD / (pv * w), rows go down: ndc = 1 - 2 (v + 0.5) / rows
    y = (1 - 2 * (cv + 0.5) / rows) * w + np.array([0, 2 * carm.sdd_mm / (pv * rows), 0, 0])
    # depth = a / w + b: -1 at the far side of the detector (nearest to the eye), +1 near the source
    least, most = NEAREST_TO_SOURCE * carm.sod_mm, BEYOND_DETECTOR * carm.sdd_mm
    a = 2 / (1 / least - 1 / most)
    z = (1 - a / least) * w + np.array([0, 0, 0, a])
    return View(read_only(eye_from_carm @ np.asarray(carm_from_patient, np.float64)),
                read_only(np.stack([x, y, z, w])), read_only(np.array([0.0, 0.0, -carm.sdd_mm])))


def pixels_of(view: View, shape: tuple[int, int], points_mm: Float64) -> tuple[Float64, Float64]:
    """What OpenGL makes of points (..., 3) in the patient frame: pixels (..., 2) as (u, v) of a picture of
    `shape` (rows, columns) and depth (...,) in [-1, 1], smaller in front. For tests and boxes."""
    p = np.asarray(points_mm, np.float64)
    clip = np.concatenate([p, np.ones((*p.shape[:-1], 1))], -1) @ (view.clip_from_eye @ view.eye_from_patient).T
    with np.errstate(divide="ignore", invalid="ignore"):
        ndc = np.where(clip[..., 3:] > 0, clip[..., :3] / clip[..., 3:], np.nan)
    rows, cols = shape
    return np.stack([(ndc[..., 0] + 1) * cols / 2 - 0.5, (1 - ndc[..., 1]) * rows / 2 - 0.5], -1), ndc[..., 2]


def moved_px(carm: CArm, carm_from_patient_a: Float64, carm_from_patient_b: Float64,
             points_mm: Float64 | None = None) -> float:
    """How far the picture moves, px, at most, from pose a to pose b, over points (n, 3) of the patient frame.

    points_mm: best a scene's `corners_mm`; else what pose a shows at the isocenter's depth and 100 mm
    before and behind it. Infinite where a point has no picture.
    """
    if points_mm is None:
        u, v = np.meshgrid(*[np.linspace(-0.5, n - 0.5, 3) for n in carm.shape[::-1]])
        ends = carm.detector_points(np.stack([u, v], -1).reshape(-1, 2)) - carm.source
        depth = np.minimum(np.array([-100.0, 0.0, 100.0]), 0.9 * carm.sod_mm)
        seen = carm.source + ends[None] * ((carm.sod_mm - depth) / carm.sdd_mm)[:, None, None]
        points_mm = Rigid.apply(Rigid.inverse(carm_from_patient_a), seen.reshape(-1, 3))
    if len(points_mm) == 0:
        return 0.0
    apart = carm.project_patient(carm_from_patient_b, points_mm) - carm.project_patient(carm_from_patient_a, points_mm)
    return float(np.nan_to_num(np.linalg.norm(apart, axis=-1), nan=np.inf).max())


def set_camera(camera: Any, view: View) -> None:
    """Make a vtkCamera look that way. The renderer must not cull by the camera's own frustum."""
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    patient_from_eye = Rigid.inverse(view.eye_from_patient)
    eye = patient_from_eye[:3, 3]
    camera.SetPosition(*eye)
    camera.SetFocalPoint(*(eye - patient_from_eye[:3, 2] * -view.source_in_eye[2]))
    camera.SetViewUp(*patient_from_eye[:3, 1])
    camera.SetParallelProjection(True)  # the shaders take the rays from the source themselves
    matrix = vtkMatrix4x4()
    matrix.DeepCopy(view.clip_from_eye.ravel().tolist())
    camera.SetExplicitProjectionTransformMatrix(matrix)
    camera.SetUseExplicitProjectionTransformMatrix(True)
