# SPDX-License-Identifier: Apache-2.0
"""Pictures, folders, videos and --carm files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import tifffile

from fluoronav.imaging import open_run
from fluoronav.imaging.carm_file import read_carm_file
from registration.errors import BadGeometry, BadInput, BadPixels
from registration.geometry import Rigid, carm_from_room

STATED = {"shape_rows_cols": [40, 60], "pitch_mm_row_col": [0.4, 0.2], "sdd_mm": 1000, "sod_mm": 700,
          "principal_px_u_v": [20.0, 21.0], "primary_deg": 30, "secondary_deg": -5}


def grey(rows: int = 40, columns: int = 60, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    """A picture of noise."""
    return np.random.default_rng(seed).integers(10, np.iinfo(dtype).max // 2, (rows, columns)).astype(dtype)


def carm(folder: Path, **changes: Any) -> Path:
    """A --carm file with changes; a value of None takes the key out."""
    data = {k: v for k, v in {**STATED, **changes}.items() if v is not None}
    path = folder / "carm.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(("name", "dtype"), [("a.png", np.uint8), ("a.png", np.uint16), ("a.tif", np.uint16)])
def test_a_picture_comes_back_bit_for_bit_with_the_stated_geometry(tmp_path: Path, name: str, dtype: Any) -> None:
    picture = grey(dtype=dtype)
    cv2.imwrite(str(tmp_path / name), picture)
    frame = open_run(tmp_path / name, carm_file=carm(tmp_path)).frames[0]
    assert np.array_equal(frame.pixels, picture) and frame.pixels.dtype == dtype
    assert frame.carm is not None and frame.carm.principal_px_u_v == (20, 21)
    assert frame.angles is not None and frame.angles.primary_deg == 30


def test_a_picture_without_geometry_says_so(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), grey())
    run = open_run(tmp_path / "a.png")
    assert run.frames[0].carm is None and "--carm" in str(run.geometry_error)


def test_seen_from_source_flips_the_picture_and_its_principal_point(tmp_path: Path) -> None:
    picture = grey()
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    frame = open_run(tmp_path / "a.png", carm_file=carm(tmp_path, seen_from="source")).frames[0]
    assert np.array_equal(frame.pixels, picture[:, ::-1])
    assert frame.carm is not None and frame.carm.principal_px_u_v == (59 - 20, 21)


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for k in (2, 10, 1):
        cv2.imwrite(str(folder / f"f{k}.png"), np.full((20, 20), k, np.uint8))
    assert [int(f.pixels[0, 0]) for f in open_run(folder).frames] == [1, 2, 10]


def test_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    pages = np.stack([grey(seed=k) for k in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack", compression="zlib")
    frames = open_run(tmp_path / "a.tif").frames
    assert all(np.array_equal(frames[k].pixels, pages[k]) for k in range(3))


def test_pictures_of_two_sizes_are_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), grey())
    cv2.imwrite(str(folder / "2.png"), grey(30, 30))
    with pytest.raises(BadPixels, match="picture 2"):
        open_run(folder)


def test_a_lying_png_header_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), grey())
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(BadPixels, match="100000"):
        open_run(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["cut.png", "cut.tif"])
def test_a_cut_picture_is_refused(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), grey(200, 200))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadPixels):
        open_run(tmp_path / name).frames[0]


@pytest.mark.parametrize(("changes", "word"), [
    ({"pitch_mm": 0.4}, "pitch_mm"), ({"sdd_mm": "long"}, "sdd_mm"), ({"sdd_mm": None}, "sdd_mm"),
    ({"primary_deg": None}, "angles"), ({"seen_from": "above"}, "seen_from"),
    ({"carm_from_room": np.eye(4).tolist()}, "angles")])
def test_a_carm_file_with_a_wrong_key_is_refused(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        read_carm_file(carm(tmp_path, **changes))


def test_a_carm_file_with_impossible_numbers_is_a_fault_of_geometry(tmp_path: Path) -> None:
    with pytest.raises(BadGeometry, match="SDD 500"):
        read_carm_file(carm(tmp_path, sdd_mm=500))


@pytest.mark.parametrize(("changes", "word"), [
    ({"pitch_mm_row_col": [1e-6, 1e-6]}, "pixel pitch"), ({"pitch_mm_row_col": [400, 400]}, "pixel pitch"),
    ({"shape_rows_cols": [100_000, 100_000]}, "detector matrix")])
def test_a_detector_that_nobody_has_is_a_fault_of_geometry(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(BadGeometry, match=word):
        read_carm_file(carm(tmp_path, **changes))


def test_a_carm_file_of_another_size_leaves_the_pictures(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), grey(30, 30))
    run = open_run(tmp_path / "a.png", carm_file=carm(tmp_path))
    assert run.frames[0].carm is None and "shape_rows_cols" in str(run.geometry_error)


def test_carm_from_room_becomes_angles_where_it_is_two_turns(tmp_path: Path) -> None:
    turned = {"primary_deg": None, "secondary_deg": None}
    two = read_carm_file(carm(tmp_path, carm_from_room=carm_from_room(-40, 12).tolist(), **turned))
    assert two.angles is not None
    assert (two.angles.primary_deg, two.angles.secondary_deg) == pytest.approx((-40, 12), abs=1e-6)
    rolled = Rigid.exp([0, 0, 0.2, 0, 0, 0]) @ carm_from_room(-40, 12)
    three = read_carm_file(carm(tmp_path, carm_from_room=rolled.tolist(), **turned))
    assert three.angles is None and three.carm_from_room is not None
    assert np.allclose(three.carm_from_room, rolled)


@pytest.mark.parametrize(("codec", "fmt", "dtype"), [("ffv1", "gray", np.uint8), ("ffv1", "gray16le", np.uint16)])
def test_a_lossless_video_comes_back_bit_for_bit_in_any_order(tmp_path: Path, codec: str, fmt: str, dtype: Any) -> None:
    pictures = [grey(48, 64, dtype, seed=k) for k in range(5)]
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, fmt
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=fmt)))
        out.mux(stream.encode())
    run = open_run(tmp_path / "a.mkv")
    assert len(run.frames) == 5
    for k in (0, 3, 1, 4):
        assert np.array_equal(run.frames[k].pixels, pictures[k])
    assert run.frames[4].time_ns == pytest.approx(160_000_000, abs=2e6)  # Matroska counts milliseconds


@pytest.mark.parametrize(("codec", "fmt", "suffix"), [("ffv1", "yuv420p", "mkv"), ("libx264", "yuv420p", "mp4"),
                                                      ("png", "rgb24", "mov")])
def test_a_color_video_is_refused_as_a_color_picture_is_and_grey_in_a_color_format_is_read(
        tmp_path: Path, codec: str, fmt: str, suffix: str) -> None:
    def video(name: str, red: int) -> Path:
        path = tmp_path / f"{name}.{suffix}"
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, fmt
            picture = np.repeat(grey(48, 64, np.uint8, seed=1)[:, :, None] // 2, 3, axis=2)
            picture[10:20, 10:30, 0] += np.uint8(red)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
        return path

    assert open_run(video("grey", 0)).frames[0].pixels.shape == (48, 64)
    with pytest.raises(BadPixels, match="color"):
        _ = open_run(video("color", 100)).frames[0].pixels


def test_a_broken_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    with pytest.raises(BadPixels):
        open_run(tmp_path / "a.mp4")
