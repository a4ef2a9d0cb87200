# SPDX-License-Identifier: Apache-2.0
"""How does the picture stand still while the patient breathes? The whole picture is moved, and the C-arm with it.

The shift of a frame against a picture remembered from the frames before (line integrals at reduced size): phase
correlation for the first guess, then a robust fit of the shift that lets go of what moves otherwise (wires, heart).
What fills most of the open field is what stands still; where layers move apart, the others go on moving.
Within a comfortable distance the anatomy stays where it was; beyond it the picture follows, so that panning is never
fought and nothing drifts away. Rotation and zoom are left alone: a roll belongs to the pose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fluoronav.enhance import kernels
from fluoronav.enhance.work import Work
from registration.geometry import Array, read_only

SIDE = 256  # pixels at most of the pictures that are compared: 0.1 pixel of them is 0.4 of 1024
SOFT = 1.5  # pixels of the reduced picture: standard deviation of the blur before gradients are taken
STEPS, ENOUGH = 10, 0.02  # of the robust fit, px
NEAR = 2.0  # px: phase correlation that agrees so well with the fit needs no fit of its own
TUKEY = 2.5  # times the spread: pixels further off have no say; wires and a beating heart are many of them
REMEMBERED = 0.1  # share of a frame in the remembered picture
COMFORT, MOST = 0.05, 0.10  # of the longer side: shifts that stay, and the largest
FOLLOW_S = 2.0  # time constant with which the picture follows beyond COMFORT
MOST_ONE_SIDED = 1e3  # ratio of the structure along two directions: edges of one alone hold nothing along them
ALIKE = 0.3  # correlation with the remembered picture below which it is another scene


@dataclass(frozen=True, slots=True)
class StabiliseState:
    """remembered: mean picture at reduced size where the anatomy is held; at_px (du, dv): where the anatomy of the last
    frame lay against it, in pixels of the frame; anchor_px (du, dv): where it is shown; time_ns of that frame;
    gantry: what may not change."""

    remembered: Array
    at_px: tuple[float, float]
    anchor_px: tuple[float, float]
    time_ns: int
    gantry: tuple[float, ...]


class Stabilise:
    """Stage: pixels and C-arm moved by (du, dv); borders that nothing is known of are not valid."""

    name = "stabilise"

    def step(self, state: StabiliseState | None, item: Work) -> tuple[StabiliseState, Work]:
        """Moves line_integrals, sigma, values, display, raw_display, valid, flow and carm; adds `shift_px`."""
        frame, gantry = item.frame, _gantry(item)
        factor, small = reduced(_line_integrals(item))
        if state is None or state.remembered.shape != small.shape or state.gantry != gantry:
            return StabiliseState(small, (0.0, 0.0), (0.0, 0.0), frame.time_ns, gantry), item
        guess = (state.at_px[0] / factor, state.at_px[1] / factor)
        found = shift_between(state.remembered, small, guess, _open(frame.valid, small.shape))
        if found is None:  # another scene, or nothing to hold on to: the picture is shown where the last one was
            badges = (*item.badges, "not stabilised: no common structure")
            last = shift_of(state)
            new = replace(state, remembered=small, at_px=(0.0, 0.0), anchor_px=last, time_ns=frame.time_ns)
            return new, moved(replace(item, badges=badges), last, last)
        at = (found[0] * factor, found[1] * factor)
        anchor = _followed(state, at, frame.time_ns, max(frame.pixels.shape))
        change = shifted(small, -found[0], -found[1]) - state.remembered
        remembered = state.remembered + np.float32(REMEMBERED) * change
        new = StabiliseState(remembered, at, anchor, frame.time_ns, gantry)
        return new, moved(item, shift_of(new), shift_of(state))


def _line_integrals(item: Work) -> Array:
    """Of the raw frame: the clean one may be late where everything moves, and geometry may not."""
    assert item.law is not None and item.p_table is not None and item.stabilized is not None
    return kernels.lookup(item.stabilized, item.p_table, item.law.start, item.law.step)


def shift_of(state: StabiliseState) -> tuple[float, float]:
    """(du, dv) by which the content of the state's frame is moved, px."""
    return state.anchor_px[0] - state.at_px[0], state.anchor_px[1] - state.at_px[1]


