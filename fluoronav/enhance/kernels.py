# SPDX-License-Identifier: Apache-2.0
"""Which loops run compiled? The kernels of native/, with their numpy twins where they are not built."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fluoronav.enhance import reference

_used: Any
try:
    _used = import_module("fluoronav.enhance._kernels")
    compiled = True
except ImportError:
    _used = reference
    compiled = False

evidence = _used.evidence
temporal = _used.temporal
spatial = _used.spatial
parts = _used.parts
moved = _used.moved
chosen = _used.chosen
lookup = _used.lookup
picture = _used.picture
window = _used.window
