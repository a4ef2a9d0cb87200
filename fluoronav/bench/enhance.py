# SPDX-License-Identifier: Apache-2.0
"""How much noise does the chain take, what does it do to a moving wire, how long does it need?

IDs without a suffix are of the chain as it ships; `_classical`, `_learned` (the mixing denoiser), `_recurrent` of
its denoisers, `_raw`, `_recursive`, `_bm3d`, `_bm4d` and `_nlm_multi` of what they stand beside, on the same frames.
Tasks in which peers take part are `enhance.beside_*` (128 x 128, all methods there); one table shows all of them.
"""

from __future__ import annotations

import numpy as np

from fluoronav.bench import enhance_contrast, enhance_heads, enhance_peers, enhance_speed
from fluoronav.bench.enhance_blur import deblurred
from fluoronav.bench.enhance_methods import RECURSIVE, Method, chain_filter, filter_of, methods, recursive_filter
from fluoronav.bench.enhance_scenes import Bench
from fluoronav.bench.enhance_tasks import Tasks
from fluoronav.bench.figure import Figure, Progress, shared_data
from fluoronav.bench.wire import Filter, WireFigures, measure
from fluoronav.imaging import open_run
from fluoronav.imaging.frame import Intensity
from registration.errors import BadInput
from registration.geometry import Array

__all__ = ["chain_filter", "figures", "recursive_filter"]
RUNS = ("IM1", "IM2", "IM3", "IM4")
SEEDS = 5


def figures(progress: Progress, full: bool = False) -> dict[str, Figure]:
    """Speed, simulated scenes with their truth, and where the real images are at hand the vessel phantom.

    full: BM4D on all pictures and tasks, and BM3D at 1024 x 1024: half an hour more.
    """
    found = enhance_contrast.figures(progress) | enhance_heads.figures(progress) | deblurred()
    ours = [m for m in methods() if m.why is None]
    found |= {f"enhance.psnr_over_raw_25{m.suffix}": Figure(None, "dB", 0, str(m.why)) for m in methods() if m.why}
    for method in ours:
        found |= enhance_speed.figures_of(method, progress)
    found |= enhance_speed.engine_figures(progress) | enhance_speed.peer_figures(full, progress)
    for dose in (0.1, 0.25):
        bench = Bench(dose, full, progress)
        found |= bench.figures()
        for method in ours:
            progress(0.5, f"moving scenes{method.suffix} at {dose:.0%}")
            found |= bench.figures_of(method)
    tasks = Tasks(progress)
    for method in ours:
        found |= tasks.figures_of(method, progress)
    found |= tasks.beside(progress) | enhance_peers.figures(methods(), full, progress)
    return found | phantom(ours, progress)


def table(found: dict[str, Figure]) -> list[list[str]]:
    """All methods beside each other."""
    return enhance_peers.table(found)


def phantom(ours: list[Method], progress: Progress) -> dict[str, Figure]:
    """Real noise: a wire drawn into the still runs of the vessel phantom, and what is left of their noise."""
    try:
        folder = shared_data() / "vessel_phantom"
    except BadInput as error:
        return {key: Figure(None, "", 0, str(error)) for key in ("phantom.wire_kept", "phantom.noise_left")}
    runs = {name: np.stack([frame.pixels for frame in open_run(folder / name).frames]) for name in RUNS}
    found: dict[str, Figure] = {}
    filters = {m.suffix: filter_of(m.make, Intensity("display", "dark", 8)) for m in ours}
    for name, method in (filters | {"_recursive": recursive_filter(RECURSIVE)}).items():
        found |= _wire(runs, method, name, progress)
        if name != "_recursive":
            found |= _errors_over_recursive(runs, method, name)
    return found


def _wire(runs: dict[str, Array], method: Filter, name: str, progress: Progress) -> dict[str, Figure]:
    results: list[WireFigures] = []
    for seed in range(SEEDS):
        for number, run in enumerate(runs.values()):
            progress((seed + number / len(runs)) / SEEDS, f"wire in real noise{name}")
            results.append(measure(run, method, seed))
    ids = {"kept": "wire_kept", "noise_left": "noise_left", "new_place": "new_place_frame0", "ghost": "ghost_3",
           "kept_still": "wire_kept_still", "inserted": "inserted_frame0", "removed_3": "removed_frame3"}
    return {f"phantom.{ids[key]}{name}": Figure(float(np.mean([getattr(r, key) for r in results])), "share",
                                                len(results)) for key in ids}


def _errors_over_recursive(runs: dict[str, Array], method: Filter, name: str) -> dict[str, Figure]:
    """RMS error against the mean of other frames, over that of a recursive filter.

    error_over_recursive: the last three frames of a run against the mean of all others (frame 0 is the pulse
    train's first: brighter). Both filters have seen most of those frames, whose noise is in the mean too, so that a
    filter in time alone is flattered. error_unseen: the filter sees the first half of a run, the mean is of the
    second half, and the noise of that mean (from its frames) is taken off both errors.
    """
    seen, unseen = [], []
    inside = np.s_[16:-16, 16:-16]
    for run in runs.values():
        frames = run.astype(np.float32)
        both = [list(f(iter(frames))) for f in (method, recursive_filter(RECURSIVE))]
        for k in range(len(frames) - 3, len(frames)):
            rest = np.delete(frames[1:], k - 1, axis=0).mean(axis=0)
            error = [float(np.sqrt(np.mean((x[k] - rest)[inside] ** 2))) for x in both]
            seen.append(error[0] / error[1])
        half = (len(frames) + 1) // 2
        later = frames[half + 1:]  # one frame between: displays correlate neighbors
        doubt = float(np.mean(later.var(axis=0, ddof=1)[inside])) / len(later)
        square = [float(np.mean((x[half - 1] - later.mean(axis=0))[inside] ** 2)) - doubt for x in both]
        unseen.append(float(np.sqrt(max(square[0], 0) / max(square[1], 1e-6))))
    return {f"phantom.error_over_recursive{name}": Figure(float(np.mean(seen)), "ratio", len(seen),
                                                          f"weight {RECURSIVE}; sharpness not matched"),
            f"phantom.error_unseen{name}": Figure(float(np.mean(unseen)), "ratio", len(unseen),
                                                  f"weight {RECURSIVE}; against frames that the filter never saw")}
