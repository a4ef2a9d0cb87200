# SPDX-License-Identifier: Apache-2.0
"""What does this machine have? Each finding says what is used, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: `missing` costs a feature, `slow` costs time, `broken` stops the program."""

    name: str
    state: Literal["good", "slow", "missing", "broken"]
    found: str
    remedy: str = ""


def examined() -> list[Finding]:
    """Everything that decides which code paths run here."""
    return [_program(), _processor(), _projector(), _kernels(), *_networks(), _overlay(), _codecs(),
            _optional("torch", "train"), _optional("itk", "test"), _browser(), _images()]


def _program() -> Finding:
    return Finding("fluoronav", "good", f"{importlib.metadata.version('fluoronav')}, Python "
                   f"{platform.python_version()}, {platform.system()} {platform.machine()}")


def cpu_name() -> str:
    """The processor as the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Which of the instruction sets that matter here the processor has."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return ()
    words = {w for line in info.read_text().splitlines() if line.startswith(("flags", "Features"))
             for w in line.split(":", 1)[1].split()}
    return tuple(f for f in FLAGS if f in words)


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("processor", "good", f"{cpu_name()}, {cores} cores, {' '.join(cpu_flags()) or 'no known vectors'}")


def _projector() -> Finding:
    try:
        from registration.projector import projector_path
        from registration.projector.gpu import unavailable

        gpu = unavailable()
        return Finding("projector", "good", f"{projector_path()}; GPU: {gpu or 'there, by FLUORONAV_PROJECTOR=GPU'}")
    except ImportError as error:
        return Finding("projector", "broken", f"not built: {error}", "install again: make demo builds it")


def _kernels() -> Finding:
    from fluoronav.enhance import kernels

    if kernels.compiled:
        return Finding("enhancement", "good", f"compiled kernels, {kernels.path}")
    if len(kernels.paths()) > 1:
        return Finding("enhancement", "slow", f"{kernels.path}, by {kernels.PATH_VARIABLE}",
                       f"leave {kernels.PATH_VARIABLE} empty for the best path")
    return Finding("enhancement", "slow", "compiled kernels are not built", "install again: make demo builds them")


def _networks() -> list[Finding]:
    """What the networks of the enhancement run on, and in how many bits."""
    from fluoronav.enhance.precision import NETS, choice
    from models.engines import installed

    engine = next(iter(installed()), None)
    if engine is None:
        return [Finding("networks", "missing", "no engine; the classical denoiser and plain interpolation run",
                        "pip install openvino")]
    return [Finding(f"network {net}", "good", f"{engine}, {choice(net).why}") for net in NETS]


def _overlay() -> Finding:
    from overlays.renderer import why_not_vtk

    reason = why_not_vtk()
    if reason is None:
        return Finding("overlay", "good", f"VTK {importlib.metadata.version('vtk')}, off-screen")
    return Finding("overlay", "missing", "plain projected lines", reason)


def _codecs() -> Finding:
    import pydicom

    from fluoronav.imaging.codecs import install

    install()
    return Finding("DICOM codecs", "good", f"pydicom {pydicom.__version__}, imagecodecs "
                   f"{importlib.metadata.version('imagecodecs')}, pylibjpeg, pyjpegls")


def _optional(module: str, extra: str) -> Finding:
    if importlib.util.find_spec(module):
        return Finding(module, "good", f"installed (extra `{extra}`)")
    return Finding(module, "missing", "not installed; neither demo nor registration needs it",
                   f"pip install 'fluoronav[{extra}]'")


def _browser() -> Finding:
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next((p for p in (shutil.which(n) for n in names if n) if p), None)
    if found:
        return Finding("Chromium", "good", "found (the page's own test drives it; any browser shows the console)")
    return Finding("Chromium", "missing", "not found; only the page's test needs it", "apt install chromium")


def shared_root() -> Path:
    """Where the real images are looked for: FLUORONAV_SHARED, else ../shared beside the repository."""
    return Path(os.environ.get("FLUORONAV_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _images() -> Finding:
    if (shared_root() / "data").is_dir():
        return Finding("real images", "good", "found")
    return Finding("real images", "missing", "not here; `bench real` and the tests of real images need them",
                   "set FLUORONAV_SHARED to the folder that holds `data`")
