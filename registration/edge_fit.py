# SPDX-License-Identifier: Apache-2.0
"""Which rigid motion lays a mesh's outline onto the edges of metal in a picture?

Along the normal of each outline point the picture is searched for the strongest step from dense to
less dense; the distances found are the residuals of a Levenberg-Marquardt step. The search gets shorter
and the picture sharper from stage to stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from registration.contours import Contours, Outline
from registration.curve_fit import by_intrinsics
from registration.geometry import Array, CArm, Float64, Rigid
from registration.model import View

REACHES_MM = (8.0, 4.0, 2.0, 1.0)  # how far along the normal an edge is looked for, stage by stage
BLURS_MM = (1.2, 0.7, 0.4, 0.3)  # of the picture at each stage
LAST = 3  # the stage that asks for the border of the metal instead of the steepest place
BORDER_LEVEL = 2 / 3  # of the way from metal to background, on a scale that is like a logarithm
CROSS_MM = 1.0  # to either side of an edge: metal here, background there
STEPS = 8  # of a stage at most
POINTS = 350  # of an outline are enough: neighbors see the same edge
GRID = 128  # cells of the picture's longer side in the shift search
SAMPLES = 10  # to either side of an outline point


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture ready for the fit: one blurred copy a stage, bool field, geometry, typical edge strength."""

    blurred: tuple[Array, ...]
    field: Array
    carm: CArm
    mm: float  # per pixel at the isocenter
    relative: bool

    @classmethod
    def of(cls, view: View) -> Scene:
        mm = view.carm.mm_per_px_at_isocenter
        image = np.asarray(view.line_integrals, np.float32)
        copies = tuple(ndimage.gaussian_filter(image, b / mm) for b in BLURS_MM)
        return cls(copies, view.weight > 0, view.carm, mm, view.relative)


@dataclass(frozen=True, slots=True)
class EdgeFit:
    """A pose and how well it explains the picture. agreement: share of the silhouette's border with an
    edge of metal within 1.5 mm, weighed by the edge's clarity at the border itself, 0 to 1; seen: share
    of border points with an edge; residual_mm: weighted spread; normal: (9, 9) normal equations of pose and intrinsics;
    in_field: share of the border inside the picture."""

    pose: Float64
    agreement: float
    seen: float
    residual_mm: float
    normal: Float64
    weights: float
    in_field: float


def fit_edges(contours: Contours, scene: Scene, pose: Float64, stages: tuple[int, ...]) -> Float64:
    """The pose after the stages named (indices into REACHES_MM)."""
    for stage in stages:
        damping = 1e-3
        for _ in range(STEPS):
            found = _edges(contours, scene, pose, stage)
            if found is None:
                return pose
            r, jacobian, weight, _, _ = found
            pull = jacobian[:, :6]
            hessian, gradient = (pull.T * weight) @ pull, pull.T @ (weight * r)
            scale = np.diag(hessian) + 1e-6 * np.trace(hessian) + 1e-12
            xi = -np.linalg.solve(hessian + damping * np.diag(scale), gradient)
            xi = xi / max(1.0, float(np.linalg.norm(xi[:3])) / 0.1, float(np.linalg.norm(xi[3:])) / 40)
            pose = Rigid.exp(xi) @ pose
            if np.linalg.norm(xi[:3]) < 2e-4 and np.linalg.norm(xi[3:5]) < 0.02:
                break
    return pose


def judged_edges(contours: Contours, scene: Scene, pose: Float64, stage: int = 2) -> EdgeFit:
    """How well a pose explains the picture."""
    found = _edges(contours, scene, pose, stage)
    if found is None:
        return EdgeFit(pose, 0.0, 0.0, np.inf, np.zeros((9, 9)), 0.0, 0.0)
    r, jacobian, weight, here, in_field = found
    near = (np.abs(r) < 1.5) & (weight > 0.05)
    spread = float(np.sqrt((weight * r * r).sum() / max(weight.sum(), 1e-9)))
    return EdgeFit(pose, float(here.mean()) * in_field, float(near.mean()), spread, (jacobian.T * weight) @ jacobian,
                   float(weight.sum()), in_field)


