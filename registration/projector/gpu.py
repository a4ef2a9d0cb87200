# SPDX-License-Identifier: Apache-2.0
"""Line integrals and their derivative by the pose on a GPU: the rule of reference.joseph in float32, with torch.

In index coordinates a ray is s + t d; plane k of the main axis a is met at t = (k - s_a) / d_a, and the picture is
I = L sum_k f(s + t_k d) with L = length / |d_a|. A motion of the patient moves s by ds and d by dd, so a point in its
plane by (ds_u + t dd_u) - (ds_a + t dd_a) d_u / d_a along u, likewise along v, and L by -L dd_a / d_a. Five sums a ray
hold it all: of f, of its two derivatives in the plane, and of those times t. No tape, no second pass. The same code
runs on torch's CPU device, where it is tested; it is not meant for use there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array, CArm, Float64, Rigid, Volume
from registration.projector.reference import main_axis

if TYPE_CHECKING:
    import torch

SAMPLES = 1 << 22  # taken at once: some 100 MB of intermediate arrays


def unavailable() -> str:
    """Why there is no GPU path on this machine; empty where there is one."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return "" if torch.cuda.is_available() else "torch finds no CUDA device"


class Resident:
    """A volume on a device, with a border of zeros: uploaded once for many projections."""

    def __init__(self, volume: Volume, device: str = "cuda") -> None:
        import torch

        if device.startswith("cuda") and unavailable():
            raise BadInput("projector path GPU", got=unavailable(), expected="an NVIDIA GPU and torch with CUDA",
                           remedy="leave the path to be chosen")
        self.volume, self.device = volume, torch.device(device)
        voxels = torch.from_numpy(np.array(volume.data, np.float32))
        self.data = torch.nn.functional.pad(voxels, (1,) * 6).to(self.device)


def project(volume: Volume | Resident, carm: CArm, carm_from_patient: Float64, *, jacobian: bool = False,
            device: str = "cuda") -> Array | tuple[Array, Array]:
    """(h, w) float32 line integrals and, if asked for, (6, h, w) derivatives by the left perturbation in the C-arm
    frame about the isocenter (rad, mm), as `registration.projector.project`. Raises BadInput without the device."""
    import torch

    resident = volume if isinstance(volume, Resident) else Resident(volume, device)
    source, pixels = carm.rays()
    index_from_carm = np.linalg.inv(resident.volume.patient_from_index) @ Rigid.inverse(carm_from_patient)
    turn = index_from_carm[:3, :3]
    ways = (pixels - source) @ turn.T
    axis = main_axis(ways)
    flat = ways.reshape(-1, 3)
    start = Rigid.apply(index_from_carm, source) + 1  # of the border
    rays = torch.tensor(flat, dtype=torch.float64, device=resident.device)
    with torch.no_grad():
        sums = _sums(resident.data, start, rays, axis, jacobian)
        length = torch.tensor(np.linalg.norm(pixels - source, axis=-1).ravel(), device=resident.device)
        scale = length / rays[:, axis].abs()
        picture = (sums[0] * scale).float()
        if not jacobian:
            return np.asarray(picture.cpu().numpy().reshape(carm.shape))
        columns = _columns(sums, scale, rays, axis, turn, source, (pixels - source).reshape(-1, 3))
    return (np.asarray(picture.cpu().numpy().reshape(carm.shape)),
            np.asarray(columns.float().cpu().numpy().reshape(6, *carm.shape)))


def _sums(data: torch.Tensor, start: Float64, rays: torch.Tensor, axis: int, derivatives: bool) -> torch.Tensor:
    """(5, n) float64: sums over the planes of f, f_u, f_v, t f_u, t f_v; without derivatives only the first."""
    import torch

    u, v = (a for a in range(3) if a != axis)
    planes = data.permute(2 - axis, 2 - v, 2 - u).contiguous()  # [axis][v][u]
    depth, rows, cols = planes.shape
    values = planes.reshape(-1)
    out = torch.zeros((5, len(rays)), dtype=torch.float64, device=data.device)
    at_once = max(1, SAMPLES // len(rays))
    for first in range(0, depth, at_once):
        k = torch.arange(first, min(first + at_once, depth), device=data.device)
        t = (k[:, None] - start[axis]) / rays[None, :, axis]
        x, y = start[u] + t * rays[None, :, u], start[v] + t * rays[None, :, v]
        low_x, low_y = torch.floor(x), torch.floor(y)
        inside = (t > 0) & (low_x >= 0) & (low_x < cols - 1) & (low_y >= 0) & (low_y < rows - 1)
        at = torch.where(inside, (k[:, None] * rows + low_y.long()) * cols + low_x.long(), 0)
        fx, fy = (x - low_x).float(), (y - low_y).float()
        a, b, c, d = (torch.where(inside, values[at + o], 0.0) for o in (0, 1, cols, cols + 1))
        top, bottom = a + fx * (b - a), c + fx * (d - c)
        out[0] += (top + fy * (bottom - top)).sum(0, dtype=torch.float64)
        if derivatives:
            by_x, by_y = (b - a) + fy * ((d - c) - (b - a)), bottom - top
            tt = t.float()
            for row, value in enumerate((by_x, by_y, tt * by_x, tt * by_y), start=1):
                out[row] += value.sum(0, dtype=torch.float64)
    return out


def _columns(sums: torch.Tensor, scale: torch.Tensor, rays: torch.Tensor, axis: int, turn: Float64, source: Float64,
             ways: Float64) -> torch.Tensor:
    """(6, n): the derivative by each component of the motion. ways (n, 3): pixel minus source in the C-arm frame."""
    import torch

    u, v = (a for a in range(3) if a != axis)
    to = {"dtype": torch.float64, "device": rays.device}
    carm_ways = torch.tensor(ways, **to)  # type: ignore[arg-type]
    matrix = torch.tensor(turn, **to)  # type: ignore[arg-type]
    out = torch.empty((6, len(rays)), **to)  # type: ignore[call-overload]
    lean_u, lean_v = rays[:, u] / rays[:, axis], rays[:, v] / rays[:, axis]
    for column in range(6):
        unit = np.zeros(3)
        unit[column % 3] = 1
        if column < 3:  # the patient turns: seen from it the ray turns the other way
            ds = -turn @ np.cross(unit, source)
            dd = -torch.linalg.cross(torch.tensor(unit, **to).expand_as(carm_ways), carm_ways) @ matrix.T  # type: ignore[arg-type]
        else:
            ds, dd = -turn @ unit, torch.zeros_like(rays)
        moved = sums[1] * (ds[u] - ds[axis] * lean_u) + sums[2] * (ds[v] - ds[axis] * lean_v)
        moved = moved + sums[3] * (dd[:, u] - dd[:, axis] * lean_u) + sums[4] * (dd[:, v] - dd[:, axis] * lean_v)
        out[column] = scale * (moved - sums[0] * dd[:, axis] / rays[:, axis])
    return out
