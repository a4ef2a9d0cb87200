# SPDX-License-Identifier: Apache-2.0
"""Does every processor path of the enhancement's kernels give the same bits, and can a person choose one?"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes

from fluoronav.enhance import Chain, ChainSettings, kernels
from fluoronav.enhance.denoise import Calibration, DenoiseSettings, rules_of

COMPILED = [name for name in kernels.paths() if name != kernels.NUMPY]
RULES = rules_of(Calibration(), DenoiseSettings(), 1.3)
pytestmark = pytest.mark.skipif(len(COMPILED) < 2, reason="one compiled path at most here: none to compare with")


def answers(loops: Any, shape: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """(name, what it gives) of each kernel, on structure, noise and a flow in all directions."""
    random = np.random.default_rng([*shape, 1])
    v, u = np.indices(shape, np.float32)
    m = (20 + 3 * np.sin(u / 9) + 2 * np.cos(v / 7) + 6 * (np.abs(u - v / 2 - 20) < 2)).astype(np.float32)
    y = (m + random.normal(0, 1, shape)).astype(np.float32)
    variance = random.uniform(0.05, 0.6, shape).astype(np.float32)
    cells, fine = (tuple(-(-n // size) for n in shape) for size in (6, 8))
    moved = random.uniform(-9, 9, (*cells, 2)).astype(np.float32), (random.random(cells) > 0.3).astype(np.uint8)
    table = np.sqrt(np.arange(4096, dtype=np.float32))
    counts = random.integers(0, 4096, shape).astype(np.uint16)
    terms, features = (random.uniform(0, 2, (n, *fine)).astype(np.float32) for n in (3, 16))
    layers = [random.normal(size=size).astype(np.float32) for size in ((16, 16), 16, (16, 16), 16, (3, 16), 3)]
    small = np.zeros(tuple(2 * n for n in fine), np.float32)
    coefficients = [random.normal(0, 0.5, (n, *fine)).astype(np.float32) for n in (3, 9)]
    covariance = np.diag([1.0, 0.4, 0.1, 0.02]).astype(np.float32)
    for name, arguments in (
            ("stabilized", (counts, table, 6)), ("pooled", (y, 6)), ("parts", (y,)),
            ("evidence", (y, m, variance, 1.2)),
            ("followed", (y, m, variance, 1.2, *moved, 6, 0.15)), ("denoised", (y, m, variance, RULES, *moved, 6)),
            ("denoised", (y, m, variance, RULES, None, None, 1)), ("spatial", (y, variance, RULES)),
            ("lookup", (y, table, 0.0, 0.01)), ("taken", (counts, np.arange(256, dtype=np.uint8))),
            ("picture", (y, variance, m, table, table[::-1].copy(), table, 0.0, 0.01, 5.0, 60.0)),
            ("window", (y, 10.0, 30.0)), ("contrast", (y, variance, np.ones(4, np.float32), 1.0)),
            ("cell_statistics", (y, m, variance, variance)), ("three_layers", (features, *layers)),
            ("stated_variance", (m, variance, terms)),
            ("time_features", (y, m - y, m, variance, 1.0, 1.0, small, small)),
            ("mix_time", (y, m - y, m, variance, 1.0, 1.0, coefficients[0])),
            ("space_features", (m, variance, variance, 2.0, 2.0)),
            ("mix_space", (m, variance, y, m, y - m, y, 2.0, coefficients[1], covariance))):
        yield name, getattr(loops, name)(*arguments)


@pytest.mark.parametrize("shape", [(96, 160), (101, 333)])
def test_every_path_of_this_processor_gives_the_same_bits(shape: tuple[int, int]) -> None:
    best = dict(enumerate(answers(kernels.loops(COMPILED[-1]), shape)))
    for path in COMPILED[:-1]:
        for at, (name, found) in enumerate(answers(kernels.loops(path), shape)):
            pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (found, best[at][1])), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs), f"{name}: {path} and {COMPILED[-1]} differ"


@pytest.mark.parametrize("path", kernels.paths()[:-1])
def test_a_chosen_path_runs_the_whole_chain_and_another_name_is_refused(path: str) -> None:
    chosen = run_with(path, "import test_kernel_paths as t; print(t.kernels.path, t.fingerprint(), sep='|')")
    name, bits = chosen.stdout.strip().split("|")
    assert name == path
    if path != kernels.NUMPY:  # the twins compute in another order
        assert bits == fingerprint()
    if path == COMPILED[0]:
        refused = run_with("AVX9", "import fluoronav.enhance.kernels")
        assert refused.returncode != 0 and "enhancement path" in refused.stderr


def run_with(path: str, code: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own: which path runs is decided once, where the kernels are imported."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, kernels.PATH_VARIABLE: path, "PYTHONPATH": str(Path(__file__).parent)})


def fingerprint() -> str:
    """What the chain makes of a few frames, as bits."""
    digest, chain, state = hashlib.sha256(), Chain(ChainSettings(contrast=1.0)), None
    random = np.random.default_rng(4)
    for k in range(4):
        p = scenes.body() + scenes.wire_at(192, 60 + 4 * k)
        state, enhanced = chain.step(state, scenes.frame(scenes.counts(p, random), k))
        for picture in (enhanced.values, enhanced.sigma, enhanced.display):
            digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()
