# SPDX-License-Identifier: Apache-2.0
"""What is left out where time runs short? A ladder of savings, climbed when steps are late, left when they are not."""

from __future__ import annotations

from collections import deque
from statistics import median

from fluoronav.live.step import Decision, Step

# What each rung leaves out besides those below it: first what is seen least.
RUNGS = ("overlay", "superres", "contrast", "motion", "denoise")
STAGE = {"overlay": "overlay"} | dict.fromkeys(RUNGS[1:], "enhance")  # whose time a rung saves
WORTH = 0.25  # of the interval, that this stage takes at least: less would spoil the picture for little
LATE, SLACK = 0.9, 0.8  # of the interval: above the first the next rung is taken, below the second the last left
PATIENCE = {"up": 4, "down": 20}  # steps in a row that must agree: quick to save, slow to spend again
UNKNOWN_INTERVAL_S = 1 / 15


class Deadlines:
    """Decides, before each step, what it may not do. Holds the durations of the last steps."""

    def __init__(self, interval_s: float | None) -> None:
        self.interval_s = interval_s
        self.rung = 0
        self.rungs: tuple[str, ...] = RUNGS  # less what is off, which saves nothing
        self._ms: deque[float] = deque(maxlen=8)
        self._stages: deque[dict[str, float]] = deque(maxlen=15)  # a second: one slow step is no habit
        self._late = self._slack = 0
        self._drawn: int | None = None
        self._again = False

    def decisions(self) -> tuple[Decision, ...]:
        """For the next frame."""
        out = [Decision("skip", name) for name in self.rungs[1:self.rung]]
        if self.rung > 0 and self._again and self._drawn is not None:
            out.append(Decision("overlay_reused", {"frame": self._drawn}))
        return tuple(out)

    def done(self, step: Step, interval_s: float | None) -> None:
        """Learn from a finished step; interval_s: between the frames that came lately, where it is known."""
        reused = any(d.kind == "overlay_reused" for d in step.decisions)
        if not reused and step.overlay.layers:
            self._drawn = step.frame.index
        self._again = not reused  # at most every second overlay is used again
        self.rungs = tuple(name for name in RUNGS if getattr(step.enhanced.heads, name, True))
        self.rung = min(self.rung, len(self.rungs))
        budget = 1000 * (self.interval_s or interval_s or UNKNOWN_INTERVAL_S)
        self._ms.append(step.timings.get("total", 0.0))
        self._stages.append(step.timings)
        usual = sum(self._ms) / len(self._ms)
        self._late = self._late + 1 if usual > LATE * budget else 0
        self._slack = self._slack + 1 if usual < SLACK * budget else 0
        if self._late >= PATIENCE["up"] and self.rung < len(self.rungs):
            if self._usual(STAGE[self.rungs[self.rung]]) > WORTH * budget:
                self.rung += 1
                self._ms.clear()
            self._late = 0
        elif self._slack >= PATIENCE["down"] and self.rung > 0:
            self.rung, self._slack = self.rung - 1, 0
            self._ms.clear()

    def _usual(self, stage: str) -> float:
        """What a stage usually takes, ms."""
        return float(median(timings.get(stage, 0.0) for timings in self._stages))
