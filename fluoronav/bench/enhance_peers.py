# SPDX-License-Identifier: Apache-2.0
"""What do others see and lose? Every task for our denoisers and their peers, on the same small frames.

BM3D takes a second for a picture of 128 x 128, so that all are judged there: the middle of one still scene with wires
drawn in, a flat field, an edge (what each measure is: fluoronav.bench.wire and enhance_tasks). IDs: enhance.beside_*,
with the method's name at the end. BM4D takes half a minute a picture: `--full` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fluoronav.bench import observer
from fluoronav.bench.enhance_methods import RECURSIVE, Method, filter_of, peer_filter, peers, recursive_filter
from fluoronav.bench.enhance_scenes import SETTLE, shot
from fluoronav.bench.enhance_tasks import (
    DOSES,
    SEEDS,
    above_dark,
    edge_figures,
    equivalent,
    flat_figures,
    raw_filter,
    wire_figures,
)
from fluoronav.bench.figure import Figure, Progress
from fluoronav.bench.wire import Filter, MovingWire, measure, measure_moving
from fluoronav.imaging.frame import Intensity
from registration.geometry import Array

SIDE, SEED = 128, SEEDS[0]
JUDGED = 0.25  # dose of all tasks but dose equivalence
UNSEEN = 16  # frames of the still scene, shown in a random order


@dataclass(frozen=True, slots=True)
class Beside:
    """A method of the comparison. make: its filter of counts of a law; why: it cannot run here."""

    name: str
    make: Callable[[Intensity], Filter]
    why: str | None = None


def compared(ours: list[Method], full: bool) -> list[Beside]:
    """All methods: raw frames first, then a recursive filter, peers, and ours."""
    others = [Beside("raw", raw_filter), Beside("recursive", lambda law: recursive_filter(RECURSIVE))]
    others += [Beside(p.name, partial(peer_filter, p, after=SETTLE), p.why or (
        "half a minute a picture: bench enhance --full" if p.slow and not full else None)) for p in peers()]
    return others + [Beside(name_of(m), partial(filter_of, m.make), m.why) for m in ours]


def name_of(method: Method) -> str:
    """`shipped`, or the denoiser's name."""
    return method.suffix.lstrip("_") or "shipped"


def figures(ours: list[Method], full: bool, progress: Progress) -> dict[str, Figure]:
    """All tasks for all methods."""
    stills = {dose: shot(SEED, dose, still=True, frames=UNSEEN).middle(SIDE) for dose in DOSES}
    runs = {dose: (s.counts.astype(np.float32), s.intensity) for dose, s in stills.items()}
    best = measure_moving(runs[1.0][0], above_dark(raw_filter(runs[1.0][1])), SEED, 65535)
    found: dict[str, Figure] = {}
    methods = compared(ours, full)
    for i, method in enumerate(methods):
        progress(i / len(methods), f"all tasks through {method.name}")
        if method.why is not None:
            found[f"enhance.beside_wire_kept_25_{method.name}"] = Figure(None, "share", 0, method.why)
            continue
        found |= _tasks(method, runs, best)
    return found


def _tasks(method: Beside, runs: dict[float, tuple[Array, Intensity]], best: MovingWire) -> dict[str, Figure]:
    def filtered(dose: float) -> tuple[Array, Filter]:
        counts, law = runs[dose]
        return counts, above_dark(method.make(law))

    judged = measure(*filtered(JUDGED), SEED, 65535)
    moving = {dose: measure_moving(*filtered(dose), SEED, 65535) for dose in DOSES if dose != JUDGED}
    end = f"_{method.name}"
    found = wire_figures([judged], round(100 * JUDGED), end)
    found[f"enhance.wire_kept_10{end}"] = Figure(moving[0.1].kept, "share", 1)
    found[f"enhance.noise_left{end}"] = Figure(judged.noise_left, "share", 1, "where nothing moves")
    patches = {JUDGED: judged.patches} | {dose: wire.patches for dose, wire in moving.items()}
    for name, see in (("dose_equivalence", observer.npwe), ("dose_equivalence_cho", observer.hotelling)):
        found[f"enhance.{name}{end}"] = equivalent([see(patches[d]) for d in DOSES], see(best.patches), 1)
    found |= flat_figures(method.make, end, SIDE) | edge_figures(method.make, end, SIDE)
    return {key.replace("enhance.", "enhance.beside_", 1): figure for key, figure in found.items()}


# --------------------------------------------------------------------------------------------------
# One table


# heading, ID up to the method
COLUMNS = (
    ("PSNR moving 25 %, dB", "enhance.psnr_over_raw_25_moving"), ("still", "enhance.psnr_over_raw_25_still"),
    ("moving 10 %", "enhance.psnr_over_raw_10_moving"), ("still", "enhance.psnr_over_raw_10_still"),
    ("SSIM moving 25 %", "enhance.ssim_25_moving"), ("coverage 95 %", "enhance.coverage_95"),
    ("wire kept 25 %", "enhance.beside_wire_kept_25"), ("10 %", "enhance.beside_wire_kept_10"),
    ("at rest", "enhance.beside_wire_kept_still_25"), ("noise left", "enhance.beside_noise_left"),
    ("CNR gain", "enhance.beside_cnr_gain_25"), ("new place", "enhance.beside_new_place_25"),
    ("ghost 0", "enhance.beside_ghost_0_25"), ("ghost 3", "enhance.beside_ghost_3_25"),
    ("inserted", "enhance.beside_inserted_frame0_25"), ("removed 3", "enhance.beside_removed_frame3_25"),
    ("dose NPWE", "enhance.beside_dose_equivalence"), ("dose CHO", "enhance.beside_dose_equivalence_cho"),
    ("false lines, SD", "enhance.beside_false_line"), ("MTF 1/2", "enhance.beside_mtf_half"),
    ("ms 256", "enhance.ms_256"), ("ms 512", "enhance.ms_512"), ("ms 1024", "enhance.ms_1024"),
)
OWN_TIMES = {"enhance.ms_512": "enhance.denoise_ms_512", "enhance.ms_1024": "enhance.denoise_ms_median_1024"}


def table(found: dict[str, Figure]) -> list[list[str]]:
    """Heading and a row a method of what `found` holds of COLUMNS; a dash where a method has no such figure."""
    names = [key.rsplit("beside_wire_kept_25_", 1)[1] for key in found if "beside_wire_kept_25_" in key]
    rows = [["method", *(heading for heading, _ in COLUMNS)]]
    for name in names:
        cells = []
        for _, key in COLUMNS:
            own = OWN_TIMES.get(key, key)
            if name == "shipped" and "beside" not in key:
                figure = found.get(own)
            else:
                figure = found.get(f"{key}_{name}") or found.get(f"{own}_{name}")
            cells.append("-" if figure is None else _cell(figure))
        rows.append([name, *cells])
    return rows


def _cell(figure: Figure) -> str:
    if figure.value is None:
        return "not reached" if figure.note.startswith("not reached") else "-"
    return f"{figure.value:.0f}" if abs(figure.value) >= 100 else f"{figure.value:.3g}"
