# SPDX-License-Identifier: Apache-2.0
from registration.geometry import Array, Float64

def line_integrals(
    volume: Array, beam: Float64, spacing: Float64, rows: int, columns: int, soft_hu: float, bone_hu: float,
    threads: int,
) -> Array: ...
def deform(volume: Array, field: Array, ratio: float, amplitude: float, threads: int) -> Array: ...
def tubes(
    points: Float64, radius: Float64, concentration: Float64, branch: Array, detector: Float64, rows: int,
    columns: int, fine: int,
) -> Array: ...
