# SPDX-License-Identifier: Apache-2.0
"""How much of a pixel is from now, from before, from its surroundings, where two small nets choose?

The learned denoiser. The candidates, the recursion and the calibration are those of the classical one; the nets
(models/networks/mixing.py, exported to models/weights) only choose the weights, and the compiled kernels apply
them at full resolution. Every output pixel is a convex combination of data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import cv2
import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.denoise import (
    MEDIAN_OF_NORMAL,
    REMAPPED,
    Calibration,
    Denoise,
    DenoiseSettings,
    calibrated,
    exposure_followed,
    middle_of,
)
from fluoronav.enhance.noise import quiet_median
from fluoronav.enhance.precision import open_chosen
from fluoronav.enhance.work import Work
from models.engines import WEIGHTS, Engine, installed
from registration.geometry import Array

NETS = ("time", "space")
CELL = 8  # pixels that a coefficient stands for
FORGET = 0.8  # of `busy` that a frame leaves
RESERVE = 1.10  # on the variance: weights are chosen by the same noise that they average (bench enhance, coverage)
# covariances of (mean, line, near, wide) of white noise of unit variance (10^6 samples; a test repeats it)
WHITE_COVARIANCE = np.array([[1.000, 0.388, 0.141, 0.030], [0.388, 0.365, 0.107, 0.030],
                             [0.141, 0.107, 0.076, 0.025], [0.030, 0.030, 0.025, 0.016]], np.float32)


@dataclass(frozen=True, slots=True)
class MixState:
    """mean and variance of every pixel, busy and lined of 4x4 pixels, calibration with the covariances of the
    candidates, the last frame while learning."""

    mean: Array
    variance: Array
    busy: Array
    lined: Array
    calibration: Calibration
    covariance: Array
    previous: Array | None


def available() -> str | None:
    """None where the learned denoiser can run here, else why not."""
    if kernels.mixing() is None:
        return "compiled kernels are not built"
    if "openvino" not in installed():
        return "OpenVINO is not installed"
    if not all((WEIGHTS / f"mixing_{net}.onnx").is_file() for net in NETS):
        return "its weights are missing"
    return None


def fingerprint() -> dict[str, str]:
    """What the bits of the learned denoiser depend on beside the kernels: engine, its version, weights (sha256)."""
    return {"engine": "openvino", "version": version("openvino") if "openvino" in installed() else "not installed",
            **{net: hashlib.sha256((WEIGHTS / f"mixing_{net}.onnx").read_bytes()).hexdigest() for net in NETS}}


class Mix:
    """Stage: the learned denoiser; interchangeable with `Denoise`."""

    name = "denoise"

    def __init__(self, settings: DenoiseSettings | None = None, engine: str | None = "openvino") -> None:
        self.settings = settings or DenoiseSettings()
        self.opened = partial(open_chosen, engine=engine)
        self._classical = Denoise(self.settings)
        self._engines: dict[tuple[str, tuple[int, ...]], Engine] = {}

    def step(self, state: MixState | None, item: Work) -> tuple[MixState, Work]:
        """Adds `clean`, `variance`, `fresh`, `mean` and `weights` to the item."""
        y = item.stabilized
        assert y is not None
        badges = item.badges
        if state is None:
            small = np.zeros(_blocks(y.shape), np.float32)
            state = MixState(y, np.full_like(y, item.excess), small, small, Calibration(), WHITE_COVARIANCE, None)
            mean, variance, gate = y, state.variance, np.ones_like(y)
        else:
            before, doubt = self._classical.before(state, item)
            if state.previous is not None and item.excess == 1 and item.law_before is None:
                state = self._learned(state, y, item)
            before, stepped = exposure_followed(before, y, item.frame.valid)
            badges = (*badges, "exposure step followed") if stepped else badges
            mean, variance, gate = self._in_time(y, before, doubt, state, item)
        clean, left, weights, lined = self._in_space(mean, variance, gate, state)
        busy = np.maximum(cv2.resize(gate, lined.shape[::-1], interpolation=cv2.INTER_AREA), FORGET * state.busy)
        learning = y if state.calibration.frames < 4 and item.excess == 1 else None
        return (MixState(mean, variance, busy, lined, state.calibration, state.covariance, learning),
                replace(item, clean=clean, variance=left, fresh=variance, mean=mean, weights=weights, badges=badges))

    def _in_time(self, y: Array, mean: Array, variance: Array, state: MixState,
                 item: Work) -> tuple[Array, Array, Array]:
        native, scale = kernels.mixing(), 1 / state.calibration.evidence
        if item.flow is not None and item.trusted is not None:
            mean, variance = kernels.followed(y, mean, variance, item.excess, item.flow, item.trusted, item.cell,
                                              REMAPPED)
        evidence = kernels.evidence(y, mean, variance, item.excess)
        features = native.time_features(y, evidence, mean, variance, item.excess, scale, state.busy, state.lined)
        found = self._run("time", features)
        law = np.stack([found[0], 5 * np.exp(np.clip(found[1], -2, 2)), 0.02 + 0.2 / (1 + np.exp(1.1 - found[2]))])
        out: tuple[Array, Array, Array] = native.mix_time(y, evidence, mean, variance, item.excess, scale,
                                                          law.astype(np.float32))
        return out

    def _in_space(self, mean: Array, variance: Array, gate: Array,
                  state: MixState) -> tuple[Array, Array, Array, Array]:
        native, c = kernels.mixing(), state.calibration
        near, wide, along, strength, features = native.space_features(mean, variance, gate, 1 / c.line, 1 / c.point)
        found = self._run("space", features)
        clean, left, weights = native.mix_space(mean, variance, near, wide, along, strength, 1 / c.point, found,
                                                state.covariance * np.float32(RESERVE))
        return clean, left, weights, features[0].copy()

    def _run(self, net: str, features: Array) -> Array:
        shape = (1, *features.shape)
        if (net, shape) not in self._engines:
            if len(self._engines) > 4:  # sizes come and go; two nets of two sizes stay
                self._engines.clear()
            self._engines[net, shape] = self.opened(f"mixing_{net}", shape)
        return self._engines[net, shape].run(features.reshape(shape))[0]

    def _learned(self, state: MixState, y: Array, item: Work) -> MixState:
        """The state with a calibration of one more difference of frames."""
        old, valid = state.calibration, item.frame.valid
        assert state.previous is not None
        new = calibrated(old, y, state.previous, valid, self.settings)
        middle = middle_of(y.shape)
        change = (y[middle] - state.previous[middle]) / np.float32(np.sqrt(2))
        share = 1 / (old.frames + 1)
        covariance = (1 - share) * state.covariance + share * covariances(change, valid[middle])
        return replace(state, calibration=new, covariance=covariance.astype(np.float32))


def covariances(noise: Array, valid: Array) -> Array:
    """(4, 4) covariances of the candidates (mean, line, near, wide) of noise alone, over its variance.

    On the blocks in which least happens, because a difference of frames holds motion too.
    """
    noise = np.ascontiguousarray(noise)
    ones = np.ones_like(noise)
    near, wide, along, _, _ = kernels.mixing().space_features(noise, ones, ones, 1.0, 1.0)
    candidates = np.stack([noise, near + along, near, wide])
    size = 16
    rows, columns = (n // size for n in noise.shape)
    cut = candidates[:, : rows * size, : columns * size].reshape(4, rows, size, columns, size)
    power = np.where(valid[: rows * size, : columns * size].reshape(rows, size, columns, size).all(axis=(1, 3)),
                     (cut[0] ** 2).mean(axis=(1, 3)), np.inf)
    spread = quiet_median(noise, valid) / MEDIAN_OF_NORMAL
    if not np.isfinite(power).any() or spread <= 0:
        return WHITE_COVARIANCE
    quiet = power <= np.quantile(power[np.isfinite(power)], 0.5)
    kept = cut.transpose(0, 1, 3, 2, 4)[:, quiet].reshape(4, -1)
    found = kept @ kept.T / kept.shape[1]
    return np.asarray(found / max(float(found[0, 0]), 1e-6), np.float32)


def _blocks(shape: tuple[int, ...]) -> tuple[int, int]:
    return (-(-shape[0] // CELL) * 2, -(-shape[1] // CELL) * 2)
