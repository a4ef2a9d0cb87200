# SPDX-License-Identifier: Apache-2.0
"""MR finds its CT by mutual information, is refused where it does not belong, and alone is never trusted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from registration.errors import BadInput
from registration.geometry import Rigid, Volume
from registration.multimodal import GUESS_MM, MrMatch, attenuation_from_mr, doubted, match_mr
from registration.result import ErrorEstimate, Outcome, Registration

# Hounsfield units and the signal that a T1-like sequence shows there: fat bright, muscle grey, bone and air dark
HU = [-1100, -950, -700, -300, -120, -60, 0, 60, 150, 350, 3000]
SIGNAL = [0, 20, 60, 150, 900, 800, 350, 420, 500, 150, 40]


def mr_of(ct: Volume, ct_from_mr: np.ndarray, *, spacing: float = 3.0, share: float = 0.8, seed: int = 0) -> Volume:
    """What MR would show of a CT's middle: not monotone in HU, with coil bias and Rician noise, on a grid of its own
    whose header puts it elsewhere."""
    rng = np.random.default_rng(seed)
    low, high = ct.corners_mm.min(0), ct.corners_mm.max(0)
    half = (high - low) / 2 * share
    n = np.ceil(2 * half / spacing).astype(int)
    grid = np.diag([spacing] * 3 + [1.0])
    grid[:3, 3] = (low + high) / 2 - half
    index = np.linalg.inv(ct.patient_from_index) @ grid
    seen = ndimage.gaussian_filter(np.interp(ct.data, HU, SIGNAL), spacing / ct.spacing_mm[::-1] / 2.5)
    out = ndimage.affine_transform(seen, index[:3, :3][::-1, ::-1], index[:3, 3][::-1], output_shape=tuple(n[::-1]),
                                   order=1)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, k) for k in out.shape), indexing="ij")
    out = out * (1 + 0.25 * x - 0.2 * y * y + 0.1 * z)
    out = np.hypot(out + rng.normal(0, 20, out.shape), rng.normal(0, 20, out.shape))
    return Volume(out.astype(np.float32), Rigid.inverse(ct_from_mr) @ grid)


def body(seed: int) -> Volume:
    """A trunk with fat, muscle, two lungs, a spine and ribs at places of its own, 6 mm voxels."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[:40, :44, :56].astype(float)
    at = np.stack([i - 28, j - 22, k - 20], -1) + rng.normal(0, 0.5, 3)
    hu = np.full(k.shape, -1000.0)

    def inside(center: list[float], radii: list[float]) -> np.ndarray:
        return (((at - center) / radii) ** 2).sum(-1) < 1

    hu[inside([0, 0, 0], [25, 18, 60])] = -100
    hu[inside([0, 0, 0], [22, 15, 60])] = 50
    for side in (-1, 1):
        hu[inside([side * rng.uniform(9, 11), rng.uniform(-2, 0), rng.uniform(2, 6)], [8, 10, 14])] = -850
    hu[inside([0, 10, 0], [3.5, 3.5, 60])] = 400
    for height in np.arange(-18, 20, rng.uniform(5, 7)):
        hu[inside([rng.uniform(-3, 3), 0, height], [23, 16, 1.5]) & ~inside([0, 0, 0], [20, 13, 60])] = 600
    hu[inside([rng.uniform(2, 6), -4, -8], [8, 6, 6])] = 120
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = -150
    return Volume(hu.astype(np.float32), affine)


def test_mr_is_laid_onto_its_ct() -> None:
    ct = body(0)
    true = Rigid.exp([*np.radians([5, -4, 6]), 15, -12, 10])
    mr = mr_of(ct, true, spacing=4.0)
    found = match_mr(mr, ct)
    assert isinstance(found, MrMatch) and found.matched, found.why
    off = Rigid.apply(found.ct_from_mr, mr.corners_mm) - Rigid.apply(true, mr.corners_mm)
    assert np.linalg.norm(off, axis=1).max() < 2.0  # a third of a CT voxel at the farthest corner
    assert found.gain > 1 and found.overlap > 0.9


def test_what_is_no_image_is_refused_by_a_sentence() -> None:
    ct = body(0)
    with pytest.raises(BadInput, match="one value everywhere"):
        match_mr(Volume(np.zeros((30, 30, 30), np.float32), np.diag([4.0, 4, 4, 1])), ct)
    with pytest.raises(BadInput, match="along one side"):
        match_mr(Volume(np.random.default_rng(0).random((4, 30, 30), np.float32), np.diag([4.0, 4, 4, 1])), ct)


def test_noise_in_place_of_an_mr_is_not_matched() -> None:
    ct = body(0)
    noise = np.random.default_rng(1).normal(100, 20, (50, 50, 50)).astype(np.float32)
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -100
    found = match_mr(Volume(noise, affine), ct)
    assert not found.matched and "check that both are of one patient" in found.why


def test_mr_alone_tells_air_bone_and_tissue_apart() -> None:
    k, j, i = np.mgrid[:40, :44, :56].astype(float)
    at = np.stack([i - 28, j - 22, k - 20], -1)
    far = np.hypot(at[..., 0], (at[..., 1] - 8) * 1.2)
    signal = np.where((at[..., 0] / 24) ** 2 + (at[..., 1] / 17) ** 2 < 1, 400.0, 5.0)
    lung = (((at - [-12, -3, 2]) / [7, 8, 12]) ** 2).sum(-1) < 1
    cortex = (far > 4) & (far < 6) & (np.abs(at[..., 2]) < 6)  # around bright marrow
    signal[lung], signal[cortex] = 20, 30
    signal = np.hypot(signal + np.random.default_rng(0).normal(0, 8, signal.shape), 8)
    guess = attenuation_from_mr(Volume(signal.astype(np.float32), np.diag([2.5, 2.5, 2.5, 1.0])))
    air, water, bone = np.unique(guess.data)
    assert air == 0 and bone == pytest.approx(1.6 * water, rel=1e-5)
    assert (guess.data[lung] == air).mean() > 0.95 and (guess.data[0, 0] == air).all()
    assert (guess.data[cortex] == bone).mean() > 0.8  # blurred by half a voxel
    assert guess.data[20, 30, 28] == water  # the marrow


def test_mr_alone_is_never_accepted() -> None:
    error = ErrorEstimate(14.0, 12.0, np.zeros(3))
    accepted = Registration(Outcome.ACCEPTED, "agreement 0.9", np.eye(4), np.eye(6), error, 0.9, "angles")
    answer = doubted(accepted)
    assert answer.outcome is Outcome.AMBIGUOUS and answer.error is error
    assert "low confidence" in answer.why and "agreement 0.9" in answer.why and "12 mm" in answer.why
    assert answer.covariance is not None and (np.diag(answer.covariance)[3:] >= GUESS_MM**2).all()
    assert doubted(Registration.lost("nothing")).outcome is Outcome.LOST
