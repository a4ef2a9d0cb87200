# SPDX-License-Identifier: Apache-2.0
"""A surface of very many triangles is thinned for drawing, and stays where it was."""

from __future__ import annotations

import numpy as np
import pytest

from registration.geometry import Array, Float64

pytest.importorskip("vtkmodules")


def ring(around: int, along: int, radius: float, tube: float) -> tuple[Float64, Array]:
    """A torus (a closed tube) with its analytic surface: vertices (n, 3) mm, faces (m, 3)."""
    a, b = (2 * np.pi * np.arange(n) / n for n in (along, around))
    a, b = np.meshgrid(a, b, indexing="ij")
    points = np.stack([(radius + tube * np.cos(b)) * np.cos(a), (radius + tube * np.cos(b)) * np.sin(a),
                       tube * np.sin(b)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(along), np.arange(around), indexing="ij")

    def at(p: Array, q: Array) -> Array:
        return (p % along) * around + q % around

    one = np.stack([at(i, j), at(i + 1, j), at(i + 1, j + 1)], -1).reshape(-1, 3)
    two = np.stack([at(i, j), at(i + 1, j + 1), at(i, j + 1)], -1).reshape(-1, 3)
    return points, np.concatenate([one, two])


def test_a_thinned_tube_stays_within_a_tenth_of_a_millimeter_and_closed() -> None:
    from overlays.gl import MOST_TRIANGLES, _closed, thinned

    vertices, faces = ring(60, 900, radius=60.0, tube=4.0)
    assert len(faces) == 108_000
    v, f = thinned(vertices, faces)
    assert len(f) <= MOST_TRIANGLES and _closed(f)
    samples = np.concatenate([v, v[f].mean(axis=1)])
    off = np.hypot(np.hypot(samples[:, 0], samples[:, 1]) - 60.0, samples[:, 2]) - 4.0
    assert np.abs(off).max() < 0.1  # a sixth of a pixel at the isocenter


def test_a_light_surface_is_drawn_as_it_is() -> None:
    from overlays.gl import thinned

    vertices, faces = ring(24, 200, 60.0, 4.0)
    v, f = thinned(vertices, faces)
    assert v is vertices and f is faces
