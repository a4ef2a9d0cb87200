# SPDX-License-Identifier: Apache-2.0
"""What does a denoiser do where the truth is known? Scenes of the test family, at a share of a full dose.

Full dose is 400 quanta a pixel behind the patient (a cine frame). The chain sees stored counts and their noise
law, as it would from a detector that states them; errors are in the scale of unit noise, so that dense and thin
parts count alike. Peers see the same frames: BM3D one by one in that scale, where it is installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fluoronav.bench.figure import Figure
from fluoronav.bench.wire import DEPTH, Filter, WireFigures, measure
from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.enhance.noise import anscombe
from fluoronav.enhance.reference import line_best
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.training.detector import Detector, detected, signal
from models.training.simulate import Scene, scene
from registration.geometry import Array

FULL = 400.0  # quanta a pixel behind the patient
DARK, STEP = 50.0, 8.0  # stored offset; stored steps a quantum
SIDE, FRAMES, SETTLE = 256, 14, 6
SCENES = range(100, 106)
EDGE = 8
DOSES = (0.1, 0.25, 0.5, 1.0)
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Shot:
    """A scene as a detector saw it: stored counts (frames, rows, columns), expected ones, and what they mean."""

    scene: Scene
    counts: Array
    expected: Array
    intensity: Intensity

    def stabilized(self, values: Array) -> Array:
        """Values in stored units in the scale of unit noise."""
        law = self.intensity
        return anscombe(values, law.gain or 1.0, law.electronic or 0.0, law.dark)

    def frame(self, k: int, pixels: Array | None = None) -> Frame:
        """Frame k, or other pixels in its place."""
        p = self.counts[k] if pixels is None else pixels
        return Frame(p, k, k * 66_666_667, None, None, Exposure(), self.intensity, np.ones(p.shape, bool), "bench")


def shot(seed: int, dose: float, still: bool = False, frames: int = FRAMES) -> Shot:
    """A test scene at a share of full dose; `still`: its first frame again and again, without devices."""
    s = scene(seed, "test", SIDE, frames)
    clean = np.repeat(s.bare[:1], frames, axis=0) if still else s.clean
    quanta = dose * FULL * float(np.exp(np.mean(clean[0])))
    detector = Detector(quanta, 2.0, 0.62, 0.02, 0.003, 0.0, 0.2, 0.03)
    expected = signal(clean, detector)
    counts = detected(expected, detector, np.random.default_rng([seed, round(1000 * dose)]))
    law = Intensity("linear", "dark", 16, i0=quanta * STEP, i0_source="measured", dark=DARK,
                    gain=STEP * detector.noise_sd() ** 2, electronic=2.0 * STEP)
    pixels = np.clip(np.rint(counts * STEP + DARK), 0, 65535).astype(np.uint16)
    return Shot(s, pixels, expected * STEP + DARK, law)


def played(seen: Shot, settings: ChainSettings) -> list[Enhanced]:
    """Every frame of a shot through the chain."""
    chain, state, out = Chain(settings), None, []
    for k in range(len(seen.counts)):
        state, enhanced = chain.step(state, seen.frame(k))
        out.append(enhanced)
    return out


def figures(settings: ChainSettings, suffix: str, progress: Progress) -> dict[str, Figure]:
    """All figures of simulated scenes for one denoiser; `suffix` goes behind each ID."""
    found: dict[str, Figure] = {}
    wires: dict[float, list[WireFigures]] = {}
    for i, dose in enumerate(DOSES):
        progress(i / len(DOSES), f"simulated scenes{suffix} at {dose:.0%}")
        wires[dose] = [_wired(seed, dose, settings) for seed in (100, 101, 102)]
        if dose in (0.1, 0.25):
            found |= _errors(dose, settings, suffix)
            kept = float(np.mean([w.kept for w in wires[dose]]))
            found[f"enhance.wire_kept_{round(100 * dose)}{suffix}"] = Figure(kept, "share", 3)
    at = wires[0.25]
    mean = {key: float(np.mean([getattr(w, key) for w in at])) for key in ("new_place", "ghost_0", "ghost", "kept",
                                                                           "beside")}
    found |= {f"enhance.new_place_frame0{suffix}": Figure(mean["new_place"], "share", len(at)),
              f"enhance.ghost_0{suffix}": Figure(mean["ghost_0"], "share", len(at)),
              f"enhance.ghost_3{suffix}": Figure(mean["ghost"], "share", len(at)),
              f"enhance.cnr_gain{suffix}": Figure(mean["kept"] / mean["beside"] - 1, "share", len(at),
                                                  f"moving wire at 25 % dose, kept {mean['kept']:.2f}")}
    found[f"enhance.dose_equivalence{suffix}"] = _dose_equivalence(wires)
    found[f"enhance.false_line{suffix}"] = _false_line(settings)
    return found


def _wired(seed: int, dose: float, settings: ChainSettings | None) -> WireFigures:
    """Figures of a wire drawn into a still scene at a dose; settings None: the raw frames."""
    seen = shot(seed, dose, still=True, frames=16)

    def method(frames: Iterator[Array]) -> Iterator[Array]:
        chain, state = Chain(settings), None
        for k, x in enumerate(frames):
            state, enhanced = chain.step(state, seen.frame(k, np.clip(np.rint(x + DARK), 0, 65535).astype(np.uint16)))
            assert enhanced.values is not None
            yield enhanced.values - np.float32(DARK)

    plain: Filter = lambda frames: frames  # noqa: E731  # raw: what comes goes
    counts = np.maximum(seen.counts.astype(np.float32) - np.float32(DARK), 0)
    return measure(counts, method if settings is not None else plain, seed, top=65535)


def _dose_equivalence(wires: dict[float, list[WireFigures]]) -> Figure:
    """Least share of full dose at which a piece of the moving wire is as detectable as in raw full-dose frames.

    The observer averages along 11 pixels himself, and a wire that moves every frame has one frame of quanta: a
    filter gains for him only what it takes of the noise around.
    """
    raw = float(np.mean([_wired(seed, 1.0, None).detectability for seed in (100, 101, 102)]))
    seen = [float(np.mean([w.detectability for w in wires[dose]])) for dose in DOSES]
    note = f"raw d' {raw:.2f}; chain " + ", ".join(f"{s:.2f} at {d:.0%}" for s, d in zip(seen, DOSES, strict=True))
    rising = np.maximum.accumulate(seen)
    if rising[-1] < raw:  # beyond full dose: along the last piece of the curve
        slope = max(float(np.log(rising[-1] / rising[-2]) / np.log(DOSES[-1] / DOSES[-2])), 0.1)
        return Figure(float((raw / rising[-1]) ** (1 / slope)), "share of dose", 3, "extrapolated; " + note)
    return Figure(float(np.exp(np.interp(raw, rising, np.log(DOSES)))), "share of dose", 3, note)


def _errors(dose: float, settings: ChainSettings, suffix: str) -> dict[str, Figure]:
    """PSNR over raw and over BM3D in moving scenes; at 25 % the coverage of the stated sigma and its ENCE."""
    gains, over, inside, sigmas, errors = [], [], [], [], []
    middle = np.s_[EDGE:-EDGE, EDGE:-EDGE]
    for seed in SCENES:
        seen = shot(seed, dose)
        out = played(seen, settings)
        for k in (SETTLE, FRAMES - 1):
            truth = seen.stabilized(seen.expected[k])[middle]
            values = out[k].values
            assert values is not None
            ours = float(((seen.stabilized(values)[middle] - truth) ** 2).mean())
            gains.append(10 * np.log10(float(((seen.stabilized(seen.counts[k])[middle] - truth) ** 2).mean()) / ours))
            peer = bm3d_error(seen, k, truth)
            if peer is not None:
                over.append(10 * np.log10(peer / ours))
            p = -np.log(np.maximum(seen.expected[k] - DARK, 0.5) / (seen.intensity.i0 or 1.0))
            error, sigma = (out[k].line_integrals - p)[middle], out[k].sigma[middle]
            inside.append(float((np.abs(error) < 1.96 * sigma).mean()))
            errors.append(error.ravel())
            sigmas.append(sigma.ravel())
    percent = round(100 * dose)
    found = {f"enhance.psnr_over_raw_{percent}{suffix}": Figure(float(np.mean(gains)), "dB", len(gains)),
             f"enhance.psnr_over_bm3d_{percent}{suffix}": Figure(
                 float(np.mean(over)) if over else None, "dB", len(over),
                 "in the scale of unit noise" if over else "bm3d is not installed (extra `peers`)")}
    if dose == 0.25:
        found[f"enhance.coverage_95{suffix}"] = Figure(float(np.mean(inside)), "share", len(inside))
        found[f"enhance.ence{suffix}"] = Figure(ence(np.concatenate(errors), np.concatenate(sigmas)), "share",
                                                len(errors))
    return found


_bm3d_errors: dict[tuple[int, int, float], float] = {}  # of this process: each denoiser is compared with the same


def bm3d_error(seen: Shot, k: int, truth: Array) -> float | None:
    """Mean square error of BM3D on one frame, told that the noise is 1; None where it is not installed."""
    if importlib.util.find_spec("bm3d") is None:
        return None
    key = (k, int(seen.counts[k].sum()), float(seen.expected[k, 0, 0]))
    if key not in _bm3d_errors:
        import bm3d

        clean = bm3d.bm3d(seen.stabilized(seen.counts[k]), sigma_psd=1.0)
        _bm3d_errors[key] = float(((clean[EDGE:-EDGE, EDGE:-EDGE] - truth) ** 2).mean())
    return _bm3d_errors[key]


def ence(errors: Array, sigmas: Array, bins: int = 10) -> float:
    """Expected normalized calibration error: |RMS error - RMS sigma| over RMS sigma, mean over bins of sigma.

    Source: Levi et al., Sensors 22(15), 2022.
    """
    parts = np.array_split(np.argsort(sigmas, kind="stable"), bins)
    stated = np.array([np.sqrt((sigmas[p] ** 2).mean()) for p in parts])
    real = np.array([np.sqrt((errors[p] ** 2).mean()) for p in parts])
    return float(np.mean(np.abs(real - stated) / stated))


def _false_line(settings: ChainSettings) -> Figure:
    """Mean response to lines (11 pixels, best of twelve directions) in a flat field over the output's SD."""
    mean = np.full((FRAMES, SIDE, SIDE), 100.0, np.float32)
    detector = Detector(1000.0, 2.0, 0.62)
    random = np.random.default_rng(7)
    pixels = np.clip(np.rint(detected(mean, detector, random) * STEP + DARK), 0, 65535).astype(np.uint16)
    law = Intensity("linear", "dark", 16, i0=1000 * STEP, i0_source="measured", dark=DARK,
                    gain=STEP * detector.noise_sd() ** 2, electronic=2.0 * STEP)
    seen = Shot(scene(0, "test", 32, 1), pixels, mean * STEP + DARK, law)
    answers = []
    for e, raw in list(zip(played(seen, settings), pixels, strict=True))[SETTLE:]:
        assert e.values is not None
        answers.append([float(np.abs(line_best((x - x.mean()).astype(np.float32))).mean() / x.std())
                        for x in (e.values, raw.astype(np.float32))])
    ours, plain = np.mean(answers, axis=0)
    return Figure(float(ours), "SD", len(answers), f"raw: {plain:.2f}; a wire of {DEPTH:.0%} would be far above")
