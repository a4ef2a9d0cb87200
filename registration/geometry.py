# SPDX-License-Identifier: Apache-2.0
"""Where is a point, and which pixel does it meet? C-arm, rigid motion, volume, box.

Conventions (README, "Conventions"): millimetres; radians inside, `_deg` at the edges; `b_from_a`
transforms act on columns; the C-arm frame has its origin at the isocenter, +x along image columns,
+y along image rows and +z towards the source, so pictures are seen from the detector.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registration.errors import BadGeometry, BadInput
from registration.rigid import Float64 as Float64
from registration.rigid import Rigid as Rigid

Array = NDArray[Any]


def read_only(array: ArrayLike, dtype: Any = None) -> Array:
    """A read-only view of an array (copied only where the type asks for it)."""
    view = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


# --------------------------------------------------------------------------------------------------
# The gantry


def carm_from_room(primary_deg: float, secondary_deg: float) -> Float64:
    """Rotation (4x4) of the gantry: + primary is LAO, + secondary is cranial.

    The room's axes are parallel to the patient's (L, P, S). Source: DICOM PS3.3 C.8.7.5, checked
    against vectors computed apart from this code (tests/registration/geometry_vectors.json).
    """
    a, b = np.radians([primary_deg, secondary_deg])
    out = np.eye(4)
    out[0, :3] = np.cos(a), np.sin(a), 0
    out[1, :3] = np.sin(a) * np.sin(b), -np.cos(a) * np.sin(b), -np.cos(b)
    out[2, :3] = -np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), -np.sin(b)
    return out


def carm_from_patient_at(
    primary_deg: float, secondary_deg: float, isocenter_in_patient_mm: ArrayLike
) -> Float64:
    """The pose with the isocenter at a point of the patient and the room parallel to the patient."""
    iso = np.asarray(isocenter_in_patient_mm, np.float64)
    return carm_from_room(primary_deg, secondary_deg) @ Rigid.translation(*(-iso))


# --------------------------------------------------------------------------------------------------
# Box


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open index ranges in the order of the array's axes: (rows, columns) or (k, j, i)."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def checked_within(self, shape: Sequence[int], name: str) -> Box:
        """This box, refused unless it is not empty and lies within an array of that shape."""
        inside = len(shape) == len(self.start) == len(self.stop) and all(
            0 <= a < b <= n for a, b, n in zip(self.start, self.stop, shape, strict=True))
        if not inside:
            raise BadInput(name, got=f"{self.start} to {self.stop}",
                           expected=f"a box that is not empty within {tuple(shape)}",
                           remedy="check the order (rows, columns) or (k, j, i)")
        return self


# --------------------------------------------------------------------------------------------------
# C-arm


@dataclass(frozen=True, slots=True)
class CArm:
    """Intrinsic geometry of one picture: detector matrix, pitch, distances, principal point.

    shape (rows, columns); pitch_mm_row_col at the detector, (row spacing, column spacing) as in
    DICOM; sdd_mm source to detector, sod_mm source to isocenter; principal_px_u_v the pixel
    (column, row) met by the ray along -z, pixel centers at integers. Raises BadGeometry.
    """

    shape: tuple[int, int]
    pitch_mm_row_col: tuple[float, float]
    sdd_mm: float
    sod_mm: float
    principal_px_u_v: tuple[float, float]

    def __post_init__(self) -> None:
        rows, cols = (int(n) for n in self.shape)
        pitch = tuple(float(p) for p in self.pitch_mm_row_col)
        principal = tuple(float(p) for p in self.principal_px_u_v)
        if rows < 1 or cols < 1:
            raise BadGeometry("detector matrix", got=self.shape, expected="at least 1 x 1 pixels",
                              remedy="check Rows and Columns")
        if len(pitch) != 2 or not all(np.isfinite(p) and p > 0 for p in pitch):
            raise BadGeometry("pixel pitch", got=self.pitch_mm_row_col,
                              expected="two finite numbers above 0 mm, (row, column)",
                              remedy="give --pixel-spacing MM")
        if not (np.isfinite(self.sdd_mm) and np.isfinite(self.sod_mm) and 0 < self.sod_mm <= self.sdd_mm):
            raise BadGeometry("source distances", got=f"SDD {self.sdd_mm} mm, SOD {self.sod_mm} mm",
                              expected="0 < SOD <= SDD", remedy="give --sdd MM and --sod MM")
        if len(principal) != 2 or not np.isfinite(principal).all():
            raise BadGeometry("principal point", got=self.principal_px_u_v,
                              expected="two finite pixel coordinates (u, v)",
                              remedy="leave it out for the centre of the matrix")
        object.__setattr__(self, "shape", (rows, cols))
        object.__setattr__(self, "pitch_mm_row_col", pitch)
        object.__setattr__(self, "sdd_mm", float(self.sdd_mm))
        object.__setattr__(self, "sod_mm", float(self.sod_mm))
        object.__setattr__(self, "principal_px_u_v", principal)

    @classmethod
    def centered(cls, shape: tuple[int, int], pitch_mm: float, sdd_mm: float, sod_mm: float) -> CArm:
        """Square pixels, principal point in the centre of the matrix."""
        return cls(shape, (pitch_mm, pitch_mm), sdd_mm, sod_mm,
                   ((shape[1] - 1) / 2, (shape[0] - 1) / 2))

    def project(self, points_in_carm: ArrayLike) -> Float64:
        """Pixels (..., 2) as (u, v) of points (..., 3) in the C-arm frame, mm.

        Points at or behind the source plane (z >= SOD) have no picture: NaN.
        """
        p = np.asarray(points_in_carm, np.float64)
        depth = self.sod_mm - p[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(depth > 0, self.sdd_mm / depth, np.nan)
        (pv, pu), (cu, cv) = self.pitch_mm_row_col, self.principal_px_u_v
        return np.stack([cu + p[..., 0] * scale / pu, cv + p[..., 1] * scale / pv], axis=-1)

    def project_patient(self, carm_from_patient: ArrayLike, points_mm: ArrayLike) -> Float64:
        """Pixels (..., 2) of points (..., 3) in the patient frame at a pose."""
        return self.project(Rigid.apply(carm_from_patient, points_mm))

    def detector_points(self, pixels_u_v: ArrayLike) -> Float64:
        """Centres (..., 3) of detector pixels (..., 2) in the C-arm frame, mm."""
        p = np.asarray(pixels_u_v, np.float64)
        (pv, pu), (cu, cv) = self.pitch_mm_row_col, self.principal_px_u_v
        z = np.full(p.shape[:-1], self.sod_mm - self.sdd_mm)
        return np.stack([(p[..., 0] - cu) * pu, (p[..., 1] - cv) * pv, z], axis=-1)

    def rays(self) -> tuple[Float64, Float64]:
        """Source (3,) and the pixel centres (rows, columns, 3) in the C-arm frame, mm."""
        v, u = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float64)
        return self.source, self.detector_points(np.stack([u, v], axis=-1))

    @property
    def source(self) -> Float64:
        """The focal spot in the C-arm frame, mm."""
        return np.array([0.0, 0.0, self.sod_mm])

    @property
    def mm_per_px_at_isocenter(self) -> float:
        """Size of a pixel (geometric mean of row and column) scaled back to the isocenter, mm."""
        pv, pu = self.pitch_mm_row_col
        return math.sqrt(pv * pu) * self.sod_mm / self.sdd_mm

    @functools.lru_cache(maxsize=256)  # noqa: B019 - C-arms are small, and the same at every frame
    def binned(self, k: int) -> CArm:
        """The C-arm of a picture whose k x k blocks were averaged (rows and columns cut to k)."""
        if k < 1 or min(self.shape) < k:
            raise BadInput("binning", got=k, expected=f"1 to {min(self.shape)}", remedy="bin less")
        (pv, pu), (cu, cv) = self.pitch_mm_row_col, self.principal_px_u_v
        return replace(self, shape=(self.shape[0] // k, self.shape[1] // k),
                       pitch_mm_row_col=(pv * k, pu * k),
                       principal_px_u_v=((cu + 0.5) / k - 0.5, (cv + 0.5) / k - 0.5))

    def divided(self, k: int) -> CArm:
        """The C-arm of a picture whose pixels were divided into k x k; `binned(k)` leads back."""
        if k < 1:
            raise BadInput("division of pixels", got=k, expected="1 or more", remedy="give a whole number")
        (pv, pu), (cu, cv) = self.pitch_mm_row_col, self.principal_px_u_v
        return replace(self, shape=(self.shape[0] * k, self.shape[1] * k), pitch_mm_row_col=(pv / k, pu / k),
                       principal_px_u_v=((cu + 0.5) * k - 0.5, (cv + 0.5) * k - 0.5))

    def cropped(self, box: Box) -> CArm:
        """The C-arm of the pixels inside a box (rows, columns)."""
        box.checked_within(self.shape, "crop box")
        cu, cv = self.principal_px_u_v
        return replace(self, shape=(box.shape[0], box.shape[1]),
                       principal_px_u_v=(cu - box.start[1], cv - box.start[0]))

    def flipped_columns(self) -> CArm:
        """The C-arm of the left-right mirrored picture (seen from the other side)."""
        cu, cv = self.principal_px_u_v
        return replace(self, principal_px_u_v=(self.shape[1] - 1 - cu, cv))

    def shifted(self, du_px: float, dv_px: float) -> CArm:
        """The C-arm of a picture whose content was moved by (du, dv) pixels (stabilisation)."""
        cu, cv = self.principal_px_u_v
        return replace(self, principal_px_u_v=(cu + du_px, cv + dv_px))


# --------------------------------------------------------------------------------------------------
# Volume


@dataclass(frozen=True, slots=True)
class Volume:
    """A scalar field on a regular grid: data [k, j, i] float32, patient_from_index for (i, j, k, 1).

    Voxel centres at integers. The affine may be oblique and may flip (an index frame need not be
    right-handed); it must be invertible. What the numbers mean (HU, 1/mm) is the holder's to say.
    """

    data: Array
    patient_from_index: Float64

    def __post_init__(self) -> None:
        data = np.ascontiguousarray(self.data, np.float32)
        affine = np.array(self.patient_from_index, np.float64)
        if data.ndim != 3 or min(data.shape) < 2:
            raise BadInput("volume", got=f"shape {data.shape}", expected="at least 2 x 2 x 2 voxels",
                           remedy="check that the whole series was given")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
            raise BadInput("volume affine", got=affine.tolist(), expected="an invertible 4x4 matrix",
                           remedy="check spacing and orientation in the header")
        if not np.isfinite(data).all():
            raise BadInput("volume", got=f"{int((~np.isfinite(data)).sum())} voxels that are NaN or infinite",
                           expected="finite numbers", remedy="repair or pad the volume first")
        object.__setattr__(self, "data", read_only(data))
        object.__setattr__(self, "patient_from_index", read_only(affine))

    @property
    def spacing_mm(self) -> Float64:
        """Voxel size along (i, j, k), mm."""
        return np.linalg.norm(self.patient_from_index[:3, :3], axis=0)

    @property
    def center_mm(self) -> Float64:
        """Centre of the volume in the patient frame, mm (3,)."""
        middle = (np.array(self.data.shape[::-1]) - 1) / 2
        return self.patient_from_index[:3, :3] @ middle + self.patient_from_index[:3, 3]

    @property
    def corners_mm(self) -> Float64:
        """The eight outer corners (faces of the outer voxels) in the patient frame, mm (8, 3)."""
        n = np.array(self.data.shape[::-1], float)
        ijk = np.stack(np.meshgrid(*[(-0.5, m - 0.5) for m in n], indexing="ij"), -1).reshape(-1, 3)
        return ijk @ self.patient_from_index[:3, :3].T + self.patient_from_index[:3, 3]

    def cropped(self, box: Box) -> Volume:
        """The voxels inside a box (k, j, i), at the place where they were."""
        box.checked_within(self.data.shape, "crop box")
        shift = np.eye(4)
        shift[:3, 3] = box.start[::-1]
        return Volume(self.data[box.slices], self.patient_from_index @ shift)

    def resampled(self, spacing_mm: float | Sequence[float]) -> Volume:
        """The same field on voxels of another size (same axes): averaged where it gets coarser,
        interpolated linearly where it gets finer. The outer faces stay within half a voxel."""
        from scipy import ndimage

        want = np.broadcast_to(np.asarray(spacing_mm, np.float64), 3)
        if not np.isfinite(want).all() or (want <= 0).any():
            raise BadInput("voxel size", got=spacing_mm, expected="numbers above 0 mm", remedy="give mm")
        ratio = want / self.spacing_mm
        n = np.maximum(2, np.round(np.array(self.data.shape[::-1]) / ratio)).astype(int)
        # a box of the new voxel's width: what a coarser voxel integrates
        sigma = np.sqrt(np.maximum(0.0, ratio**2 - 1) / 12)
        data = ndimage.gaussian_filter(self.data, sigma[::-1], mode="nearest") if sigma.any() else self.data
        offset = (ratio - 1) / 2
        out = ndimage.affine_transform(data, ratio[::-1], offset[::-1], output_shape=tuple(n[::-1]),
                                       order=1, mode="nearest")
        scale = np.diag([*ratio, 1.0])
        scale[:3, 3] = offset
        return Volume(out, self.patient_from_index @ scale)

    def pyramid(self, spacings_mm: Sequence[float]) -> tuple[Volume, ...]:
        """The volume at each voxel size (isotropic), in the order given."""
        return tuple(self.resampled(s) for s in spacings_mm)


# Linear attenuation of water, 1/mm, at the mean energies of interventional beams.
# Source: NIST XCOM (Hubbell & Seltzer 2004), mu/rho of liquid water, density 1 g/cm3.
_WATER_PER_MM = {40.0: 0.02683, 50.0: 0.02269, 60.0: 0.02059, 80.0: 0.01837, 100.0: 0.01707}


def water_attenuation_per_mm(energy_kev: float) -> float:
    """Linear attenuation of water at 40 to 100 keV, 1/mm (log-linear between tabulated energies)."""
    energies = np.array(sorted(_WATER_PER_MM))
    if not energies[0] <= energy_kev <= energies[-1]:
        raise BadInput("photon energy", got=f"{energy_kev} keV", expected="40 to 100 keV",
                       remedy="give the mean energy of the filtered beam, about 60 keV at 80 kVp")
    values = np.log([_WATER_PER_MM[e] for e in energies])
    return float(np.exp(np.interp(np.log(energy_kev), np.log(energies), values)))


def attenuation_from_hu(volume_hu: Volume, energy_kev: float = 60.0) -> Volume:
    """Linear attenuation in 1/mm at a photon energy from Hounsfield units.

    mu = mu_water * (1 + HU / 1000), never negative. The CT's own energy (about 70 keV) differs, so
    bone is right to some 10 %: similarity measures that allow for scale are meant to be used on it.
    """
    mu = water_attenuation_per_mm(energy_kev)
    return Volume(np.maximum(0.0, mu * (1 + volume_hu.data / 1000.0)), volume_hu.patient_from_index)
