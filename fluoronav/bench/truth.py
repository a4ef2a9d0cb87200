# SPDX-License-Identifier: Apache-2.0
"""What would a real detector have shown? Fluoroscopy of a CT by another projector than ours (itk-rtk).

Two materials with their own energy dependence, a broad scatter field, quantum and electronic noise, a
blur, a gain nobody told, and a guidewire that the CT does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from registration.bodies import Spine
from registration.errors import BadInput
from registration.geometry import Array, CArm, Float64, Rigid, Volume, carm_from_patient_at

# An 80 kVp beam in three bins (keV, share of the detected signal) with the attenuation of water and of
# cortical bone in 1/mm. Source: NIST XCOM (Hubbell & Seltzer 2004), bone 1.92 g/cm3.
_SHARE = (0.35, 0.40, 0.25)  # at 45, 60, 75 keV
_WATER = (0.0244, 0.0206, 0.0188)
_BONE = (0.0958, 0.0604, 0.0463)
_STILL_MM, _FREE_MM = 32.0, 72.0  # from the spine's course: up to here breath moves nothing, from there all of it
_SOFT_HU, _BONE_HU = 150.0, 1150.0  # HU from which, and up to which, a voxel turns from soft tissue to bone


@dataclass(frozen=True, slots=True)
class Physics:
    """What the picture suffers. photons: per pixel of the open beam; scatter: share of the primary's mean;
    gain: unknown factor on the signal; wire: line integral of a guidewire's middle (0: none)."""

    photons: float = 20000.0
    scatter: float = 0.4
    gain: float = 1.0
    wire: float = 1.0
    blur_px: float = 0.6


def two_materials(volume_hu: Volume) -> tuple[Volume, Volume]:
    """Relative density of soft tissue and of cortical bone (1 = pure) from Hounsfield units."""
    hu = volume_hu.data
    bone = np.clip((hu - _SOFT_HU) / (_BONE_HU - _SOFT_HU), 0, 1)
    soft = np.where(hu > _SOFT_HU, (1 + _SOFT_HU / 1000) * (1 - bone), np.maximum(0, 1 + hu / 1000))
    affine = volume_hu.patient_from_index
    return Volume(soft.astype(np.float32), affine), Volume(bone.astype(np.float32), affine)


def fluoroscopy(materials: tuple[Volume, Volume], carm: CArm, carm_from_patient: Float64, physics: Physics,
                rng: np.random.Generator) -> Array:
    """Line integrals (h, w) float32 as a detector would have measured them."""
    soft, bone = rtk_line_integrals(materials, carm, carm_from_patient)
    return detected(soft, bone, physics, rng)


def detected(soft_mm: Array, bone_mm: Array, physics: Physics, rng: np.random.Generator) -> Array:
    """Line integrals (h, w) float32 as a detector would have measured them behind mm of either material (h, w)."""
    primary = sum(s * np.exp(-w * soft_mm - b * bone_mm) for s, w, b in zip(_SHARE, _WATER, _BONE, strict=True))
    h, w = soft_mm.shape
    if physics.wire > 0:
        primary = primary * np.exp(-physics.wire * _wire((h, w)))
    tilt = 1 + 0.3 * np.linspace(-1, 1, w)[None, :]
    field = physics.scatter * ndimage.gaussian_filter(primary, 0.15 * h, truncate=3) * tilt
    signal = ndimage.gaussian_filter(primary, physics.blur_px) + field
    counts = rng.poisson(signal * physics.photons) + rng.normal(0, 20.0, (h, w))
    # I0 is taken as the open beam's photons; an unknown gain is an unknown offset of the line integrals
    return -np.log(np.maximum(counts, 1.0) / physics.photons * physics.gain).astype(np.float32)


def enlarged(picture: Array, k: int) -> Array:
    """A picture (h, w) computed at the centers of k x k pixels, at those pixels (k h, k w): cubic interpolation."""
    v, u = np.mgrid[:picture.shape[0] * k, :picture.shape[1] * k]
    at = (np.stack([v, u]) + 0.5) / k - 0.5
    return np.asarray(ndimage.map_coordinates(picture, at, order=3, mode="nearest"), np.float32)


def rtk_line_integrals(volumes: Sequence[Volume], carm: CArm, carm_from_patient: Float64) -> list[Array]:
    """Line integrals (h, w) of each volume by itk-rtk's Joseph projector. Raises BadInput without itk-rtk."""
    import_rtk()
    return [rtk_picture(rtk_filter(v, carm, carm_from_patient)) for v in volumes]


def import_rtk() -> tuple[Any, Any]:
    """The modules (itk, RTK). Raises BadInput where they are not installed."""
    try:
        import itk
        from itk import RTK
    except ImportError as cause:
        raise BadInput("itk-rtk", got="not installed", expected="the projector that makes the truth",
                       remedy="pip install 'fluoronav[test]'") from cause
    return itk, RTK


