# SPDX-License-Identifier: Apache-2.0
"""Can OpenGL be had without a screen? Run as a program of its own: a driver that crashes takes only it along.

Goes the way that VTK's EGL window goes (device, display, configuration, context), because VTK itself ends
the process where a step of it fails. Prints nothing and ends with 0, or prints one line and ends with 1.
"""

from __future__ import annotations

import ctypes
import sys

DEVICE_PLATFORM = 0x313F  # EGL_PLATFORM_DEVICE_EXT
OPENGL_API = 0x30A2
NONE = 0x3038
# a pbuffer that OpenGL can draw into: 8 bits a channel, 24 of depth
CONFIG = (0x3033, 0x0001, 0x3040, 0x0008, 0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8, 0x3025, 24, NONE)
CORE_3_2 = (0x3098, 3, 0x30FB, 2, 0x30FD, 1, NONE)


def fault() -> str:
    """Empty where an OpenGL 3.2 context can be made through EGL, else what is missing."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return "libEGL.so.1 cannot be loaded"
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    egl.eglGetProcAddress.restype, egl.eglGetProcAddress.argtypes = pointer, [ctypes.c_char_p]
    query, display_of = (egl.eglGetProcAddress(n) for n in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT"))
    if not query or not display_of:
        return "libEGL has no device extension"
    devices, count = (pointer * 16)(), integer(0)
    ctypes.CFUNCTYPE(integer, integer, pointer, pointer)(query)(16, devices, ctypes.byref(count))
    get_display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(display_of)
    for device in devices[:count.value]:
        display = get_display(DEVICE_PLATFORM, device, None)
        if display and egl.eglInitialize(pointer(display), None, None):
            return _context_fault(egl, pointer(display))
    return "libEGL finds no driver"


def _context_fault(egl: ctypes.CDLL, display: ctypes.c_void_p) -> str:
    """Whether the first display that starts (the one VTK takes) gives a context."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    config, count = pointer(), integer(0)
    wanted = (integer * len(CONFIG))(*CONFIG)
    if not egl.eglChooseConfig(display, wanted, ctypes.byref(config), 1, ctypes.byref(count)) or not count.value:
        return "the EGL driver has no format for OpenGL"
    egl.eglCreateContext.restype = pointer
    core = (integer * len(CORE_3_2))(*CORE_3_2)
    if not egl.eglBindAPI(OPENGL_API) or not egl.eglCreateContext(display, config, None, core):
        return "the EGL driver gives no OpenGL 3.2"
    return ""


if __name__ == "__main__":
    said = fault()
    if said:
        print(said)
    sys.exit(1 if said else 0)
