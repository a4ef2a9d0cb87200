# SPDX-License-Identifier: Apache-2.0
"""How does the recipe of the usual open pipeline do from such starts? Adam through nanodrr, coarse to fine.

Multi-scale normalized correlation of picture and gradient, as xvr refines poses, with fewer steps than it takes by
default: the ratio of times is a lower bound.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.peers import Nanodrr
from fluoronav.bench.truth import Physics, fluoroscopy, random_motion, random_view, target_errors, targets_around
from fluoronav.bench.truth import two_materials as materials_of
from registration.geometry import Array, CArm, Float64, Rigid, Volume, attenuation_from_hu
from registration.ladder import binned

if TYPE_CHECKING:
    import torch

COUNT, SAMPLES, THREADS = 10, 200, 2
STEPS = ((8, 100), (4, 100))  # (binning of the 512-pixel picture, Adam steps)
RATES = (1e-2, 1.0)  # rad and mm a step
CARM = CArm.centered((512, 512), 0.6, 1020.0, 765.0)


def figures(volume_hu: Volume, ours_ms: float, progress: Progress, *, seed: int = 16) -> dict[str, Figure]:
    """`register.speedup_xvr_recipe`: its time over ours (ours_ms, median of the same run), with its own success."""
    try:
        import nanodrr.drr  # noqa: F401
    except ImportError as cause:
        return {"register.speedup_xvr_recipe": Figure(None, "times", 0, f"nanodrr is not there: {cause}")}
    rng = np.random.default_rng(seed)
    volume, materials = attenuation_from_hu(volume_hu).resampled(1.5), materials_of(volume_hu)
    targets, rows = targets_around(volume_hu.center_mm, rng), []
    for n in range(COUNT):
        true = random_view(rng, volume_hu.center_mm)
        picture = fluoroscopy(materials, CARM, true, Physics(gain=rng.uniform(0.5, 2)), rng)
        start = random_motion(rng, 10.0, 20.0) @ true
        begun = time.perf_counter()
        found = descended(volume, picture, CARM, start)
        rows.append(((time.perf_counter() - begun) * 1e3, target_errors(CARM, found, true, targets)[0]))
        progress((n + 1) / COUNT, f"Adam through nanodrr {n + 1} of {COUNT}")
    times, errors = np.array(rows).T
    steps = " + ".join(str(s) for _, s in STEPS)
    return {
        "register.speedup_xvr_recipe": Figure(float(np.median(times)) / ours_ms, "times", COUNT, f"{steps} steps"),
        "register.xvr_recipe_ms": Figure(float(np.median(times)), "ms", COUNT),
        "register.xvr_recipe_error_mm": Figure(float(np.median(errors)), "mm", COUNT, "starts 10 deg / 20 mm"),
    }


def descended(volume: Volume, picture: Array, carm: CArm, start: Float64) -> Float64:
    """carm_from_patient after all steps from a start. Raises BadInput without torch and nanodrr."""
    peer = Nanodrr(volume, THREADS, SAMPLES)
    torch = peer.torch
    camera = torch.from_numpy(peer.camera(carm).astype(np.float32))
    begin = torch.from_numpy(np.linalg.inv(start).astype(np.float32))
    turn, shift = (torch.zeros(3, requires_grad=True) for _ in range(2))
    weight = np.ones_like(picture)
    for k, steps in STEPS:
        small = carm.binned(k)
        fixed = torch.from_numpy(np.array(binned(picture, weight, k, counts=True)[0]))
        adam = torch.optim.Adam([{"params": [turn], "lr": RATES[0]}, {"params": [shift], "lr": RATES[1]}])
        fade = torch.optim.lr_scheduler.ExponentialLR(adam, 0.1 ** (1 / steps))
        for _ in range(steps):
            adam.zero_grad()
            moved = begin @ _motion(torch, turn, shift) @ camera
            made = peer.picture(small, moved[None])
            (-_alike(torch, made, fixed)).backward()
            adam.step()
            fade.step()
    found = (begin @ _motion(torch, turn, shift)).detach().numpy().astype(np.float64)
    return Rigid.inverse(found)


def _motion(torch: Any, turn: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The inverse perturbation as a differentiable 4x4 matrix."""
    zero = torch.zeros(())
    generator = torch.stack([torch.stack([zero, -turn[2], turn[1], shift[0]]),
                             torch.stack([turn[2], zero, -turn[0], shift[1]]),
                             torch.stack([-turn[1], turn[0], zero, shift[2]]), torch.zeros(4)])
    return torch.linalg.matrix_exp(generator)


def _alike(torch: Any, made: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """Mean of the normalized correlations of the pictures and of their gradients."""
    def ncc(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / (a.norm() * b.norm() + 1e-8)

    parts = [ncc(made, fixed)]
    for axis in (0, 1):
        parts.append(0.5 * ncc(torch.diff(made, dim=axis), torch.diff(fixed, dim=axis)))
    return sum(parts[1:], parts[0]) / 2
