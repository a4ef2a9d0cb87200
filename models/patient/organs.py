# SPDX-License-Identifier: Apache-2.0
"""What lies around the bones? Skin, fat, muscle, lungs, abdominal organs and bowel, painted onto the canvas.

Hounsfield units of an unenhanced CT (fat -95, muscle 50, liver 58, kidney 32, blood 42, lung -830).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.patient.canvas import Canvas, Patch, capsule, ellipsoid, turned, union
from models.patient.skeleton import spine_x, spine_y
from models.patient.tree import ArterialTree, smooth_line
from models.patient.trunk import cavity_distance, half_depth, half_width, superellipse
from registration.geometry import Array, Float64

AIR, LUNG, FAT, MUSCLE, LIVER, SPLEEN, KIDNEY, FLUID, BLOOD = -1000, -830, -95, 50, 58, 48, 32, 14, 42


def dome(x: Array, y: Array, side: int) -> Array:
    """Height (S, mm) of a half of the diaphragm over the plane: the right one stands higher."""
    cx, cy, top = (-62.0, -12.0, 150.0) if side < 0 else (64.0, -8.0, 138.0)
    fall = ((x - cx) / 62.0) ** 2 + ((y - cy) / 78.0) ** 2
    return np.asarray(top - 44.0 * fall**1.25, np.float32)


def paint_body(canvas: Canvas, tree: ArterialTree, rng: np.random.Generator, rough: Array, folds: Array) -> None:
    """Everything soft, from the skin inwards; rough, folds: fields of standard deviation 1 that bend the
    outlines of organs (some 14 mm wide) and of gas (some 6 mm)."""
    everything = canvas.whole()
    _layers(canvas, everything, rough)
    _chest(canvas, rough)
    _retroperitoneum(canvas)
    _bowel(canvas, rng, folds)
    _renal_fat(canvas)
    _solid_organs(canvas, rough)
    _colon(canvas, rng, folds)
    _blood(canvas, tree)


def _layers(canvas: Canvas, p: Patch, rough: Array) -> None:
    """Skin, subcutaneous fat, the muscle wall and the fat inside it."""
    a, b = half_width(p.z), half_depth(p.z)
    skin = superellipse(p, a, b, 0.0, 2.5)
    canvas.paint(p, skin, 20.0)
    canvas.paint(p, skin + 2.0, FAT)
    hips = np.interp(p.z, [-205, -90, 20, 195], [24, 24, 17, 13]).astype(np.float32)
    wall = superellipse(p, a - hips, b - 0.75 * hips, -1.0, 2.45)
    canvas.paint(p, wall + 1.2 * rough, MUSCLE)
    inside = cavity_distance(p)
    pelvis = (-90 - p.z) * np.float32(0.45)  # below the crests the room narrows between the iliac wings
    inside = np.maximum(inside, np.abs(p.x) - np.maximum(108 - np.maximum(pelvis, 0) * 1.1, 52))
    canvas.paint(p, inside + 1.0 * rough, FAT)


def _chest(canvas: Canvas, rough: Array) -> None:
    """Lungs above the diaphragm, with vessels that taper outwards, and the lower edge of the heart."""
    p = canvas.patch((-165, -115, 40), (165, 115, 200))
    assert p is not None
    room = cavity_distance(p) + 5
    heart = ellipsoid(p, (26, -40, 186), (56, 46, 50), turned(0, 25, 30))
    texture = rough[p.slices]
    for side in (-1, 1):
        under = dome(p.x, p.y, side)
        edge = (under - p.z) * np.float32(0.75)
        mediastinum = 26 - np.float32(side) * (p.x - np.float32(6))
        lung = np.maximum(np.maximum(room, edge), mediastinum)
        spine = capsule(p, (spine_x(60), spine_y(60), 60), (spine_x(200), spine_y(200), 200), 23)
        lung = np.maximum(np.maximum(lung, -spine), -(heart - 3))
        canvas.paint(p, lung, LUNG + 60 * np.clip(texture, -1.5, 2.5))
        _muscle_under(canvas, p, np.maximum(room, np.abs(p.z - under + 1.5) - 2.5), side)
    canvas.paint(p, heart, BLOOD)


def _muscle_under(canvas: Canvas, p: Patch, sheet: Array, side: int) -> None:
    """The diaphragm: a sheet of muscle below each lung."""
    half = np.maximum(sheet, 12 - np.float32(side) * p.x)
    canvas.paint(p, half, MUSCLE)


def _retroperitoneum(canvas: Canvas) -> None:
    """Muscles beside and behind the spine, the cava, the crura."""
    for side in (-1, 1):
        line = [(spine_x(z) + side * (25 + 0.19 * max(0, 45 - z)), spine_y(z) + 2 - 0.15 * max(0, -60 - z), z)
                for z in (45, 10, -30, -70, -110, -150, -185)]
        _tube(canvas, line, [6, 13, 17, 19, 17, 14, 12], MUSCLE + 4, (1.05, 1.0, 1))
        back = [(spine_x(z) + side * 30, min(spine_y(z) + 45, 82), z) for z in (198, 120, 60, 0, -60, -120)]
        _tube(canvas, back, [15, 17, 20, 22, 22, 18], MUSCLE, (1.35, 0.85, 1))
        quadratus = [(side * 68, spine_y(z) + 28, z) for z in (70, 30, -10, -50)]
        _tube(canvas, quadratus, [8, 11, 13, 12], MUSCLE, (1.6, 0.7, 1))
        gluteal = [(side * 78, 66, -70), (side * 92, 60, -130), (side * 112, 34, -190)]
        _tube(canvas, gluteal, [14, 27, 30], MUSCLE, (1.3, 0.85, 1))
        thigh = [(side * 118, -52, -130), (side * 108, -58, -170), (side * 98, -56, -206)]
        _tube(canvas, thigh, [12, 22, 28], MUSCLE, (1, 0.9, 1))
        crus = [(spine_x(z) + side * 10 - 2, spine_y(z) - 21, z) for z in (110, 80, 50, 25)]
        _tube(canvas, crus, [6, 6, 5, 3], MUSCLE, (1, 1, 1))
    cava = [(spine_x(z) - 19, spine_y(z) - 27 + 0.06 * max(0, z), z) for z in (150, 100, 50, 0, -50, -68)]
    _tube(canvas, cava, [12, 12, 11.5, 10.5, 10, 10], BLOOD, (1.15, 0.85, 1))


def _tube(canvas: Canvas, line: Sequence[Sequence[float]] | Float64, radii: Sequence[float], hu: float,
          squash: tuple[float, float, float] = (1, 1, 1), bend: Array | None = None) -> None:
    """Rods along a smooth line; bend: a field (mm) that makes their outline irregular."""
    knots = np.asarray(line, float)
    points = smooth_line(knots, 8.0)
    along = np.linspace(0, 1, len(points))
    radius = np.interp(along, np.linspace(0, 1, len(radii)), radii)
    for i in range(len(points) - 1):
        reach = max(radius[i], radius[i + 1]) * max(squash) + 3
        patch = canvas.patch(np.minimum(points[i], points[i + 1]) - reach, np.maximum(points[i], points[i + 1]) + reach)
        if patch is not None:
            rod = capsule(patch, tuple(points[i]), tuple(points[i + 1]), radius[i], radius[i + 1], squash)
            canvas.paint(patch, rod if bend is None else rod + bend[patch.slices], hu)


def _solid_organs(canvas: Canvas, rough: Array) -> None:
    p = canvas.patch((-150, -100, -30), (60, 80, 165))
    assert p is not None
    room = np.maximum(cavity_distance(p) + 2, p.z - dome(p.x, p.y, -1) + 3)
    right = ellipsoid(p, (-72, -6, 74), (64, 82, 90), turned(0, -14, 0))
    left = ellipsoid(p, (-14, -52, 100), (66, 34, 34), turned(0, 22, 8))
    fossa = ellipsoid(p, (-20, 40, 40), (48, 60, 70))
    liver = np.maximum(np.maximum(union(right, left, 14), room), -fossa) + 1.2 * rough[p.slices]
    canvas.paint(p, liver, LIVER)
    gall = canvas.patch((-80, -90, 0), (-10, 0, 60))
    assert gall is not None
    canvas.paint(gall, ellipsoid(gall, (-42, -52, 32), (14, 16, 26), turned(20, 10, 0)), FLUID)
    p = canvas.patch((20, -90, 20), (145, 85, 150))
    assert p is not None
    room = np.maximum(cavity_distance(p) + 2, p.z - dome(p.x, p.y, 1) + 3)
    canvas.paint(p, np.maximum(ellipsoid(p, (96, 34, 88), (26, 36, 52), turned(0, 12, -20)), room), SPLEEN)
    stomach = np.maximum(ellipsoid(p, (62, -30, 98), (38, 36, 44), turned(20, 20, 0)), room)
    canvas.paint(p, stomach, MUSCLE - 8)
    canvas.paint(p, stomach + 4, FLUID + 12)
    canvas.paint(p, np.maximum(stomach + 4, p.y + np.float32(44)), AIR)  # gas floats up in a supine patient
    _tube(canvas, [(36, -46, 60), (8, -52, 44), (-22, -46, 38)], [17, 14, 10], MUSCLE - 8)
    _tube(canvas, [(70, 14, 66), (30, -18, 58), (-8, -24, 48), (-30, -16, 34)], [9, 9, 10, 13], 40)  # pancreas
    for side, center in _KIDNEYS:
        _kidney(canvas, side, center)


_KIDNEYS = ((1, (65.0, 36.0, 33.0)), (-1, (-63.0, 37.0, 20.0)))


def _renal_fat(canvas: Canvas) -> None:
    """The bed of fat that keeps bowel away from the kidneys."""
    for side, center in _KIDNEYS:
        patch = canvas.patch(np.array(center) - 70, np.array(center) + 70)
        assert patch is not None
        bed = ellipsoid(patch, center, (42, 38, 68), _renal_turn(side))
        canvas.paint(patch, np.maximum(bed, cavity_distance(patch) + 3), FAT - 8)


def _renal_turn(side: int) -> Float64:
    return turned(12, -side * 12, side * 25)  # the upper poles lean inwards


def _kidney(canvas: Canvas, side: int, center: tuple[float, float, float]) -> None:
    patch = canvas.patch(np.array(center) - 70, np.array(center) + 70)
    assert patch is not None
    turn = _renal_turn(side)
    body = ellipsoid(patch, center, (26, 23, 54), turn)
    sinus_at = (center[0] - side * 15.0, center[1] - 8.0, center[2])
    canvas.paint(patch, body, KIDNEY)
    canvas.paint(patch, ellipsoid(patch, sinus_at, (15, 12, 26), turn), FAT + 20)
    canvas.paint(patch, ellipsoid(patch, (sinus_at[0] - side * 4, *sinus_at[1:]), (8, 6, 13), turn), FLUID)


def _bowel(canvas: Canvas, rng: np.random.Generator, folds: Array) -> None:
    """Loops of small bowel: wandering tubes with wall, fluid and here and there gas at their front."""
    for _ in range(26):
        x, y, z = rng.uniform(-80, 80), rng.uniform(-66, -22), rng.uniform(-165, 20)
        heading = rng.normal(size=3) * (1, 0.4, 0.7)
        knots = [(x, y, z)]
        for _ in range(7):
            heading = 0.75 * heading + rng.normal(size=3) * (0.75, 0.3, 0.6)
            step = 20 * heading / np.linalg.norm(heading)
            low, high = (-88, -72, -178), (88, -18, 34)
            at = np.clip(np.array(knots[-1]) + step, low, high)
            heading = np.where((at <= low) | (at >= high), -heading, heading)
            knots.append((float(at[0]), float(at[1]), float(at[2])))
        radius = float(rng.uniform(8.5, 12.5))
        _tube(canvas, knots, [radius], MUSCLE - 12)
        _tube(canvas, knots, [radius - 2.0], FLUID + 8)
        if rng.uniform() < 0.6:
            first, reach = int(rng.integers(0, 5)), int(rng.integers(2, 5))
            gas = [(gx, gy - 0.35 * radius, gz) for gx, gy, gz in knots[first: first + reach]]
            if len(gas) > 1:
                size = rng.uniform(0.1, 0.55, len(gas)) * radius
                _tube(canvas, gas, [float(r) for r in size], AIR, bend=0.22 * radius * folds)


_COLON = {  # knots, radius, share of gas
    "ascending": ([(-92, 4, -112), (-98, 6, -70), (-100, 2, -30), (-94, -8, 8)], 22.0, 0.22),
    "transverse": ([(-94, -8, 8), (-62, -56, 6), (-8, -70, -14), (48, -66, 12), (92, -20, 52)], 17.0, 0.42),
    "descending": ([(92, -20, 52), (103, 14, 20), (104, 16, -40), (96, 6, -95)], 14.0, 0.25),
    "sigmoid": ([(96, 6, -95), (74, -12, -128), (34, -26, -138), (10, 6, -150), (2, 26, -190)], 14.0, 0.4),
}


def _colon(canvas: Canvas, rng: np.random.Generator, folds: Array) -> None:
    """The large bowel as a frame around the small: haustra, stool, and gas in its front parts."""
    for knots, base, gas in _COLON.values():
        points = smooth_line(np.asarray(knots, float), 3.0)
        along = 3.0 * np.arange(len(points))
        radius = base * (0.84 + 0.16 * np.abs(np.sin(np.pi * along / 27.0 + rng.uniform(0, 3))))
        _tube(canvas, points, list(radius), MUSCLE - 14)
        _tube(canvas, points, list(radius - 2.4), 22.0)
        _stool(canvas, points, radius, rng)
        # pockets that end at the folds between haustra
        pockets = np.repeat(rng.uniform(0, 1, len(points) // 9 + 1), 9)[: len(points)]
        size = np.clip(1 - pockets / (2 * gas), 0, 1) ** 0.5 * np.abs(np.sin(np.pi * along / 27.0)) ** 0.3
        bubble = 0.62 * (radius - 3) * size
        front = points - np.array([0, 1, 0]) * (radius - 2.5 - bubble)[:, None]
        for i in range(len(points) - 1):
            if bubble[i] > 2:
                patch = canvas.patch(front[i] - bubble[i] - 8, front[i] + bubble[i] + 8)
                if patch is not None:
                    pocket = capsule(patch, tuple(front[i]), tuple(front[i + 1]), float(bubble[i]))
                    within = capsule(patch, tuple(points[i]), tuple(points[i + 1]), float(radius[i] - 2.4))
                    canvas.paint(patch, np.maximum(pocket + 2.2 * folds[patch.slices], within), AIR)


def _stool(canvas: Canvas, points: Float64, radius: Float64, rng: np.random.Generator) -> None:
    """Stool mottled with small bubbles."""
    for i in range(0, len(points), 2):
        for _ in range(2):
            at = points[i] + rng.normal(size=3) * 0.38 * radius[i]
            r = float(rng.uniform(1.5, 4.0))
            patch = canvas.patch(at - r - 3, at + r + 3)
            if patch is not None:
                crumb = canvas.occupancy(ellipsoid(patch, tuple(at), (r, r, 0.8 * r)))
                canvas.mix(patch, 0.8 * crumb, float(rng.choice([-500.0, 60.0])))


def _blood(canvas: Canvas, tree: ArterialTree) -> None:
    """Walls and blood of the arteries, and calcified plaques of an older aorta."""
    for b in tree.branches:
        for i in range(0, len(b.points) - 1, 3):
            p, r = b.points[i: i + 4], b.radius[i: i + 4]
            patch = canvas.patch(p.min(0) - r.max() - 4, p.max(0) + r.max() + 4)
            if patch is None:
                continue
            lumen: Array | None = None
            for n in range(len(p) - 1):
                rod = capsule(patch, tuple(p[n]), tuple(p[n + 1]), float(r[n]), float(r[n + 1]))
                lumen = rod if lumen is None else np.minimum(lumen, rod)
            assert lumen is not None
            canvas.paint(patch, lumen - 1.0, BLOOD)
    _plaques(canvas, tree)


def _plaques(canvas: Canvas, tree: ArterialTree) -> None:
    rng = np.random.default_rng(771)  # of the anatomy, the same for every seed: plaques sit at the bifurcation
    for name, count in (("aorta", 9), ("common_iliac_right", 3), ("common_iliac_left", 2)):
        b = tree[name]
        for _ in range(count):
            i = int(rng.integers(len(b.points) // 2, len(b.points) - 1)) if name == "aorta" else int(
                rng.integers(2, len(b.points) - 2))
            angle = rng.uniform(0, 2 * np.pi)
            out = np.array([np.cos(angle), np.sin(angle), 0.0])
            at = b.points[i] + out * b.radius[i]
            patch = canvas.patch(at - 9, at + 9)
            if patch is not None:
                turn = turned(0, 0, float(np.degrees(angle)))
                plaque = ellipsoid(patch, tuple(at), (1.0, rng.uniform(1.5, 4.0), rng.uniform(2.0, 6.0)), turn)
                canvas.paint(patch, plaque, 720.0)
