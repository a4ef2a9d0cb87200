# SPDX-License-Identifier: Apache-2.0
"""Where are the bones? Spine with vertebrae and discs, ribs, pelvis and hips, painted onto the canvas.

Sizes follow Panjabi et al. (Spine 1992; lumbar and thoracic vertebrae) and White and Panjabi 1990, rounded.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from models.patient.canvas import Canvas, Patch, capsule, ellipsoid, turned, union
from models.patient.trunk import within_wall
from registration.geometry import Array, Float64

CORTEX_HU, DENSE_HU, DISC_HU = 1150.0, 850.0, 75.0


@dataclass(frozen=True)
class Vertebra:
    """One vertebra: name, center of its body (mm), body height, width and depth, its thoracic rib or none."""

    name: str
    center: Float64
    height: float
    width: float
    depth: float
    transverse: float  # half span of the transverse processes
    tilt_deg: float  # flexion: + turns the upper end plate forward (anterior)
    side_deg: float  # scoliosis: + leans to the patient's left


# name, height, disc below, width, depth, transverse half span
_LEVELS = (("L5", 27.0, 11.0, 52, 35, 45), ("L4", 27.5, 11.5, 50, 35, 42), ("L3", 28.0, 11.0, 48, 34, 46),
           ("L2", 27.5, 10.0, 46, 34, 42), ("L1", 27.0, 9.0, 44, 33, 39), ("T12", 25.5, 7.0, 43, 32, 26),
           ("T11", 23.5, 6.0, 41, 31, 30), ("T10", 22.5, 5.5, 38, 30, 33), ("T9", 22.0, 5.0, 36, 30, 34),
           ("T8", 21.0, 5.0, 35, 29, 35))
SACRUM_TOP_MM = -121.0


def spine_x(z: float) -> float:
    """Left-right place of the spine (mm): a scoliosis of some 5 degrees, convex to the right."""
    return float(-5.5 * np.exp(-(((z - 15.0) / 75.0) ** 2)) + 2.5)


def spine_y(z: float) -> float:
    """Front-back place of the vertebral bodies (mm): lumbar lordosis, thoracic kyphosis."""
    return float(22.0 + 9.0 * ((z + 45.0) / 130.0) ** 2 if z > -45 else 22.0 + 14.0 * ((z + 45.0) / 80.0) ** 2)


def vertebrae() -> list[Vertebra]:
    """From L5 up to where the volume ends."""
    out, z = [], SACRUM_TOP_MM
    for name, height, disc, width, depth, transverse in _LEVELS:
        mid = z + disc + height / 2
        slope_y = (spine_y(mid + 5) - spine_y(mid - 5)) / 10
        slope_x = (spine_x(mid + 5) - spine_x(mid - 5)) / 10
        out.append(Vertebra(name, np.array([spine_x(mid), spine_y(mid), mid]), height, width, depth, transverse,
                            float(-np.degrees(np.arctan(slope_y))), float(np.degrees(np.arctan(slope_x)))))
        z += disc + height
    return out


def paint_skeleton(canvas: Canvas, marrow_texture: Array) -> None:
    """All bones; marrow_texture: a field of standard deviation 1 that becomes trabeculae."""
    column = vertebrae()
    for lower, upper in zip([None, *column[:-1]], column, strict=True):
        _disc(canvas, lower, upper)
    _sacrum(canvas, marrow_texture)
    for side in (-1, 1):
        _hip(canvas, side, marrow_texture)
        for v in column:
            if v.name.startswith("T"):
                _rib(canvas, v, side, marrow_texture)
    for v in column:
        _vertebra(canvas, v, marrow_texture)


def trabeculae(texture: Array, patch: Patch, mean_hu: float, sigma_hu: float) -> Array:
    """Marrow with its trabecular texture on a patch."""
    return np.asarray(mean_hu + sigma_hu * texture[patch.slices], np.float32)


# --------------------------------------------------------------------------------------------------
# Spine


def _local(patch: Patch, v: Vertebra) -> Patch:
    """The patch in the axes of a vertebra (x left, y back, z up the spine), origin in its body."""
    x, y, z = patch.x - np.float32(v.center[0]), patch.y - np.float32(v.center[1]), patch.z - np.float32(v.center[2])
    t = turned(v.tilt_deg, v.side_deg, 0).astype(np.float32)
    return Patch(patch.slices, *(x * t[0, n] + y * t[1, n] + z * t[2, n] for n in range(3)))


def _body(p: Patch, width: float, depth: float, height: float) -> Array:
    """A vertebral body: elliptic, waisted, hollow at the back, with level end plates."""
    waist = 1 - 0.09 * (1 - (np.clip(2 * p.z / np.float32(height), -1, 1)) ** 2)
    x, y = p.x / (np.float32(width / 2) * waist), p.y / (np.float32(depth / 2) * waist)
    section = np.sqrt(np.abs(x) ** 2.4 + np.abs(y) ** 2.4 + 1e-6) ** (2 / 2.4)
    wall = (section - 1) * np.float32(min(width, depth) / 2)
    back = p.y - np.float32(depth / 2 - 3) + 2.5 * np.exp(-((p.x / 9) ** 2))  # the canal's front wall
    ends = np.abs(p.z) - np.float32(height / 2)
    return np.asarray(-union(union(-wall, -back, 2.0), -ends, 3.0), np.float32)


def _vertebra(canvas: Canvas, v: Vertebra, texture: Array) -> None:
    patch = canvas.patch(v.center - np.array([62, 34, 46]), v.center + np.array([62, 72, 40]))
    if patch is None:
        return
    p = _local(patch, v)
    d, thoracic = v.depth / 2, v.name.startswith("T")
    body = _body(p, v.width, v.depth, v.height)
    arch = capsule(p, (0, d + 26, -8), (0, d + 16, -4), 4, 5, (1, 1, 1.5))
    long = (0, d + 40, -26) if thoracic else (0, d + 42, -11)
    spine = capsule(p, (0, d + 20, -6), long, 5.0, 4.5, (0.62, 1.0, 1.0 if thoracic else 1.9))
    arch = union(arch, spine, 3)
    for s in (-1, 1):
        pedicle = capsule(p, (s * v.width * 0.31, d - 6, 6), (s * v.width * 0.34, d + 11, 5), 5.2, 5.0, (0.85, 1, 1.5))
        lamina = capsule(p, (s * v.width * 0.35, d + 12, 0), (s * 3, d + 22, -7), 5.0, 5.0, (0.8, 0.8, 1.7))
        own = np.random.default_rng([len(v.name), int(v.center[2]) + 500, s + 1])  # no two processes are alike
        out, up = float(own.uniform(0.9, 1.06)), float(own.normal(0, 1.8))
        reach = (s * v.transverse * out, d + (26 if thoracic else 17), (9 if thoracic else 6) + up)
        bend = (s * (0.45 * v.transverse + 8), d + (20 if thoracic else 16), (7 if thoracic else 3) + up / 2)
        root = (s * v.width * 0.38, d + 13, 4)
        near, far = (4.6, 4.8) if thoracic else (4.2, 3.3)
        transverse = union(capsule(p, root, bend, 5.0, near, (1, 0.8, 1.4)),
                           capsule(p, bend, reach, near, far, (1, 0.8, 1.4)), 2)
        upper = capsule(p, (s * v.width * 0.40, d + 13, 4), (s * v.width * 0.40, d + 13, 16), 5.6, 4.2, (0.9, 0.9, 1))
        lower = capsule(p, (s * v.width * 0.30, d + 19, -6), (s * v.width * 0.31, d + 18, -21), 5.4, 4.4, (0.9, 0.9, 1))
        for part in (pedicle, lamina, transverse, upper, lower):
            arch = union(arch, part, 2.5)
    # behind the body, arch and body meet at the pedicles only; the canal stays free
    canal = capsule(p, (0, d + 7, -40), (0, d + 7, 40), 8.0, 8.0, (1.25, 0.9, 1))
    arch = np.maximum(arch, -canal)
    canvas.bone(patch, arch, 1.6, CORTEX_HU, trabeculae(texture, patch, 260, 70))
    canvas.bone(patch, body, 1.1, DENSE_HU, trabeculae(texture, patch, 190, 60))
    plate = np.maximum(body, np.float32(v.height / 2 - 1.6) - np.abs(p.z))  # end plates are denser than the wall
    canvas.mix(patch, 0.8 * canvas.occupancy(plate), 900.0)


def _disc(canvas: Canvas, lower: Vertebra | None, upper: Vertebra) -> None:
    bottom = lower.center if lower is not None else np.array([spine_x(SACRUM_TOP_MM), spine_y(SACRUM_TOP_MM),
                                                              SACRUM_TOP_MM - 10])
    center = (upper.center + bottom) / 2
    patch = canvas.patch(center - np.array([32, 26, 20]), center + np.array([32, 26, 20]))
    if patch is not None:
        canvas.paint(patch, capsule(patch, tuple(bottom), tuple(upper.center), upper.depth / 2 - 0.5, None,
                                    (upper.width / upper.depth, 1, 1)), DISC_HU)


def _sacrum(canvas: Canvas, texture: Array) -> None:
    patch = canvas.patch((-75, -10, -206), (75, 90, -100))
    assert patch is not None
    x0 = spine_x(SACRUM_TOP_MM)
    q = Patch(patch.slices, patch.x - np.float32(x0), patch.y, patch.z)
    levels = [(36.0, -121.0, 25, 15), (46.0, -148.0, 21, 12.5), (55.0, -172.0, 18, 11), (62.0, -194.0, 15, 9.5),
              (63.0, -214.0, 13, 8)]
    shape: Array | None = None
    for (ya, za, wa, ra), (yb, zb, _wb, rb) in itertools.pairwise(levels):
        part = capsule(q, (0, ya, za - 9), (0, yb, zb), ra, rb, (wa / ra, 1, 1))
        shape = part if shape is None else union(shape, part, 4)
        for s in (-1, 1):
            wing = capsule(q, (s * 16, ya + 4, za - 11), (s * (wa + 26 if za > -160 else wa + 10), ya + 14, za - 12),
                           11.5 if za > -160 else 9, 10.5 if za > -160 else 6, (1, 0.9, 1.3))
            shape = union(shape, wing, 6)
    assert shape is not None
    shape = np.maximum(shape, q.z - np.float32(SACRUM_TOP_MM + 1) - 0.42 * (q.y - np.float32(36)))  # promontory
    crest = capsule(q, (0, 56, -128), (0, 80, -195), 6, 5, (0.8, 1, 1))
    shape = union(shape, crest, 4)
    for n, (y, z) in enumerate([(50, -141), (58, -165), (66, -188)]):
        for s in (-1, 1):
            at = s * (21.0 - 2 * n)
            shape = np.maximum(shape, -capsule(q, (at, y - 45, z + 12), (at * 0.9, y + 45, z - 12), 4.6))
    canal = capsule(q, (0, 54, -100), (0, 74, -200), 6.5, 3, (1.5, 1, 1))
    shape = np.maximum(shape, -canal)
    canvas.bone(patch, np.asarray(shape, np.float32), 1.6, CORTEX_HU, trabeculae(texture, patch, 180, 60))


# --------------------------------------------------------------------------------------------------
# Ribs


def rib_line(v: Vertebra, side: int) -> tuple[Float64, Float64]:
    """Center line (n, 3) mm of a rib and how far around the chest each point lies (0 spine .. 1 front)."""
    level = int(v.name[1:])
    reach = {12: 62.0, 11: 92.0, 10: 128.0, 9: 140.0, 8: 150.0}[level]
    drop = {12: 52.0, 11: 72.0, 10: 82.0, 9: 85.0, 8: 85.0}[level]
    angle = np.radians(np.linspace(9.0, reach, 64))
    half_width = {12: 108.0, 11: 124.0, 10: 131.0, 9: 131.0, 8: 130.0}[level]
    x = side * half_width * np.sin(angle) ** 0.92
    back, front = v.center[1] + v.depth / 2 + 2, -86.0
    y = (back + front) / 2 + (back - front) / 2 * np.cos(angle) + 16 * np.sin(np.clip(angle * 2.2, 0, np.pi)) ** 2
    z = v.center[2] + v.height * 0.30 - drop * ((1 - np.cos(angle)) / 1.6) ** 0.9
    x = x + v.center[0] * np.exp(-((angle / 0.5) ** 2)) + side * 6
    into = np.clip((np.degrees(angle) - 12) / 22, 0, 1)  # from the joint with the spine into the chest wall
    return within_wall(np.stack([x, y, z], -1), into, 5.0, 9.0), np.linspace(0, 1, 64)


def _rib(canvas: Canvas, v: Vertebra, side: int, texture: Array) -> None:
    line, _ = rib_line(v, side)
    for first in range(0, len(line) - 1, 6):
        part = line[first: first + 7]
        patch = canvas.patch(part.min(0) - 14, part.max(0) + 14)
        if patch is None:
            continue
        shape: Array | None = None
        for a, b in itertools.pairwise(part):
            rod = capsule(patch, tuple(a), tuple(b), 3.3, 3.3, (1, 1, 1.75))
            shape = rod if shape is None else np.minimum(shape, rod)
        assert shape is not None
        # a part of the rib must not hollow out the end of the part before it: shell first, marrow with every part
        share = canvas.occupancy(shape)
        canvas.mix(patch, np.where(canvas.hu[patch.slices] > 400, 0, share), CORTEX_HU)
        canvas.paint(patch, shape + np.float32(1.3), trabeculae(texture, patch, 210, 50))


# --------------------------------------------------------------------------------------------------
# Pelvis


def _hip(canvas: Canvas, side: int, texture: Array) -> None:
    """One half of the pelvis: iliac wing as a bent sheet, socket, branches, and the head of the femur."""
    low = np.array([20 if side > 0 else -165, -85, -206], float)
    high = np.array([165 if side > 0 else -20, 90, -40], float)
    patch = canvas.patch(low, high)
    assert patch is not None
    middle, thickness = _wing(side)
    shape = _sheet(patch, middle, thickness)
    hip = (side * 89.0, -8.0, -181.0)
    socket = ellipsoid(patch, hip, (34, 34, 34))
    shape = union(shape, socket, 10)
    shape = union(shape, capsule(patch, (side * 74, -22, -176), (side * 14, -62, -202), 10, 8, (1, 1, 1)), 8)
    shape = union(shape, capsule(patch, (side * 84, 18, -178), (side * 72, 34, -206), 15, 13, (0.9, 1, 1)), 8)
    shape = np.maximum(shape, -ellipsoid(patch, (hip[0] + side * 3, hip[1], hip[2] - 3), (26.5, 26.5, 26.5)))
    mouth = capsule(patch, hip, (side * 160, hip[1] - 8, hip[2] - 45), 26.0, 40.0)
    shape = np.maximum(shape, -mouth)
    canvas.bone(patch, np.asarray(shape, np.float32), 1.9, CORTEX_HU, trabeculae(texture, patch, 230, 60))
    head = ellipsoid(patch, (hip[0] + side * 2, hip[1], hip[2] - 2), (23, 23, 23))
    neck = capsule(patch, hip, (side * 128, hip[1] + 4, hip[2] - 28), 15, 17, (0.95, 1, 1.1))
    canvas.bone(patch, union(head, neck, 6), 1.8, CORTEX_HU, trabeculae(texture, patch, 270, 60))


def _sheet(patch: Patch, middle: Float64, thickness: Float64) -> Array:
    """Signed distance to a bent sheet given by points of its mid surface; 40 mm where it is far."""
    from scipy.spatial import cKDTree

    tree = cKDTree(middle)
    z, y, x = np.broadcast_arrays(patch.z, patch.y, patch.x)
    voxels = np.stack([x, y, z], -1)
    out = np.full(x.shape, 40, np.float32)
    coarse, _ = tree.query(voxels[::4, ::4, ::4].reshape(-1, 3))  # most of the box is far from the sheet
    reach = 14.0 + 4 * float(np.linalg.norm(voxels[1, 1, 1] - voxels[0, 0, 0])) / 2
    near = np.zeros(out.shape, bool)
    for k, j, i in 4 * np.argwhere((coarse < reach).reshape(out[::4, ::4, ::4].shape)):  # blocks around their sample
        near[max(0, k - 2): k + 2, max(0, j - 2): j + 2, max(0, i - 2): i + 2] = True
    distance, nearest = tree.query(voxels[near])
    out[near] = distance - thickness[nearest] / 2
    return out


def _wing(side: int) -> tuple[Float64, Float64]:
    """Mid surface of an iliac wing as points (n, 3) mm about 1 mm apart, and its thickness there."""
    crest = np.array([[124, -62, -112], [131, -45, -88], [133, -20, -68], [126, 8, -57], [106, 36, -60],
                      [78, 58, -74], [52, 70, -98], [46, 70, -116]], float)
    lower = np.array([[106, -52, -146], [100, -40, -152], [95, -24, -154], [88, -4, -152], [80, 16, -146],
                      [70, 36, -138], [56, 54, -136], [48, 62, -134]], float)
    s = np.linspace(0, 1, 130)
    t = np.linspace(0, 1, 100)
    knots = np.linspace(0, 1, len(crest))
    from scipy.interpolate import CubicSpline

    top, bottom = CubicSpline(knots, crest)(s), CubicSpline(knots, lower)(s)
    bow = 9.0 * np.sin(np.pi * t)[None, :] * np.sin(np.pi * np.clip(s * 1.25, 0, 1))[:, None]
    points = top[:, None] * (1 - t)[None, :, None] + bottom[:, None] * t[None, :, None]
    points[..., 0] += 0.85 * bow
    points[..., 1] += 0.5 * bow
    profile = 12.0 * np.exp(-((t / 0.09) ** 2)) + 5.0 + 11.0 * t**3
    back = 1 + 0.9 * np.clip((s - 0.72) / 0.28, 0, 1)
    thickness = profile[None, :] * back[:, None]
    points[..., 0] *= side
    # a slightly tilted pelvis: the right crest stands 4 mm higher
    points[..., 2] += 4.0 * (side < 0) * (1 - t)[None, :]
    return points.reshape(-1, 3), thickness.reshape(-1)
