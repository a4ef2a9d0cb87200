# SPDX-License-Identifier: Apache-2.0
"""What may a page say? Every message from the browser is one of these, or it is refused with a sentence.

Bounds are those of a hand: a nudge moves by at most 300 mm and turns by at most half a turn.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from fluoronav.live.step import Command

LIVE_ONLY = ("reregister", "nudge", "undo", "tolerance", "heads")  # would change a recording
REPLAY_ONLY = ("seek", "play", "pause", "rate")
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Ack(_Message):
    """The page has drawn this picture: it may have the next."""

    type: Literal["ack"]
    seq: int


class View(_Message):
    """Which pictures the page needs, and whether it holds the one it has."""

    type: Literal["view"]
    pictures: list[Literal["enhanced", "raw", "drr", "weights", "uncertainty"]] = Field(max_length=5)
    hold: bool = False


class Clock(_Message):
    """A question for the server's clock; `t` comes back."""

    type: Literal["clock"]
    t: Finite


class Plain(_Message):
    """A command without a value."""

    type: Literal["command"]
    kind: Literal["undo", "play", "pause"]


class Reregister(_Message):
    """Find the case anew: around the last pose, from the gantry's angles, or anywhere."""

    type: Literal["command"]
    kind: Literal["reregister"]
    value: Literal["last", "angles", "search"] | None = None


class Nudge(_Message):
    """Move the case: xi = (rx, ry, rz, tx, ty, tz), rad and mm, in the C-arm frame."""

    type: Literal["command"]
    kind: Literal["nudge"]
    value: list[Finite] = Field(min_length=6, max_length=6)

    @field_validator("value")
    @classmethod
    def _of_a_hand(cls, xi: list[float]) -> list[float]:
        if max(abs(r) for r in xi[:3]) > math.pi or max(abs(t) for t in xi[3:]) > 300:
            raise ValueError("a nudge turns by at most half a turn and moves by at most 300 mm")
        return xi


class LayerSwitch(_Message):
    """One layer's switch and opacity."""

    name: str = Field(min_length=1, max_length=80)
    visible: bool
    opacity: Annotated[Finite, Field(ge=0, le=1)]


class Layer(_Message):
    """The person switched a layer."""

    type: Literal["command"]
    kind: Literal["layer"]
    value: LayerSwitch


class Tolerance(_Message):
    """The gate: the largest expected error in the picture's plane that may be drawn, mm."""

    type: Literal["command"]
    kind: Literal["tolerance"]
    value: Annotated[Finite, Field(gt=0, le=50)]


class HeadSwitches(_Message):
    """What the enhancement does: noise, strength of contrast, pixels of half the size, a picture that stands still."""

    denoise: bool
    contrast: Annotated[Finite, Field(ge=0, le=2)]
    superres: bool
    stabilise: bool


class Heads(_Message):
    """The person switched a head of the enhancement."""

    type: Literal["command"]
    kind: Literal["heads"]
    value: HeadSwitches


class Seek(_Message):
    """Show this frame of the recording."""

    type: Literal["command"]
    kind: Literal["seek"]
    value: Annotated[int, Field(ge=0)]


class Rate(_Message):
    """Playback speed."""

    type: Literal["command"]
    kind: Literal["rate"]
    value: Annotated[Finite, Field(ge=0.25, le=8)]


Order = Annotated[Plain | Reregister | Nudge | Layer | Tolerance | Heads | Seek | Rate, Field(discriminator="kind")]
Message = Annotated[Ack | View | Clock | Order, Field(discriminator="type")]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Message)


class Refused(ValueError):
    """A message that is not one of ours; the sentence goes back to the page."""


def read(text: str) -> Any:
    """The message in a text. Raises Refused."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"message refused{f' at {where}' if where else ''}: {first['msg']}") from None


def command_of(order: Any, mode: str, layers: set[str]) -> Command:
    """The command of a message, for a feed in `mode` with these layers. Raises Refused."""
    if mode == "replay" and order.kind in LIVE_ONLY:
        raise Refused(f"{order.kind}: a recording is looked at, not changed")
    if mode == "live" and order.kind in REPLAY_ONLY:
        raise Refused(f"{order.kind}: only a recording can be wound")
    value: Any = getattr(order, "value", None)
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if order.kind == "layer" and value["name"] not in layers:
        raise Refused(f"layer {value['name']!r} is not one of {', '.join(sorted(layers)) or 'none'}")
    return Command(order.kind, value)
