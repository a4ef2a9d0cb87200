# SPDX-License-Identifier: Apache-2.0
from registration.geometry import Array, Float64

def detect(
    picture: Array, weight: Array, border: float, wide: float, opening: int, along: float, mm: float,
    shortest_mm: float, noise_sigmas: float, faintest_share: float,
) -> tuple[Array, Float64, Array]: ...
def thinned(mask: Array) -> Array: ...

class Seen:
    def __init__(
        self, points: Float64, tangents: Float64, field: Array, sod: float, mm_u: float, mm_v: float, cu: float,
        cv: float, angle_mm: float,
    ) -> None: ...
    def residuals(
        self, points: Float64, tangents: Float64, pose: Float64, scale: float, along: float, empty_weight: float,
    ) -> tuple[Float64, Float64, Float64, float] | None: ...
    def distances(self, points: Float64, tangents: Float64, pose: Float64) -> tuple[Float64, Float64]: ...
