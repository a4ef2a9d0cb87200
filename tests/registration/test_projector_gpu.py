# SPDX-License-Identifier: Apache-2.0
"""The torch projector against the float64 reference: always on torch's CPU device, on CUDA where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from registration.errors import BadInput
from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at
from registration.projector import project
from registration.projector.reference import joseph

torch = pytest.importorskip("torch", reason="torch is not installed: the GPU path needs it")
from registration.projector import gpu  # noqa: E402

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(bool(gpu.unavailable()), reason=f"no GPU: {gpu.unavailable()}"))
CARM = CArm.centered((20, 24), 4.0, 1000, 700)
POSES = [carm_from_patient_at(5, 3, (1, 2, -1)), carm_from_patient_at(80, -20, (0, 3, 2)),
         Rigid.exp([0.4, 0.5, 0.7, 3, -4, 20])]


def volume() -> Volume:
    """Smooth blobs that are cut off by the faces, on an oblique grid with unequal voxels."""
    rng = np.random.default_rng(3)
    k, j, i = np.mgrid[:24, :20, :22]
    data = sum(rng.uniform(0.5, 1) * np.exp(-((k - a) ** 2 + (j - b) ** 2 + (i - c) ** 2) / 40)
               for a, b, c in rng.uniform(0, 22, (6, 3)))
    affine = Rigid.exp([0.1, -0.2, 0.15, -22, -18, -30]) @ np.diag([2.0, 2.2, 2.6, 1.0])
    return Volume(0.02 * np.asarray(data, np.float32), affine)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("pose", POSES)
def test_picture_is_the_reference_s(device: str, pose: np.ndarray) -> None:
    picture = gpu.project(volume(), CARM, pose, device=device)
    expected = joseph(volume(), CARM, pose)
    assert np.abs(picture - expected).max() < 2e-6 * expected.max()  # sums in float64 of taps in float32


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("pose", POSES)
def test_derivative_is_that_of_the_reference(device: str, pose: np.ndarray) -> None:
    _, columns = gpu.project(volume(), CARM, pose, jacobian=True, device=device)
    for k in range(6):
        step = 1e-7 if k < 3 else 1e-5
        xi = step * np.eye(6)[k]
        up, down = (joseph(volume(), CARM, Rigid.exp(x) @ pose) for x in (xi, -xi))
        slope = (up - down) / (2 * step)
        # float32 taps; with longer steps samples cross from one voxel to the next, where the slope jumps
        assert np.sqrt(((columns[k] - slope) ** 2).mean()) < 1e-4 * np.sqrt((slope**2).mean()), f"column {k}"


def test_it_agrees_with_the_processor_s_path() -> None:
    picture = gpu.project(volume(), CARM, POSES[0], device="cpu")
    other = project(volume(), CARM, POSES[0])
    assert np.abs(picture - other).max() < 1e-3 * other.max()  # the other one subdivides coarse volumes


@pytest.mark.skipif(not gpu.unavailable(), reason="this machine has a GPU")
def test_without_a_gpu_the_path_is_refused_by_a_sentence() -> None:
    with pytest.raises(BadInput, match="CUDA"):
        project(volume(), CARM, POSES[0], path="GPU")
