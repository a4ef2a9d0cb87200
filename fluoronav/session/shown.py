# SPDX-License-Identifier: Apache-2.0
"""What was on the screen at a frame? The recorded answer over the picture, computed anew from the raw frames.

Registration is taken as recorded, never repeated: the picture of any frame is there after a few steps of the
enhancement chain. Its digest tells whether it is, to the bit, the one of the recording; where not, a badge says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluoronav.enhance.chain import Chain, ChainState
from fluoronav.enhance.enhanced import Enhanced, Heads
from fluoronav.imaging.frame import Frame
from fluoronav.live.drawing import Drawing, grey_picture
from fluoronav.live.scene import scene_of
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.state import Drawn
from fluoronav.live.step import Command, Decision, Step
from fluoronav.live.untouched import untouched, windowed
from fluoronav.session import coding
from fluoronav.session.session import Session
from overlays.compose import compose, may_show
from overlays.renderer import Overlay

if TYPE_CHECKING:
    from fluoronav.case import Case

WARM_UP = 12  # frames: what is older weighs less than 1 % in the recursive filter
NOT_THE_BITS = "picture computed anew: not to the bit the recorded one"


class Shown:
    """Steps of a session as they were shown. Holds the chain's state; call it from one thread at a time.

    Without a case no anatomy is drawn, and a badge says so where some was.
    """

    def __init__(self, session: Session, case: Case | None) -> None:
        self.session = session
        self.settings = PipelineSettings.from_json(session.settings)
        self.scene = scene_of(case) if self.settings.overlay != "none" else None
        self._chain = Chain(self.settings.chain)
        self._other: Chain | None = None
        self._drawing = Drawing(self.scene, self.settings.overlay)
        self._state: ChainState | None = None
        self._before: ChainState | None = None
        self._at = -1  # the frame that the chain's state belongs to

    @property
    def layers(self) -> list[dict[str, Any]]:
        return [] if self.scene is None else self.scene.described()

    def step(self, k: int) -> Step:
        """The step of frame k. Raises BadInput where its bytes are damaged."""
        frame, enhanced = self._enhanced(k)
        record = self.session.record(k)
        found = coding.registration_from_plain(record["registration"])
        overlay = self._overlay(k, record, enhanced) if may_show(found.outcome) else Overlay({}, frame.carm, "none")
        picture = grey_picture(enhanced.display)
        if overlay.layers and self.scene is not None:
            picture = compose(enhanced.display, overlay, self.scene.switches())
        badges = list(record["badges"])
        if coding.sha256(picture) != record["hashes"]["picture"]:
            badges.append(NOT_THE_BITS)
        if record["overlay_method"] != "none" and not overlay.layers:
            badges.append("the case is not open: no anatomy is drawn")
        return Step(frame, enhanced, found, overlay, picture, dict(record["timings"]), tuple(badges),
                    tuple(Command(c["kind"], c["value"]) for c in record["commands"]),
                    tuple(Decision(d["kind"], d["value"]) for d in record["decisions"]), record["truth"])

    def passed(self, k: int) -> None:
        """Frame k is not shown: only the chain sees it. Raises BadInput where its bytes are damaged."""
        self._enhanced(k)

    def _enhanced(self, k: int) -> tuple[Frame, Enhanced]:
        """Frame k through the chain, from the frame before it where that was the last, else after a warm-up."""
        start = k
        if k != self._at + 1:
            start, self._state = max(0, k - WARM_UP), None
        for j in range(start, k):
            self._chained(j)
        return self._chained(k)

    def _chained(self, k: int) -> tuple[Frame, Enhanced]:
        frame, record = self.session.frame(k), self.session.record(k)
        decisions = record["decisions"]
        held = any(d["kind"] == "held" for d in decisions)
        before = self._before if held else self._state
        skip = tuple(str(d["value"]) for d in decisions if d["kind"] == "skip")
        failed = any("enhancement failed" in b or "step failed" in b for b in record["badges"])
        if failed:
            state, enhanced = before, untouched(frame)
        else:
            state, enhanced = self._chain_of(record).step(before, frame, skip)
        self._state, self._before, self._at = state, before, k
        window = record["window"]
        return frame, windowed(enhanced, None if window is None else (window["level"], window["width"]))

    def _chain_of(self, record: dict[str, Any]) -> Chain:
        """The chain as it was switched; one is kept beside that of the settings. Older sessions had no switches."""
        heads = Heads(**record["heads"]) if "heads" in record else self._chain.settings.heads
        if heads == self._chain.settings.heads:
            return self._chain
        if self._other is None or heads != self._other.settings.heads:
            self._other = self._chain.with_heads(heads)
        return self._other

    def _overlay(self, k: int, record: dict[str, Any], enhanced: Enhanced) -> Overlay:
        carm, pose = enhanced.carm, np.array(record["registration"]["carm_from_patient"], np.float64)
        if carm is None or record["overlay_method"] == "none":
            return Overlay({}, carm, "none")
        for decision in record["decisions"]:
            if decision["kind"] == "overlay_reused" and "shift_px" in decision["value"]:
                drawn = self._drawn(k, int(decision["value"]["frame"]))
                if drawn is not None:
                    du, dv = decision["value"]["shift_px"]
                    return self._drawing.moved(drawn, (du, dv))
        return self._drawing.draw(carm, pose)

    def _drawn(self, k: int, index: int) -> Drawn | None:
        """Where the frame with that index was drawn, looked for backwards."""
        indices = self.session.rows["index"]
        for j in range(k - 1, max(-1, k - 64), -1):
            if int(indices[j]) == index:
                record, carm = self.session.record(j), self.session.frame(j).carm
                pose = record["registration"]["carm_from_patient"]
                if pose is None or carm is None:
                    return None
                factor = self._chain_of(record).factor
                du, dv = (factor * d for d in record.get("shift_px", (0.0, 0.0)))
                return Drawn(index, carm.divided(factor).shifted(du, dv), np.array(pose, np.float64))
        return None


