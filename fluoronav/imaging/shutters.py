# SPDX-License-Identifier: Apache-2.0
"""Which pixels carry signal? Shutters that the header states, and borders that are blank."""

from __future__ import annotations

import numpy as np

from fluoronav.imaging.notes import Notes
from fluoronav.imaging.tags import Header
from registration.geometry import Array

BLANK_SHARE = 0.002  # of the picture: a smaller blank border is not worth a word


def stated_shutters(header: Header, shape: tuple[int, int], notes: Notes) -> Array:
    """Mask (rows, columns) of what the shutters leave open (PS3.3 C.7.6.11; edges count from 1)."""
    rows, columns = np.ogrid[1: shape[0] + 1, 1: shape[1] + 1]
    valid = np.ones(shape, bool)
    for kind in header.code("ShutterShape").split("\\"):
        part = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}.get(kind.strip())
        mask = part(header, rows, columns) if part else None
        if part and (mask is None or not mask.any()):
            notes.warn(f"the {kind.strip().lower()} shutter has unusable edges and is ignored")
        elif mask is not None:
            valid &= mask
            notes.read(f"{kind.strip().lower()} shutter, {mask.mean():.0%} of the picture open")
    return valid


def _rectangle(header: Header, rows: Array, columns: Array) -> Array | None:
    names = ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
    edges = [header.numbers(f"Shutter{name}Edge").first for name in names]
    if any(e is None for e in edges):
        return None
    left, right, upper, lower = (float(e or 0) for e in edges)
    # the edge itself is half closed: measured on real runs, it lies between shutter and picture level
    return (columns > left) & (columns < right) & (rows > upper) & (rows < lower)


def _circle(header: Header, rows: Array, columns: Array) -> Array | None:
    center, radius = header.numbers("CenterOfCircularShutter"), header.numbers("RadiusOfCircularShutter").first
    if center.state != "ok" or len(center.values) != 2 or not radius or radius <= 0:
        return None
    return np.asarray((rows - center.values[0]) ** 2 + (columns - center.values[1]) ** 2 <= radius**2)


def _polygon(header: Header, rows: Array, columns: Array) -> Array | None:
    import cv2

    found = header.numbers("VerticesOfThePolygonalShutter")
    if found.state != "ok" or len(found.values) < 6 or len(found.values) % 2:
        return None
    corners = np.clip(np.array(found.values).reshape(-1, 2)[:, ::-1] - 1, -1e5, 1e5)
    mask = np.zeros((rows.size, columns.size), np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    return mask.astype(bool)


def blank_border(pictures: list[Array]) -> Array:
    """Mask (rows, columns), False where a border touching the edge of the picture is blank in all pictures.

    Blank is what a collimator or an image intensifier's round field leaves: within two grey steps (0.3 %
    of the range) of the darkest part of the edge, still in time, connected to the edge and set off by a
    jump from the field.
    """
    import cv2

    lowest = np.minimum.reduce(pictures).astype(np.float32)
    highest = np.maximum.reduce(pictures).astype(np.float32)
    full = float(np.percentile(highest, 99)) - float(lowest.min())
    valid = np.ones(lowest.shape, bool)
    if full <= 8:  # a flat picture has no border to tell from its field
        return valid
    edge = np.concatenate([highest[0], highest[-1], highest[:, 0], highest[:, -1]])
    level = float(np.median(np.sort(edge)[: max(edge.size // 20, 4)]))  # the darkest twentieth of the edge
    if level - float(lowest.min()) > 0.1 * full:
        return valid
    step = max(2.0, 0.003 * full)  # not more: in counts, dense anatomy too comes within a hundredth of dark
    blank = (np.abs(highest - level) <= step) & (highest - lowest <= step)
    count, labels = cv2.connectedComponents(np.pad(blank, 1, constant_values=False).astype(np.uint8), connectivity=4)
    labels = labels[1:-1, 1:-1]
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    border = np.isin(labels, touching[touching > 0]) if count > 1 else np.zeros_like(blank)
    if border.mean() < BLANK_SHARE or not _has_edge(border, highest, level, full):
        return valid
    return _largest(~border)


def _has_edge(border: Array, picture: Array, level: float, full: float) -> bool:
    """Whether the field stands off the border: a dark patient has no such step."""
    import cv2

    grown = cv2.dilate(border.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~border
    return bool(grown.any()) and float(np.median(picture[grown])) - level > 0.04 * full


def _largest(valid: Array) -> Array:
    """The largest piece, its pin holes closed, so that burned-in marks in the border do not count."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(valid.astype(np.uint8), connectivity=4)
    if count <= 1:
        return np.ones_like(valid)
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(labels == best)
