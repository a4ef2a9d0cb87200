# SPDX-License-Identifier: Apache-2.0
"""What do recipes of nets that sit behind the chain share? Simulated counts as frames, and samples kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fluoronav.imaging.frame import Exposure, Frame, Intensity
from models.training.detector import Detector
from registration.geometry import Array

FULL, DARK, STEP = 400.0, 50.0, 8.0  # quanta a pixel of a full dose, stored offset, stored steps a quantum


def law_of(quanta: float, detector: Detector, electronic: float) -> Intensity:
    """What stored values mean of a detector whose open beam is so many quanta; electronic: its noise, quanta."""
    return Intensity("linear", "dark", 16, i0=quanta * STEP, i0_source="measured", dark=DARK,
                     gain=STEP * detector.noise_sd() ** 2, electronic=STEP * max(electronic, 0.3))


def frames_of(counts: Array, law: Intensity) -> Iterator[Frame]:
    """Counts (frames, rows, columns), quanta, as a run stores them."""
    for k, x in enumerate(np.clip(np.rint(counts * STEP + DARK), 0, 65535).astype(np.uint16)):
        yield Frame(x, k, k * 66_666_667, None, None, Exposure(), law, np.ones(x.shape, bool), "train")


def kept(path: Path, names: Sequence[str], made: Callable[[], list[dict[str, Array]]]) -> list[dict[str, Array]]:
    """Samples, float16 by name: from a file, which is written whole where it is not there yet."""
    if not path.exists():
        found = made()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.stem}.part.npz")
        arrays = {name: np.stack([s[name] for s in found]).astype(np.float16) for name in names}
        np.savez(part, **arrays)  # type: ignore[arg-type]
        part.replace(path)
    with np.load(path) as stored:
        columns = [stored[name] for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
