# SPDX-License-Identifier: Apache-2.0
"""Does registration hold for other bodies than the chest? The demo torso, a pelvis with metal, a thorax with a stent,
one bone of a wrist, and a knee implant, in simulated fluoroscopy of each by another projector (itk-rtk)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fluoronav.bench.figure import Figure, Progress, shared_data
from fluoronav.bench.real_chest import CARM
from fluoronav.bench.truth import (
    Physics,
    fluoroscopy,
    random_motion,
    random_view,
    rtk_line_integrals,
    target_errors,
    targets_around,
    two_materials,
)
from registration.geometry import Array, CArm, Float64, Rigid, Volume, attenuation_from_hu
from registration.implants import ImplantModel
from registration.model import Model, Settings, Start, View
from registration.result import Outcome
from registration.shapes import Mesh
from registration.volume_model import VolumeModel

STARTS, SEED = 20, 11
_METAL = 0.25  # 1/mm: cobalt-chrome at 60 keV, hardened (NIST XCOM: 0.9 before hardening)
_WRIST_MM = (0.39625, 0.39625, 0.625)  # voxels of the wrist's volumes, as its source states


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What is registered: the model, where its errors are stated, a C-arm, and pictures of a pose."""

    model: Model
    center_mm: Float64
    carm: CArm
    picture: Callable[[Float64, np.random.Generator], Array]


def figures(progress: Progress) -> dict[str, Figure]:
    """`torso.*`, `pelvis.*`, `thorax.*`, `wrist_bone.*`, `implant.*`: 20 starts each, off by 10 deg / 20 mm."""
    out: dict[str, Figure] = {}
    makers = {"torso": torso, "pelvis": pelvis, "thorax": thorax, "wrist_bone": wrist_bone, "implant": implant}
    for n, (name, make) in enumerate(makers.items()):
        progress(n / len(makers), f"{name}: preparing")
        found = trials(make(), _part_of(progress, n, len(makers), name))
        out.update({f"{name}.{key}": figure for key, figure in found.items()})
    return out


def _part_of(progress: Progress, n: int, of: int, name: str) -> Progress:
    return lambda share, text: progress((n + share) / of, f"{name} {text}")


def trials(anatomy: Anatomy, progress: Progress, *, count: int = STARTS, seed: int = SEED,
           bounds: tuple[float, float, float | None] = (10.0, 20.0, None)) -> dict[str, Figure]:
    """Register from displaced starts. Errors are means over the center and nine points within 50 mm of it."""
    rng = np.random.default_rng(seed)
    targets = targets_around(anatomy.center_mm, rng)
    rows = []
    for n in range(count):
        true = random_view(rng, anatomy.center_mm)
        picture = anatomy.picture(true, rng)
        view = View(picture, np.ones_like(picture), anatomy.carm)
        start = Start(random_motion(rng, *bounds) @ true)
        if n == 0:
            anatomy.model.register(view, [start], Settings())  # volumes are prepared once, before the case
        begun = time.perf_counter()
        found = anatomy.model.register(view, [start], Settings())
        ms = (time.perf_counter() - begun) * 1e3
        rows.append((*_errors(anatomy, found.carm_from_patient, true, targets), ms,
                     found.outcome is Outcome.ACCEPTED, _bound_holds(anatomy, found, true)))
        progress((n + 1) / count, f"{n + 1} of {count}")
    error, projected, inplane, depth, ms_all, accepted, covered = np.array(rows, float).T
    yes = accepted > 0
    return {
        "success_10_20": Figure(float((projected < 1).mean()), "share", count, "below 1 mm in the picture"),
        "error_mm_median": Figure(float(np.median(error)), "mm", count, "3D"),
        "projected_mm_median": Figure(float(np.median(projected)), "mm", count),
        "inplane_mm_median": Figure(float(np.median(inplane)), "mm", count),
        "depth_mm_median": Figure(float(np.median(depth)), "mm", count),
        "accepted": Figure(float(yes.mean()), "share", count),
        "wrong_accepted": Figure(float((yes & (projected > 5)).sum()), "frames", count, "off by more than 5 mm"),
        "bound_covers": Figure(float(covered[yes].mean()) if yes.any() else None, "share", int(yes.sum()),
                               "3D, 95 % wanted"),
        "ms_median": Figure(float(np.median(ms_all)), "ms", count),
    }


def _errors(anatomy: Anatomy, found: Float64 | None, true: Float64, targets: Float64) -> tuple[float, ...]:
    if found is None:
        return (np.inf,) * 4
    away = np.abs(Rigid.apply(found, targets) - Rigid.apply(true, targets))
    return (*target_errors(anatomy.carm, found, true, targets), float(np.hypot(away[:, 0], away[:, 1]).mean()),
            float(away[:, 2].mean()))


