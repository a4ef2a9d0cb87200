# SPDX-License-Identifier: Apache-2.0
"""What does one frame leave for the next? The state of the pipeline, and its form on disk: a zip of JSON and arrays."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from fluoronav.enhance.chain import ChainState
from fluoronav.enhance.contrast import ContrastState
from fluoronav.enhance.denoise import Calibration, DenoiseState
from fluoronav.enhance.display import DisplayState
from fluoronav.enhance.enhanced import Heads
from fluoronav.enhance.motion import MotionState
from fluoronav.enhance.noise import NoiseLaw, NoiseState
from fluoronav.enhance.stabilise import StabiliseState
from fluoronav.enhance.stated import StatedState
from fluoronav.enhance.superres import SuperresState
from fluoronav.live.gantry import Gantry
from registration.apart import Apart
from registration.depth import Depth
from registration.errors import BadInput
from registration.following import Breath
from registration.geometry import Array, CArm, Float64, read_only
from registration.tracker import TrackerState

FORMAT = "fluoronav pipeline state 1"
UNDO = 32  # nudges that can be taken back


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the last overlay was drawn for: index of the frame, geometry of its pixels, pose (4x4)."""

    frame: int
    carm: CArm
    carm_from_patient: Float64


@dataclass(frozen=True, slots=True)
class Doubt:
    """The answer of a job that could not decide: its reason, pose and rivals (4x4 each)."""

    why: str
    carm_from_patient: Float64
    alternatives: tuple[Float64, ...] = ()


@dataclass(frozen=True, slots=True)
class JobsState:
    """Registration beside the step. pending: name of the job whose result is waited for; asked: how the
    person wants to register, until a job takes it up; made: jobs made so far; failed: results in a row that
    were no pose; wait: frames until the next one; why: what the last result said."""

    pending: str | None = None
    asked: str | None = None
    made: int = 0
    failed: int = 0
    wait: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class PipelineState:
    """Everything that the next answer depends on, besides case, settings, frame, commands and decisions.

    chain: after the last frame, chain_before: before it (a held picture is answered from there); tracker;
    gantry: what the tracker's pose belongs to; tolerance_mm, window and heads (None: as the settings say) as last
    commanded; undo: poses before each nudge; failed: stages that raised and are off, with what is said of them;
    doubt: of the last job; drawn: for overlays used again.
    """

    tolerance_mm: float
    chain: ChainState | None = None
    chain_before: ChainState | None = None
    tracker: TrackerState | None = None
    gantry: Gantry | None = None
    window: tuple[float, float] | None = None
    heads: Heads | None = None
    undo: tuple[Float64, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    jobs: JobsState = field(default_factory=JobsState)
    doubt: Doubt | None = None
    drawn: Drawn | None = None


_KNOWN: dict[str, type] = {c.__name__: c for c in (
    PipelineState, JobsState, Doubt, Drawn, Gantry, TrackerState, Depth, Apart, Breath, CArm, ChainState, NoiseState,
    NoiseLaw, MotionState, DenoiseState, Calibration, Heads, ContrastState, DisplayState, SuperresState, StabiliseState,
    StatedState)}


def packed(state: PipelineState) -> bytes:
    """The state as bytes: a zip of state.json and one .npy file an array (no pickle)."""
    arrays: list[Array] = []
    tree = _tree(state, arrays)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("state.json", json.dumps({"format": FORMAT, "state": tree}))
        for k, array in enumerate(arrays):
            with archive.open(f"{k}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return out.getvalue()


def unpacked(data: bytes) -> PipelineState:
    """The state that `packed` gave. Raises BadInput for anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            head = json.loads(archive.read("state.json"))
            if head.get("format") != FORMAT:
                raise ValueError(f"format {head.get('format')!r}")
            kept: dict[int, Array] = {}

            def array(k: int) -> Array:
                if k not in kept:
                    with archive.open(f"{int(k)}.npy") as file:
                        kept[k] = read_only(np.lib.format.read_array(file, allow_pickle=False))
                return kept[k]

            state = _value(head["state"], array)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BadInput("state of the pipeline", got=f"{type(error).__name__}: {error}", expected=FORMAT,
                       remedy="use the version of the program that recorded it") from error
    if not isinstance(state, PipelineState):
        raise BadInput("state of the pipeline", got=type(state).__name__, expected=FORMAT,
                       remedy="use the version of the program that recorded it")
    return state


def _tree(value: Any, arrays: list[Array]) -> Any:
    """Plain JSON for a value; arrays are put aside and referred to by number."""
    if is_dataclass(value) and not isinstance(value, type):
        if type(value).__name__ not in _KNOWN:
            raise TypeError(f"{type(value).__name__} has no place in a state")
        return {"class": type(value).__name__, "fields": {f.name: _tree(getattr(value, f.name), arrays)
                                                          for f in fields(value)}}
    if isinstance(value, np.generic):
        return {"scalar": _tree(np.asarray(value), arrays)}
    if isinstance(value, np.ndarray):
        for k, known in enumerate(arrays):
            if known is value:
                return {"array": k}
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {"dict": {str(k): _tree(v, arrays) for k, v in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"tuple": [_tree(v, arrays) for v in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a state")


def _value(tree: Any, array: Callable[[int], Array]) -> Any:
    """The value that `_tree` described."""
    if not isinstance(tree, dict):
        return tree
    if "class" in tree:
        return _KNOWN[tree["class"]](**{k: _value(v, array) for k, v in tree["fields"].items()})
    if "scalar" in tree:
        return _value(tree["scalar"], array)[()]
    if "array" in tree:
        return array(tree["array"])
    if "dict" in tree:
        return {k: _value(v, array) for k, v in tree["dict"].items()}
    return tuple(_value(v, array) for v in tree["tuple"])
