# SPDX-License-Identifier: Apache-2.0
"""The doors: DICOM, pictures and video become runs of frames whose numbers have a meaning.

`open_run(path)` opens any of them; `line_integrals(frame)` says what the rays met.
"""

from fluoronav.imaging.frame import Angles, Exposure, Frame, Intensity
from fluoronav.imaging.intensity import line_integrals
from fluoronav.imaging.run import Run, open_run

__all__ = ["Angles", "Exposure", "Frame", "Intensity", "Run", "line_integrals", "open_run"]
