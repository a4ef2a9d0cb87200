# SPDX-License-Identifier: Apache-2.0
"""How is a frame cleaned? noise -> motion -> denoise -> uncertainty -> display, each a pure step with its own state.

Between and behind them stand the heads that a person asks for (heads.py): contrast, superres, stabilise.

`Chain(settings).step(state, frame) -> (state, Enhanced)`; state None is a reset. The same frames give the
same bits. A stage is one file with one class, `step(state, item) -> (state, item)`, state None = reset; `Chain`
puts the stages that the settings ask for into `stages`, in their order. All but those in ALWAYS can be absent,
skipped for want of time and switched off by their own failure, and each hands its input on then. A frame that
cannot be used (constant, saturated) comes back as it is, with a badge, and the next one starts anew.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.denoise import Denoise, DenoiseSettings
from fluoronav.enhance.enhanced import Enhanced, Heads, Shares
from fluoronav.enhance.heads import FACTOR, described, with_heads, without
from fluoronav.enhance.mixing import Mix, available
from fluoronav.enhance.motion import Motion
from fluoronav.enhance.noise import Noise
from fluoronav.enhance.stated import Stated
from fluoronav.enhance.work import Work
from fluoronav.imaging.frame import Frame
from registration.errors import BadInput
from registration.geometry import read_only

SATURATED = 0.98  # share of open pixels at the top of the range: nothing was measured
ALWAYS = ("noise", "display")  # without them there is no picture
PAUSE_NS = 1_000_000_000  # a longer gap is a new run


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """Which stages run (noise and display always do) and how the denoiser is set.

    uncertainty: the stated deviation holds what the denoiser may have missed, not its noise alone (stated.py).
    contrast: strength 0 (off) to 2; superres: pixels of half the size; stabilise: motion of the whole picture is
    taken away, and the C-arm moved with the pixels. deblur: what moved while the tube was on is sharpened along its
    motion (deblur.py; needs motion and the length of the pulse). contrast_by: `classical` (a fixed law),
    `learned` (gains that a net chooses: some 5 ms more at 1024 x 1024), or `auto`: learned where it can run.

    method: `classical`, `learned` (two nets choose the weights; needs OpenVINO), or `auto`: learned where it can
    run, else classical with a badge that says why.
    """

    motion: bool = True
    denoise: bool = True
    uncertainty: bool = True
    contrast: float = 0.0
    contrast_by: Literal["auto", "classical", "learned"] = "classical"
    superres: bool = False
    stabilise: bool = False
    deblur: bool = False
    denoiser: DenoiseSettings = field(default_factory=DenoiseSettings)
    method: Literal["auto", "classical", "learned"] = "classical"

    def describe(self) -> str:
        """One line for the header of a derived picture."""
        d = self.denoiser
        parts = ["variance stabilization"]
        parts += ["DIS motion"] if self.motion else []
        if self.denoise and self.learned():
            parts += ["recursive filter and line-preserving spatial filter, mixed by weights that two nets choose"]
        elif self.denoise:
            parts += [f"motion-gated recursive filter (floor {d.floor:g}, gate {d.gate_low:g}-{d.gate_high:g}), "
                      f"line-preserving spatial filter (least detail {d.detail_least:g})"]
        return ", ".join(parts + described(self))

    @property
    def heads(self) -> Heads:
        """What of it may be switched while it runs."""
        return Heads(self.denoise, self.contrast, self.superres, self.stabilise)

    def learned(self) -> bool:
        """Whether the learned denoiser runs. Raises BadInput where it is asked for and cannot."""
        if self.method == "classical":
            return False
        why = available()
        if why is not None and self.method == "learned":
            raise BadInput("learned denoiser", got=why, expected="OpenVINO, compiled kernels and weights",
                           remedy="pip install openvino, or choose the classical denoiser")
        return why is None


@dataclass(frozen=True, slots=True)
class ChainState:
    """States of the stages by name, shape and time of the last frame, stages that failed."""

    shape: tuple[int, int]
    time_ns: int
    stages: dict[str, Any]
    failed: tuple[str, ...] = ()


class Chain:
    """The enhancement chain; holds settings, no state."""

    def __init__(self, settings: ChainSettings | None = None) -> None:
        self.settings = settings or ChainSettings()
        self.stages: dict[str, Any] = {"noise": Noise()}
        if self.settings.motion and self.settings.denoise:
            self.stages["motion"] = Motion()
        self.notes: tuple[str, ...] = ()
        if self.settings.denoise:
            learned = self.settings.learned()
            self.stages["denoise"] = (Mix if learned else Denoise)(self.settings.denoiser)
            if self.settings.uncertainty:
                self.stages["uncertainty"] = Stated("learned" if learned else "classical")
            if self.settings.method == "auto" and not learned:
                self.notes = (f"classical denoiser: {available()}",)
        self.stages = with_heads(self.stages, self.settings)

    def with_heads(self, heads: Heads) -> Chain:
        """The chain with other heads; the denoiser is shared, so that its networks are loaded once."""
        other = Chain(replace(self.settings, **asdict(heads)))
        for name in ("motion", "denoise"):
            if name in self.stages and name in other.stages:
                other.stages[name] = self.stages[name]
        return other

    @property
    def factor(self) -> int:
        """How many times finer the pixels of the answer are."""
        return FACTOR if self.settings.superres else 1

    def step(self, state: ChainState | None, frame: Frame,
             skip: Collection[str] = ()) -> tuple[ChainState | None, Enhanced]:
        """One frame. `skip` names stages left out for want of time (none of ALWAYS); said in a badge."""
        badges: list[str] = []
        fault = fault_of(frame)
        if state is not None and fault is None:
            restart = _restart(state, frame)
            if restart:
                badges, state = [restart], None
        work = Work(frame, badges=(*self.notes, *badges) if fault is None else (fault,))
        if not kernels.compiled:
            work = replace(work, badges=(*work.badges, "slow: compiled kernels are not built"))
        before = state.stages if state is not None and fault is None else {}
        stages = {name: before[name] for name in self.stages if name in before}
        failed = list(state.failed) if state is not None else []
        for name, stage in self.stages.items():
            if name in ("contrast", "display") and work.clean is None:
                work = _untouched(work)
            if name not in ALWAYS and (fault is not None or name in failed):
                work = without(stage, work)
                continue
            if name in skip and name not in ALWAYS:
                stages.pop(name, None)
                work = replace(without(stage, work), badges=(*work.badges, f"{name} skipped: out of time"))
                continue
            try:
                stages[name], work = stage.step(stages.get(name), work)
            except Exception as error:  # a stage that raises is switched off; the raw picture comes through
                if name in ALWAYS:
                    raise
                failed.append(name)
                badge = f"{name} failed and is off: {type(error).__name__}"
                work = replace(without(stage, work), badges=(*work.badges, badge))
        enhanced = _enhanced(work, self.settings.heads)
        if fault is not None:
            return None, enhanced
        return ChainState(frame.pixels.shape, frame.time_ns, stages, tuple(failed)), enhanced


def fault_of(frame: Frame) -> str | None:
    """Why nothing can be learned from a frame, None where something can."""
    inside = frame.pixels[frame.valid] if not frame.valid.all() else frame.pixels
    if inside.size == 0:
        return "no open pixels: frame not enhanced"
    low, high = int(inside.min()), int(inside.max())
    if low == high:
        return "constant frame: not enhanced"
    top = (1 << frame.intensity.bits) - 1
    if high >= top and float(np.mean(inside >= top)) > SATURATED:
        return "saturated frame: not enhanced"
    return None


def _restart(state: ChainState, frame: Frame) -> str | None:
    if state.shape != frame.pixels.shape:
        return "size changed: filter restarted"
    if frame.time_ns < state.time_ns or frame.time_ns - state.time_ns > PAUSE_NS:
        return "gap in time: filter restarted"
    return None


def _untouched(work: Work) -> Work:
    """Where nothing was denoised: the frame itself with the noise of one frame."""
    assert work.stabilized is not None
    return replace(work, clean=work.stabilized, variance=np.ones_like(work.stabilized))


def _enhanced(work: Work, heads: Heads) -> Enhanced:
    assert work.line_integrals is not None and work.sigma is not None and work.valid is not None
    assert work.display is not None and work.raw_display is not None
    return Enhanced(
        line_integrals=read_only(work.line_integrals, np.float32), sigma=read_only(work.sigma, np.float32),
        display=read_only(work.display, np.uint8), raw_display=read_only(work.raw_display, np.uint8),
        flow=None if work.flow is None else read_only(work.flow, np.float32), cell=work.cell, carm=work.carm,
        valid=work.valid,
        relative=work.relative, i0=work.i0, i0_source=work.i0_source, badges=work.badges,
        values=None if work.values is None else read_only(work.values, np.float32), shift_px=work.shift_px,
        shares=None if work.fresh is None or work.variance is None else Shares(work.variance, work.fresh, work.weights),
        heads=heads)
