# SPDX-License-Identifier: Apache-2.0
"""Patients that several tests share."""

from __future__ import annotations

import pytest

from models.patient import DemoPatient


@pytest.fixture(scope="session")
def patient() -> DemoPatient:
    """The demo patient as the demo builds it."""
    return DemoPatient.build(seed=0, size="small")


@pytest.fixture(scope="session")
def coarse() -> DemoPatient:
    """The demo patient on 3 mm voxels."""
    return DemoPatient.build(seed=0, size="coarse")