def _bound_holds(anatomy: Anatomy, found: object, true: Float64) -> bool:
    error, pose = getattr(found, "error", None), getattr(found, "carm_from_patient", None)
    if error is None or pose is None:
        return False
    return bool(np.linalg.norm(Rigid.apply(pose, error.target) - Rigid.apply(true, error.target)) <= error.target_mm)


def of_ct(volume_hu: Volume, anatomy_hu: Volume | None = None) -> Anatomy:
    """A CT in pictures of `anatomy_hu` (of itself, if None)."""
    materials = two_materials(anatomy_hu or volume_hu)
    return Anatomy(VolumeModel(attenuation_from_hu(volume_hu)), volume_hu.center_mm, CARM,
                   lambda pose, rng: fluoroscopy(materials, CARM, pose, Physics(gain=rng.uniform(0.5, 2)), rng))


def torso() -> Anatomy:
    """The demo patient: the CT has the scanner's noise, the pictures have not."""
    from models.patient import DemoPatient

    patient = DemoPatient.build(seed=5)
    return of_ct(patient.volume_hu, patient.anatomy_hu)


def pelvis() -> Anatomy:
    """A real pelvis, 3 mm voxels, metal in one hip."""
    return of_ct(_ct("pelvis_spine_ct/example_ct.nii.gz"))


def thorax() -> Anatomy:
    """A real thoracic CTA cut to 180 x 190 x 250 mm around a stented aorta."""
    return of_ct(_ct("aorta_cta/ct_cropped.nii.gz"))


def _ct(name: str) -> Volume:
    from fluoronav.case import read_ct

    return read_ct(shared_data() / name)[0]


def wrist_bone() -> Anatomy:
    """A real radius, 27 x 34 x 80 mm, under an uneven layer of soft tissue that the volume does not have."""
    bone = wrist_radius()
    carm = CArm.centered((512, 512), 0.3, 1020.0, 765.0)
    return Anatomy(VolumeModel(bone), bone.center_mm, carm, lambda pose, rng: _in_tissue(bone, carm, pose, rng))


def wrist_radius() -> Volume:
    """The radius in 1/mm, its first voxel at the origin."""
    import cv2

    file = shared_data() / "wrist_biplane/volumes/rad_dcm_cropped.tif"
    _, pages = cv2.imreadmulti(str(file), flags=cv2.IMREAD_UNCHANGED)
    # 4095 is the densest cortex; the source states no unit
    return Volume(np.stack(pages).astype(np.float32) * np.float32(0.06 / 4095), np.diag([*_WRIST_MM, 1.0]))


def implant() -> Anatomy:
    """A real knee implant's mesh, filled with metal by VTK (not by the code that is measured)."""
    from fluoronav.case.shape_files import read_shape
    from fluoronav.imaging.notes import Notes

    mesh = read_shape(shared_data() / "knee_implant/KR_right_7_fem.stl", "implant", np.eye(3), Notes())
    assert isinstance(mesh, Mesh)
    metal = _filled(mesh, 0.5)
    carm = CArm.centered((1024, 1024), 0.3, 1020.0, 765.0)
    return Anatomy(ImplantModel(mesh), metal.center_mm, carm, lambda pose, rng: _in_tissue(metal, carm, pose, rng))


def _in_tissue(volume: Volume, carm: CArm, pose: Float64, rng: np.random.Generator) -> Array:
    """The volume in 10 cm of water-like tissue that varies by 10 %, with scatter, blur and quantum noise."""
    uneven = ndimage.gaussian_filter(rng.normal(size=carm.shape), 0.06 * carm.shape[0])
    path = 2.0 * (1 + 0.1 * uneven / uneven.std()) + rtk_line_integrals([volume], carm, pose)[0]
    primary = np.exp(-path)
    signal = ndimage.gaussian_filter(primary, 0.8) + 0.3 * ndimage.gaussian_filter(primary, 0.15 * carm.shape[0])
    counts = np.maximum(rng.poisson(signal * 20000), 1)
    return np.asarray(-np.log(counts / 20000.0), np.float32)


def _filled(mesh: Mesh, spacing_mm: float) -> Volume:
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

    points, cells, surface = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(mesh.vertices), deep=True))
    faces = np.column_stack([np.full(len(mesh.faces), 3), mesh.faces]).astype(np.int64)
    cells.ImportLegacyFormat(numpy_to_vtkIdTypeArray(faces.ravel(), deep=True))
    surface.SetPoints(points)
    surface.SetPolys(cells)
    low = mesh.vertices.min(axis=0) - 2 * spacing_mm
    size = np.ceil((np.ptp(mesh.vertices, axis=0)) / spacing_mm).astype(int) + 5
    stencil, image = vtkPolyDataToImageStencil(), vtkImageStencilToImage()
    stencil.SetInputData(surface)
    stencil.SetOutputOrigin(*low)
    stencil.SetOutputSpacing(*[spacing_mm] * 3)
    stencil.SetOutputWholeExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    data = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(size[::-1])
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = low
    return Volume(data.astype(np.float32) * np.float32(_METAL), affine)
