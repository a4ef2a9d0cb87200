# SPDX-License-Identifier: Apache-2.0
"""What does a detector make of line integrals? Quanta, blur that correlates them, lag, maps, scatter, dose, bits.

`expected` is what the detector would give without noise: the truth that a denoiser is held to. Everything
linear is in quanta a pixel until the last step.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from registration.geometry import Array

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Detector:
    """quanta: absorbed a pixel where nothing attenuates; electronic: sd in quanta; blur_px: sd of the light's
    spread, for signal and quanta alike; lag: share of a frame that stays for the next; fixed: sd of the gain map
    left after correction, offset: of the offset map, in quanta; dead: share of pixels replaced by their neighbors;
    scatter: share of the primary, smooth; glare: share of the signal in a wide halo; memory: correlation of the noise
    of one frame with the last one's (display chains average what stands still); bits and kind (`linear`, `log`,
    `display`) of the output.
    """

    quanta: float
    electronic: float = 2.0
    blur_px: float = 0.5
    lag: float = 0.0
    fixed: float = 0.0
    dead: float = 0.0
    scatter: float = 0.0
    glare: float = 0.0
    bits: int = 14
    kind: str = "linear"
    offset: float = 0.0
    memory: float = 0.0

    def noise_sd(self) -> float:
        """What the blur leaves of the standard deviation of white quantum noise."""
        if self.blur_px <= 0:
            return 1.0
        impulse = np.zeros((33, 33), np.float32)
        impulse[16, 16] = 1
        return float(np.sqrt((cv2.GaussianBlur(impulse, (0, 0), self.blur_px) ** 2).sum()))


def any_detector(random: Random, family: str) -> Detector:
    """A detector at random. Full dose is a cine frame of some 400 quanta behind the patient; these go below."""
    quanta = float(np.exp(random.uniform(np.log(250), np.log(40_000))))
    if family == "test":
        return Detector(quanta, 4.0, 0.62, 0.02, 0.003, 5e-5, 0.25, 0.03)
    return Detector(quanta, float(random.uniform(0, 3)), float(random.choice([0, random.uniform(0.3, 0.75)])),
                    float(random.choice([0, random.uniform(0, 0.04)])), float(random.uniform(0, 0.004)),
                    float(random.choice([0, 1e-4])), float(random.uniform(0, 0.5)), float(random.uniform(0, 0.06)),
                    offset=float(random.choice([0, random.uniform(0, 1)])),
                    memory=float(random.choice([0, random.uniform(0.05, 0.5)])))


def exposures(frames: int, random: Random) -> Array:
    """Dose of each frame over the first one's (frames,): an automatic exposure that steps, ramps or pulses once."""
    k, start = np.arange(frames), int(random.integers(1, max(frames, 2)))
    change = float(np.exp(random.uniform(-0.7, 0.7)))
    kind = random.choice(["step", "ramp", "pulse"])
    if kind == "step":
        return np.where(k < start, 1.0, change)
    if kind == "ramp":  # a control loop that comes nearer by a quarter of what is left with every frame
        return np.asarray(1 + (change - 1) * (1 - 0.75 ** np.maximum(k - start + 1, 0)))
    return np.where(k == 0, 1.0, 1 / change)  # the first pulse of a train


def signal(line_integrals: Array, detector: Detector, doses: Array | None = None) -> Array:
    """Expected quanta (frames, rows, columns) of clean line integrals: scatter, glare, blur and lag, no noise.

    doses (frames,): what the exposure of each frame is multiplied by."""
    out = np.empty_like(line_integrals)
    before = None
    for k, p in enumerate(line_integrals):
        primary = detector.quanta * (1.0 if doses is None else float(doses[k])) * np.exp(-p)
        wide = min(p.shape) / 8
        total = primary
        if detector.scatter > 0:
            total = primary + detector.scatter * _smooth(primary, wide)
        if detector.glare > 0:
            total = (1 - detector.glare) * total + detector.glare * _smooth(total, wide / 3)
        if detector.blur_px > 0:
            total = cv2.GaussianBlur(total, (0, 0), detector.blur_px)
        out[k] = total if before is None else (1 - detector.lag) * total + detector.lag * before
        before = total
    return out


def detected(expected: Array, detector: Detector, random: Random) -> Array:
    """Noisy quanta (float32): Poisson before the light spreads, electronic noise after it, gain map, dead pixels.

    The spread of the light is in `expected` already; the noise is made white and spread apart from it, so that
    its correlation and its strength are right and the signal is not blurred twice.
    """
    shape = expected.shape[1:]
    gains = 1 + detector.fixed * random.normal(size=shape)
    dead = random.random(shape) < detector.dead
    offsets = detector.offset * random.normal(size=shape) if detector.offset > 0 else 0.0
    out = np.empty_like(expected)
    memory, before = detector.memory, None
    for k, mean in enumerate(expected):
        noise = random.poisson(np.maximum(mean, 0)) - mean
        if detector.blur_px > 0:
            noise = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), detector.blur_px)
        noise = noise + random.normal(0, detector.electronic, shape)
        if memory > 0:
            spread = np.sqrt(mean + detector.electronic**2 + 1)
            noise = noise if before is None else memory * before * spread + np.sqrt(1 - memory**2) * noise
            before = noise / spread
        x = mean * gains + offsets + noise
        if dead.any():
            x = np.where(dead, cv2.blur(x.astype(np.float32), (3, 3)), x)
        out[k] = x
    return out


def stored(quanta: Array, detector: Detector) -> Array:
    """What the file holds: uint8 or uint16; linear, logarithmic or through a display curve; dense is dark."""
    top = (1 << detector.bits) - 1
    share = np.maximum(quanta, 0.25) / detector.quanta
    if detector.kind == "log":
        value = 1 + np.log(share) / 7
    elif detector.kind == "display":
        value = share**0.45
    else:
        value = share * 0.8
    return np.clip(np.rint(value * top), 0, top).astype(np.uint8 if detector.bits <= 8 else np.uint16)


def _smooth(picture: Array, sd_px: float) -> Array:
    """A wide blur at an eighth of the size: it has no detail to lose."""
    small = cv2.resize(picture, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(sd_px / 8, 0.5), borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, picture.shape[::-1], interpolation=cv2.INTER_CUBIC)