def _edges(contours: Contours, scene: Scene, pose: Float64,
           stage: int) -> tuple[Float64, Float64, Float64, Float64, float] | None:
    """Residuals (k,) mm, Jacobian (k, 9), weights (k,), edge clarity at the border itself (k,), share in field."""
    outline = contours.outline(scene.carm, pose)
    border = np.flatnonzero(outline.outer)
    if len(border) < 20:
        return None
    # short pieces of a fine mesh must not count more than long ones: take points evenly along the outline
    border = border[:: max(1, len(border) // POINTS)]
    pixels, normals = outline.pixels[border], outline.normals[border]
    inside = _in_field(scene.field, pixels)
    if inside.sum() < 20:
        return None
    border, pixels, normals = border[inside], pixels[inside], normals[inside]
    reach = REACHES_MM[stage] / scene.mm
    at = np.linspace(-1, 1, 2 * SAMPLES + 1) * reach
    step = at[1] - at[0]
    wide = max(step, 1.5 * BLURS_MM[stage] / scene.mm)
    drop = (_sampled(scene.blurred[stage], pixels, normals, at - wide)
            - _sampled(scene.blurred[stage], pixels, normals, at + wide))
    nearness = np.exp(-0.5 * (at / (0.6 * reach)) ** 2)
    k = (drop * nearness).argmax(axis=1)
    rows = np.arange(len(k))
    strength = np.maximum(drop[rows, k], 0)
    typical = max(float(np.percentile(strength, 70)), 1e-9)
    place = at[k] + step * _peak(drop, k)
    if stage == LAST:
        place = place + _beyond_peak(scene, pixels, normals, place)
    residual = -place * scene.mm  # outline minus edge, along the outward normal
    clear = np.minimum(strength / typical, 1.0)
    weight = np.where((k > 0) & (k < len(at) - 1), clear**2, 0.0)
    scale = max(0.3 * REACHES_MM[stage], 0.3)
    weight = weight / (1 + (residual / scale) ** 2)
    here = np.clip(drop[:, SAMPLES] / typical, -0.5, 1.0)
    return residual, _jacobian(outline, border, normals, scene.carm), weight, here, float(inside.mean())


def _jacobian(outline: Outline, border: Array, normals: Float64, carm: CArm) -> Float64:
    """d (shift along the normal, mm at the isocenter) / d pose and intrinsics, (k, 9)."""
    x = outline.carm_points[border]
    pitch = np.array(carm.pitch_mm_row_col[::-1])
    n = normals / pitch  # a direction in pixels as one in mm (equal pitches: the same)
    n = n / np.linalg.norm(n, axis=1, keepdims=True)
    m = carm.sod_mm / (carm.sod_mm - x[:, 2])
    grad = np.stack([n[:, 0] * m, n[:, 1] * m, (n * x[:, :2]).sum(1) * m * m / carm.sod_mm], -1)
    own = np.einsum("ni,nij->nj", n, by_intrinsics(x[:, :2] * m[:, None], carm))
    return np.concatenate([np.cross(x, grad), grad, own], axis=1)


def _in_field(field: Array, pixels: Float64) -> Array:
    rows, cols = field.shape
    u, v = np.round(pixels).astype(int).T
    ok = (u >= 0) & (v >= 0) & (u < cols) & (v < rows)
    ok[ok] = field[v[ok], u[ok]]
    return np.asarray(ok)


def _sampled(image: Array, pixels: Float64, normals: Float64, at: Float64) -> Array:
    p = pixels[:, None, :] + at[None, :, None] * normals[:, None, :]
    return np.asarray(ndimage.map_coordinates(image, [p[..., 1], p[..., 0]], order=1, mode="nearest"))


def _beyond_peak(scene: Scene, pixels: Float64, normals: Float64, place: Float64) -> Float64:
    """From the steepest place of each edge to the border of the metal itself, in pixels.

    Focal spot and detector blur the intensity: the border lies where the intensity is half way between
    metal and background. On a logarithmic scale that is beyond the steepest place. For relative
    pictures the scale is taken as logarithmic with metal passing a tenth to a third of the beam:
    the border then lies at 64 to 74 % of the way (BORDER_LEVEL).
    """
    width = CROSS_MM / scene.mm
    at = np.linspace(-width, width, 2 * SAMPLES + 1)
    values = _sampled(scene.blurred[LAST], pixels + place[:, None] * normals, normals, at)
    metal, background = values[:, 0], values[:, -1]
    if scene.relative:
        border = metal + BORDER_LEVEL * (background - metal)
    else:
        border = -np.log(np.maximum((np.exp(-metal) + np.exp(-background)) / 2, 1e-30))
    rows = np.arange(len(values))
    k = np.maximum((values < border[:, None]).argmax(axis=1), 1)
    before, after = values[rows, k - 1], values[rows, k]
    share = np.where(before > after, (before - border) / np.where(before > after, before - after, 1.0), 0.5)
    moved = at[k - 1] + (at[1] - at[0]) * np.clip(share, 0, 1)
    return np.where(metal > background, moved, 0.0)


def _peak(values: Array, k: Array) -> Array:
    """Offset of a parabola's peak from sample k, in samples, at most half of one."""
    rows = np.arange(len(k))
    j = np.clip(k, 1, values.shape[1] - 2)
    a, b, c = values[rows, j - 1], values[rows, j], values[rows, j + 1]
    bend = a - 2 * b + c
    return np.where((bend < 0) & (j == k), np.clip(0.5 * (a - c) / np.where(bend < 0, bend, -1), -0.5, 0.5), 0.0)


# --------------------------------------------------------------------------------------------------
# All shifts at once


class ShiftSearch:
    """The picture's gradients, transformed once: for an outline, the shift that meets the most of them.

    Gradients and normals are complex numbers; strong gradients count alike (metal is not more metal for
    being darker), so the correlation asks for direction and place.
    """

    def __init__(self, scene: Scene, farthest_mm: float) -> None:
        c = scene.carm
        self.step = max(1, round(max(c.shape) / GRID))
        image = scene.blurred[0]
        rows, cols = (n // self.step * self.step for n in image.shape)
        small = image[:rows, :cols].reshape(rows // self.step, self.step, cols // self.step, self.step).mean((1, 3))
        open_cells = scene.field[:rows, :cols].reshape(rows // self.step, self.step, cols // self.step,
                                                      self.step).all((1, 3))
        gy, gx = np.gradient(small)
        g = -(gx + 1j * gy) * ndimage.binary_erosion(open_cells, iterations=2, border_value=1)
        size = np.abs(g)
        soft = np.percentile(size, 90) + 1e-9
        self.n = 2 * GRID
        self.spectrum = fft.fft2(g / (size + soft), (self.n, self.n))
        self.farthest = farthest_mm / (scene.mm * self.step)
        self.scene = scene

    def best(self, outline: Outline) -> tuple[float, Float64]:
        """(score, shift (2,) in pixels of the picture)."""
        p = outline.pixels[outline.outer]
        if len(p) < 20:
            return -np.inf, np.zeros(2)
        n = outline.normals[outline.outer]
        cell = np.floor((p + 0.5) / self.step - 0.5 + 0.5).astype(int) % self.n
        flat = cell[:, 1] * self.n + cell[:, 0]
        image = (np.bincount(flat, n[:, 0], self.n**2) + 1j * np.bincount(flat, n[:, 1], self.n**2))
        image /= np.maximum(1, np.bincount(flat, minlength=self.n**2))
        image = image.reshape(self.n, self.n)
        score = fft.ifft2(self.spectrum * fft.fft2(image).conj()).real / max(float(np.abs(image).sum()), 1e-9)
        k = np.arange(self.n)
        k = np.where(k < self.n // 2, k, k - self.n)
        near = np.hypot(k[:, None], k[None, :]) <= self.farthest
        score = np.where(near, score, -np.inf)
        row, col = np.unravel_index(int(score.argmax()), score.shape)
        return float(score.max()), np.array([k[col], k[row]], float) * self.step
