# SPDX-License-Identifier: Apache-2.0
"""What can be seen in what a denoiser gives? Wires and an edge drawn into still simulated scenes, noise alone.

Dose equivalence: the least dose at which the denoised moving wire is as detectable as it is raw at full dose, for the
NPWE observer (fluoronav.bench.observer says how); beside it the same for the channelized Hotelling observer, and for
a wire of 6 %, which a denoiser may take for noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fluoronav.bench import observer
from fluoronav.bench.enhance_measures import NPS_BANDS, banded, noise_spectrum, transfer_in_time
from fluoronav.bench.enhance_methods import RECURSIVE, Method, filter_of, recursive_filter
from fluoronav.bench.enhance_scenes import DARK, FRAMES, SETTLE, SIDE, STEP, Shot, shot
from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.observer import Patches
from fluoronav.bench.wire import DEPTH, Filter, WireFigures, measure
from fluoronav.enhance.reference import line_best
from fluoronav.imaging.frame import Intensity
from models.training.detector import Detector, detected
from models.training.simulate import scene

DOSES = (0.1, 0.25, 0.5, 1.0)
SEEDS = (100, 101, 102)
FAINT = 0.06  # of the signal: a wire at the edge of what is seen raw
EDGE_STEP, EDGE_SPEED = 0.3, 3.0  # depth of a moving edge, pixels a frame
AFTER = 5  # frames followed after the edge has come
Key = tuple[float, float]


def wired(seed: int, dose: float, make: Callable[[Intensity], Filter], depth: float = DEPTH) -> WireFigures:
    """Figures of a wire drawn into a still scene at a dose; `make` gives the filter of counts of a law."""
    seen = shot(seed, dose, still=True, frames=16)
    return measure(seen.counts.astype(np.float32), above_dark(make(seen.intensity)), seed, top=65535, depth=depth)


def above_dark(method: Filter) -> Filter:
    """The filter for frames without the detector's offset: wires are shares of the signal above it."""
    return lambda frames: (out - np.float32(DARK) for out in method(x + np.float32(DARK) for x in frames))


class Tasks:
    """What raw frames give, for every denoiser to be held against."""

    def __init__(self, progress: Progress) -> None:
        progress(0.0, "raw frames at full dose")
        self.raw = {depth: Patches.joined([wired(seed, 1.0, raw_filter, depth).patches for seed in SEEDS])
                    for depth in (DEPTH, FAINT)}

    def figures_of(self, method: Method, progress: Progress) -> dict[str, Figure]:
        """All figures of a denoiser of ours."""
        return self.seen_by(partial(filter_of, method.make), method.suffix, progress)

    def beside(self, progress: Progress) -> dict[str, Figure]:
        """The same of the raw frames and of a plain recursive filter."""
        found = self.seen_by(raw_filter, "_raw", progress)
        return found | self.seen_by(lambda law: recursive_filter(RECURSIVE), "_recursive", progress)

    def seen_by(self, make: Callable[[Intensity], Filter], s: str, progress: Progress) -> dict[str, Figure]:
        """All figures of a filter; `make` gives the one for counts of a law, s: suffix of the IDs."""
        seen: dict[Key, list[WireFigures]] = {}
        for i, dose in enumerate(DOSES):
            progress(i / len(DOSES), f"wires{s} at {dose:.0%}")
            seen[DEPTH, dose] = [wired(seed, dose, make) for seed in SEEDS]
            seen[FAINT, dose] = [wired(seed, dose, make, FAINT) for seed in SEEDS]
        found = wire_figures(seen[DEPTH, 0.25], 25, s) | wire_figures(seen[DEPTH, 0.1], 10, s)
        found |= {f"enhance.{new}{s}": found[f"enhance.{old}_25{s}"] for new, old in (
            ("new_place_frame0", "new_place"), *((name, name) for name in ("ghost_0", "ghost_3", "cnr_gain")))}
        for name, depth, see in (("dose_equivalence", DEPTH, observer.npwe), ("dose_equivalence_cho", DEPTH,
                                 observer.hotelling), ("dose_equivalence_faint", FAINT, observer.npwe)):
            curve = [see(Patches.joined([w.patches for w in seen[depth, dose]])) for dose in DOSES]
            found[f"enhance.{name}{s}"] = equivalent(curve, see(self.raw[depth]), len(SEEDS))
        return found | flat_figures(make, s) | edge_figures(make, s)


def wire_figures(at: list[WireFigures], percent: int, suffix: str) -> dict[str, Figure]:
    """Means of the wire's figures at one dose."""
    def mean(key: str) -> float:
        return float(np.mean([getattr(w, key) for w in at]))

    ids = {"wire_kept": "kept", "wire_kept_still": "kept_still", "new_place": "new_place", "new_place_frame1": "new_1",
           "new_place_frame3": "new_3", "ghost_0": "ghost_0", "ghost_3": "ghost", "inserted_frame0": "inserted",
           "removed_frame0": "removed_0", "removed_frame3": "removed_3"}
    found = {f"enhance.{name}_{percent}{suffix}": Figure(mean(key), "share", len(at)) for name, key in ids.items()}
    found[f"enhance.cnr_gain_{percent}{suffix}"] = Figure(mean("kept") / mean("beside") - 1, "share", len(at),
                                                          f"moving wire, kept {mean('kept'):.2f}")
    return found


