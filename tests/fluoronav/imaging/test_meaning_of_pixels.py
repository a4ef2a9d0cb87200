# SPDX-License-Identifier: Apache-2.0
"""Line integrals, masks and streams."""

from __future__ import annotations

import numpy as np
import pytest

from fluoronav.imaging.codecs import stream_damage, stream_matrix
from fluoronav.imaging.frame import Exposure, Frame, Intensity
from fluoronav.imaging.intensity import line_integrals
from fluoronav.imaging.shutters import blank_border


def frame_of(pixels: np.ndarray, intensity: Intensity) -> Frame:
    """A frame without geometry."""
    return Frame(pixels, 0, 0, None, None, Exposure(), intensity, np.ones(pixels.shape, bool), "test")


def test_linear_counts_give_the_line_integral_and_its_noise() -> None:
    truth = np.linspace(0.1, 4, 200).reshape(10, 20)
    i0, dark, gain, electronic = 40_000.0, 100.0, 2.0, 5.0
    counts = np.round(dark + i0 * np.exp(-truth)).astype(np.uint16)
    intensity = Intensity("linear", "dark", 16, i0=i0, i0_source="measured", dark=dark, gain=gain,
                          electronic=electronic)
    p, sigma, relative, used, source = line_integrals(frame_of(counts, intensity))
    assert not relative and source == "measured" and used == pytest.approx(i0)
    assert np.abs(p - truth).max() < 1e-3  # half a count of 732
    assert sigma is not None
    signal = i0 * np.exp(-truth)
    assert np.allclose(sigma, np.sqrt(gain * signal + electronic**2) / signal, rtol=0.01)  # rounding of counts


def test_an_i0_that_was_estimated_is_called_so() -> None:
    pixels = np.full((40, 40), 100, np.uint8)
    pixels[:10] = 240
    *_, i0, source = line_integrals(frame_of(pixels, Intensity("linear", bits=8)))
    assert source == "estimated" and i0 == pytest.approx(240)


@pytest.mark.parametrize(("kind", "dense"), [("display", "dark"), ("display", "bright"), ("log", "bright"),
                                             ("subtracted", "dark")])
def test_other_kinds_are_relative_and_rise_with_density(kind: str, dense: str) -> None:
    pixels = np.arange(0, 250, dtype=np.uint8).reshape(10, 25)
    p, sigma, relative, i0, source = line_integrals(frame_of(pixels, Intensity(kind, dense, 8)))  # type: ignore[arg-type]
    assert relative and i0 is None and source == "none" and sigma is None
    assert (np.diff(p.ravel()) < 0).all() if dense == "dark" else (np.diff(p.ravel()) > 0).all()


def test_a_round_field_is_found_and_a_dark_patient_is_not_taken_for_it() -> None:
    rows, columns = np.ogrid[:200, :200]
    inside = (rows - 100) ** 2 + (columns - 100) ** 2 < 95**2
    noise = np.random.default_rng(0).normal(0, 3, (200, 200))
    picture = np.where(inside, 120 + noise, 2).clip(0, 255).astype(np.uint8)
    found = blank_border([picture])
    assert (found != inside).mean() < 0.01  # the rim is one pixel wide
    patient = (120 - 100 * np.exp(-((columns - 20) / 60.0) ** 2) + noise).clip(0, 255).astype(np.uint8)
    assert blank_border([patient]).all()
    dense = 1.0 + 4.5 * np.exp(-((columns - 10) / 50.0) ** 2)  # counts fall to a two-hundredth of the air's
    counts = np.random.default_rng(1).poisson(20_000 * np.exp(-dense) * np.ones((200, 1))).astype(np.uint16)
    assert blank_border([counts]).all()


def test_a_marker_inside_coded_data_is_damage() -> None:
    head = b"\xff\xd8\xff\xc3\x00\x0b\x08\x00\x10\x00\x20\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
    whole = head + b"\x12\xff\x00\x34" * 10 + b"\xff\xd9"
    assert stream_matrix(whole) == (16, 32)
    assert stream_damage(whole) is None
    assert "marker" in str(stream_damage(head + b"\x12\xff\x31" + b"\xff\xd9"))
