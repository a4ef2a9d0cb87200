# SPDX-License-Identifier: Apache-2.0
"""Two views tell a tree's depth and put its mirror out; what one view cannot know, two settle."""

from __future__ import annotations

import numpy as np
import pytest
from test_implants import hook, shadow
from trees import picture, tree

from registration.errors import BadInput
from registration.geometry import CArm, Rigid, carm_from_room
from registration.implants import ImplantModel
from registration.joint import RoomView
from registration.joint_shapes import JointShape
from registration.model import Settings, Start
from registration.result import Outcome
from registration.shapes import Polylines
from registration.vessels import VesselModel

CARM = CArm.centered((384, 384), 0.5, 1000, 720)
ROOM = Rigid.exp([0.05, -0.04, 0.06, 4, -3, 5])
PLACES = (carm_from_room(25, -10), carm_from_room(-30, 5))


def views_of(lines: Polylines) -> list[RoomView]:
    return [RoomView(picture(lines, CARM, place @ ROOM, noise=0.05, seed=k), place) for k, place in enumerate(PLACES)]


def started(model: VesselModel | ImplantModel, place: np.ndarray) -> list[Start]:
    return [Start(place @ Rigid.translation(*(-model.center_mm)), "angles")]


def test_two_views_give_the_depth_of_a_tree() -> None:
    lines = tree(6)
    model = VesselModel(lines)
    found = JointShape(model).register(views_of(lines), started(model, PLACES[0]), Settings())
    assert found.outcome is Outcome.ACCEPTED, found.registrations[0].why
    assert found.room_from_patient is not None
    for view, place in zip(found.registrations, PLACES, strict=True):
        assert view.carm_from_patient is not None and view.error is not None
        np.testing.assert_allclose(view.carm_from_patient, place @ found.room_from_patient, atol=1e-9)
        target = view.error.target
        off = Rigid.apply(found.room_from_patient, target) - Rigid.apply(ROOM, target)
        assert np.linalg.norm(off) < 0.5  # mm in space; one view leaves several along its ray
        assert np.linalg.norm(off) < view.error.target_mm < 15


def test_mirrored_tree_is_put_out_by_the_second_view() -> None:
    """The depth trap: mirrored through the first picture's plane it fits there, and nowhere else."""
    lines = tree(6)
    mirror = Rigid.inverse(PLACES[0]) @ np.diag([1.0, 1, -1, 1]) @ PLACES[0]
    mirrored = VesselModel(Polylines(lines.points @ mirror[:3, :3].T, lines.lines, lines.radius_mm))
    found = JointShape(mirrored).register(views_of(lines), started(mirrored, PLACES[0]), Settings())
    assert found.outcome is not Outcome.ACCEPTED


def test_a_patient_who_moved_between_the_views_is_noticed() -> None:
    lines = tree(6)
    model = VesselModel(lines)
    first, _ = views_of(lines)
    moved = RoomView(picture(lines, CARM, PLACES[1] @ Rigid.translation(0, 0, 12) @ ROOM, noise=0.05), PLACES[1])
    found = JointShape(model).register([first, moved], started(model, PLACES[0]), Settings())
    assert found.outcome is not Outcome.ACCEPTED


def test_two_views_give_the_depth_of_an_implant() -> None:
    mesh, place = hook(), carm_from_room(40, 0)
    model = ImplantModel(mesh)
    views = [RoomView(shadow(mesh, p @ ROOM), p) for p in (np.eye(4), place)]
    start = Start(Rigid.exp([0.06, 0.05, -0.05, 5, 5, 10]) @ ROOM, "file")
    found = JointShape(model).register(views, [start], Settings())
    assert found.outcome is Outcome.ACCEPTED, found.registrations[0].why
    assert found.room_from_patient is not None
    off = Rigid.apply(found.room_from_patient, model.center_mm) - Rigid.apply(ROOM, model.center_mm)
    assert np.linalg.norm(off) < 0.5  # mm in space: pixels of 0.36 mm, blurred by one of them


def test_one_view_or_no_start_is_refused() -> None:
    lines = tree(0)
    with pytest.raises(BadInput, match="two or more views"):
        JointShape(VesselModel(lines)).register(views_of(lines)[:1], started(VesselModel(lines), PLACES[0]), Settings())