def rtk_filter(volume: Volume, carm: CArm, carm_from_patient: Float64) -> tuple[Any, ...]:
    """itk-rtk's Joseph projector of a volume, ready to be updated, and what must live as long as it."""
    itk, rtk = import_rtk()
    image = itk.image_view_from_array(np.array(volume.data))
    spacing = volume.spacing_mm
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(volume.patient_from_index[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(volume.patient_from_index[:3, :3] / spacing)))
    kind = itk.Image[itk.F, 3]
    blank = rtk.ConstantImageSource[kind].New()
    (pv, pu), (cu, cv) = carm.pitch_mm_row_col, carm.principal_px_u_v
    blank.SetSize([carm.shape[1], carm.shape[0], 1])
    blank.SetSpacing([pu, pv, 1.0])
    blank.SetOrigin([-cu * pu, -cv * pv, 0.0])
    blank.SetConstant(0.0)
    joseph = rtk.JosephForwardProjectionImageFilter[kind, kind].New()
    joseph.SetInput(0, blank.GetOutput())
    joseph.SetInput(1, image)
    geometry = _rtk_geometry(itk, rtk, carm, carm_from_patient)
    joseph.SetGeometry(geometry)
    return joseph, blank, image, geometry


def rtk_picture(ready: tuple[Any, ...]) -> Array:
    """The picture (h, w) float32 of what `rtk_filter` made."""
    itk, _ = import_rtk()
    joseph = ready[0]
    joseph.Update()
    return np.array(itk.array_from_image(joseph.GetOutput())[0], np.float32)


def _rtk_geometry(itk: Any, rtk: Any, carm: CArm, carm_from_patient: Float64) -> Any:
    patient_from_carm = Rigid.inverse(carm_from_patient)
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    point, vector = itk.Point[itk.D, 3], itk.Vector[itk.D, 3]
    source = Rigid.apply(patient_from_carm, carm.source)
    center = Rigid.apply(patient_from_carm, [0, 0, carm.sod_mm - carm.sdd_mm])
    right, down = patient_from_carm[:3, 0], patient_from_carm[:3, 1]
    if not geometry.AddProjection(point(source.tolist()), point(center.tolist()), vector(right.tolist()),
                                  vector(down.tolist())):
        raise BadInput("itk-rtk geometry", got="refused", expected="a C-arm", remedy="report this pose")
    return geometry


def _wire(shape: tuple[int, int]) -> Array:
    h, w = shape
    t = np.linspace(0, 1, 4 * max(h, w))
    u = w * (0.2 + 0.6 * t + 0.05 * np.sin(9 * t))
    v = h * (0.9 - 0.7 * t + 0.05 * np.cos(7 * t))
    line = np.zeros(shape)
    line[np.clip(v.astype(int), 0, h - 1), np.clip(u.astype(int), 0, w - 1)] = 1
    line = ndimage.gaussian_filter(line, 1.2 * h / 512)
    return line / line.max()


def breathed(volume_hu: Volume, spine: Spine, breath_mm: Float64) -> Volume:
    """The CT with everything away from the spine moved by breath_mm (3,), smoothly less towards it (a 2 mm grid)."""
    volume = volume_hu.resampled(2.0)
    data: Array = volume.data
    k, j, i = np.indices(data.shape, np.float32)
    affine = volume.patient_from_index
    points = np.stack([i, j, k], -1) @ affine[:3, :3].T + affine[:3, 3]
    t = np.clip((spine.distance_mm(points) - _STILL_MM) / (_FREE_MM - _STILL_MM), 0, 1)
    share = t * t * (3 - 2 * t)
    back = np.linalg.inv(affine[:3, :3]) @ breath_mm
    at = [x - share * b for x, b in zip((k, j, i), back[::-1], strict=True)]
    return Volume(ndimage.map_coordinates(data, at, order=1, mode="nearest"), affine)


def random_motion(rng: np.random.Generator, angle_deg: float, offset_mm: float,
                  depth_mm: float | None = None) -> Float64:
    """A start's error: uniform axis, angle and offset uniform up to the bound; with `depth_mm` the offset
    is in the picture's plane and the depth is uniform up to its own bound."""
    axis = rng.normal(size=3)
    turn = axis / np.linalg.norm(axis) * np.radians(angle_deg * rng.uniform())
    way = rng.normal(size=3)
    if depth_mm is not None:
        way[2] = 0
    shift = way / np.linalg.norm(way) * offset_mm * rng.uniform()
    if depth_mm is not None:
        shift[2] = rng.uniform(-depth_mm, depth_mm)
    return Rigid.translation(*shift) @ Rigid.exp([*turn, 0, 0, 0])


def random_view(rng: np.random.Generator, center_mm: Float64) -> Float64:
    """A usual pose: 35 deg LAO to RAO, 20 deg cranial to caudal, the patient some millimeters and degrees off."""
    lying = Rigid.exp(rng.normal(size=6) * (0.05, 0.05, 0.05, 8, 8, 15))
    return lying @ carm_from_patient_at(rng.uniform(-35, 35), rng.uniform(-20, 20), center_mm)


def targets_around(center_mm: Float64, rng: np.random.Generator) -> Float64:
    """The centre and nine points uniform within 50 mm of it, (10, 3)."""
    way = rng.normal(size=(9, 3))
    way *= (50 * rng.uniform(size=9) ** (1 / 3) / np.linalg.norm(way, axis=1))[:, None]
    return np.vstack([np.zeros(3), way]) + center_mm


def target_errors(carm: CArm, found: Float64, true: Float64, targets: Float64) -> tuple[float, float]:
    """Mean error over the targets (n, 3): in 3D, and in the picture scaled to each target's depth, mm."""
    a, b = Rigid.apply(found, targets), Rigid.apply(true, targets)
    scale = (carm.sod_mm - b[:, 2]) / carm.sdd_mm * np.sqrt(np.prod(carm.pitch_mm_row_col))
    in_picture = np.linalg.norm(carm.project(a) - carm.project(b), axis=1) * scale
    return float(np.linalg.norm(a - b, axis=1).mean()), float(in_picture.mean())
