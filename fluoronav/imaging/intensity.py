# SPDX-License-Identifier: Apache-2.0
"""What do the stored numbers mean, and what line integrals follow from them?"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fluoronav.imaging.frame import Frame, Intensity, Kind
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.tags import Header, code, sequence
from registration.geometry import Array

FLOOR = 0.5  # counts: the logarithm of less than half a step says nothing
I0_PERCENTILE = 99.5  # the brightest direct radiation, less a few hot pixels


def line_integrals(frame: Frame) -> tuple[Array, Array | None, bool, float | None, str]:
    """(p, sigma, relative, i0, i0_source): -ln((I - dark) / i0) where counts are linear, else a relative one.

    p (rows, columns) float32, no unit, higher = denser; sigma its standard deviation where the noise
    law of the counts is known, else None; relative: p is defined up to scale and offset (display, log
    and subtracted data). i0_source is `measured`, `header`, `estimated` or `none`.
    """
    data = frame.pixels.astype(np.float32)
    p, relative, i0, source = of_values(data, frame.intensity, frame.valid)
    sigma = None
    law = frame.intensity
    if law.gain is not None or law.electronic is not None:
        variance = np.maximum((law.gain or 0.0) * (data - law.dark), 0) + (law.electronic or 0.0) ** 2
        sigma = np.sqrt(variance).astype(np.float32) * slope_of(data, law, i0)
    return p, sigma, relative, i0, source


def of_values(values: Array, intensity: Intensity, valid: Array) -> tuple[Array, bool, float | None, str]:
    """Line integrals of float32 values in stored units: (p, relative, i0, i0_source)."""
    if intensity.kind == "linear":
        i0, source = i0_of(values, intensity, valid)
        signal = np.maximum(values - np.float32(intensity.dark), np.float32(FLOOR))
        return -np.log(signal / np.float32(i0)).astype(np.float32), False, i0, source
    return relative_of(values, intensity), True, None, "none"


def relative_of(values: Array, intensity: Intensity) -> Array:
    """Line integrals of values in stored units that are no counts: float32, up to scale and offset."""
    full = np.float32((1 << intensity.bits) - 1)
    return np.asarray((full - values) / full if intensity.dense == "dark" else values / full, np.float32)


def i0_of(values: Array, intensity: Intensity, valid: Array) -> tuple[float, str]:
    """(i0, source): the unattenuated signal above dark, estimated from the brightest pixels if not stated."""
    if intensity.i0 is not None and intensity.i0 > 0:
        return float(intensity.i0), intensity.i0_source
    inside = values[valid] if valid.any() else values.ravel()
    brightest = float(np.percentile(inside[:: max(1, inside.size // 65536)], I0_PERCENTILE)) if inside.size else 1.0
    return max(brightest - intensity.dark, 1.0), "estimated"


def slope_of(values: Array, intensity: Intensity, i0: float | None) -> Array:
    """|dp/dI| (rows, columns) float32: turns a standard deviation in stored units into one of p."""
    if intensity.kind == "linear":
        return (1 / np.maximum(values - np.float32(intensity.dark), np.float32(FLOOR))).astype(np.float32)
    return np.full(values.shape, 1 / ((1 << intensity.bits) - 1), np.float32)


# --------------------------------------------------------------------------------------------------
# From a DICOM header


def intensity_of(header: Header, bits: int, notes: Notes) -> Intensity:
    """Kind and polarity from PixelIntensityRelationship and Sign, Photometric Interpretation, LUT and mask."""
    relation = header.code("PixelIntensityRelationship")
    assumed: list[str] = []
    subtracted = _is_subtracted(header)
    kind: Kind = "display"
    if subtracted:
        kind = "subtracted"
        notes.read(f"subtracted pixels ({subtracted})")
    elif relation == "LIN":
        kind = "linear"
        notes.read("linear pixels (PixelIntensityRelationship LIN)")
    elif relation in ("LOG", "SQRT"):
        kind = "log" if relation == "LOG" else "display"
        notes.read(f"pixel relationship {relation}: line integrals are relative")
    elif relation == "DISP":
        notes.read("display pixels (PixelIntensityRelationship DISP): line integrals are relative")
    else:
        assumed.append(f"display pixels (PixelIntensityRelationship {relation or 'not stated'}): "
                       "line integrals are relative")
    dense = _polarity(header, kind, assumed, notes)
    dark = 0.0
    slope, intercept = header.numbers("RescaleSlope").first, header.numbers("RescaleIntercept").first
    if slope and intercept and kind == "linear":
        dark = -intercept / slope
        notes.derived(f"dark level {dark:g} = -RescaleIntercept / RescaleSlope")
    if sequence(header.dataset, "ModalityLUTSequence"):
        notes.warn("a modality LUT is present; stored values are used as they stand")
    for line in assumed:
        notes.assumed(line)
    return Intensity(kind, dense, bits, dark=dark, assumed=tuple(assumed))


def _polarity(header: Header, kind: Kind, assumed: list[str], notes: Notes) -> Literal["dark", "bright"]:
    """`dark` where dense matter has low stored values (Intensity.dense speaks of stored values)."""
    sign = header.numbers("PixelIntensityRelationshipSign").first
    if sign in (1, -1):
        notes.read(f"PixelIntensityRelationshipSign {sign:+g}: dense matter has "
                   f"{'low' if sign > 0 else 'high'} values")
        return "dark" if sign > 0 else "bright"
    if kind == "linear":
        return "dark"  # proportional to intensity: what absorbs has low values
    inverted = (header.code("PhotometricInterpretation") == "MONOCHROME1") != (
        header.code("PresentationLUTShape") == "INVERSE")
    assumed.append(f"dense matter is shown dark, so it has {'high' if inverted else 'low'} stored values "
                   f"({header.code('PhotometricInterpretation') or 'MONOCHROME2'})")
    return "bright" if inverted else "dark"


def _is_subtracted(header: Header) -> str:
    if "SUBTRACTION" in header.code("ImageType") or header.code("PixelIntensityRelationship") == "SUB":
        return "ImageType"
    for item in sequence(header.dataset, "MaskSubtractionSequence"):
        if code(item, "MaskOperation") not in ("", "NONE") and code(header.dataset, "RecommendedViewingMode") == "SUB":
            return ""  # the mask module asks a viewer to subtract; the stored frames are not
    return ""
