# SPDX-License-Identifier: Apache-2.0
"""Two real views of a wrist: is a calibrated camera read as it was meant, and does a view alone agree with both?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluoronav.bench.real_biplane import carm_of_camera, wrist_agreements
from registration.geometry import CArm, Rigid

# (camera matrix, rotation, translation) of one file, by hand; world point; the pixel it meets, seen from the source
CAMERA = """image size
1760,1760

camera matrix
6000,0,800
0,6060,860
0,0,1

rotation
0,0,1
0,1,0
-1,0,0

translation
10
-20
900
"""


def test_a_calibrated_camera_becomes_the_carm_that_meets_the_same_pixels(tmp_path: Path) -> None:
    file = tmp_path / "camera.txt"
    file.write_text(CAMERA)
    stated = carm_of_camera(file, np.array([5.0, 7.0, 9.0]))
    carm = CArm(tuple(stated["shape_rows_cols"]), tuple(stated["pitch_mm_row_col"]), stated["sdd_mm"],
                stated["sod_mm"], tuple(stated["principal_px_u_v"])).flipped_columns()
    # world (5, 7, 9): camera x = 9 + 10, y = 7 - 20, z = -5 + 900
    u, v = 6000 * 19 / 895 + 800, 6060 * -13 / 895 + 860
    found = carm.project_patient(np.array(stated["carm_from_room"]), [5.0, 7.0, 9.0])
    np.testing.assert_allclose(found, (1759 - u, v), atol=1e-9)  # displayed as seen from the detector
    # the isocenter is as far from the source as the body
    assert Rigid.apply(np.array(stated["carm_from_room"]), np.array([5.0, 7.0, 9.0]))[2] == pytest.approx(0, abs=1e-9)


def test_a_view_of_a_real_wrist_agrees_with_both_views_together(shared_data: Path) -> None:
    found = list(wrist_agreements(lambda share, text: None, starts=1))
    assert len(found) == 2
    for view in found:
        assert view.inplane_mm <= 1.0  # 0.8 and 0.5 mm
        assert view.reference_mm <= 0.5  # 0.1 mm from the pose that was fitted elsewhere
        assert view.depth_mm < 20  # one view of a thin bone leaves that much
