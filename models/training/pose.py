# SPDX-License-Identifier: Apache-2.0
"""How does a network learn one patient? From projections of the case's own volume, in a few bounded minutes.

Poses that a C-arm reaches around a lying patient, any usual field, pictures degraded at random: scatter, contrast,
gain, noise, collimation. Nothing but the volume is looked at. The same seed and number of steps give the same network
on the same machine; where the clock ends the training, it decides how many steps there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.networks.pose_regressor import PoseRegressor, loss_of
from models.pose_proposer import CHANNELS, EDGE, OUTPUTS, numbers_of
from models.training.export import onnx_of
from registration.geometry import CArm, Float64, Rigid, Volume, carm_from_patient_at
from registration.projector import Prepared
from registration.projector.batch import Batch

CHUNK, CHUNKS = 16, 4  # pictures of one C-arm, and C-arms, in a batch
REUSED = 3  # times each projection is shown, degraded anew
RATE, LEAST_RATE = 3e-3, 0.02
# A few minutes do not teach all rotations (tried: 56 deg off in the median); those that a C-arm reaches they may. The
# search covers the rest.
PRIMARY_DEG, SECONDARY_DEG, ROLL_DEG = 110.0, 40.0, 20.0
LATERAL_MM, DEPTH_MM = 100.0, 150.0  # how far the center may lie from the central ray and the isocenter
FIELD_MM = (80.0, 320.0)  # width of the field at the isocenter
SOD_MM = (600.0, 1100.0)
SPACING_MM = 6.0  # of the volume: half a pixel of the wider fields

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """An exported network (ONNX) and how it came about: steps, pictures seen, seconds, the last mean loss, device."""

    onnx: bytes
    steps: int
    pictures: int
    seconds: float
    loss: float
    device: str


def train(attenuation: Volume, *, seconds: float, steps: int | None = None, seed: int = 1, threads: int = 2,
          progress: Progress = lambda share, text: None) -> Trained:
    """A network for one volume (1/mm), after `steps` steps or when the time is up, whichever comes first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng, chance = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    batch = Batch(Prepared(attenuation.resampled(SPACING_MM)))
    net = PoseRegressor().to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-4)
    begun, done, mean, share = time.perf_counter(), 0, 3.0, 0.0
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * max(LEAST_RATE, min(1.0, 20 * share + 0.05) * 0.5 * (1 + np.cos(np.pi * share)))
        if done % REUSED == 0:
            lesson = _lesson(batch, attenuation.center_mm, rng, threads)
        pictures, numbers = lesson
        loss = loss_of(net(degraded(pictures, chance).to(device)), numbers.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        done += 1
        mean += (float(loss.detach()) - mean) * max(0.01, 1 / done)
        share = (time.perf_counter() - begun) / seconds
        if steps is not None:
            share = 1.0 if share >= 1 else done / steps
        if done % 20 == 0:
            progress(min(share, 1.0), f"pose network: {done * CHUNK * CHUNKS} pictures, loss {mean:.2f}")
    return Trained(onnx_of(net.folded(), "pose", CHANNELS, OUTPUTS), done, done * CHUNK * CHUNKS,
                   time.perf_counter() - begun, mean, device)


def _lesson(batch: Batch, center_mm: Float64, rng: np.random.Generator, threads: int) -> tuple[Tensor, Tensor]:
    """Clean pictures (n, 32, 32) and their numbers (n, 9)."""
    pictures, numbers = [], []
    for _ in range(CHUNKS):
        sod = rng.uniform(*SOD_MM)
        sdd = sod * rng.uniform(1.2, 1.6)
        width = np.exp(rng.uniform(*np.log(FIELD_MM)))
        carm = CArm.centered((EDGE, EDGE), width * sdd / sod / EDGE, sdd, sod)
        poses = np.stack([usual_pose(rng, center_mm) for _ in range(CHUNK)])
        pictures.append(batch.pictures(carm, poses, threads=threads))
        numbers.append(numbers_of(carm, poses, center_mm))
    return torch.from_numpy(np.concatenate(pictures)), torch.from_numpy(np.concatenate(numbers).astype(np.float32))


def usual_pose(rng: np.random.Generator, center_mm: Float64) -> Float64:
    """carm_from_patient as a C-arm around a lying patient has it; the center uniform in a disc and over a depth."""
    primary, secondary, roll = (rng.uniform(-bound, bound) for bound in (PRIMARY_DEG, SECONDARY_DEG, ROLL_DEG))
    turned = Rigid.exp(np.array([0, 0, np.radians(roll), 0, 0, 0]))
    angle, radius = rng.uniform(0, 2 * np.pi), LATERAL_MM * np.sqrt(rng.uniform())
    place = Rigid.translation(radius * np.cos(angle), radius * np.sin(angle), rng.uniform(-DEPTH_MM, DEPTH_MM))
    return np.asarray(place @ turned @ carm_from_patient_at(primary, secondary, center_mm))


def degraded(clean: Tensor, chance: torch.Generator) -> Tensor:
    """(n, 2, 32, 32): line integrals (n, 32, 32) as pictures might show them, normalized, and their weight."""
    n = len(clean)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((n, 1, 1), generator=chance)

    primary = torch.exp(-clean * uniform(0.7, 1.1))  # a harder or softer beam
    few = torch.nn.functional.avg_pool2d(primary[:, None], 4)
    few = torch.nn.functional.avg_pool2d(few, 5, 1, 2, count_include_pad=False)
    wide = torch.nn.functional.interpolate(few, scale_factor=4, mode="bilinear")[:, 0]
    signal = primary + uniform(0.0, 1.0) * wide  # scatter: up to as much as there is primary
    # some thousand to a million photons a pixel at the mean
    photons = torch.exp(uniform(np.log(1e3), np.log(1e6)))
    signal = signal + torch.sqrt(signal / photons) * torch.randn(clean.shape, generator=chance)
    dense = -torch.log(signal.clamp_min(1e-4))
    shown = -signal / signal.mean((1, 2), keepdim=True)  # a display that is linear in the signal
    dense = torch.where(torch.rand((n, 1, 1), generator=chance) < 0.8, dense, shown)
    weight = _collimated(n, chance)
    mass = weight.sum((1, 2), keepdim=True)
    mean = (dense * weight).sum((1, 2), keepdim=True) / mass
    spread = ((dense - mean).square() * weight).sum((1, 2), keepdim=True).div(mass).sqrt()
    return torch.stack([(dense - mean) / spread.clamp_min(1e-6) * weight, weight], 1)


def _collimated(n: int, chance: torch.Generator) -> Tensor:
    """(n, 32, 32) of 0 and 1: a quarter with blades, a quarter round, the rest open."""
    at = (torch.arange(EDGE) + 0.5) / EDGE * 2 - 1
    blades = 0.55 + 0.45 * torch.rand((n, 4, 1), generator=chance)
    rows = ((at > -blades[:, 0]) & (at < blades[:, 1]))[:, :, None]
    cols = ((at > -blades[:, 2]) & (at < blades[:, 3]))[:, None, :]
    round_ = at[:, None].square() + at[None].square() < 1
    kind = torch.rand((n, 1, 1), generator=chance)
    return torch.where(kind < 0.25, (rows & cols).float(), torch.where(kind < 0.5, round_[None].float(),
                                                                       torch.ones(())))
