# SPDX-License-Identifier: Apache-2.0
"""What did the person ask for, and what does it change before the next picture is answered?"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from fluoronav.enhance.contrast import checked_strength
from fluoronav.enhance.enhanced import Heads
from fluoronav.live.state import UNDO, PipelineState
from fluoronav.live.step import Command
from registration.errors import BadInput
from registration.geometry import Float64, Rigid
from registration.tracker import TrackerState

KINDS = ("reregister", "nudge", "undo", "tolerance", "layer", "window", "heads")
HOWS = (None, "angles", "last", "search")


def checked_command(command: Command) -> Command:
    """The command in plain JSON types, refused where it makes no sense. Raises BadInput."""
    kind, value = command.kind, command.value
    try:
        if kind == "nudge":
            xi = [float(x) for x in value]
            Rigid.exp(xi)
            return Command(kind, xi)
        if kind == "tolerance":
            if not 0 < float(value) < float("inf"):
                raise ValueError("not above 0")
            return Command(kind, float(value))
        if kind == "window":
            if value is None:
                return Command(kind)
            level, width = float(value["level"]), float(value["width"])
            if not (np.isfinite(level) and 1 <= width < 1e6):
                raise ValueError("width below 1")
            return Command(kind, {"level": level, "width": width})
        if kind == "reregister" and value in HOWS:
            return Command(kind, value)
        if kind == "layer":
            return Command(kind, {"name": str(value["name"]), "visible": bool(value["visible"]),
                                  "opacity": min(max(float(value.get("opacity", 1.0)), 0.0), 1.0)})
        if kind == "heads":
            return Command(kind, asdict(_heads(value)))
        if kind == "undo":
            return Command(kind)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"command {kind}", got=f"{value!r} ({error})", expected="a value as Command describes it",
                       remedy="correct the value") from error
    raise BadInput("command", got=f"{kind} {value!r}", expected=", ".join(KINDS), remedy="choose one of them")


def _heads(value: Any) -> Heads:
    if not isinstance(value, dict) or not set(value) <= {f.name for f in fields(Heads)}:
        raise ValueError("not the switches of the picture")
    switches = {key: one for key, one in value.items() if key != "contrast"}
    if not all(isinstance(one, bool) for one in switches.values()):
        raise ValueError("a switch is true or false")
    return Heads(**switches, contrast=checked_strength(float(value.get("contrast", 0.0))))


def commanded(state: PipelineState, commands: tuple[Command, ...], start: Float64 | None) -> PipelineState:
    """The state after what the person did since the last frame; `start` (4x4) is where a nudge begins while
    nothing was registered yet."""
    for command in commands:
        kind, value = command.kind, command.value
        if kind == "tolerance":
            state = replace(state, tolerance_mm=float(value))
        elif kind == "window":
            state = replace(state, window=None if value is None else (float(value["level"]), float(value["width"])))
        elif kind == "heads":
            state = replace(state, heads=Heads(**value))
        elif kind == "reregister":
            state = replace(state, jobs=replace(state.jobs, asked=value or "again"))
        elif kind == "nudge":
            state = _nudged(state, value, start)
        elif kind == "undo" and state.undo:
            state = _put(replace(state, undo=state.undo[:-1]), state.undo[-1])
    return state


def _nudged(state: PipelineState, xi: list[float], start: Float64 | None) -> PipelineState:
    pose = start if state.tracker is None else state.tracker.carm_from_patient
    if pose is None:
        return state
    return _put(replace(state, undo=(*state.undo, pose)[-UNDO:]), Rigid.exp(xi) @ pose)


def _put(state: PipelineState, pose: Float64) -> PipelineState:
    """The tracker goes on from a pose that it did not find itself: without motion, to be confirmed."""
    missed = max(1, state.tracker.missed) if state.tracker is not None else 1
    return replace(state, tracker=TrackerState(pose, np.zeros(6), missed), doubt=None)
