# SPDX-License-Identifier: Apache-2.0
"""Does VTK find an OpenGL to draw with here, and through which door? Asked before VTK is: it would not survive."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

REMEDY = "install libegl1 and libegl-mesa0"
OFF = "FLUORONAV_NO_OPENGL"  # set to anything but 0 or nothing: draw as if there were none
OSMESA = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")


def why_not_vtk() -> str | None:
    """None where VTK can draw off-screen, else one sentence with the Debian package that would help."""
    if os.environ.get(OFF, "0") not in ("", "0"):
        return f"VTK's OpenGL is switched off by {OFF}."
    fault = _fault()
    return None if fault is None else f"VTK found no OpenGL: {fault}; {REMEDY}."


def new_window() -> Any:
    """An off-screen vtkRenderWindow of the kind that was found; call only where why_not_vtk() is None."""
    os.environ.setdefault("EGL_LOG_LEVEL", "fatal")  # Mesa's notes on devices that it passes over
    import vtkmodules.vtkRenderingOpenGL2 as opengl

    window: Any

    if not sys.platform.startswith("linux"):
        from vtkmodules.vtkRenderingCore import vtkRenderWindow

        window = vtkRenderWindow()
    elif _egl_fault() == "":
        window = opengl.vtkEGLRenderWindow()
    else:
        window = opengl.vtkOSOpenGLRenderWindow()
    window.SetOffScreenRendering(True)
    return window


@cache
def _fault() -> str | None:
    try:
        import vtkmodules.vtkRenderingOpenGL2  # noqa: F401
    except ImportError as error:
        return f"VTK cannot be loaded ({error})"
    if not sys.platform.startswith("linux"):
        return None
    egl = _egl_fault()
    return None if egl == "" or _has_osmesa() else f"{egl}, and there is no libOSMesa"


@cache
def _egl_fault() -> str:
    """Empty where EGL gives OpenGL, else what is missing; asked in a process of its own."""
    from overlays import egl_probe

    path = Path(egl_probe.__file__)
    try:
        done = subprocess.run([sys.executable, "-I", "-S", str(path)], check=False, capture_output=True,
                              text=True, timeout=30,
                              env={**os.environ, "EGL_LOG_LEVEL": "fatal"})
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"EGL does not answer ({type(error).__name__})"
    if done.returncode == 0:
        return ""
    said = done.stdout.strip()
    return said if done.returncode == 1 and said else f"the EGL driver crashes (exit code {done.returncode})"


@cache
def _has_osmesa() -> bool:
    for name in OSMESA:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
