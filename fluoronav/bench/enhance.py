# SPDX-License-Identifier: Apache-2.0
"""How much noise does the chain take, what does it do to a moving wire, how long does it need?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fluoronav.bench import enhance_scenes
from fluoronav.bench.figure import Figure, shared_data
from fluoronav.bench.wire import Filter, WireFigures, measure
from fluoronav.enhance import Chain, ChainSettings
from fluoronav.enhance.mixing import available
from fluoronav.imaging import open_run
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from registration.errors import BadInput
from registration.geometry import Array

RUNS = ("IM1", "IM2", "IM3", "IM4")
SEEDS = 5
ABSENT = ("superres.consistency_sigma", "superres.psnr_over_bicubic", "stabilise.residual_px")
RECURSIVE = 0.3  # weight of the new frame in the filter that the phantom figure compares with
Progress = Callable[[float, str], None]


def figures(progress: Progress) -> dict[str, Figure]:
    """Speed, simulated scenes with their truth, and where the real images are at hand the vessel phantom.

    IDs without a suffix are of the chain as it ships; `_classical` and `_learned` of its two denoisers,
    `_recursive` of the filter that most displays have.
    """
    found = {key: Figure(None, "", 0, "there is no such stage") for key in ABSENT}
    for suffix, settings in denoisers().items():
        if settings is None:
            found[f"enhance.psnr_over_raw_25{suffix}"] = Figure(None, "dB", 0, str(available()))
            continue
        found |= _speed(settings, suffix, progress)
        found |= enhance_scenes.figures(settings, suffix, progress)
    try:
        folder = shared_data() / "vessel_phantom"
    except BadInput as error:
        note = str(error)
        return found | {key: Figure(None, "", 0, note) for key in ("phantom.wire_kept", "phantom.noise_left")}
    runs = {name: np.stack([frame.pixels for frame in open_run(folder / name).frames]) for name in RUNS}
    methods = {suffix: chain_filter(s) for suffix, s in denoisers().items() if s is not None}
    for name, method in (methods | {"_recursive": recursive_filter(RECURSIVE)}).items():
        found |= _wire(runs, method, name, progress)
        if name != "_recursive":
            found[f"phantom.error_over_recursive{name}"] = _error_over_recursive(runs, method)
    return found


def denoisers() -> dict[str, ChainSettings | None]:
    """Settings by the suffix of their IDs: as shipped, and the other denoiser (None where it cannot run here)."""
    shipped = ChainSettings()
    if shipped.learned():
        return {"": shipped, "_classical": ChainSettings(method="classical")}
    return {"": shipped, "_learned": ChainSettings(method="learned") if available() is None else None}


def chain_filter(settings: ChainSettings | None = None) -> Filter:
    """The chain as a plain filter of 8-bit display frames in stored units."""
    def method(frames: Iterator[Array]) -> Iterator[Array]:
        chain, state = Chain(settings), None
        meaning = Intensity("display", "dark", 8)
        for k, x in enumerate(frames):
            pixels = np.clip(np.rint(x), 0, 255).astype(np.uint8)
            frame = Frame(pixels, k, k * 66_666_667, None, None, Exposure(), meaning, np.ones(x.shape, bool), "bench")
            state, enhanced = chain.step(state, frame)
            assert enhanced.values is not None
            yield enhanced.values
    return method


def recursive_filter(weight: float) -> Filter:
    """The plain recursive filter that most displays have."""
    def method(frames: Iterator[Array]) -> Iterator[Array]:
        mean: Array | None = None
        for x in frames:
            mean = x if mean is None else mean + np.float32(weight) * (x - mean)
            yield mean
    return method


def _wire(runs: dict[str, Array], method: Filter, name: str, progress: Progress) -> dict[str, Figure]:
    results: list[WireFigures] = []
    for seed in range(SEEDS):
        for number, run in enumerate(runs.values()):
            progress((seed + number / len(runs)) / SEEDS, f"wire in real noise{name}")
            results.append(measure(run, method, seed))
    means = {key: float(np.mean([getattr(r, key) for r in results])) for key in
             ("kept", "noise_left", "new_place", "ghost")}
    ids = {"kept": "wire_kept", "noise_left": "noise_left", "new_place": "new_place_frame0", "ghost": "ghost_3"}
    return {f"phantom.{ids[key]}{name}": Figure(value, "share", len(results)) for key, value in means.items()}


def _error_over_recursive(runs: dict[str, Array], method: Filter) -> Figure:
    """RMS error against the mean of the other frames, over that of a recursive filter, on the last three frames.

    The runs are still, so the recursive filter is as sharp as the frames at vessel edges, as the chain is.
    """
    ratios = []
    for run in runs.values():
        frames = run.astype(np.float32)
        ours = list(method(iter(frames)))
        theirs = list(recursive_filter(RECURSIVE)(iter(frames)))
        for k in range(len(frames) - 3, len(frames)):
            rest = np.delete(frames[1:], k - 1, axis=0).mean(axis=0)  # frame 0 is the pulse train's first: brighter
            inside = np.s_[16:-16, 16:-16]
            error = [float(np.sqrt(np.mean((x[k] - rest)[inside] ** 2))) for x in (ours, theirs)]
            ratios.append(error[0] / error[1])
    return Figure(float(np.mean(ratios)), "ratio", len(ratios), f"weight {RECURSIVE}; sharpness not matched")


def _speed(settings: ChainSettings, suffix: str, progress: Progress) -> dict[str, Figure]:
    """Wall time of the whole chain on simulated counts with something moving, uint16 in, uint8 out; and of its
    denoiser alone."""
    found = {}
    for side in (512, 1024):
        progress(0.0, f"speed{suffix} at {side} x {side}")
        chain, state = Chain(settings), None
        watch = Watch(chain.stages["denoise"])
        chain.stages["denoise"] = watch
        spent = []
        for k in range(60):
            frame = _moving_counts(side, k)
            start = time.perf_counter()
            state, _ = chain.step(state, frame)
            spent.append((time.perf_counter() - start) * 1000)
        steady, alone = np.array(spent[10:]), np.array(watch.spent[10:])
        found[f"enhance.chain_ms_median_{side}{suffix}"] = Figure(float(np.median(steady)), "ms", steady.size)
        found[f"enhance.chain_ms_p95_{side}{suffix}"] = Figure(float(np.quantile(steady, 0.95)), "ms", steady.size)
        found[f"enhance.denoise_ms_{side}{suffix}"] = Figure(float(np.median(alone)), "ms", alone.size)
    return found


class Watch:
    """A stage with a stopwatch: milliseconds of each step in `spent`."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.spent: list[float] = []

    def step(self, state: Any, item: Any) -> Any:
        """The stage's own step."""
        start = time.perf_counter()
        out = self.stage.step(state, item)
        self.spent.append((time.perf_counter() - start) * 1000)
        return out


def _moving_counts(side: int, k: int) -> Frame:
    random = np.random.default_rng([side, k])
    v, u = np.mgrid[:side, :side].astype(np.float32)
    p = 1.5 + 0.5 * np.sin((u + 2 * k) / 40) + 0.4 * np.cos(v / 30)
    p += 0.3 * np.clip(1.5 - np.abs(u - 0.3 * v - 5 * k), 0, 1)
    mean = 6000 * np.exp(-p)
    pixels = np.clip(np.rint(mean + random.normal(0, 1, p.shape) * np.sqrt(2 * mean + 36)), 0, 16383).astype(np.uint16)
    meaning = Intensity("linear", "dark", 14, i0=6000, i0_source="measured", gain=2.0, electronic=6.0)
    return Frame(pixels, k, k * 66_666_667, None, None, Exposure(), meaning, np.ones(p.shape, bool), "bench")
