# SPDX-License-Identifier: Apache-2.0
"""Layers say what they are and where they come from; blending is exact; nothing is drawn that may not be."""

from __future__ import annotations

import numpy as np
import pytest

from overlays import Layer, Overlay, Scene, compose, may_show, nothing, scene_of, shifted, straight
from registration.errors import BadInput
from registration.geometry import CArm
from registration.result import Outcome
from registration.shapes import Mesh, Polylines

TRIANGLE = Mesh(np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 5]]), np.array([[0, 1, 2]]))
LINE = Polylines(np.array([[0.0, 0, 0], [0, 0, 20]]), (np.array([0, 1]),))
GOOD = dict(name="path", label="path", color="#ffb52e", opacity=0.5, visible=True, shape=LINE, style="line",
            provenance="planned")


def _premultiplied(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    alpha = rng.integers(0, 256, (*shape, 1))
    alpha[rng.random(shape) < 0.4] = 0
    return np.concatenate([rng.integers(0, 256, (*shape, 3)) * alpha // 255, alpha], -1).astype(np.uint8)


def test_only_an_accepted_registration_shows_anatomy() -> None:
    assert [may_show(x) for x in (Outcome.ACCEPTED, Outcome.AMBIGUOUS, Outcome.LOST)] == [True, False, False]
    empty = nothing(CArm.centered((4, 5), 1, 1000, 600), "LOST")
    assert empty.method == "none" and empty.layers == {} and empty.badges == ("LOST",)
    display = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.testing.assert_array_equal(compose(display, empty), np.stack([display] * 3, -1))


def test_blending_is_the_premultiplied_over_rounded_once_a_layer() -> None:
    rng = np.random.default_rng(0)
    display = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    layers = {"a": _premultiplied(rng, (40, 50)), "b": _premultiplied(rng, (40, 50))}
    switches = {"a": (True, 0.37), "b": (True, 1.0)}
    out = np.stack([display] * 3, -1).astype(float)
    for name, rgba in layers.items():
        o = switches[name][1]
        out = np.floor(rgba[..., :3] * o + (1 - rgba[..., 3:] / 255 * o) * out + 0.5)
    found = compose(display, Overlay(layers, None, "vtk"), switches)
    assert np.abs(found.astype(float) - out).max() <= 1  # halves fall to either side in float32
    assert (found != out).mean() < 0.002


def test_a_full_layer_replaces_and_a_clear_one_leaves_the_picture() -> None:
    display = np.full((6, 7), 90, np.uint8)
    full = np.zeros((6, 7, 4), np.uint8)
    full[2, 3] = 10, 20, 30, 255
    out = compose(display, Overlay({"x": full}, None, "vtk"))
    assert out[2, 3].tolist() == [10, 20, 30]
    out[2, 3] = 90
    assert (out == 90).all()


def test_switches_hide_and_fade_single_layers_and_leave_the_input_alone() -> None:
    rng = np.random.default_rng(1)
    display = rng.integers(0, 256, (20, 20)).astype(np.uint8)
    overlay = Overlay({"a": _premultiplied(rng, (20, 20)), "b": _premultiplied(rng, (20, 20))}, None, "lines")
    kept = display.copy()
    only_b = compose(display, Overlay({"b": overlay.layers["b"]}, None, "lines"))
    np.testing.assert_array_equal(compose(display, overlay, {"a": (False, 1.0)}), only_b)
    np.testing.assert_array_equal(compose(display, overlay, {"a": (True, 0.0), "gone": (True, 1.0)}), only_b)
    np.testing.assert_array_equal(display, kept)
    with pytest.raises(BadInput, match="0 to 1"):
        compose(display, overlay, {"a": (True, 1.5)})
    with pytest.raises(BadInput, match="C-arm"):
        compose(display[:10], overlay)
    with pytest.raises(BadInput, match="window"):
        compose(display.astype(np.float32), overlay)


def test_straight_color_is_what_was_multiplied() -> None:
    rng = np.random.default_rng(2)
    color, alpha = rng.integers(0, 256, (30, 30, 3)), rng.integers(1, 256, (30, 30, 1))
    premultiplied = np.concatenate([np.round(color * alpha / 255), alpha], -1).astype(np.uint8)
    premultiplied[0, 0] = 0
    out = straight(premultiplied)
    assert (out[0, 0] == 0).all() and (out[..., 3] == premultiplied[..., 3]).all()
    off = np.abs(out[..., :3].astype(float) - color)
    assert (off[1:] <= (0.5 * 255 / alpha + 0.5)[1:]).all()  # half a step of the premultiplied number, and of its own


def test_a_shifted_overlay_moves_with_its_carm_and_says_so() -> None:
    carm = CArm.centered((20, 30), 1, 1000, 600)
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[10, 12] = 255
    moved = shifted(Overlay({"a": rgba}, carm, "vtk", ("x",)), 3, -2)
    assert np.argwhere(moved.layers["a"][..., 3]).tolist() == [[8, 15]]
    assert moved.carm == carm.shifted(3, -2) and "shifted" in moved.badges[1]
    assert not shifted(Overlay({"a": rgba}, carm, "vtk"), 40, 0).layers["a"].any()


def test_the_usual_scene_is_ordered_colored_and_says_where_it_comes_from() -> None:
    scene = scene_of(surfaces={"aorta": TRIANGLE}, centerlines={"aorta": LINE}, implant=TRIANGLE,
                     path_mm=np.array([[0.0, 0, 0], [0, 5, 5]]), device=LINE, landmarks_mm=np.zeros((2, 3)),
                     target_mm=np.array([1.0, 2, 3]), provenance={"vessels": "from the CT's label"})
    assert [x.name for x in scene.layers] == ["implant", "vessels", "centerline", "path", "device", "landmarks",
                                              "target"]
    said = {x["name"]: x for x in scene.described()}
    assert said["vessels"]["provenance"] == "from the CT's label" and said["path"]["provenance"] == "planned"
    assert set(scene.switches()) == set(said)
    for x in scene.layers:
        red, green, blue = x.rgb
        assert not (red > 0.6 and green < 0.45 and blue < 0.45), f"{x.name} is red"
    np.testing.assert_array_equal(scene.corners_mm.min(0), [0, 0, 0])
    np.testing.assert_array_equal(scene.corners_mm.max(0), [10, 10, 20])


def test_several_surfaces_are_layers_of_their_own_and_an_assumed_target_begins_hidden() -> None:
    scene = scene_of(surfaces={"a": TRIANGLE, "b": TRIANGLE}, target_mm=np.zeros(3), target_assumed=True)
    assert [x.name for x in scene.layers] == ["vessels:a", "vessels:b", "target"]
    assert scene.switches()["target"][0] is False and "assumed" in scene.layers[-1].provenance
    assert scene_of().corners_mm.shape == (0, 3)


@pytest.mark.parametrize("bad", [dict(color="red"), dict(opacity=1.2), dict(opacity=float("nan")), dict(name=""),
                                 dict(provenance=""), dict(shape=TRIANGLE), dict(style="dotted"),
                                 dict(style="dots", shape=np.array([[np.nan, 0, 0]])), dict(style="dots"),
                                 dict(style="target", shape=np.zeros(2))])
def test_a_layer_that_cannot_be_is_refused(bad: dict[str, object]) -> None:
    Layer(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="expected"):
        Layer(**{**GOOD, **bad})  # type: ignore[arg-type]


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="a name once"):
        Scene((Layer(**GOOD), Layer(**GOOD)))  # type: ignore[arg-type]
