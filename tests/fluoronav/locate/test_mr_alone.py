# SPDX-License-Identifier: Apache-2.0
"""An MR without a CT: found in pictures by guessed bone and air, with low confidence, never accepted."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluoronav.imaging import open_run
from fluoronav.locate import Options, center_of, model_for_case, register_frames, register_together
from fluoronav.locate.models import kinds_of
from registration.errors import BadInput
from registration.geometry import CArm, Rigid, Volume, carm_from_patient_at
from registration.model import Settings
from registration.multimodal import GUESS_MM, MrModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from ellipsoids import WATER, chest, line_integrals, voxels
from test_locate import write_pngs

CARM = CArm.centered((192, 192), 1.6, 1020.0, 765.0)
# what a T1-like sequence shows where matter attenuates by so many waters
DENSITY, SIGNAL = [0.0, 0.1, 0.4, 0.9, 1.2, 1.5, 3.0], [5.0, 20.0, 30.0, 400.0, 450.0, 60.0, 30.0]


@lru_cache(maxsize=1)
def magnetic() -> Volume:
    body = voxels(chest(), 5.0)
    rng = np.random.default_rng(0)
    signal = np.interp(body.data / WATER, DENSITY, SIGNAL)
    signal = np.hypot(signal + rng.normal(0, 8, signal.shape), rng.normal(0, 8, signal.shape))
    return Volume(signal.astype(np.float32), body.patient_from_index)


def case(**other: Any) -> Any:
    return SimpleNamespace(**{"name": "CASE M", "implant": None, "volume_hu": None, "surfaces": {}, "centerlines": {},
                              "mr": magnetic(), "target_mm": None, "target_assumed": True, "bodies": None} | other)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, np.ndarray]:
    """A run of one picture, and the true pose: some degrees and millimeters from where the angles say."""
    true = Rigid.exp([0.03, -0.04, 0.05, 5, -6, 8]) @ carm_from_patient_at(25, -10, magnetic().center_mm)
    dense = line_integrals(chest(), CARM, true)
    grey = 10 + 240 * (1 - dense / dense.max())
    folder = tmp_path_factory.mktemp("mr") / "p"
    stated = write_pngs(folder, [grey], pitch_mm_row_col=[1.6, 1.6], sdd_mm=1020.0, sod_mm=765.0)
    return open_run(folder, carm_file=stated), true


@pytest.mark.parametrize("tolerance_mm", [5.0, 50.0])
def test_an_mr_alone_is_found_but_never_accepted(seen: tuple[Any, np.ndarray], tolerance_mm: float) -> None:
    run, true = seen
    said: list[str] = []
    (found,) = register_frames(case(), [run], Options(settings=Settings(tolerance_mm=tolerance_mm)), say=said.append)
    entry = found.entry
    assert entry["outcome"] == "AMBIGUOUS" and entry["by"] == "mr" and "low confidence" in entry["why"]
    assert "the center of the MR" in said[0]
    # a circular Gaussian of 5 mm along each axis stays within 12.2 mm in 95 % (chi-square, two degrees of freedom)
    assert entry["projected_error_mm"] >= 2.44 * GUESS_MM and entry["expected_error_mm"] >= 2.79 * GUESS_MM
    assert (np.diag(entry["covariance"])[3:] >= GUESS_MM**2).all()
    center = magnetic().center_mm
    away = np.linalg.norm(CARM.project_patient(entry["carm_from_patient"], center)
                          - CARM.project_patient(true, center)) * CARM.mm_per_px_at_isocenter
    assert away < 3  # the start is 8 mm off


def test_a_ct_or_vessels_go_before_the_mr() -> None:
    ct = Volume(np.full((4, 4, 4), 50, np.float32), np.eye(4))
    assert kinds_of(case()) == ["mr"]
    assert kinds_of(case(volume_hu=ct)) == ["volume"]
    assert kinds_of(case(centerlines={"tree": object()})) == ["vessels", "mr"]
    assert isinstance(model_for_case(case(), Settings()), MrModel)
    np.testing.assert_allclose(center_of(case(), "mr")[0], magnetic().center_mm)


def test_what_an_mr_alone_cannot_do_is_refused(seen: tuple[Any, np.ndarray]) -> None:
    run, _ = seen
    with pytest.raises(BadInput, match="an MR without a CT"):
        register_together(case(), [run, run], Options(joint=True))
    with pytest.raises(BadInput, match="no volume"):
        model_for_case(case(), Settings(), by="volume")
    flat = Volume(np.ones((40, 40, 40), np.float32), np.diag([4.0, 4, 4, 1]))
    with pytest.raises(BadInput, match="one value everywhere"):
        model_for_case(case(mr=flat), Settings())
