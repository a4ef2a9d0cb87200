# SPDX-License-Identifier: Apache-2.0
"""Does the gate let a wrong pose through, refuse a right one, or state bounds that do not hold?

Pictures and trials may be kept in a folder: a run that was cut goes on from there, and pictures are not made
again when only registration has changed.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

import fluoronav.bench
import registration
from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.gate_scenes import CARM, CONDITIONS, People, Scene, picture, scene
from fluoronav.bench.real_chest import chest_volume
from fluoronav.files import whole_or_nothing
from registration.geometry import Array, Rigid
from registration.joint import JointModel, RoomView
from registration.model import Settings, Start, View
from registration.result import Outcome, Registration

EACH = 380  # times eight conditions: 3,040
WRONG_MM, RIGHT_MM = 5.0, 2.0  # projected: from here an accepted pose is false, up to here a refusal is


@dataclass(frozen=True, slots=True)
class Trial:
    """One registration against its truth: errors and bounds at the target, mm (None where there is no pose)."""

    index: int
    condition: str
    person: str
    right_patient: bool
    outcome: str
    agreement: float | None
    error_mm: float | None
    projected_mm: float | None
    bound_mm: float | None
    bound_projected_mm: float | None

    @property
    def accepted(self) -> bool:
        return self.outcome == Outcome.ACCEPTED.value

    @property
    def false(self) -> bool:
        """ACCEPTED although patient or side are wrong, or the pose is off."""
        return self.accepted and (not self.right_patient or self.projected_mm is None or self.projected_mm > WRONG_MM)

    @property
    def refusable(self) -> bool:
        """Whether refusing it would be false. LOST shows no pose and counts whatever it would have been: the
        stricter reading."""
        return self.right_patient and (self.projected_mm is None or self.projected_mm < RIGHT_MM)


def figures(progress: Progress, *, each: int = EACH, store: Path | None = None,
            minutes: float | None = None) -> dict[str, Figure]:
    """`gate.*` over all conditions, `each` trials of every one; a bound is held against the truth of every accepted
    one. store: keep pictures and trials in this folder and go on from what is there; minutes: stop after so long,
    with the figures of what is there."""
    return summary(simulate(progress, each, store=store, minutes=minutes))


def simulate(progress: Progress, each: int, *, store: Path | None = None,
             minutes: float | None = None) -> list[Trial]:
    """The first `each` trials of every condition; fewer where the minutes are over."""
    begun, count = time.monotonic(), each * len(CONDITIONS)
    kept = Kept(store) if store is not None else None
    done = {} if kept is None else kept.trials()
    missing = [n for n in range(count) if n not in done]
    people = People(chest_volume(progress), progress) if missing else None
    for n in missing:
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            break
        assert people is not None
        trying = scene(people, n)
        seen = picture(people, trying) if kept is None else kept.picture(people, trying)
        done[n] = tried(people, trying, seen)
        if kept is not None:
            kept.add(done[n])
        progress((n + 1) / count, trying.condition)
    return [done[n] for n in sorted(done) if n < count]


def tried(people: People, trying: Scene, seen: Array) -> Trial:
    """Register a scene's picture (h, w), and hold the answer against the truth. Who breathes is registered as spine
    and rest (`register --bodies spine`): the target lies in the spine."""
    view, start = View(seen, trying.weight, CARM), [Start(trying.start)]
    model = people.model(trying.model).aimed_at(
        trying.target_mm if trying.right_patient else people.center_mm(trying.model))
    if not trying.breath:
        return held(trying, model.register(view, start, Settings()))
    parts = {name: part.aimed_at(trying.target_mm) for name, part in people.parts(trying.model).items()}
    joint = JointModel(parts).register([RoomView(view, np.eye(4))], start, Settings(), whole=model)
    return held(trying, joint.registrations[0])


def held(trying: Scene, found: Registration) -> Trial:
    """Errors at the target: in 3D, and of its place in the overlay against its place in the picture."""
    apart = projected = None
    pose, error = found.carm_from_patient, found.error
    if pose is not None and trying.right_patient:
        at, meant = Rigid.apply(pose, trying.target_mm), Rigid.apply(trying.true, trying.target_mm)
        scale = (trying.real.sod_mm - meant[2]) / trying.real.sdd_mm * CARM.pitch_mm_row_col[0]
        apart = float(np.linalg.norm(at - meant))
        projected = float(np.linalg.norm(CARM.project(at) - trying.real.project(meant)) * scale)
    return Trial(trying.index, trying.condition, trying.person, trying.right_patient, found.outcome.value,
                 found.similarity, apart, projected, error.target_mm if error else None,
                 error.projected_mm if error else None)


class Kept:
    """A folder of pictures and trials, each named by the code that made it: none is taken for another's."""

    def __init__(self, folder: Path) -> None:
        bench = Path(fluoronav.bench.__path__[0])
        makers = [bench / name for name in ("truth.py", "gate_scenes.py")]
        # an editable installation keeps sources and compiled modules in two places
        solvers = [*sorted(f for place in registration.__path__ for kind in ("*.py", "*.so")
                           for f in Path(place).rglob(kind)), bench / "gate.py"]
        self._pictures = folder / f"pictures-{_digest(makers)}"
        self._trials = folder / f"trials-{_digest([*makers, *solvers])}.jsonl"
        self._pictures.mkdir(parents=True, exist_ok=True)

    def picture(self, people: People, of: Scene) -> Array:
        """The picture (h, w) of a scene, made if it is not there."""
        path = self._pictures / f"{of.index:05d}.npy"
        if path.exists():
            return np.asarray(np.load(path))
        made = picture(people, of)
        with whole_or_nothing(path) as part:
            np.save(part, made)
        return made

    def trials(self) -> dict[int, Trial]:
        """What was tried so far, by index; a last line that was cut is taken out of the file."""
        if not self._trials.exists():
            return {}
        lines = self._trials.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            self._trials.write_text("".join(lines[:-1]))
            lines.pop()
        tried = [Trial(**json.loads(line)) for line in lines]
        return {trial.index: trial for trial in tried}

    def add(self, trial: Trial) -> None:
        """Keep one more."""
        with self._trials.open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")


