# SPDX-License-Identifier: Apache-2.0
"""Which picture of a run is registered, and how does it become a View?

A run whose pictures differ by no more than their noise is registered on its mean, any other on its
middle frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fluoronav.imaging import Frame, Run
from fluoronav.imaging.intensity import FLOOR, i0_of, of_values, relative_of
from registration.errors import BadGeometry, BadInput
from registration.geometry import Array
from registration.ladder import measured
from registration.model import View

BLOCK = 8  # pixels: means over blocks show motion long before single pixels do
STILL_SIGMAS = 6.0  # of a block's noise; by chance once in 10^9
STILL_SHARE = 0.002  # of the blocks may exceed it: dead pixels, burnt-in text that counts
MOST_FRAMES = 128  # of a long run are averaged, evenly taken
BLURRED = 3.0  # noise of a block over that of a pixel / 8: 1.1 to 1.5 on still runs, 8 and more on moving ones


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to be registered: values (rows, columns) float32 in stored units; `frame` has its
    geometry and meaning; index in the run, None for the mean; note says which it is."""

    values: Array
    frame: Frame
    index: int | None
    note: str


def pictures_of(run: Run, *, index: int | None = None, all_frames: bool = False) -> Iterator[Picture]:
    """The picture of a run that DESIGN's rule chooses, or the one asked for, or all. Raises BadInput."""
    n = len(run.frames)
    if index is not None and not -n <= index < n:
        raise BadInput(f"--index {index}", got=f"{run.name} has {n} frames", expected=f"0 to {n - 1}",
                       remedy="choose one of them")
    if all_frames:
        for k in range(n):
            yield _single(run, k, f"frame {k} of {n}")
        return
    if index is not None:
        yield _single(run, index % n, f"frame {index % n} of {n}, as asked for")
    elif n == 1:
        yield _single(run, 0, "the only frame")
    else:
        mean, still, used = _mean_if_still(run)
        if still:
            note = f"the mean of {used} frames (they differ by no more than their noise)"
            yield Picture(mean, run.frames[0], None, note)
        else:
            yield _single(run, n // 2, f"the middle frame, {n // 2} of {n} (the pictures change)")


def view_of(picture: Picture | Frame, longest: int = 512) -> View:
    """The View of a picture: line integrals, weights from the valid mask, binned to at most about
    `longest` pixels a side. Raises BadGeometry where the geometry is not known."""
    frame = picture if isinstance(picture, Frame) else picture.frame
    values = frame.pixels if isinstance(picture, Frame) else picture.values
    if frame.carm is None:
        raise BadGeometry(f"geometry of {frame.source_name}", got=frame.geometry_fault or "none",
                          expected="distances, pitch and matrix of the picture",
                          remedy="give --sdd, --sod, --pixel-spacing or --carm")
    k = max(1, round(max(frame.carm.shape) / longest))
    if k == 1:
        integrals, relative, _, _ = of_values(values.astype(np.float32), frame.intensity, frame.valid)
        return View(integrals, frame.valid.astype(np.float32), frame.carm, relative)
    law, carm = frame.intensity, frame.carm.binned(k)
    if law.kind == "linear":
        i0, _ = i0_of(values, law, frame.valid)
        return View(*measured(values, frame.valid, k, dark=law.dark, floor=FLOOR, open_beam=i0), carm)
    means, weight = measured(values, frame.valid, k)
    return View(relative_of(means, law), weight, carm, relative=True)


def _single(run: Run, k: int, note: str) -> Picture:
    frame = run.frames[k]
    return Picture(frame.pixels.astype(np.float32), frame, k, note)


def _mean_if_still(run: Run) -> tuple[Array, bool, int]:
    """Mean picture (float32), whether all pictures differ by no more than their noise, how many were used."""
    n = len(run.frames)
    chosen = np.unique(np.linspace(0, n - 1, min(n, MOST_FRAMES)).round().astype(int))
    first = run.frames[0]
    total = np.zeros(first.pixels.shape)
    valid = first.valid
    for k in chosen:
        total += run.frames[int(k)].pixels
        valid = valid & run.frames[int(k)].valid
    mean = (total / len(chosen)).astype(np.float32)
    used = _block_means(valid) > 0.999
    level = _block_means(mean)[used]
    if level.size < 50 or float(np.ptp(level)) == 0:
        return mean, False, len(chosen)
    still = all(_only_noise(run.frames[int(k)].pixels, mean, level, used) for k in chosen)
    return mean, still, len(chosen)


def _block_means(image: Array) -> Array:
    b = min(BLOCK, *image.shape)
    rows, cols = (n // b * b for n in image.shape)
    return np.asarray(image[:rows, :cols].reshape(rows // b, b, cols // b, b).mean((1, 3), dtype=np.float32))


def _only_noise(pixels: Array, mean: Array, level: Array, used: Array) -> bool:
    """Whether a picture differs from the run's mean by nothing but noise, gain and offset.

    Blocks average noise away by their side length (somewhat less, as detectors blur noise too), motion
    not: so the spread of block means is held against that of neighboring pixels. A small thing that
    moves alone shows as a few blocks far outside the spread of the others.
    """
    difference = pixels - mean
    rough = float(np.median(np.abs(difference[2:] - difference[:-2]))) * 1.4826 / np.sqrt(2)
    rough = max(rough, 1 / np.sqrt(12))  # stored values are whole numbers
    away = np.abs(_beyond_gain(_block_means(pixels)[used], level))
    spread = 1.4826 * float(np.median(away))
    if spread > BLURRED * rough / BLOCK:
        return False
    sigma = max(spread, rough / BLOCK)
    return float((away > STILL_SIGMAS * sigma).mean()) < STILL_SHARE


def _beyond_gain(one: Array, level: Array) -> Array:
    """Block means less their best gain and offset against the run's, told from the 90 % that fit best."""
    keep = np.ones(len(one), bool)
    for _ in range(2):
        gain, offset = np.polyfit(level[keep], one[keep], 1)
        away = one - (gain * level + offset)
        keep = np.abs(away) <= np.quantile(np.abs(away), 0.9)
    return np.asarray(away)
