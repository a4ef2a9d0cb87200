# SPDX-License-Identifier: Apache-2.0
"""How long does a frame take? The chain and its denoiser by size, the networks by engine and precision."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fluoronav.bench.enhance_methods import STACK, Method, peers
from fluoronav.bench.figure import Figure, Progress
from fluoronav.enhance.enhanced import Heads
from fluoronav.enhance.mixing import NETS
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.engines import WEIGHTS, installed, open_engine

SIZES = (512, 1024)
SLOW = ("bm3d", 1024)
FRAMES, WARM = 60, 10


def figures_of(method: Method, progress: Progress) -> dict[str, Figure]:
    """Wall time of the whole chain (motion, denoiser with its uncertainty, contrast) on simulated counts with something
    moving, uint16 in, uint8 out; and of its denoiser alone."""
    found: dict[str, Figure] = {}
    s = method.suffix
    for side in SIZES:
        progress(0.0, f"speed{s} at {side} x {side}")
        chain, state = method.make().with_heads(Heads(contrast=1.0)), None
        watch = Watch(chain.stages["denoise"])
        chain.stages["denoise"] = watch
        spent = []
        for k in range(FRAMES):
            frame = _moving_counts(side, k)
            start = time.perf_counter()
            state, _ = chain.step(state, frame)
            spent.append((time.perf_counter() - start) * 1000)
        found |= _times(f"chain_ms_{{}}_{side}{s}", spent) | _times(f"denoise_ms_{{}}_{side}{s}", watch.spent)
        found[f"enhance.denoise_ms_{side}{s}"] = found[f"enhance.denoise_ms_median_{side}{s}"]
    return found


def engine_figures(progress: Progress) -> dict[str, Figure]:
    """Both nets of the mixing denoiser, one after the other, by size, engine and precision."""
    found = {}
    for side in SIZES:
        for name, precision in (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", "f32"), ("torch", "f32")):
            progress(0.0, f"{name} {precision} at {side}")
            key = f"enhance.nets_ms_{side}_{name}" + ("" if precision == "f32" else f"_{precision}")
            if name not in installed():
                found[key] = Figure(None, "ms", 0, f"{name} is not installed")
                continue
            shape = (1, 7, side // 4, side // 4)
            features = np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)
            nets = [open_engine(WEIGHTS / f"mixing_{net}.onnx", shape, name, precision=precision) for net in NETS]
            spent = []
            for _ in range(FRAMES // 2):
                start = time.perf_counter()
                for net in nets:
                    net.run(features)
                spent.append((time.perf_counter() - start) * 1000)
            found[key] = Figure(float(np.median(spent[5:])), "ms", len(spent) - 5)
    return found


def peer_figures(full: bool, progress: Progress) -> dict[str, Figure]:
    """One picture through each peer, by size; what takes longer than half a minute only if `full`."""
    found = {}
    for peer in peers():
        for side in SIZES:
            progress(0.0, f"{peer.name} at {side} x {side}")
            slow = peer.slow or (peer.name, side) == SLOW
            why = peer.why or ("bench enhance --full" if slow and not full else None)
            if why is None:
                stack = np.random.default_rng(side).normal(20, 1, (STACK, side, side)).astype(np.float32)
                start = time.perf_counter()
                peer.last(stack)
                spent = (time.perf_counter() - start) * 1000
            found[f"enhance.ms_{side}_{peer.name}"] = Figure(None, "ms", 0, why) if why else Figure(spent, "ms", 1)
    return found


def _times(key: str, spent: list[float]) -> dict[str, Figure]:
    steady = np.array(spent[WARM:])
    return {f"enhance.{key.format(name)}": Figure(float(np.quantile(steady, share)), "ms", steady.size)
            for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99))}


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
