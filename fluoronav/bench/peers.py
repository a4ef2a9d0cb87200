# SPDX-License-Identifier: Apache-2.0
"""How are the projectors of others called? nanodrr (torch), from our volumes, C-arms and poses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from registration.errors import BadInput
from registration.geometry import CArm, Float64, Rigid, Volume

if TYPE_CHECKING:
    import torch


class Nanodrr:
    """A volume in nanodrr. Raises BadInput where torch or nanodrr is not installed."""

    def __init__(self, volume: Volume, threads: int, samples: int) -> None:
        try:
            import torch
            from nanodrr.camera import make_k_inv
            from nanodrr.data import Subject
            from nanodrr.drr import render
        except ImportError as cause:
            raise BadInput("nanodrr", got=f"not importable ({cause})", expected="the peer measured beside us",
                           remedy="pip install 'fluoronav[peers,train]'") from cause
        torch.set_num_threads(threads)
        self.torch: Any = torch
        data = torch.from_numpy(np.array(volume.data))[None, None]
        to_world = torch.from_numpy(np.array(volume.patient_from_index, np.float32))
        self._subject = Subject(data, torch.zeros_like(data), to_world, to_world.inverse(),
                                Subject._make_voxel_to_grid(data.shape),
                                torch.from_numpy(volume.center_mm.astype(np.float32)), max_label=0, convert_to_mu=False)
        self._k_inv, self._render, self._samples = make_k_inv, render, samples

    def camera(self, carm: CArm) -> Float64:
        """carm_from_camera (4, 4): it looks along +z from the source; x and y as ours, z turned."""
        out = np.diag([1.0, 1.0, -1.0, 1.0])
        out[2, 3] = carm.sod_mm
        return out

    def placed(self, carm: CArm, carm_from_patient: Float64) -> torch.Tensor:
        """patient_from_camera (1, 4, 4) float32."""
        return self.torch.from_numpy((Rigid.inverse(carm_from_patient) @ self.camera(carm)).astype(np.float32))[None]

    def picture(self, carm: CArm, patient_from_camera: torch.Tensor) -> torch.Tensor:
        """Line integrals of a C-arm whose principal point is the middle; differentiable by the pose (1, 4, 4)."""
        (pv, pu), (h, w) = carm.pitch_mm_row_col, carm.shape
        k_inv, sdd = self._k_inv(carm.sdd_mm, pu, pv, 0.0, 0.0, h, w), self.torch.tensor([carm.sdd_mm])
        return self._render(self._subject, k_inv, patient_from_camera, sdd, h, w, self._samples).reshape(h, w)
