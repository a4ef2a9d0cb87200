# SPDX-License-Identifier: Apache-2.0
"""How well and how fast? One file a benchmark; each prints figures and asserts nothing.

Every module here named in BENCHES has `figures(progress) -> dict[str, Figure]`.
"""

from fluoronav.bench.figure import BENCHES, Figure, run

__all__ = ["BENCHES", "Figure", "run"]
