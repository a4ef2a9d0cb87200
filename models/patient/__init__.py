# SPDX-License-Identifier: Apache-2.0
"""The digital patient of the demo: anatomy with an arterial tree, and how it moves in time."""

from models.patient.patient import DemoPatient
from models.patient.tree import ArterialTree

__all__ = ["ArterialTree", "DemoPatient"]
