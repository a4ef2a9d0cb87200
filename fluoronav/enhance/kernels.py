# SPDX-License-Identifier: Apache-2.0
"""Which loops run compiled? The kernels of native/, with their numpy twins where they are not built."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from fluoronav.enhance import reference, reference_contrast, reference_stated

_used: Any
try:
    _used = import_module("fluoronav.enhance._kernels")
    _used.set_threads(min(2, len(os.sched_getaffinity(0))))  # speed only: the bits are the same with any number
    compiled = True
except ImportError:
    _used = reference
    compiled = False

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
