# SPDX-License-Identifier: Apache-2.0
"""Which denoisers stand beside each other in one run? Ours (classical, mixing, recurrent) and their peers.

A filter takes frames in stored units one after the other. Peers work in the scale of unit noise, told its law.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fluoronav.bench import recurrent
from fluoronav.bench.wire import Filter
from fluoronav.enhance import Chain, ChainSettings
from fluoronav.enhance.mixing import available
from fluoronav.enhance.noise import anscombe, anscombe_inverse
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from registration.geometry import Array

RECURSIVE = 0.3  # weight of the new frame in the filter that most displays have
STACK = 5  # frames that BM4D and NLM see at once, the last of them the one that is judged


@dataclass(frozen=True, slots=True)
class Method:
    """A denoiser of ours. suffix: of its IDs; make: a new chain with it; why: it cannot run here (None: it can)."""

    suffix: str
    make: Callable[[], Chain]
    why: str | None = None


def methods() -> list[Method]:
    """The shipped one first (no suffix), then the others by their names."""
    ours = {"_classical": Method("_classical", lambda: Chain(ChainSettings(method="classical"))),
            "_learned": Method("_learned", lambda: Chain(ChainSettings(method="learned")), available()),
            "_recurrent": Method("_recurrent", recurrent.recurrent_chain, recurrent.available())}
    shipped = "_learned" if ChainSettings().learned() else "_classical"
    return [Method("", ours.pop(shipped).make), *ours.values()]


def filter_of(make: Callable[[], Chain], intensity: Intensity) -> Filter:
    """A chain as a plain filter of frames in stored units, whatever they are."""
    top = (1 << intensity.bits) - 1

    def method(frames: Iterator[Array]) -> Iterator[Array]:
        chain, state = make(), None
        for k, x in enumerate(frames):
            pixels = np.clip(np.rint(x), 0, top).astype(np.uint8 if intensity.bits <= 8 else np.uint16)
            frame = Frame(pixels, k, k * 66_666_667, None, None, Exposure(), intensity, np.ones(x.shape, bool), "bench")
            state, enhanced = chain.step(state, frame)
            assert enhanced.values is not None
            yield enhanced.values
    return method


def chain_filter(settings: ChainSettings | None = None) -> Filter:
    """The chain as a plain filter of 8-bit display frames in stored units."""
    return filter_of(lambda: Chain(settings), Intensity("display", "dark", 8))


def recursive_filter(weight: float) -> Filter:
    """The plain recursive filter that most displays have."""
    def method(frames: Iterator[Array]) -> Iterator[Array]:
        mean: Array | None = None
        for x in frames:
            mean = x if mean is None else mean + np.float32(weight) * (x - mean)
            yield mean
    return method


# --------------------------------------------------------------------------------------------------
# Peers: of counts with a stated law


@dataclass(frozen=True, slots=True)
class Peer:
    """last(stack): the last of a few frames (n, rows, columns) of unit noise, cleaned. why: it is not installed. slow:
    seconds for a small picture."""

    name: str
    last: Callable[[Array], Array]
    why: str | None = None
    slow: bool = False


def peers() -> list[Peer]:
    """What others do, on the same frames; BM3D sees one frame, the others a stack."""
    return [Peer("bm3d", _bm3d, _missing("bm3d")), Peer("nlm_multi", _nlm_multi),
            Peer("bm4d", _bm4d, _missing("bm4d"), slow=True)]


def peer_filter(peer: Peer, intensity: Intensity, after: int = 0) -> Filter:
    """A peer as a filter of counts; it remembers no more than its stack, so that frames before `after`, which nobody
    judges, pass as they are."""
    gain, electronic, dark = intensity.gain or 1.0, intensity.electronic or 0.0, intensity.dark

    def method(frames: Iterator[Array]) -> Iterator[Array]:
        kept: list[Array] = []
        for k, x in enumerate(frames):
            kept = [*kept, anscombe(x, gain, electronic, dark).astype(np.float32)][-STACK:]
            if k < after:
                yield x
                continue
            yield anscombe_inverse(peer.last(np.stack(kept)), gain, electronic, dark).astype(np.float32)
    return method


def _missing(package: str) -> str | None:
    found = importlib.util.find_spec(package) is not None
    return None if found else f"{package} is not installed (extra `peers`)"


def _bm3d(stack: Array) -> Array:
    import bm3d

    return np.asarray(bm3d.bm3d(stack[-1], sigma_psd=1.0), np.float32)


def _bm4d(stack: Array) -> Array:
    """BM4D of the frames as a volume: the successor of V-BM4D by the same authors that can be installed."""
    import bm4d

    if len(stack) < 2:
        return stack[-1]
    out: Any = bm4d.bm4d(np.ascontiguousarray(stack.transpose(1, 2, 0), np.float64), sigma_psd=1.0)
    return np.asarray(out[..., -1], np.float32)


def _nlm_multi(stack: Array) -> Array:
    """OpenCV's non-local means over frames, with the last frame shown again as the next (it wants frames on both
    sides); 16 bits, h at one standard deviation: the best of 0.7, 1 and 1.4."""
    low, high = float(stack.min()), float(stack.max())
    step = (high - low) / 65535 or 1.0
    frames = [np.rint((x - low) / step).astype(np.uint16) for x in stack]
    half = max(len(frames) - 1, 1)
    frames = [*frames[:1] * (half + 1 - len(frames)), *frames, *frames[-1:] * half]
    out = cv2.fastNlMeansDenoisingMulti(frames, half, 2 * half + 1, [1.0 / step], None, 5, 15, cv2.NORM_L1)
    return np.asarray(out, np.float32) * np.float32(step) + np.float32(low)
