# SPDX-License-Identifier: Apache-2.0
"""How do the answers look on their pictures? Lines of the anatomy over each picture, one PNG for all.

Plain projected lines: centerlines, outlines of surfaces and implants, planned path, target. Only an
ACCEPTED answer draws anatomy; any other shows its outcome and its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fluoronav.locate.pictures import Picture
from fluoronav.locate.registering import Located
from fluoronav.locate.simulated import write_picture
from registration.contours import Contours
from registration.geometry import Array, CArm, Float64
from registration.result import Outcome
from registration.shapes import Mesh

if TYPE_CHECKING:
    from fluoronav.case import Case

TILE = 512  # pixels of a picture in the montage, at least
MOST_TILES = 16  # beyond it, numbered files
COLORS = {"centerlines": (64, 224, 190), "surfaces": (0, 200, 255), "implant": (90, 220, 255),
          "path": (255, 191, 64), "target": (255, 80, 255)}
SAID = {Outcome.ACCEPTED: (120, 255, 120), Outcome.AMBIGUOUS: (255, 210, 60), Outcome.LOST: (255, 90, 90)}


def write_overlays(case: Case, found: Sequence[Located], path: Path) -> list[Path]:
    """Write the pictures with their overlay: one PNG with all of them side by side, or numbered files
    where there are more than 16. Returns what was written. Raises BadInput."""
    contours = {name: Contours(mesh) for name, mesh in _meshes(case).items()}
    tiles = [_tile(case, contours, one) for one in found]
    if len(tiles) <= MOST_TILES:
        write_picture(path, _montage(tiles))
        return [path]
    numbered = [path.with_name(f"{path.stem}-{k:03d}{path.suffix}") for k in range(len(tiles))]
    for name, tile in zip(numbered, tiles, strict=True):
        write_picture(name, tile)
    return numbered


def displayed(picture: Picture) -> Array:
    """Grey values (rows, columns) uint8 of a picture, dense dark, windowed to what carries signal."""
    frame = picture.frame
    values = picture.values if frame.intensity.dense == "dark" else -picture.values
    inside = values[frame.valid] if frame.valid.any() else values.ravel()
    low, high = np.percentile(inside, [0.2, 99.8])
    return np.asarray(np.clip((values - low) / max(high - low, 1e-6) * 255, 0, 255), np.uint8)


def _meshes(case: Case) -> dict[str, Mesh]:
    meshes = dict(case.surfaces)
    if case.implant is not None:
        meshes["implant"] = case.implant
    return meshes


def _tile(case: Case, contours: dict[str, Contours], one: Located) -> Array:
    import cv2

    grey = displayed(one.picture)
    scale = max(1, -(-TILE // max(grey.shape)))
    canvas = np.repeat(np.repeat(grey, scale, 0), scale, 1)[:, :, None].repeat(3, axis=2)
    answer, carm = one.registration, one.picture.frame.carm
    if answer.outcome is Outcome.ACCEPTED and carm is not None and answer.carm_from_patient is not None:
        _anatomy(canvas, case, contours, carm, answer.carm_from_patient, scale)
    lines = [f"{Path(str(one.entry['file'])).name}, {one.picture.note}", _said(one)]
    size = max(0.4, canvas.shape[1] / 1400)
    canvas[: int(70 * size)] //= 3
    for k, text in enumerate(lines):
        at = (int(12 * size), int((28 + 30 * k) * size))
        color = SAID[answer.outcome] if k else (230, 230, 230)
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)
    return canvas


def _said(one: Located) -> str:
    answer = one.registration
    if answer.outcome is not Outcome.ACCEPTED or answer.error is None:
        return f"{answer.outcome.value}: no anatomy is drawn"
    return (f"ACCEPTED, expected error {answer.error.projected_mm:.1f} mm in the picture, "
            f"{answer.error.target_mm:.0f} mm in 3D")


def _anatomy(canvas: Array, case: Case, contours: dict[str, Contours], carm: CArm, pose: Float64, scale: int) -> None:
    for name, contour in contours.items():
        _outline(canvas, contour.silhouette(carm, pose), COLORS["implant" if name == "implant" else "surfaces"], scale)
    for lines in case.centerlines.values():
        for line in lines.lines:
            _line(canvas, carm.project_patient(pose, lines.points[line]), COLORS["centerlines"], scale)
    if case.path_mm is not None:
        _line(canvas, carm.project_patient(pose, case.path_mm), COLORS["path"], scale)
    if case.target_mm is not None and not case.target_assumed:
        import cv2

        u, v = (carm.project_patient(pose, case.target_mm) + 0.5) * scale - 0.5
        if np.isfinite([u, v]).all():
            cv2.drawMarker(canvas, (round(u), round(v)), COLORS["target"], cv2.MARKER_CROSS, 18, 2)


def _line(canvas: Array, pixels: Float64, color: tuple[int, int, int], scale: int) -> None:
    import cv2

    at = (pixels + 0.5) * scale - 0.5
    keep = np.isfinite(at).all(axis=1) & (np.abs(at) < 1e5).all(axis=1)
    cv2.polylines(canvas, [np.round(at[keep] * 16).astype(np.int32)], False, color, 1, cv2.LINE_AA, shift=4)


def _outline(canvas: Array, silhouette: Array, color: tuple[int, int, int], scale: int) -> None:
    """The border of a silhouette, along the edges of its pixels."""
    import cv2

    large = np.repeat(np.repeat(silhouette, scale, 0), scale, 1).astype(np.uint8)
    borders, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.polylines(canvas, borders, True, color, max(1, canvas.shape[1] // 700), cv2.LINE_AA)


def _montage(tiles: Sequence[Array]) -> Array:
    """The pictures side by side, two or more a row, on black."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    high, wide = (max(t.shape[k] for t in tiles) for k in (0, 1))
    out = np.zeros((rows * high, columns * wide, 3), np.uint8)
    for k, tile in enumerate(tiles):
        r, c = divmod(k, columns)
        out[r * high:r * high + tile.shape[0], c * wide:c * wide + tile.shape[1]] = tile
    return out
