# SPDX-License-Identifier: Apache-2.0
"""How does a step become bytes? Once for all pages: pictures as JPEG, each overlay layer as PNG.

A message is: 4 bytes (little endian) length of the header, the header as JSON, then the parts one after
another in the order of `header["parts"]`. Layers have versions; a page that has a version is not sent it
again. Anatomy leaves this machine's memory only where the outcome allows it to be shown.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from fluoronav.console.describe import describe_step
from fluoronav.console.explain import uncertainty, weights
from fluoronav.live.step import Step
from overlays import may_show, straight
from registration.geometry import Array

JPEG_QUALITY = 92  # 1024 x 1024 of noisy fluoroscopy: 2.5 ms, 0.3 MB; no blocks are seen at two metres or at one
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FIXED,
       cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]  # 11 ms for 1024 x 1024; default settings take 27

Blend = Callable[[Step], "Array | None"]


@dataclass(frozen=True, slots=True)
class Part:
    """One picture or layer: `header` is its entry in `parts`, `data` its bytes."""

    header: dict[str, Any]
    data: bytes


@dataclass(slots=True)
class Encoded:
    """One step ready to send. `pictures` fills as pages ask: enhanced, raw, drr, weights, uncertainty
    (None: there is none)."""

    seq: int
    step: Step
    header: dict[str, Any]
    layers: dict[str, Part]
    pictures: dict[str, Part | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ready(self, kinds: Collection[str]) -> bool:
        """Whether every picture of these kinds is encoded."""
        return all(kind in self.pictures for kind in kinds)

    def message(self, kinds: Collection[str], known: dict[str, int]) -> bytes:
        """The message for one page; `known` holds the layer versions it has, and is brought up to date."""
        parts = [part for kind in kinds if (part := self.pictures.get(kind)) is not None]
        for name, layer in self.layers.items():
            if known.get(name) != layer.header["version"]:
                known[name] = layer.header["version"]
                parts.append(layer)
        missing = [kind for kind in kinds if self.pictures.get(kind) is None]
        shown = {name: layer.header["version"] for name, layer in self.layers.items()}
        header = {**self.header, "seq": self.seq, "layers": shown, "missing": missing,
                  "parts": [part.header for part in parts]}
        text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
        return b"".join([struct.pack("<I", len(text)), text, *(part.data for part in parts)])


class Encoder:
    """Encodes steps in the order in which they come; not for two threads at once (`complete` is)."""

    def __init__(self, blend: Blend) -> None:
        self._blend = blend
        self._seq = 0
        self._version = 0
        self._moved = 0  # nudges and undos answered so far: a page may skip the picture that answers its own
        self._last: dict[str, tuple[Array, Part]] = {}

    def encode(self, step: Step, kinds: Collection[str], seen_ms: float) -> Encoded:
        """A step with the pictures of these kinds and all layers that may be shown; seen_ms: when it came out
        of the pipeline, ms since the epoch."""
        self._seq += 1
        header = describe_step(step)
        self._moved += sum(command.kind in ("nudge", "undo") for command in step.commands)
        header["moved"] = self._moved
        took_ms = step.timings.get("latency", step.timings.get("total", 0.0))
        header["seen_ms"], header["arrived_ms"] = seen_ms, seen_ms - float(took_ms)
        encoded = Encoded(self._seq, step, header, self._layers(step))
        self.complete(encoded, kinds)
        return encoded

    def complete(self, encoded: Encoded, kinds: Collection[str]) -> None:
        """Encode the pictures of these kinds that are not there yet."""
        with encoded.lock:
            for kind in kinds:
                if kind not in encoded.pictures:
                    encoded.pictures[kind] = self._picture(encoded.step, kind)

    def _picture(self, step: Step, kind: str) -> Part | None:
        if kind == "drr":
            pixels = self._blend(step) if may_show(step.registration.outcome) else None
        elif kind in ("weights", "uncertainty"):
            pixels = weights(step.enhanced) if kind == "weights" else uncertainty(step.enhanced)
        else:
            pixels = step.enhanced.raw_display if kind == "raw" else step.enhanced.display
        if pixels is None:
            return None
        data = _coded(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return Part({"kind": "picture", "name": kind, "type": "image/jpeg", "bytes": len(data)}, data)

    def _layers(self, step: Step) -> dict[str, Part]:
        if not may_show(step.registration.outcome) or step.overlay.method == "none":
            return {}
        layers: dict[str, Part] = {}
        for name, pixels in step.overlay.layers.items():
            before = self._last.get(name)
            if before is None or not (before[0] is pixels or np.array_equal(before[0], pixels)):
                self._version += 1
                before = (pixels, _layer(name, pixels, self._version))
                self._last[name] = before
            layers[name] = before[1]
        return layers


def _layer(name: str, pixels: Array, version: int) -> Part:
    """A layer (rows, columns, 4) uint8, premultiplied, cut to what it covers and coded with straight alpha."""
    rows, cols = pixels.shape[:2]
    alpha = pixels[..., 3]
    down, across = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    header: dict[str, Any] = {"kind": "layer", "name": name, "version": version, "type": "image/png",
                              "size": [rows, cols], "box": None, "bytes": 0}
    if len(down) == 0:
        return Part(header, b"")
    r0, r1, c0, c1 = int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1
    data = _coded(".png", straight(pixels[r0:r1, c0:c1])[..., [2, 1, 0, 3]], PNG)
    return Part({**header, "box": [r0, c0, r1 - r0, c1 - c0], "bytes": len(data)}, data)


def _coded(kind: str, pixels: Array, settings: list[int]) -> bytes:
    _, data = cv2.imencode(kind, np.ascontiguousarray(pixels), settings)
    return bytes(data.tobytes())