def _digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


# --------------------------------------------------------------------------------------------------
# Figures


def summary(trials: list[Trial]) -> dict[str, Figure]:
    """The figures of the gate over all trials, each with its 95 % interval, and those of every condition."""
    accepted = [t for t in trials if t.accepted]
    refusable = [t for t in trials if t.refusable]
    right = [t for t in accepted if t.right_patient]
    out = {"gate.false_accept": _share([t.false for t in accepted]),
           "gate.false_refuse": _share([not t.accepted for t in refusable]),
           "gate.coverage_95": _share([_within(t.error_mm, t.bound_mm) for t in right]),
           "gate.coverage_95_projected": _share([_within(t.projected_mm, t.bound_projected_mm) for t in right]),
           "gate.trials": Figure(float(len(trials)), "registrations", len(trials))}
    for condition in CONDITIONS:
        some = [t for t in trials if t.condition == condition]
        taken = [t for t in some if t.accepted]
        out[f"gate.{condition}.accepted"] = _share([t.accepted for t in some])
        if taken and taken[0].right_patient:
            out[f"gate.{condition}.false_refuse"] = _share([not t.accepted for t in some if t.refusable])
            out[f"gate.{condition}.coverage_95"] = _share([_within(t.error_mm, t.bound_mm) for t in taken])
            out[f"gate.{condition}.coverage_95_projected"] = _share(
                [_within(t.projected_mm, t.bound_projected_mm) for t in taken])
    return out


def _within(error: float | None, bound: float | None) -> bool:
    return error is not None and bound is not None and error < bound


def _share(hits: list[bool]) -> Figure:
    """A share with its 95 % interval (Clopper and Pearson 1934); no value where there is nothing to share."""
    if not hits:
        return Figure(None, "share", 0)
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(method="exact")
    return Figure(float(np.mean(hits)), "share", len(hits), f"95 % interval {interval.low:.4f} to {interval.high:.4f}")
