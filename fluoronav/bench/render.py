# SPDX-License-Identifier: Apache-2.0
"""How fast is one projection with its Jacobian beside other projectors in the same run, and how exact?"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.peers import Nanodrr
from fluoronav.bench.real_chest import chest_volume
from fluoronav.bench.truth import import_rtk, rtk_filter
from registration.errors import BadInput
from registration.geometry import Array, CArm, Float64, Rigid, Volume, attenuation_from_hu, carm_from_patient_at
from registration.projector import Prepared, paths, project, reference

EDGE, VOXELS, SAMPLES, THREADS, REPEATS = 256, 256, 200, 2, 15
UNITS = (1.0, 1.0, 1.0, 100.0, 100.0, 100.0)  # a step of 1 rad compares with one of 100 mm


def figures(progress: Progress) -> dict[str, Figure]:
    """`render.*`: medians over three poses of the best of some runs; errors are the worst of the three."""
    attenuation = attenuation_from_hu(chest_volume(progress))
    cube = as_cube(attenuation, VOXELS)
    carm = CArm.centered((EDGE, EDGE), 0.66 * float(cube.spacing_mm[0]) * 1020 / 765, 1020.0, 765.0)
    poses = poses_of(cube.center_mm)
    prepared = Prepared(cube)
    progress(0.1, "this projector")
    one = partial(project, prepared, carm, threads=THREADS)
    ours = {p: [_ms(partial(one, t, jacobian=True, fast=True, path=p)) for t in poses] for p in paths()}
    plain = [_ms(partial(one, t, fast=True)) for t in poses]
    exact = [_ms(partial(one, t, jacobian=True), 3) for t in poses]
    progress(0.3, "itk-rtk")
    rtk, rtk_note = _attempted(lambda: [_rtk_ms(cube, carm, t) for t in poses])
    progress(0.4, "nanodrr")
    peer, peer_note = _attempted(lambda: nanodrr_ms(cube, carm, poses))
    best, n = ours[paths()[-1]], len(poses)
    out = {
        "render.ms_256": Figure(float(np.median(best)), "ms", n, f"with Jacobian, {THREADS} threads, {paths()[-1]}"),
        "render.ms_256_image": Figure(float(np.median(plain)), "ms", n, "without"),
        "render.ms_256_direct": Figure(float(np.median(exact)), "ms", n, "with Jacobian, the exact renderer"),
        "render.speedup_nanodrr": _ratio(peer, best, "forward + backward", peer_note),
        "render.speedup_portable": _ratio(peer, ours[paths()[0]], "portable C++", peer_note),
        "render.speedup_rtk": _ratio(rtk, plain, "without Jacobian", rtk_note),
        "render.nanodrr_ms": Figure(None if peer is None else float(np.median(peer)), "ms", n, peer_note),
        "render.rtk_ms": Figure(None if rtk is None else float(np.median(rtk)), "ms", n, rtk_note),
    }
    for path, key in (("AVX2", "avx2"), ("AVX-512", "avx512")):
        if path in ours:
            out[f"render.speedup_{key}"] = _ratio(peer, ours[path], path, peer_note)
    return {**out, **errors(attenuation, cube, carm, poses, progress)}


def errors(attenuation: Volume, cube: Volume, carm: CArm, poses: list[Float64],
           progress: Progress) -> dict[str, Figure]:
    """Relative RMS errors: pictures against the rule in float64; the Jacobian's worst column against central
    differences of it, at a level of 128 pixels with voxels of 1 / 0.6 of a pixel."""
    prepared, off = Prepared(cube), []
    for k, pose in enumerate(poses):
        progress(0.5 + 0.1 * k, "errors of the picture")
        right = reference.joseph(cube, carm, pose)
        off.append([_off(project(prepared, carm, pose, fast=fast), right) for fast in (True, False)])
    level = attenuation.resampled(3.0)
    small = CArm.centered((128, 128), 3.0 * 0.6 * 1020 / 765, 1020.0, 765.0)
    columns = []
    for k, pose in enumerate(poses_of(level.center_mm)):
        progress(0.8 + 0.06 * k, "errors of the Jacobian")
        meant = differences(level, small, pose)
        columns.append([[_off(j, m) for j, m in zip(project(Prepared(level), small, pose, jacobian=True, fast=fast)[1],
                                                    meant, strict=True)] for fast in (True, False)])
    fast, exact = np.max(off, axis=0)
    fast_j, exact_j = np.max(columns, axis=(0, 2))
    where = "worst column, 128 pixels, voxels of 1 / 0.6 of a pixel"
    n = len(poses)
    return {
        "render.error_fast": Figure(float(fast), "share", n, "byte patches"),
        "render.error_direct": Figure(float(exact), "share", n, "float32 Joseph"),
        "render.jacobian_error": Figure(float(fast_j), "share", 6 * n, f"{where}, byte patches: what registers"),
        "render.jacobian_error_direct": Figure(float(exact_j), "share", 6 * n, f"{where}, float32 Joseph"),
    }


def poses_of(center_mm: Float64) -> list[Float64]:
    """Near-frontal, 12 deg, and a roll of 35 deg."""
    roll = Rigid.exp([0, 0, np.radians(35), 0, 0, 0])
    return [carm_from_patient_at(2, 1, center_mm), carm_from_patient_at(12, 5, center_mm),
            roll @ carm_from_patient_at(5, 3, center_mm)]


def as_cube(volume: Volume, n: int) -> Volume:
    """The volume on n x n x n equal voxels that hold all of it, zero around it."""
    spacing = float((np.array(volume.data.shape[::-1]) * volume.spacing_mm).max() / n)
    fitted = volume.resampled(spacing)
    data = np.zeros((n, n, n), np.float32)
    before = [max(0, (n - m) // 2) for m in fitted.data.shape]
    data[tuple(slice(b, b + m) for b, m in zip(before, fitted.data.shape, strict=True))] = fitted.data[:n, :n, :n]
    shift = np.eye(4)
    shift[:3, 3] = [-b for b in before[::-1]]
    return Volume(data, fitted.patient_from_index @ shift)


def differences(volume: Volume, carm: CArm, pose: Float64, step: float = 5e-4) -> Float64:
    """(6, h, w) central differences of the float64 rule by the left perturbation; 0.05 mm at 100 mm."""
    out = []
    for a, unit in enumerate(UNITS):
        xi = np.eye(6)[a] * step * unit
        ahead, behind = (reference.joseph(volume, carm, Rigid.exp(s * xi) @ pose) for s in (1, -1))
        out.append((ahead - behind) / (2 * step * unit))
    return np.stack(out)


def nanodrr_ms(volume: Volume, carm: CArm, poses: list[Float64]) -> list[float]:
    """nanodrr (torch): forward and backward of the picture's sum with respect to the pose."""
    peer, out = Nanodrr(volume, THREADS, SAMPLES), []
    for pose in poses:
        start = peer.placed(carm, pose).requires_grad_()

        def both(start: Any = start) -> None:
            start.grad = None
            peer.picture(carm, start).sum().backward()

        out.append(_ms(both, 3))
    return out


def _rtk_ms(volume: Volume, carm: CArm, pose: Float64, repeats: int = 4) -> float:
    """The best of some runs of the filter alone, ms: volume and geometry are ready before the clock starts."""
    itk, _ = import_rtk()
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(THREADS)
    times = []
    for _ in range(repeats):
        ready = rtk_filter(volume, carm, pose)
        begun = time.perf_counter()
        ready[0].Update()
        times.append((time.perf_counter() - begun) * 1e3)
    return min(times)


def _ms(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The best of some runs, ms; one before them is not counted."""
    work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1e3)
    return min(times)


def _attempted(measure: Callable[[], list[float]]) -> tuple[list[float] | None, str]:
    try:
        return measure(), ""
    except BadInput as absent:
        return None, str(absent)


def _ratio(theirs: list[float] | None, ours: list[float], what: str, absent: str) -> Figure:
    if theirs is None:
        return Figure(None, "times", 0, absent)
    return Figure(float(np.median(np.array(theirs) / np.array(ours))), "times", len(ours), what)


def _off(picture: Array, right: Array) -> float:
    return float(np.sqrt(np.mean((picture - right) ** 2) / np.mean(right**2)))
