# SPDX-License-Identifier: Apache-2.0
"""Do spectrum and detector obey physics? Beer and Lambert over all energies, the noise law, scatter, blur."""

from __future__ import annotations

import numpy as np
import pytest

from models.xray import Detector, spectrum_at
from models.xray import make_spectra as table
from models.xray.detector import SCATTER_TO_PRIMARY_PER_P, scatter
from registration.errors import BadInput
from registration.geometry import water_attenuation_per_mm


def directly(kvp: float, **mm: float) -> float:
    """Detected share behind lengths of materials, over the whole spectrum in steps of 1 keV."""
    energies, photons, _ = table.tube_spectrum(kvp)
    signal = photons * table.detected_kev(energies)
    depth = sum(table.linear_attenuation(table.MATERIALS[name], energies) * length for name, length in mm.items())
    return float((signal * np.exp(-depth)).sum() / signal.sum())


@pytest.mark.parametrize("kvp", [60, 80, 110])
@pytest.mark.parametrize(("mm", "within"), [
    ({"water": 200.0}, 0.01), ({"water": 100.0}, 0.01), ({"water": 200.0, "bone": 20.0}, 0.02),
    ({"water": 200.0, "iodine": 1.5}, 0.03), ({"water": 200.0, "steel": 0.9}, 0.04)])
def test_ten_energy_bins_attenuate_like_the_whole_spectrum(kvp: float, mm: dict[str, float], within: float) -> None:
    """The bounds: bins some 4 keV wide harden a little less than the spectrum does, most behind what is not water."""
    got = float(spectrum_at(kvp).transmission({k: np.array(v) for k, v in mm.items()}))
    assert got == pytest.approx(directly(kvp, **mm), rel=within)


def test_water_attenuates_as_nist_says() -> None:
    for energy in (40.0, 60.0, 80.0):
        got = float(table.linear_attenuation(table.MATERIALS["water"], np.array([energy]))[0])
        assert got == pytest.approx(water_attenuation_per_mm(energy), rel=0.02)  # Elam's tables against XCOM


def test_the_beam_hardens() -> None:
    s = spectrum_at(80)
    thin, thick = (-np.log(s.transmission({"water": np.array([mm])}))[0] / mm for mm in (10.0, 250.0))
    assert thick < 0.97 * thin  # 0.2 mm of copper took most of what hardens


def test_an_open_beam_is_one_and_unknown_input_is_refused() -> None:
    s = spectrum_at(80)
    assert s.transmission({"water": np.zeros(3)}) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(BadInput, match="voltage"):
        spectrum_at(83)
    with pytest.raises(BadInput, match="materials"):
        s.transmission({"gold": np.zeros(3)})


def test_noise_follows_the_stated_law() -> None:
    """var = gain * (mean - dark) + electronic^2 over many frames at each of eight levels."""
    detector = Detector()
    rng = np.random.default_rng(11)
    levels = np.array([4, 15, 40, 120, 300, 700, 1500, 3000], np.float32)
    quanta = np.repeat(levels, 64)[None, :].repeat(64, 0).copy()
    frames = np.stack([detector.read_out(quanta, rng) for _ in range(120)]).astype(np.float64)
    inner = frames.reshape(120, 64, 8, 64)[:, 4:-4, :, 8:-8]
    mean = inner.mean((0, 1, 3))
    variance = inner.var(axis=0, ddof=1).mean((0, 2))
    assert mean == pytest.approx(detector.dark + detector.counts_per_quantum * levels, rel=0.01)
    expected = detector.gain * (mean - detector.dark) + detector.electronic**2
    assert variance == pytest.approx(expected, rel=0.03)  # 120 frames of 2688 pixels: 0.3 %, correlation apart
    assert variance[0] - detector.electronic**2 == pytest.approx(detector.gain * (mean[0] - detector.dark), rel=0.08)


def test_blur_keeps_the_mean_and_noise_is_correlated_as_the_scintillator_says() -> None:
    detector = Detector()
    assert detector.kernel.sum() == pytest.approx(1.0)
    noise = detector.read_out(np.full((256, 256), 900, np.float32), np.random.default_rng(3)).astype(float)
    noise -= noise.mean()
    k = detector.kernel
    expected = (k[:-1] * k[1:]).sum() / (k**2).sum()
    found = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
    assert found == pytest.approx(expected, abs=0.03)


def test_scatter_is_smooth_and_follows_the_primary() -> None:
    rng = np.random.default_rng(0)
    primary = rng.uniform(0.01, 0.03, (256, 256)).astype(np.float32)
    primary[:, :128] *= 3
    out = scatter(primary, 0.6)
    assert out.mean() == pytest.approx((-SCATTER_TO_PRIMARY_PER_P * primary * np.log(primary)).mean(), rel=0.1)
    assert 0.2 < out.mean() / primary.mean() < 0.5  # with a grid, behind a trunk
    assert np.abs(np.diff(out, axis=1)).max() < 0.02 * out.mean()  # no detail from pixel to pixel
    assert out[:, :40].mean() > 1.2 * out[:, -40:].mean()


def test_air_does_not_scatter() -> None:
    assert np.abs(scatter(np.ones((64, 64), np.float32), 0.6)).max() == 0
