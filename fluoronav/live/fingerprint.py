# SPDX-License-Identifier: Apache-2.0
"""What do the bits of an answer depend on besides its input? Build, machine, libraries, threads."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from fluoronav.live.settings import PipelineSettings
from models.engines import WEIGHTS

# what answers frames; console, session, benchmarks and commands show and keep the answers
PACKAGES = ("registration", "overlays", "fluoronav.imaging", "fluoronav.enhance", "fluoronav.locate", "fluoronav.case",
            "fluoronav.live")
LIBRARIES = ("numpy", "scipy", "opencv-python-headless", "vtk", "scikit-image", "openvino", "onnxruntime")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def fingerprint(settings: PipelineSettings) -> dict[str, Any]:
    """Plain JSON. Equal fingerprints promise equal bits; `threads` is told but changes none of ours."""
    import cv2

    from registration.projector import projector_path

    return {"version": importlib.metadata.version("fluoronav"), **_code(), "projector": projector_path(),
            "machine": platform.machine(), "python": platform.python_version(), "cpu_features": _cpu_features(),
            "libraries": {name: _version(name) for name in LIBRARIES}, "cpus": os.cpu_count(),
            "opencv_threads": cv2.getNumThreads(), "blas_threads": {k: os.environ.get(k, "") for k in THREADS},
            "threads": settings.threads}


@functools.cache
def _code() -> dict[str, str]:
    """sha256 of the compiled modules, the sources and the weights that answer frames, by name and content."""
    found: dict[str, list[Path]] = {"build": [], "sources": [], "weights": []}
    found["weights"] += (f for f in WEIGHTS.iterdir() if f.is_file())
    for package in PACKAGES:
        folders = [Path(p) for p in importlib.import_module(package).__path__]
        for folder in folders:
            found["build"] += folder.rglob("*.so")
            found["sources"] += folder.rglob("*.py")
    out = {}
    for kind, files in found.items():
        digest = hashlib.sha256()
        for file in sorted(set(files), key=lambda f: (f.parent.name, f.name)):
            digest.update(f"{file.parent.name}/{file.name}\0".encode() + file.read_bytes())
        out[kind] = digest.hexdigest()
    return out


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_features() -> list[str]:
    """The vector extensions that numpy's own dispatch found, and so the compiled modules."""
    from numpy._core._multiarray_umath import __cpu_features__

    return sorted(name for name, there in __cpu_features__.items() if there)
