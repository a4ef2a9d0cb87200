# SPDX-License-Identifier: Apache-2.0
"""Which loops run compiled? The kernels of native/, with their numpy twins where they are not built."""

from __future__ import annotations

from typing import Any

from fluoronav.enhance import reference

_native: Any
try:
    from fluoronav.enhance import _kernels as _native  # type: ignore[attr-defined, unused-ignore]
except ImportError:
    _native = None

compiled = _native is not None
_used: Any = _native if compiled else reference

evidence = _used.evidence
temporal = _used.temporal
spatial = _used.spatial
parts = _used.parts
lookup = _used.lookup
window = _used.window
