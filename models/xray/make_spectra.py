# SPDX-License-Identifier: Apache-2.0
"""Where does spectra.json come from? `python -m models.xray.make_spectra` writes it again, from spekpy and xraydb.

It is shipped because importing spekpy and computing a spectrum takes about two seconds, too long for a demo's start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from registration.geometry import Float64

TABLE = Path(__file__).with_name("spectra.json")
KVPS = (60, 70, 80, 90, 100, 110, 120)
ANODE_DEG = 12.0
FILTER_MM = {"Al": 2.5, "Cu": 0.2}  # of the tube; 2.5 mm Al is the least allowed above 70 kVp (IEC 60601-1-3)
TABLE_TOP_AL_MM = 0.8  # carbon-fiber table and mattress, as aluminum: between the reference point and the patient
SCINTILLATOR_MM = 0.45  # CsI at 80 % packing of a 0.55 mm layer
IODINE_K_EDGE_KEV = 33.17  # a bin must not straddle it
BINS = 10

# elements by mass fraction, density g/cm3. Bone: ICRU 44 cortical bone. Steel: 304.
MATERIALS: dict[str, tuple[dict[str, float], float]] = {
    "water": ({"H": 0.1119, "O": 0.8881}, 1.0),
    "bone": ({"H": 0.034, "C": 0.155, "N": 0.042, "O": 0.435, "Na": 0.001, "Mg": 0.002, "P": 0.103, "S": 0.003,
              "Ca": 0.225}, 1.92),
    "iodine": ({"I": 1.0}, 1.0),  # per g/cm3 of iodine
    "steel": ({"Fe": 0.70, "Cr": 0.19, "Ni": 0.10, "Mn": 0.01}, 8.0),
    "platinum": ({"Pt": 1.0}, 21.45),
}
_SCINTILLATOR = ({"Cs": 0.5115, "I": 0.4885}, 4.51)


def linear_attenuation(material: tuple[dict[str, float], float], energies_kev: Float64) -> Float64:
    """Linear attenuation in 1/mm at photon energies, total with coherent scattering (xraydb: Elam tables)."""
    import xraydb

    elements, density = material
    per_mass = sum(part * xraydb.mu_elam(name, energies_kev * 1000.0) for name, part in elements.items())
    return np.asarray(per_mass * density / 10.0, np.float64)


def tube_spectrum(kvp: float) -> tuple[Float64, Float64, float]:
    """(energies_kev, photons per mm2, mAs and keV-bin at 1 m behind the table top, kerma in uGy per mAs at 1 m
    before it). Source: spekpy (Poludniowski et al., Med. Phys. 48:3630, 2021)."""
    import spekpy

    tube = spekpy.Spek(kvp=kvp, th=ANODE_DEG, dk=1.0, z=100.0, mas=1.0)
    for element, mm in FILTER_MM.items():
        tube.filter(element, mm)
    kerma = float(tube.get_kerma())
    tube.filter("Al", TABLE_TOP_AL_MM)
    energies, fluence = tube.get_spectrum(edges=False)
    return np.asarray(energies, np.float64), np.asarray(fluence, np.float64) / 100.0, kerma


def detected_kev(energies_kev: Float64) -> Float64:
    """Mean energy that a photon leaves in the scintillator, keV (absorption times energy)."""
    return energies_kev * (1 - np.exp(-linear_attenuation(_SCINTILLATOR, energies_kev) * SCINTILLATOR_MM))


def binned(kvp: float) -> dict[str, Any]:
    """A few energy bins that carry about equal detected signal behind 15 cm of water, none across iodine's K edge."""
    energies, photons, kerma = tube_spectrum(kvp)
    signal = photons * detected_kev(energies)
    behind = signal * np.exp(-linear_attenuation(MATERIALS["water"], energies) * 150)
    share = np.cumsum(behind) / behind.sum()
    bin_of = np.minimum((share * (BINS - 1)).astype(int), BINS - 2) + 1
    bin_of[energies < IODINE_K_EDGE_KEV] = 0
    bins = []
    for b in np.unique(bin_of):
        of = bin_of == b
        # within a bin: attenuation as it counts behind half the patient, signal as it leaves the tube
        weight = signal[of] * np.exp(-linear_attenuation(MATERIALS["water"], energies[of]) * 100)
        bins.append({
            "energy_kev": round(float(np.average(energies[of], weights=weight)), 3),
            "photons_per_mm2_mas": float(photons[of].sum()),
            "detected_kev_per_mm2_mas": float(signal[of].sum()),
            "mu_per_mm": {name: float(np.average(linear_attenuation(m, energies[of]), weights=weight))
                          for name, m in MATERIALS.items()},
        })
    mean = float((behind * energies).sum() / behind.sum())
    return {"kvp": kvp, "kerma_ugy_per_mas": kerma, "mean_kev_behind_15_cm_water": mean, "bins": bins}


def main() -> None:
    """Writes spectra.json beside this file."""
    table = {"made_by": "python -m models.xray.make_spectra", "distance_mm": 1000,
             "spectra": [binned(kvp) for kvp in KVPS]}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    print(f"{TABLE.name}: {len(KVPS)} spectra")


if __name__ == "__main__":
    main()