def reduced(picture: Array) -> tuple[int, Array]:
    """(factor, the picture with factor x factor pixels averaged and softened)."""
    factor = max(1, -(-max(picture.shape) // SIDE))
    rows, columns = (n // factor * factor for n in picture.shape)
    small = cv2.resize(picture[:rows, :columns], (columns // factor, rows // factor), interpolation=cv2.INTER_AREA)
    return factor, cv2.GaussianBlur(small, (0, 0), SOFT)


def _open(valid: Array, shape: tuple[int, ...]) -> Array:
    """1 where a reduced pixel and what its gradient is made of are open: a shutter's edge does not breathe."""
    factor = valid.shape[0] // shape[0]
    cut = valid[: shape[0] * factor, : shape[1] * factor].astype(np.float32)
    whole = cv2.resize(cut, (shape[1], shape[0]), interpolation=cv2.INTER_AREA) > 0.999
    size = 2 * round(2 * SOFT) + 1
    return cv2.erode(whole.astype(np.float32), np.ones((size, size), np.uint8), borderValue=1.0)


def shift_between(before: Array, now: Array, guess: tuple[float, float],
                  mask: Array) -> tuple[float, float] | None:
    """(du, dv) px by which the content of `now` lies away from that of `before`; None where they share none. mask:
    weight (rows, columns) of each pixel, 0 outside the open field.

    Gauss-Newton on the shift with Tukey's weights; starts from `guess` and from phase correlation, the better one
    wins. Source: Baker and Matthews, IJCV 56(3), 2004 (inverse composition); Beaton and Tukey 1974 (weights).
    """
    gu, gv = cv2.Sobel(before, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(before, cv2.CV_32F, 0, 1, scale=1 / 8)
    window = cv2.createHanningWindow((now.shape[1], now.shape[0]), cv2.CV_32F)
    (cu, cv), _ = cv2.phaseCorrelate(before - before.mean(), now - now.mean(), window)
    best: tuple[float, tuple[float, float]] | None = None
    for start in (guess, (float(cu), float(cv))):
        if best is not None and np.hypot(start[0] - best[1][0], start[1] - best[1][1]) < NEAR:
            break  # both say the same
        if max(abs(start[0]) / now.shape[1], abs(start[1]) / now.shape[0]) > 0.5:
            continue
        answer = _fitted(before, now, (gu, gv, mask), start)
        if answer is not None and (best is None or answer[0] < best[0]):
            best = answer
    return None if best is None else best[1]


def _fitted(before: Array, now: Array, known: tuple[Array, Array, Array],
            start: tuple[float, float]) -> tuple[float, tuple[float, float]] | None:
    """(median magnitude of what is left, shift) of the fit from a start; None where the pictures are not alike."""
    (du, dv), (gu, gv, mask), edge = start, known, 4
    for _ in range(STEPS):
        left, inside = _difference(before, now, du, dv, edge)
        if inside[0].stop - inside[0].start < 24 or inside[1].stop - inside[1].start < 24:
            return None
        some = left[::2, ::2][mask[inside][::2, ::2] > 0]
        if some.size < 64:
            return None
        middle = np.median(some)  # a change of exposure moves nothing
        spread = float(np.median(np.abs(some - middle))) / 0.6745 + 1e-9
        left -= middle
        t = np.clip(1 - np.square(left / np.float32(TUKEY * spread)), 0, 1)
        w, a, b = t * t * mask[inside], gu[inside], gv[inside]
        h = np.array([[np.sum(w * a * a), np.sum(w * a * b)], [np.sum(w * a * b), np.sum(w * b * b)]], np.float64)
        g = np.array([np.sum(w * a * left), np.sum(w * b * left)], np.float64)
        if not h.any() or np.linalg.cond(h) > MOST_ONE_SIDED:
            return None
        step = np.linalg.solve(h, -g)
        du, dv = du + float(step[0]), dv + float(step[1])
        if float(np.hypot(*step)) < ENOUGH:
            break
    left, inside = _difference(before, now, du, dv, edge)
    pick = mask[inside] > 0
    a, left = before[inside][pick], left[pick]
    alike = float(np.corrcoef(a, a + left)[0, 1]) if np.ptp(a) > 0 else 0.0
    return (float(np.median(np.abs(left - np.median(left)))), (du, dv)) if alike > ALIKE else None


def _difference(before: Array, now: Array, du: float, dv: float, edge: int) -> tuple[Array, tuple[slice, slice]]:
    """(now moved back by the shift less before, where both are known, at every second pixel: softened pictures say no
    more at the others)."""
    rows, columns = now.shape
    back = shifted(now, -du, -dv)
    inside = (slice(max(edge, int(np.ceil(-dv)) + edge), min(rows - edge, int(np.floor(rows - dv)) - edge), 2),
              slice(max(edge, int(np.ceil(-du)) + edge), min(columns - edge, int(np.floor(columns - du)) - edge), 2))
    return back[inside] - before[inside], inside


def shifted(picture: Array, du: float, dv: float, border: float | None = None) -> Array:
    """The picture with its content moved by (du, dv) px, cubic; what comes in is `border`, None: the edge repeated."""
    matrix = np.array([[1, 0, du], [0, 1, dv]], np.float64)
    kind = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    out = cv2.warpAffine(picture, matrix, (picture.shape[1], picture.shape[0]), flags=cv2.INTER_CUBIC, borderMode=kind,
                         borderValue=border or 0)
    return np.asarray(out)


def moved(item: Work, shift_px: tuple[float, float], before_px: tuple[float, float]) -> Work:
    """Everything that is shown, moved by a shift in pixels of the frame; superres divides them, so they count more."""
    assert item.values is not None and item.line_integrals is not None and item.sigma is not None
    assert item.display is not None and item.raw_display is not None and item.valid is not None
    factor = item.values.shape[0] // item.frame.pixels.shape[0]
    du, dv = shift_px[0] * factor, shift_px[1] * factor
    if du == 0 and dv == 0:
        return replace(item, shift_px=(0.0, 0.0))
    flow = item.flow
    if flow is not None:
        turn = np.array([shift_px[0] - before_px[0], shift_px[1] - before_px[1]], np.float32)
        flow = shifted(flow, du / item.cell, dv / item.cell) + turn * np.float32(factor)
    known = shifted(np.full(item.valid.shape, 255, np.uint8), du, dv, 0.0) == 255
    valid = known & (shifted(item.valid.astype(np.uint8) * 255, du, dv) == 255)

    def seen(picture: Array) -> Array:
        return np.where(known, shifted(picture, du, dv), np.uint8(0))

    return replace(item, values=shifted(item.values, du, dv), line_integrals=shifted(item.line_integrals, du, dv),
                   sigma=np.abs(shifted(item.sigma, du, dv)), display=seen(item.display),
                   raw_display=seen(item.raw_display), valid=read_only(valid), flow=flow, shift_px=shift_px,
                   carm=None if item.carm is None else item.carm.shifted(du, dv))


def _followed(state: StabiliseState, at: tuple[float, float], time_ns: int, side: int) -> tuple[float, float]:
    """Where the anatomy is shown: where it was, as long as that is near; else it follows."""
    share = 1 - float(np.exp(-max(time_ns - state.time_ns, 0) / 1e9 / FOLLOW_S))
    out = []
    for anchor, place in zip(state.anchor_px, at, strict=True):
        shift = anchor - place
        beyond = shift - float(np.clip(shift, -COMFORT * side, COMFORT * side))
        shift = float(np.clip(shift - share * beyond, -MOST * side, MOST * side))
        out.append(place + shift)
    return out[0], out[1]


def _gantry(item: Work) -> tuple[float, ...]:
    """Angles, table and distances: where they change, the picture is another one."""
    frame = item.frame
    angles = () if frame.angles is None else (frame.angles.primary_deg, frame.angles.secondary_deg)
    table = frame.table_in_room_mm or ()
    carm = () if frame.carm is None else (frame.carm.sdd_mm, frame.carm.sod_mm, *frame.carm.pitch_mm_row_col)
    return (*angles, *table, *carm)
