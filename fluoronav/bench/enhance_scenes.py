# SPDX-License-Identifier: Apache-2.0
"""What does a denoiser do where the truth is known? Moving scenes of the test family, at a share of a full dose.

Full dose is 400 quanta a pixel behind the patient (a cine frame). The chain sees stored counts and their noise
law, as it would from a detector that states them; errors are in the scale of unit noise, so that dense and thin
parts count alike. Peers see the same frames in that scale.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import cv2
import numpy as np

from fluoronav.bench.enhance_measures import ence, similarity
from fluoronav.bench.enhance_methods import RECURSIVE, STACK, Method, Peer, peers
from fluoronav.bench.figure import Figure, Progress
from fluoronav.enhance import Chain, Enhanced
from fluoronav.enhance.noise import anscombe
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.training.detector import Detector, detected, signal
from models.training.simulate import Scene, scene
from registration.geometry import Array

FULL = 400.0  # quanta a pixel behind the patient
DARK, STEP = 50.0, 8.0  # stored offset; stored steps a quantum
SIDE, FRAMES, SETTLE = 256, 14, 6
SCENES = range(100, 106)
EDGE = 8
JUDGED = (SETTLE, FRAMES - 1)  # frames
MOVES = 0.3  # noise units at 25 % dose: a pixel whose truth changes by more since the last frame is moving


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

    def middle(self, side: int) -> Shot:
        """Its middle side x side pixels."""
        top, left = ((n - side) // 2 for n in self.counts.shape[1:])
        cut = np.s_[:, top: top + side, left: left + side]
        s = self.scene
        return replace(self, counts=self.counts[cut], expected=self.expected[cut], scene=Scene(
            s.clean[cut], s.bare[cut], s.device[cut], s.flow[cut]))

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


def played(seen: Shot, chain: Chain) -> list[Enhanced]:
    """Every frame of a shot through the chain."""
    state, out = None, []
    for k in range(len(seen.counts)):
        state, enhanced = chain.step(state, seen.frame(k))
        out.append(enhanced)
    return out


@dataclass(frozen=True, slots=True)
class Judged:
    """Errors of one picture: mean squares in the scale of unit noise, everywhere, where the truth moves, where it
    stands; structural similarity there."""

    whole: float
    moving: float
    still: float
    ssim_moving: float
    ssim_still: float


def judged(seen: Shot, k: int, stabilized: Array) -> Judged:
    """The errors of frame k, cleaned, in the scale of unit noise."""
    middle = np.s_[EDGE:-EDGE, EDGE:-EDGE]
    truth, before = (seen.stabilized(seen.expected[j])[middle] for j in (k, k - 1))
    moves = cv2.dilate((np.abs(truth - before) > MOVES).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    square = (stabilized[middle] - truth) ** 2
    alike = similarity(stabilized[middle], truth, float(np.ptp(truth)))

    def part(values: Array, where: Array) -> float:
        return float(values[where].mean()) if where.sum() > 100 else float("nan")

    return Judged(float(square.mean()), part(square, moves), part(square, ~moves), part(alike, moves),
                  part(alike, ~moves))


class Bench:
    """The shots of a dose and what raw frames and peers make of them, for every denoiser to be held against."""

    def __init__(self, dose: float, full: bool, progress: Progress) -> None:
        self.dose = dose
        self.shots = [shot(seed, dose) for seed in SCENES]
        self.raw = [judged(s, k, s.stabilized(s.counts[k])) for s in self.shots for k in JUDGED]
        self.peers: dict[str, list[Judged] | str] = {}
        self.spent: dict[str, list[float]] = {}  # milliseconds a picture
        for i, peer in enumerate(peers()):
            progress(i / 3, f"{peer.name} at {dose:.0%}")
            why = peer.why or ("bench enhance --full" if peer.slow and not full else None)
            self.peers[peer.name] = why or [judged(s, k, self._timed(peer, self._stack(s, k)))
                                            for s in self.shots for k in JUDGED]
        self.peers["recursive"] = [judged(s, k, self._recursive(s, k)) for s in self.shots for k in JUDGED]

    def _timed(self, peer: Peer, stack: Array) -> Array:
        start = time.perf_counter()
        out = peer.last(stack)
        self.spent.setdefault(peer.name, []).append((time.perf_counter() - start) * 1000)
        return out

    def _stack(self, seen: Shot, k: int) -> Array:
        return seen.stabilized(seen.counts[k - STACK + 1: k + 1]).astype(np.float32)

    def _recursive(self, seen: Shot, k: int) -> Array:
        frames = seen.stabilized(seen.counts[: k + 1])
        mean = frames[0]
        for x in frames[1:]:
            mean = mean + RECURSIVE * (x - mean)
        return np.asarray(mean)

    def figures(self) -> dict[str, Figure]:
        """Of raw frames and of the peers: decibels over raw, similarity."""
        percent = round(100 * self.dose)
        found = _similar(self.raw, percent, "_raw") | (self._simply_stated() if self.dose == 0.25 else {})
        for name, values in self.peers.items():
            key = f"enhance.psnr_over_raw_{percent}_{name}"
            if isinstance(values, str):
                found[key] = Figure(None, "dB", 0, values)
                continue
            found[key] = Figure(_gain(self.raw, values, "whole"), "dB", len(values))
            found |= {f"enhance.psnr_over_raw_{percent}_{part}_{name}": Figure(
                _gain(self.raw, values, part), "dB", len(values)) for part in ("moving", "still")}
            if name in self.spent:
                found[f"enhance.ms_{SIDE}_{name}"] = Figure(float(np.median(self.spent[name])), "ms",
                                                            len(self.spent[name]), f"a picture of {SIDE} x {SIDE}")
            found |= _similar(values, percent, f"_{name}")
        return found

    def _simply_stated(self) -> dict[str, Figure]:
        """Coverage by what theory says of raw frames and of a recursive filter; peers state nothing."""
        found = {f"enhance.coverage_95_{peer.name}": Figure(None, "share", 0, "states no uncertainty")
                 for peer in peers()}
        middle, inside = np.s_[EDGE:-EDGE, EDGE:-EDGE], []
        for s in self.shots:
            for k in JUDGED:
                truth = s.stabilized(s.expected[k])[middle]
                pictures = s.stabilized(s.counts[k])[middle], self._recursive(s, k)[middle]
                inside.append([float((np.abs(x - truth) < 1.96 * sigma).mean())
                               for x, sigma in zip(pictures, (1.0, np.sqrt(RECURSIVE / (2 - RECURSIVE))), strict=True)])
        for name, value in zip(("raw", "recursive"), np.mean(inside, axis=0), strict=True):
            found[f"enhance.coverage_95_{name}"] = Figure(float(value), "share", len(inside),
                                                          "sigma of white noise where nothing moves")
        return found

    def figures_of(self, method: Method) -> dict[str, Figure]:
        """Of a denoiser: decibels over raw and BM3D, in moving and still parts; at 25 % coverage and ENCE."""
        ours, inside, sigmas, errors = [], [], [], []
        for seen in self.shots:
            out = played(seen, method.make())
            for k in JUDGED:
                values = out[k].values
                assert values is not None
                ours.append(judged(seen, k, seen.stabilized(values)))
                error, sigma = _stated(seen, k, out[k])
                inside.append(float((np.abs(error) < 1.96 * sigma).mean()))
                errors.append(error.ravel())
                sigmas.append(sigma.ravel())
        percent, s = round(100 * self.dose), method.suffix
        found = {f"enhance.psnr_over_raw_{percent}{s}": Figure(_gain(self.raw, ours, "whole"), "dB", len(ours))}
        for part in ("moving", "still"):
            found[f"enhance.psnr_over_raw_{percent}_{part}{s}"] = Figure(_gain(self.raw, ours, part), "dB", len(ours))
        peer = self.peers["bm3d"]
        found[f"enhance.psnr_over_bm3d_{percent}{s}"] = (
            Figure(None, "dB", 0, peer) if isinstance(peer, str) else
            Figure(_gain(peer, ours, "whole"), "dB", len(ours), "in the scale of unit noise"))
        found |= _similar(ours, percent, s)
        if self.dose == 0.25:
            found[f"enhance.coverage_95{s}"] = Figure(float(np.mean(inside)), "share", len(inside))
            off = ence(np.concatenate(errors), np.concatenate(sigmas))
            found[f"enhance.ence{s}"] = Figure(off, "share", len(errors))
        return found


def _gain(than: list[Judged], ours: list[Judged], part: str) -> float:
    """Mean of the decibels by which errors are smaller, of the first pictures where one has fewer."""
    pairs = [(getattr(a, part), getattr(b, part)) for a, b in zip(than, ours, strict=False)]
    return float(np.nanmean([10 * np.log10(a / b) for a, b in pairs]))


def _similar(values: list[Judged], percent: int, suffix: str) -> dict[str, Figure]:
    return {f"enhance.ssim_{percent}_{part}{suffix}": Figure(
        float(np.nanmean([getattr(v, f"ssim_{part}") for v in values])), "share", len(values))
        for part in ("moving", "still")}


def _stated(seen: Shot, k: int, out: Enhanced) -> tuple[Array, Array]:
    """(error of the line integrals, their stated standard deviation)."""
    middle = np.s_[EDGE:-EDGE, EDGE:-EDGE]
    p = -np.log(np.maximum(seen.expected[k] - DARK, 0.5) / (seen.intensity.i0 or 1.0))
    return (out.line_integrals - p)[middle], out.sigma[middle]
