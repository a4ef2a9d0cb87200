# SPDX-License-Identifier: Apache-2.0
"""What does the chain do to real pictures? A contact sheet: each real run before, after, and what was taken away."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fluoronav.bench.figure import shared_data
from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.imaging import open_run
from registration.geometry import Array

# run, frame shown, top left corner (row, column) of the piece
PIECES = (
    ("xa_cines/atherectomy_catheter_12f_jpeg_lossless.dcm", 3, (150, 150)),
    ("xa_cines/atherectomy_catheter_12f_jpeg_lossless.dcm", 10, (150, 150)),
    ("xa_cines/cadica/p26_v1", 7, (100, 120)),
    ("xa_cines/cadica/p19_v11", 3, (120, 160)),
    ("vessel_phantom/IM1", 10, (140, 140)),
    ("vessel_phantom/IM3", 10, (140, 140)),
)
SIDE, SCALE = 220, 2
GAIN = 6.0  # grey steps of the difference are shown six times as large


def sheet(path: Path, settings: ChainSettings | None = None) -> None:
    """Writes the sheet as PNG: a row a piece; raw, enhanced, raw less enhanced. Raises BadInput without real images."""
    root = shared_data()
    rows = []
    for name, index, corner in PIECES:
        enhanced = enhanced_frame(root / name, index, settings)
        rows.append(np.hstack([_piece(picture, corner) for picture in (
            enhanced.raw_display, enhanced.display, _difference(enhanced))]))
        cv2.putText(rows[-1], f"{name} frame {index}: raw, enhanced, {GAIN:g} x what was taken", (6, 14),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1, cv2.LINE_AA)
    cv2.imwrite(str(path), np.vstack(rows))


def enhanced_frame(source: Path, index: int, settings: ChainSettings | None = None) -> Enhanced:
    """Frame `index` of a run after the chain has seen all frames before it."""
    chain, state = Chain(settings), None
    frames = open_run(source).frames
    for k in range(index + 1):
        state, enhanced = chain.step(state, frames[k])
    return enhanced


def _difference(enhanced: Enhanced) -> Array:
    change = enhanced.raw_display.astype(np.float32) - enhanced.display
    return np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)


def _piece(picture: Array, corner: tuple[int, int]) -> Array:
    rows, columns = picture.shape
    top, left = (min(c, max(n - SIDE, 0)) for c, n in zip(corner, (rows, columns), strict=True))
    piece = picture[top: top + SIDE, left: left + SIDE]
    return cv2.resize(piece, (SIDE * SCALE, SIDE * SCALE), interpolation=cv2.INTER_CUBIC)
