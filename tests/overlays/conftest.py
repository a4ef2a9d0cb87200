# SPDX-License-Identifier: Apache-2.0
"""Where VTK draws, and where it cannot."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def opengl() -> None:
    """VTK can draw here; the test is skipped, with the reason, where it cannot."""
    from overlays.opengl import why_not_vtk

    why = why_not_vtk()
    if why is not None:
        pytest.skip(why)
