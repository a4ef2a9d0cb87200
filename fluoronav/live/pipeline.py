# SPDX-License-Identifier: Apache-2.0
"""What is the answer to one frame? One pure step: clean it, find the patient in it, draw him there.

The same case, settings, frames, commands and decisions give the same bits. Long work is a job: `wanted_job`
after a step, `run_job` in any thread, its result as a decision at a later frame.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from fluoronav.enhance.chain import Chain
from fluoronav.enhance.enhanced import Enhanced, Heads
from fluoronav.imaging.frame import Frame
from fluoronav.live.commands import commanded
from fluoronav.live.drawing import Drawing, grey_picture, shift_between, still
from fluoronav.live.finding import Finder
from fluoronav.live.jobs import Job
from fluoronav.live.scene import scene_of
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.state import Drawn, PipelineState, packed, unpacked
from fluoronav.live.step import Command, Decision, Step
from fluoronav.live.untouched import untouched, windowed
from overlays.renderer import Overlay
from registration.errors import BadInput
from registration.geometry import Array, CArm
from registration.model import View
from registration.result import Outcome, Registration

if TYPE_CHECKING:
    from fluoronav.case import Case

T = TypeVar("T")
MOST_CHAINS = 8  # with other heads: a hand on a slider makes many


class Pipeline:
    """The live pipeline of a case (None: enhancement only). Holds the state between steps and nothing else
    that an answer depends on. Raises BadInput where the case has nothing to register or not what is asked for."""

    def __init__(self, case: Case | None, settings: PipelineSettings | None = None) -> None:
        self.case, self.settings = case, settings or PipelineSettings()
        self.chain = Chain(self.settings.chain)
        self._chains: dict[Heads, Chain] = {}
        self.finder = Finder(case, self.settings)
        self.scene = scene_of(case) if self.settings.overlay != "none" else None
        self.drawing = Drawing(self.scene, self.settings.overlay)
        self._state = PipelineState(self.settings.tolerance_mm)
        self._wanted: Job | None = None

    def step(self, frame: Frame, commands: Sequence[Command] = (), decisions: Sequence[Decision] = ()) -> Step:
        """The answer to a frame. A stage that raises is off from then on, with a badge; the raw picture comes
        through. The state moves on only when the whole step is done."""
        clock, badges = _Clock(), list[str]()
        commands, decisions = tuple(commands), tuple(decisions)
        state = commanded(self._state, commands, self.finder.start_pose(frame))
        state, enhanced = self._enhanced(state, frame, decisions, badges)
        clock.lap("enhance")
        state, registration, view = self._found(state, frame, enhanced, decisions, badges)
        state, wanted = self.finder.job(state, frame, view)
        clock.lap("register")
        state, overlay, decisions = self._overlaid(state, frame, enhanced, registration, decisions, badges)
        clock.lap("overlay")
        picture = self._picture(enhanced, overlay)
        clock.lap("compose")
        badges += [*enhanced.badges, *self.finder.badges(state, frame), *overlay.badges, *state.failed.values()]
        self._state, self._wanted = state, wanted
        return Step(frame, enhanced, registration, overlay, picture, clock.done(), tuple(dict.fromkeys(badges)),
                    commands, decisions)

    def warm(self, carm: CArm | None = None) -> None:
        """Do once what is slow the first time only (OpenGL, libraries; volumes for a C-arm, where it is known).
        Answers are the same without it; call it from the thread that will step."""
        self.finder.warm(carm)
        self.drawing.warm(self.finder.target_mm)

    # ---- long work, beside the step

    def wanted_job(self) -> Job | None:
        """The job that the last step wants; it replaces any wanted before."""
        return self._wanted

    def run_job(self, job: Job) -> dict[str, Any]:
        """The result of a job, plain JSON. Pure; may run in another thread."""
        return self.finder.run(job)

    # ---- the state, from outside

    def snapshot(self) -> bytes:
        """The state after the last step."""
        return packed(self._state)

    def snapshotter(self) -> Callable[[], bytes]:
        """A function that gives the state after the last step, whatever is stepped meanwhile; states never change."""
        return functools.partial(packed, self._state)

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot. Raises BadInput."""
        self._state, self._wanted = unpacked(data), None

    def fingerprint(self) -> dict[str, Any]:
        """What the bits of an answer depend on besides its input: build, machine, libraries, threads."""
        from fluoronav.live.fingerprint import fingerprint

        return fingerprint(self.settings)

    @property
    def tolerance_mm(self) -> float:
        """The gate's bound on the projected error after the last step, mm."""
        return self._state.tolerance_mm

    @property
    def heads(self) -> Heads:
        """What is on after the last step."""
        return self._state.heads or self.settings.chain.heads

    def chain_of(self, heads: Heads | None) -> Chain:
        """The chain with these heads; None: as the settings say."""
        if heads is None or heads == self.settings.chain.heads:
            return self.chain
        if heads not in self._chains:
            if len(self._chains) >= MOST_CHAINS:
                self._chains.clear()
            self._chains[heads] = self.chain.with_heads(heads)
        return self._chains[heads]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The layers that can be switched: name, label, color, opacity, visible, provenance."""
        if self.scene is None:
            return []
        return self.scene.described()

    # ---- the stages

    def _enhanced(self, state: PipelineState, frame: Frame, decisions: tuple[Decision, ...],
                  badges: list[str]) -> tuple[PipelineState, Enhanced]:
        held = any(d.kind == "held" for d in decisions)
        skip = tuple(str(d.value) for d in decisions if d.kind == "skip")
        before = state.chain_before if held else state.chain

        def work() -> tuple[PipelineState, Enhanced]:
            after, enhanced = self.chain_of(state.heads).step(before, frame, skip)
            return replace(state, chain=after, chain_before=before), enhanced

        state, found = _guarded(state, "enhancement", work, badges)
        return state, windowed(untouched(frame) if found is None else found, state.window)

    def _found(self, state: PipelineState, frame: Frame, enhanced: Enhanced, decisions: tuple[Decision, ...],
               badges: list[str]) -> tuple[PipelineState, Registration, View | None]:
        results = [d.value["result"] for d in decisions if d.kind == "job"]
        held = any(d.kind == "held" for d in decisions)

        def work() -> tuple[PipelineState, tuple[Registration, View | None]]:
            after, registration, view = self.finder.step(state, frame, enhanced, results, held=held)
            return after, (registration, view)

        after, found = _guarded(state, "registration", work, badges)
        if found is None:
            return after, Registration.lost("registration failed and is off for this session"), None
        return after, *found

    def _overlaid(self, state: PipelineState, frame: Frame, enhanced: Enhanced, registration: Registration,
                  decisions: tuple[Decision, ...], badges: list[str]) -> tuple[
                      PipelineState, Overlay, tuple[Decision, ...]]:
        """Only an ACCEPTED answer is drawn. An overlay used again is answered with its shift."""
        nothing = Overlay({}, enhanced.carm, "none")
        carm, pose = enhanced.carm, registration.carm_from_patient
        if registration.outcome is not Outcome.ACCEPTED or carm is None or pose is None:
            return state, nothing, _without_reuse(decisions)
        earlier = state.drawn
        same = earlier is not None and still(earlier, carm, pose)
        shift = None
        if earlier is not None and not same and _reused(state, decisions) is not None:
            shift = shift_between(earlier, carm, pose, self.finder.target_mm)

        def work() -> tuple[PipelineState, Overlay]:
            if earlier is not None and same:
                return state, self.drawing.draw(carm, earlier.carm_from_patient)
            if earlier is not None and shift is not None:
                return state, self.drawing.moved(earlier, shift)
            return replace(state, drawn=Drawn(frame.index, carm, pose)), self.drawing.draw(carm, pose)

        after, overlay = _guarded(state, "overlay", work, badges)
        decisions = _without_reuse(decisions)
        if overlay is not None and earlier is not None and shift is not None:
            decisions += (Decision("overlay_reused", {"frame": earlier.frame, "shift_px": list(shift)}),)
        return after, nothing if overlay is None else overlay, decisions

    def _picture(self, enhanced: Enhanced, overlay: Overlay) -> Array:
        """Display and overlay, every layer as it begins, whatever the viewer switches."""
        if not overlay.layers or self.scene is None:
            return grey_picture(enhanced.display)
        from overlays.compose import compose

        return compose(enhanced.display, overlay, self.scene.switches())


def _reused(state: PipelineState, decisions: tuple[Decision, ...]) -> int | None:
    """The frame whose overlay the clock wants to use again, where it is the last one drawn."""
    for d in decisions:
        if d.kind == "overlay_reused" and state.drawn is not None and int(d.value["frame"]) == state.drawn.frame:
            return state.drawn.frame
    return None


def _without_reuse(decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    return tuple(d for d in decisions if d.kind != "overlay_reused")


def _guarded(state: PipelineState, stage: str, work: Callable[[], tuple[PipelineState, T]],
             badges: list[str]) -> tuple[PipelineState, T | None]:
    """The stage's answer, or None where it is off or raises; bad input of one frame does not switch it off."""
    if stage in state.failed:
        return state, None
    try:
        return work()
    except BadInput as error:
        badges.append(f"{stage}: {error}")
        return state, None
    except Exception as error:  # noqa: BLE001  a stage that raises is switched off; the raw picture comes through
        said = f"alarm: {stage} failed and is off ({type(error).__name__}: {error})"
        return replace(state, failed=state.failed | {stage: said}), None


class _Clock:
    """Milliseconds of each stage; no part of the answer that is promised."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1000
        self._last = now

    def done(self) -> dict[str, float]:
        return self._laps | {"total": (self._last - self._begin) * 1000}
