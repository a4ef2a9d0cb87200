# SPDX-License-Identifier: Apache-2.0
"""What is a figure, which benchmarks are there, and on what machine did one run?"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fluoronav.machine import cpu_name, shared_root
from registration.errors import BadInput

Progress = Callable[[float, str], None]

# name -> (module, what it measures)
BENCHES: dict[str, tuple[str, str]] = {
    "real": ("fluoronav.bench.real", "registration on the real images: vessel phantom, knee implant, chest CT"),
    "render": ("fluoronav.bench.render", "one projection with its Jacobian: time beside nanodrr and itk-rtk, errors"),
    "register": ("fluoronav.bench.register", "a chest CT found from starts near, far, none; breathing; two views"),
    "track": ("fluoronav.bench.track", "a breathing chest followed over 1,000 frames"),
    "anatomies": ("fluoronav.bench.anatomies", "registration of a torso, pelvis, thorax, wrist bone, implant"),
    "gate": ("fluoronav.bench.gate", "wrong patients, sides and bounds: 3,000 simulated registrations"),
    "enhance": ("fluoronav.bench.enhance", "noise, a moving wire in real noise, speed of the chain"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number: value (None where it could not be measured), unit, how many it rests on."""

    value: float | None
    unit: str
    n: int
    note: str = ""


def run(name: str, progress: Progress, **options: Any) -> dict[str, Any]:
    """Run a benchmark: {"bench", "machine", "figures": {ID: {"value", "unit", "n"[, "note"]}}[, "table"]}.

    options: what its `figures` takes beside progress; table: rows of words, where a benchmark compares methods."""
    if name not in BENCHES:
        raise BadInput("benchmark", got=name, expected="one of " + ", ".join(sorted(BENCHES)),
                       remedy="see fluoronav bench --list")
    bench = importlib.import_module(BENCHES[name][0])
    figures = bench.figures(progress, **options)
    compared = {"table": bench.table(figures)} if hasattr(bench, "table") else {}
    return {"bench": name, "machine": machine(),
            "figures": {key: _entry(value) for key, value in figures.items()}} | compared


def _entry(figure: Figure) -> dict[str, Any]:
    entry = asdict(figure)
    if not entry["note"]:
        del entry["note"]
    return entry


def machine() -> dict[str, Any]:
    """The processor, its cores, and the projector path in use."""
    from registration.projector import projector_path

    return {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)), "projector": projector_path(),
            "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}


def shared_data() -> Path:
    """The folder of real images: FLUORONAV_SHARED, else ../shared beside the repository."""
    root = shared_root()
    if not (root / "data").is_dir():
        raise BadInput("real images", got=f"no folder {root / 'data'}",
                       expected="the real images that this benchmark measures on",
                       remedy="set FLUORONAV_SHARED to the folder that holds `data`")
    return root / "data"
