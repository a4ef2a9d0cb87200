# SPDX-License-Identifier: Apache-2.0
"""What may a person ask for beyond less noise? Contrast, pixels of half the size, a picture that stands still.

A head that is off is not there: the chain then gives the bits that it gave without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluoronav.enhance.contrast import Contrast
from fluoronav.enhance.contrast import unavailable as cannot_choose
from fluoronav.enhance.deblur import Deblur
from fluoronav.enhance.display import Display
from fluoronav.enhance.stabilise import Stabilise
from fluoronav.enhance.superres import FACTOR, Superres, unavailable
from fluoronav.enhance.work import Work
from fluoronav.imaging.dicom_geometry import MOVED
from registration.errors import BadInput

if TYPE_CHECKING:
    from fluoronav.enhance.chain import ChainSettings

STABILISED = f"stabilised ({MOVED})"
HEADS = ("contrast", "superres", "stabilise")
__all__ = ["FACTOR", "HEADS", "STABILISED", "described", "with_heads", "without"]


def with_heads(stages: dict[str, Any], settings: ChainSettings) -> dict[str, Any]:
    """The stages followed by display and the heads that the settings ask for, in the order in which they run."""
    heads: dict[str, Any] = {}
    if settings.deblur and settings.denoise and settings.motion:
        heads["deblur"] = Deblur()
    if settings.contrast > 0:
        heads["contrast"] = Contrast(settings.contrast, contrast_learned(settings))
    heads["display"] = Display()
    if settings.superres:
        heads["superres"] = Superres()
    if settings.stabilise:
        heads["stabilise"] = Stabilise()
    return stages | heads


def contrast_learned(settings: ChainSettings) -> bool:
    """Whether a net chooses the gains. Raises BadInput where it is asked for and cannot."""
    why = cannot_choose()
    if settings.contrast_by == "learned" and why is not None:
        raise BadInput("learned contrast", got=why, expected="an engine and the weights of its net",
                       remedy="pip install openvino, or choose the classical contrast")
    return settings.contrast_by != "classical" and why is None


def without(stage: Any, work: Work) -> Work:
    """The work where a stage is left out: superres keeps its grid, so that a run has one size."""
    return stage.plain(work) if isinstance(stage, Superres) else work


def described(settings: ChainSettings) -> list[str]:
    """The heads in words, for the header of a derived picture."""
    out = []
    if settings.deblur:
        out.append("blur of motion within the pulse undone once along the flow, where it stands above the noise")
    if settings.contrast > 0:
        out.append(f"contrast of supported details raised by up to {1 + settings.contrast:g} (four-level pyramid"
                   + (", gains that a net chooses)" if contrast_learned(settings) else ")"))
    if settings.superres:
        out.append("pixels of half the size (" + ("interpolation" if unavailable() else "learned residual")
                   + ", each 2x2 block bins to the pixel it came from within its noise)")
    if settings.stabilise:
        out.append(STABILISED)
    return out
