# SPDX-License-Identifier: Apache-2.0
"""Where VTK finds no OpenGL, plain lines are drawn and it is said; nothing crashes and nothing is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from overlay_views import CARMS, poses

from overlays import Renderer, opengl, scene_of, why_not_vtk
from registration.errors import BadInput

ROOT = Path(__file__).parents[2]
PROGRAM = """
import numpy as np
from overlays import Renderer, scene_of, why_not_vtk
from registration.geometry import CArm, carm_from_patient_at
scene = scene_of(path_mm=np.array([[0, 0, 0], [40, 10, 5.0]]), target_mm=np.array([10.0, 10, 10]))
overlay = Renderer(scene).draw(CArm.centered((64, 80), 1.0, 1000, 700), carm_from_patient_at(20, 10, [0, 0, 0]))
print(why_not_vtk())
print(overlay.method, *overlay.badges)
print(all(rgba.any() for rgba in overlay.layers.values()))
"""


def _run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env={**os.environ, **environment})


def _is_said_and_drawn(done: subprocess.CompletedProcess[str], cause: str) -> None:
    assert done.returncode == 0 and done.stderr == ""
    why, method, drawn = done.stdout.strip().split("\n")
    assert cause in why and "libegl1" in why and why.endswith(".") and why.count(". ") == 0
    assert method.startswith("lines overlay drawn as plain lines") and "libegl1" in method
    assert drawn == "True"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="how Linux finds its libraries")
def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    for name in ("libEGL.so.1", "libEGL.so", *opengl.OSMESA):
        (tmp_path / name).write_text("no library\n")  # found first, and refused by the loader
    _is_said_and_drawn(_run(LD_LIBRARY_PATH=str(tmp_path)), "libEGL.so.1 cannot be loaded")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="how Linux finds its drivers")
def test_a_library_without_a_driver(tmp_path: Path) -> None:
    for name in opengl.OSMESA:
        (tmp_path / name).write_text("no library\n")
    done = _run(__EGL_VENDOR_LIBRARY_DIRS=str(tmp_path), LD_LIBRARY_PATH=str(tmp_path))
    if "no driver" not in done.stdout and "cannot be loaded" not in done.stdout:
        pytest.skip("this libEGL is itself the driver (no vendor-neutral dispatch)")
    _is_said_and_drawn(done, "libEGL")


def test_the_switch_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(opengl.OFF, "1")
    assert "switched off" in str(why_not_vtk())
    scene = scene_of(path_mm=np.array([[0, 0, 0], [40, 10, 5.0]]))
    renderer = Renderer(scene, "auto")
    assert renderer.method == "lines" and "switched off" in renderer.badges[0]
    with pytest.raises(BadInput, match="libegl1"):
        Renderer(scene, "vtk")


def test_a_crashing_driver_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from overlays import egl_probe

    crash = tmp_path / "probe.py"
    crash.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(egl_probe, "__file__", str(crash))
    opengl._egl_fault.cache_clear()
    try:
        assert "crashes" in opengl._egl_fault()
    finally:
        opengl._egl_fault.cache_clear()


def test_lines_that_were_asked_for_are_no_fault_and_none_draws_nothing() -> None:
    scene = scene_of(path_mm=np.array([[0, 0, 0], [40, 10, 5.0]]))
    assert Renderer(scene, "lines").badges == ()
    empty = Renderer(scene, "none").draw(CARMS["centred"], poses(1)[0])
    assert empty.method == "none" and empty.layers == {}
    with pytest.raises(BadInput, match="auto, vtk, lines"):
        Renderer(scene, "cairo")  # type: ignore[arg-type]