def equivalent(seen: list[float], raw: float, n: int) -> Figure:
    """The share of full dose at which detectability (at each of DOSES) reaches what raw frames have at full dose, of n
    scenes."""
    filtered = ", ".join(f"{s:.2f} at {d:.0%}" for s, d in zip(seen, DOSES, strict=True))
    note = f"raw d' {raw:.2f} at full dose; filtered {filtered}"
    rising = np.maximum.accumulate(seen)
    if rising[-1] < raw:
        return Figure(None, "share of dose", n, "not reached; " + note)
    return Figure(float(np.exp(np.interp(raw, rising, np.log(DOSES)))), "share of dose", n, note)


def raw_filter(law: Intensity) -> Filter:
    """Frames as they are."""
    del law
    return lambda frames: frames


# --------------------------------------------------------------------------------------------------
# Noise alone, and an edge


@dataclass(frozen=True, slots=True)
class Flat:
    """A flat field of counts with its shot."""

    shot: Shot
    level: float


def flat_field(quanta: float = 100.0, side: int = SIDE) -> Flat:
    """FRAMES frames of one level, through the detector of the test scenes."""
    mean = np.full((FRAMES, side, side), quanta, np.float32)
    detector = Detector(10 * quanta, 2.0, 0.62)
    pixels = np.clip(np.rint(detected(mean, detector, np.random.default_rng(7)) * STEP + DARK), 0, 65535)
    law = Intensity("linear", "dark", 16, i0=10 * quanta * STEP, i0_source="measured", dark=DARK,
                    gain=STEP * detector.noise_sd() ** 2, electronic=2.0 * STEP)
    return Flat(Shot(scene(0, "test", 32, 1), pixels.astype(np.uint16), mean * STEP + DARK, law), quanta * STEP + DARK)


def flat_figures(make: Callable[[Intensity], Filter], suffix: str, side: int = SIDE) -> dict[str, Figure]:
    """In a flat field: mean response to lines (11 pixels, best of twelve directions) over the output's SD, and the
    share of the raw frames' noise power that is left in bands of frequency."""
    field = flat_field(side=side)
    pairs = []
    frames = [x.astype(np.float32) for x in field.shot.counts]
    for out, raw in list(zip(make(field.shot.intensity)(iter(frames)), frames, strict=True))[SETTLE:]:
        pairs.append((out - np.float32(field.level), raw - np.float32(field.level)))
    lines = np.mean([[float(np.abs(line_best((x - x.mean()).astype(np.float32))).mean() / x.std()) for x in pair]
                     for pair in pairs], axis=0)
    found = {f"enhance.false_line{suffix}": Figure(float(lines[0]), "SD", len(pairs),
                                                   f"raw: {lines[1]:.2f}; a wire of {DEPTH:.0%} would be far above")}
    powers = [noise_spectrum(np.stack(x)) for x in zip(*pairs, strict=True)]
    ours, raw = (banded(*p) for p in powers)
    for name, share, low, high in zip(("low", "middle", "high"), ours / raw, NPS_BANDS, NPS_BANDS[1:], strict=False):
        found[f"enhance.nps_{name}{suffix}"] = Figure(float(share), "share of raw", len(pairs),
                                                      f"noise power, {low:g} to {high:g} cycles a pixel")
    return found


def edge_figures(make: Callable[[Intensity], Filter], suffix: str, side: int = SIDE) -> dict[str, Figure]:
    """Temporal MTF: an edge sweeps over a still scene; what the filter shows of it where it has just come."""
    seen = shot(SEEDS[0], 0.25, still=True, frames=16).middle(side)
    u = np.arange(side, dtype=np.float64)
    front = 40 + EDGE_SPEED * np.arange(16)
    sides = [np.clip(front[k] - u + 0.5, 0, 1)[None] for k in range(16)]  # 1 where the edge has passed
    method = make(seen.intensity)
    plain = [seen.counts[k].astype(np.float32) for k in range(16)]
    drawn = [np.rint((x - DARK) * (1 - EDGE_STEP * side) + DARK).astype(np.float32)
             for x, side in zip(plain, sides, strict=True)]
    without, with_it = (np.stack(list(method(iter(frames)))) for frames in (plain, drawn))
    response: list[list[float]] = [[] for _ in range(AFTER)]
    for k in range(SETTLE, 16 - AFTER):
        came = slice(int(np.ceil(front[k - 1] + 0.5)), int(np.floor(front[k] - 0.5)) + 1)  # reached in this frame
        for later in range(AFTER):
            lost = (without[k + later] - with_it[k + later])[EDGE_ROWS, came]
            response[later].append(float(lost.sum() / (EDGE_STEP * (plain[k + later] - DARK)[EDGE_ROWS, came]).sum()))
    steps = [float(np.mean(r)) for r in response]
    quarter, half = transfer_in_time(steps)
    note = "response " + ", ".join(f"{s:.2f}" for s in steps) + f" from the frame of a {EDGE_STEP:.0%} edge on"
    return {f"enhance.mtf_quarter{suffix}": Figure(quarter, "share", len(response[0]), note),
            f"enhance.mtf_half{suffix}": Figure(half, "share", len(response[0]), note)}


EDGE_ROWS = slice(8, -8)
