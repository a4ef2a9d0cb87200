# SPDX-License-Identifier: Apache-2.0
"""The same scene, C-arm and pose give the same bits: again, in another thread, in another process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from overlay_views import CARMS, points_in_view, poses, sphere

from overlays import Overlay, Renderer, Scene, scene_of
from registration.geometry import CArm


def scene_and_view() -> tuple[Scene, CArm, np.ndarray]:
    """One of everything, at a pose."""
    carm, pose = CARMS["pixels not square"], poses(1, seed=9)[0]
    points = points_in_view(carm, pose, 12, np.random.default_rng(4), margin_px=20)
    scene = scene_of(surfaces={"a": sphere(points[0], 12.0)}, implant=sphere(points[1], 9.0), path_mm=points[2:6],
                     landmarks_mm=points[6:9], target_mm=points[9])
    return scene, carm, pose


def digest(overlay: Overlay) -> str:
    """One hash of all layers, in their order."""
    h = hashlib.sha256()
    for name, rgba in overlay.layers.items():
        h.update(name.encode() + np.ascontiguousarray(rgba).tobytes())
    return h.hexdigest()


@pytest.mark.parametrize("method", ["vtk", "lines"])
def test_again_and_in_another_process(method: str, opengl: None) -> None:
    scene, carm, pose = scene_and_view()
    renderer = Renderer(scene, method)  # type: ignore[arg-type]
    first = digest(renderer.draw(carm, pose))
    for other in poses(2, seed=1):  # what was drawn before must not matter, nor at which size
        renderer.draw(carm, other)
        renderer.draw(carm.binned(2), pose)
    assert digest(renderer.draw(carm, pose)) == first
    renderer.close()
    assert digest(renderer.draw(carm, pose)) == first
    assert digest(Renderer(scene, method).draw(carm, pose)) == first  # type: ignore[arg-type]
    code = ("from test_same_bits import *; from overlays import Renderer; s, c, p = scene_and_view(); "
            f"print(digest(Renderer(s, '{method}').draw(c, p)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
                          env={**_environment(), "PYTHONPATH": str(Path(__file__).parent)})
    assert done.stdout.strip() == first and done.stderr == ""


@pytest.mark.usefixtures("opengl")
def test_any_thread_may_draw_with_the_same_renderer() -> None:
    scene, carm, pose = scene_and_view()
    renderer = Renderer(scene, "vtk")
    found: list[str] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: found.append(digest(renderer.draw(carm, pose))))
        thread.start()
        thread.join()
    found.append(digest(renderer.draw(carm, pose)))
    many = [threading.Thread(target=lambda: found.append(digest(renderer.draw(carm, pose)))) for _ in range(3)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert len(found) == 7 and len(set(found)) == 1


def test_layers_are_premultiplied_and_read_only() -> None:
    scene, carm, pose = scene_and_view()
    overlay = Renderer(scene).draw(carm, pose)
    assert list(overlay.layers) == [x.name for x in scene.layers] and overlay.carm == carm
    for name, rgba in overlay.layers.items():
        assert rgba.shape == (*carm.shape, 4) and rgba.dtype == np.uint8 and not rgba.flags.writeable
        assert rgba[..., 3].any() and (rgba[..., :3] <= rgba[..., 3:]).all(), name


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)
