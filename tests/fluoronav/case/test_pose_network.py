# SPDX-License-Identifier: Apache-2.0
"""A case's pose network: its numbers are poses, it is kept whole, refused where it is not of this volume, and found."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from case_inputs import write_volume
from typer.testing import CliRunner

from fluoronav.case import Case, create_case
from fluoronav.case.pose_network import CARD, NETWORK, check_trainable, pose_proposer, train_pose_network
from fluoronav.cli.app import app
from fluoronav.locate.registering import _with_network
from models.pose_proposer import HYPOTHESES, features_of, numbers_of, poses_of
from registration.errors import BadInput
from registration.geometry import CArm, Rigid, attenuation_from_hu, carm_from_patient_at
from registration.model import Settings, View
from registration.volume_model import VolumeModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "registration"))
from ellipsoids import WATER, chest, voxels

CARM = CArm((150, 200), (1.9, 1.7), 1000.0, 720.0, (95.0, 80.0))


@dataclass(frozen=True)
class Made:
    """A case of an ellipsoid chest, 8 mm voxels, with a network of 10 steps."""

    case: Case
    card: dict[str, object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("pose")
    case = create_case(folder / "case", ct=write_ct(folder / "ct.nii.gz", 0))
    return Made(case, train_pose_network(case, minutes=1.0, steps=10, threads=1))


def write_ct(path: Path, seed: int) -> Path:
    body = voxels(chest(seed), 8.0)
    hu = np.round(1000 * (body.data / WATER - 1)).astype(np.int16)
    return write_volume(path, hu, body.patient_from_index)


def poses(n: int, center: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([Rigid.exp([*rng.normal(size=3), *rng.uniform(-80, 80, 3)]) @ Rigid.translation(*-center)
                     for _ in range(n)])


def test_numbers_are_poses_of_any_c_arm() -> None:
    center = np.array([10.0, -30, 5])
    all_ = poses(40, center)
    np.testing.assert_allclose(poses_of(CARM, numbers_of(CARM, all_, center), center), all_, atol=1e-9)


def test_a_shift_of_the_picture_changes_only_the_place() -> None:
    """A C-arm with another principal point shows the same picture shifted: the rotation as seen is the same."""
    center = np.array([10.0, -30, 5])
    pose = carm_from_patient_at(20, 10, center)
    aside = CArm(CARM.shape, CARM.pitch_mm_row_col, CARM.sdd_mm, CARM.sod_mm, (125.0, 60.0))
    a, b = numbers_of(CARM, pose[None], center)[0], numbers_of(aside, pose[None], center)[0]
    np.testing.assert_allclose(a[[0, 1, 2, 3, 4, 5, 8]], b[[0, 1, 2, 3, 4, 5, 8]], atol=1e-12)
    half = max(150 * 1.9, 200 * 1.7) / 2
    np.testing.assert_allclose(b[6:8] - a[6:8], [30 * 1.7 / half, -20 * 1.9 / half], atol=1e-12)


def test_what_the_network_sees_is_square_and_normalized() -> None:
    rng = np.random.default_rng(0)
    weight = np.ones(CARM.shape, np.float32)
    weight[:, 150:] = 0
    seen = features_of(View(rng.random(CARM.shape, np.float32) * weight + 5, weight, CARM))
    assert seen.shape == (1, 2, 32, 32) and seen.dtype == np.float32
    picture, mass = seen[0]
    # 150 rows of 1.9 mm in a square of 200 columns of 1.7: 2.6 of its 32 rows are empty above and below
    assert not mass[:2].any() and not mass[-2:].any() and (mass[6:26, 2:20] > 0.99).all() and not mass[:, 25:].any()
    assert abs(float((picture * mass).sum() / mass.sum())) < 0.05 and not picture[mass == 0].any()


def test_a_trained_network_proposes_poses_and_says_so(made: Made) -> None:
    case = made.case
    assert made.card["steps"] == 10 and made.card["loss"] < 5
    proposer, line = pose_proposer(case, threads=1)
    assert proposer is not None and "projections" in line
    assert (case.folder / NETWORK).stat().st_size < 5e6
    view = View(np.random.default_rng(0).random(CARM.shape, np.float32), np.ones(CARM.shape, np.float32), CARM)
    starts = proposer(view)
    assert 0 < len(starts) <= HYPOTHESES and {s.name for s in starts} == {"network"}
    # too small a field tells it too little: it is not asked
    narrow = CArm.centered((100, 100), 1.5, 1000.0, 720.0)
    assert len(proposer(View(view.line_integrals[:100, :100], view.weight[:100, :100], narrow))) == 0
    # the same bits again
    np.testing.assert_array_equal(starts[0].carm_from_patient, proposer(view)[0].carm_from_patient)
    # the case is the same case with it
    assert Case.open(case.folder).checksum == case.checksum


def test_register_lets_it_propose_to_the_ct_only(made: Made) -> None:
    assert made.case.volume_hu is not None
    model = VolumeModel(attenuation_from_hu(made.case.volume_hu))
    said: list[str] = []
    _with_network(made.case, [SimpleNamespace(kind="vessels"), model], 1, said.append)  # type: ignore[list-item]
    assert len(model.proposers) == 1 and len(said) == 1
    _with_network(SimpleNamespace(volume_hu=None), [model], 1, said.append)  # type: ignore[arg-type]
    assert len(model.proposers) == 1 and Settings().seed == 0


@pytest.mark.parametrize(("spoil", "words"), [("volume", "another volume"), ("network", "does not match its card"),
                                              ("card", "whole card"), ("version", "another format or version"),
                                              ("missing", "whole card")])
def test_a_network_that_is_not_of_this_case_is_refused_with_a_line(made: Made, tmp_path: Path, spoil: str,
                                                                   words: str) -> None:
    folder = tmp_path / "case"
    if spoil == "volume":
        create_case(folder, ct=write_ct(tmp_path / "other.nii.gz", 1))
        for name in (NETWORK, CARD):
            shutil.copy(made.case.folder / name, folder / name)
    else:
        shutil.copytree(made.case.folder, folder)
    if spoil == "network":
        data = bytearray((folder / NETWORK).read_bytes())
        data[1000] ^= 1
        (folder / NETWORK).write_bytes(data)
    elif spoil == "card":
        (folder / CARD).write_text("{")
    elif spoil == "version":
        card = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(card | {"version": 2}))
    elif spoil == "missing":
        (folder / NETWORK).unlink()
    proposer, line = pose_proposer(Case.open(folder))
    assert proposer is None and line.startswith("warning: the case's pose network is not used") and words in line


def test_a_case_without_a_network_says_nothing(tmp_path: Path) -> None:
    case = create_case(tmp_path / "case", ct=write_ct(tmp_path / "ct.nii.gz", 0))
    assert pose_proposer(case) == (None, "")


def test_training_needs_a_ct_and_a_time() -> None:
    with pytest.raises(BadInput, match="no CT"):
        check_trainable(None, 3)
    with pytest.raises(BadInput, match="--train-minutes"):
        check_trainable("ct", 0)


def test_the_command_refuses_before_it_makes_a_case(tmp_path: Path) -> None:
    mesh = tmp_path / "nothing.stl"
    answer = CliRunner().invoke(app, ["case", "create", str(tmp_path / "case"), "--implant", str(mesh), "--train-pose"])
    assert answer.exit_code != 0 and not (tmp_path / "case").exists()
    assert isinstance(answer.exception, BadInput) and "no CT" in str(answer.exception)
