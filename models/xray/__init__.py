# SPDX-License-Identifier: Apache-2.0
"""X-ray physics of the demo: spectrum, attenuation, scatter, detector, and a ray integrator of its own, which shares
no code with registration's projector."""

from models.xray.detector import Detector
from models.xray.spectrum import Spectrum, spectrum_at

__all__ = ["Detector", "Spectrum", "spectrum_at"]
