# SPDX-License-Identifier: Apache-2.0
"""Which loops run compiled? The kernels of native/ for this processor, with numpy twins where they are not built."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from fluoronav.enhance import reference, reference_contrast, reference_stated
from registration.errors import BadInput

# names the path to take instead of the best: "portable C++", "AVX2", "AVX-512", or "numpy", which is slow
PATH_VARIABLE = "FLUORONAV_ENHANCE"
MODULES = {"portable C++": "portable", "AVX2": "avx2", "AVX-512": "avx512"}
NUMPY = "numpy"


def loops(path: str) -> Any:
    """The compiled module of a path. Raises ImportError where it is not built."""
    return import_module(f"fluoronav.enhance._kernels_{MODULES[path]}")


def paths() -> tuple[str, ...]:
    """The paths that this processor can run and this installation has, the best last; all give the same bits."""
    try:
        able = loops("portable C++").paths()
    except ImportError:
        return (NUMPY,)
    return (NUMPY, *(name for name, module in MODULES.items() if module in able))


def _chosen() -> str:
    name = os.environ.get(PATH_VARIABLE) or paths()[-1]
    if name not in paths():
        raise BadInput("enhancement path", got=name, expected="one of " + ", ".join(paths()),
                       remedy=f"leave {PATH_VARIABLE} empty for the best one")
    return name


path = _chosen()
compiled = path != NUMPY
_used: Any = loops(path) if compiled else reference
if compiled:
    _used.set_threads(min(2, len(os.sched_getaffinity(0))))  # speed only: the bits are the same with any number

stabilized = _used.stabilized
pooled = _used.pooled
evidence = _used.evidence
parts = _used.parts
followed = _used.followed
denoised = _used.denoised
spatial = _used.spatial
lookup = _used.lookup
picture = _used.picture
taken = _used.taken
window = _used.window
contrast = _used.contrast if compiled else reference_contrast.contrast
cell_statistics = _used.cell_statistics if compiled else reference_stated.cell_statistics
three_layers = _used.three_layers if compiled else reference_stated.three_layers
stated_variance = _used.stated_variance if compiled else reference_stated.stated_variance


def set_threads(threads: int) -> None:
    """How many threads share the rows of a picture; changes speed, never bits. Nothing happens where not compiled."""
    if compiled:
        _used.set_threads(threads)


def mixing() -> Any:
    """The compiled loops of the learned denoiser (native/mixing.cpp); None where they are not built."""
    return _used if compiled else None
