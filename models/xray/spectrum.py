# SPDX-License-Identifier: Apache-2.0
"""What leaves the tube, and how much of it gets through? Polyenergetic attenuation over a few energy bins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from registration.errors import BadInput
from registration.geometry import Array, Float64, read_only

TABLE = Path(__file__).with_name("spectra.json")  # written by make_spectra.py
MATERIALS = ("water", "bone", "iodine", "steel", "platinum")


@dataclass(frozen=True, slots=True)
class Spectrum:
    """An X-ray beam in energy bins, behind the tube's filter and the table top, before the patient.

    energies_kev (n,); detected_kev (n,) energy left in the scintillator per mm2 and mAs at 1 m; mu_per_mm
    (materials, n) linear attenuation in the order of MATERIALS (iodine per g/cm3); kerma_ugy_per_mas air kerma at
    1 m before the table top.
    """

    kvp: float
    energies_kev: Float64
    detected_kev: Float64
    mu_per_mm: Float64
    kerma_ugy_per_mas: float
    mean_kev: float

    def transmission(self, lengths: Mapping[str, Array]) -> Array:
        """Detected signal relative to no patient, for lengths of each material on the rays.

        lengths: material -> array of mm (iodine: g/cm3 times mm), all of one shape; the answer has it, float32.
        """
        unknown = set(lengths) - set(MATERIALS)
        if unknown or not lengths:
            raise BadInput("materials on the ray", got=sorted(lengths), expected=f"some of {MATERIALS}",
                           remedy="name the material as the table does")
        total = self.detected_kev.sum()
        out: Array | None = None
        for b in range(len(self.energies_kev)):
            depth = sum(np.float32(self.mu_per_mm[MATERIALS.index(name), b]) * np.asarray(mm, np.float32)
                        for name, mm in lengths.items())
            part = np.float32(self.detected_kev[b] / total) * np.exp(-np.asarray(depth, np.float32))
            out = part if out is None else out + part
        assert out is not None
        return out


@cache
def spectrum_at(kvp: float) -> Spectrum:
    """The beam at a tube voltage of the shipped table. Raises BadInput for any other."""
    table = json.loads(TABLE.read_text())["spectra"]
    known = {float(s["kvp"]): s for s in table}
    if float(kvp) not in known:
        raise BadInput("tube voltage", got=f"{kvp} kV", expected=f"one of {sorted(known)}",
                       remedy="add it to KVPS and run python -m models.xray.make_spectra")
    s = known[float(kvp)]
    mu = np.array([[b["mu_per_mm"][m] for b in s["bins"]] for m in MATERIALS])
    return Spectrum(float(kvp), read_only([b["energy_kev"] for b in s["bins"]], np.float64),
                    read_only([b["detected_kev_per_mm2_mas"] for b in s["bins"]], np.float64), read_only(mu),
                    float(s["kerma_ugy_per_mas"]), float(s["mean_kev_behind_15_cm_water"]))
