# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

from registration.geometry import Array, Float64

PAD: int

def paths() -> list[str]: ...
def direct(planes: Array, h: int, w: int, numbers: Float64, jacobian: bool, threads: int, path: str) -> Any: ...
def bricks(volume: Array, path: str) -> tuple[Array, float]: ...
def patches(
    bricks: Array, size: Sequence[int], unit: float, h: int, w: int, numbers: Float64, jacobian: bool, threads: int,
    path: str,
) -> Any: ...
def placed(
    index_from_patient: Float64, carm_from_patient: Float64, h: int, w: int, pv: float, pu: float, sdd: float,
    sod: float, cu: float, cv: float,
) -> tuple[int, Float64]: ...
def pictures(
    i: Array, j: Array, k: Array, index: Float64, numbers: Float64, poses: Float64, threads: int, path: str,
) -> Array: ...
def climbed(
    i: Array, j: Array, k: Array, index: Float64, numbers: Float64, poses: Float64, fixed: Array, weight: Array,
    gradient: bool, iterations: int, tolerance_px: float, threads: int, path: str,
) -> tuple[Float64, Float64]: ...
def swept(
    computed: Array, pitch: float, fixed: Array, weight: Array, numbers: Float64, turns: Float64, reach_u: int,
    reach_v: int, stride: int, threads: int,
) -> tuple[Array, Array]: ...
def descended(
    levels: list[Any], seen: list[tuple[Array, Array]], start: Float64, lean: Float64, threads: int, path: str,
) -> tuple[Any, ...] | None: ...

class Follower:
    def __init__(
        self, levels: list[Any], binnings: list[int], gate: int, asked: Sequence[float], doubts: Sequence[float],
        floor: Sequence[float], prior: Sequence[float], path: str,
    ) -> None: ...
    def follow(
        self, picture: Array, weight: Array, counts: bool, start: Float64, lean: Float64, target: Float64,
        tissue: float, threads: int,
    ) -> tuple[Any, ...] | None: ...
