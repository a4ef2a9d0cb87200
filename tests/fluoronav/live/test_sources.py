# SPDX-License-Identifier: Apache-2.0
"""Do sources keep pace, wait for what is half-written, and come back when they are lost?"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_scenes import ANGLES, CARM, frame_of, until

from fluoronav.imaging.frame import Frame
from fluoronav.live.filling import FillingFolder
from fluoronav.live.network import Devices, NetworkSource
from fluoronav.live.source import Gap, Stated
from fluoronav.live.sources import RunSource, open_source
from registration.errors import BadInput

HERE = Path(__file__).parent


def carm_file(folder: Path, **more: Any) -> Path:
    stated = {"shape_rows_cols": list(CARM.shape), "pitch_mm_row_col": list(CARM.pitch_mm_row_col),
              "sdd_mm": CARM.sdd_mm, "sod_mm": CARM.sod_mm, "primary_deg": ANGLES.primary_deg,
              "secondary_deg": ANGLES.secondary_deg, "seen_from": "detector", "intensity": "display",
              "polarity": "dark"} | more
    path = folder / "carm.json"
    path.write_text(json.dumps({k: v for k, v in stated.items() if v is not None}))
    return path


def png(k: int) -> bytes:
    return cv2.imencode(".png", frame_of(k).pixels)[1].tobytes()


class Collected:
    """A source read in a thread of its own, as the live run does it."""

    def __init__(self, source: Any) -> None:
        self.source, self.items, self.error = source, list[Any](), None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for item in self.source:
                self.items.append(item)
        except BadInput as error:
            self.error = error

    @property
    def frames(self) -> list[Frame]:
        return [x for x in list(self.items) if isinstance(x, Frame)]

    @property
    def gaps(self) -> list[Gap]:
        return [x for x in list(self.items) if isinstance(x, Gap)]

    def end(self) -> None:
        self.source.close()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def collected() -> Iterator[Any]:
    made: list[Collected] = []

    def collect(source: Any) -> Collected:
        made.append(Collected(source))
        return made[-1]

    yield collect
    for one in made:
        one.end()


# ---- runs


def test_a_folder_of_pictures_is_played_at_its_own_pace_and_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for k in range(6):
        (folder / f"f{k}.png").write_bytes(png(k))
    source = open_source(folder, Stated(carm_file(tmp_path)), fills=False)
    assert isinstance(source, RunSource)
    begin, items = time.monotonic(), list(source)
    assert time.monotonic() - begin == pytest.approx(5 / 15, abs=0.2)  # 6 frames at the assumed 15 a second
    assert [x.index for x in items[:-1] if isinstance(x, Frame)] == list(range(6))
    assert isinstance(items[-1], Gap) and items[-1].ended
    assert any("15 frames/s assumed" in line for line in source.notes)


def test_a_closed_run_ends_at_once(tmp_path: Path, collected: Any) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for k in range(30):
        (folder / f"f{k}.png").write_bytes(png(0))
    run = collected(open_source(folder, fills=False))
    assert until(lambda: run.frames)
    run.end()
    assert len(run.frames) < 30


@pytest.mark.parametrize("spec", ["igtl://host", "igtl://:18944", "igtl://host:99999", "ftp://host:1", "missing.dcm"])
def test_a_source_that_cannot_be_is_one_sentence(spec: str) -> None:
    with pytest.raises(BadInput):
        open_source(spec)


# ---- a folder that fills


def test_pictures_come_as_they_appear_in_the_order_of_their_numbers(tmp_path: Path, collected: Any) -> None:
    carm = carm_file(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "carm.json").write_text(carm.read_text())  # not a picture: left alone
    (folder / "f9.png").write_bytes(png(9))
    run = collected(open_source(folder, Stated(carm)))
    assert until(lambda: len(run.frames) == 1)
    for k in (10, 11, 12):
        (folder / f"f{k}.png").write_bytes(png(k))
    assert until(lambda: len(run.frames) == 4)
    assert [f.index for f in run.frames] == [0, 1, 2, 3]
    for k, frame in zip((9, 10, 11, 12), run.frames, strict=True):
        assert np.array_equal(frame.pixels, frame_of(k).pixels)
        assert frame.carm == CARM and frame.angles == ANGLES
    times = [f.time_ns for f in run.frames]
    assert times == sorted(set(times))
    assert until(lambda: any(g.state == "hold" for g in run.gaps), 3)


def test_an_empty_folder_is_waited_for(tmp_path: Path, collected: Any) -> None:
    run = collected(open_source(tmp_path))
    assert until(lambda: run.gaps, 3)
    assert run.gaps[0].state == "waiting" and "yet" in run.gaps[0].reason


def dicom_bytes(k: int) -> bytes:
    import io

    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = XRayAngiographicImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "XA"
    ds.Rows, ds.Columns = CARM.shape
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 8, 8, 7, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.DistanceSourceToDetector, ds.DistanceSourceToPatient, ds.ImagerPixelSpacing = 1000, 720, [1, 1]
    ds.PositionerPrimaryAngle, ds.PositionerSecondaryAngle = ANGLES.primary_deg, ANGLES.secondary_deg
    ds.PixelData = frame_of(k).pixels.tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def tiff_bytes(k: int) -> bytes:
    return cv2.imencode(".tif", frame_of(k).pixels)[1].tobytes()


@pytest.mark.parametrize(("suffix", "make"), [(".png", png), (".dcm", dicom_bytes), (".tif", tiff_bytes)])
def test_a_half_written_file_is_waited_for_not_read(tmp_path: Path, collected: Any, suffix: str, make: Any) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    run = collected(open_source(folder, Stated(None if suffix == ".dcm" else carm_file(tmp_path))))
    data = make(1)
    with (folder / f"a1{suffix}").open("wb") as file:
        for a, b in ((0, 40), (40, len(data) // 2), (len(data) // 2, len(data) - 7)):
            file.write(data[a:b])
            file.flush()
            (folder / f"b{b}{suffix}").write_bytes(make(2))  # whole, but later in order
            time.sleep(0.25)  # longer than a file is given to settle
            assert not run.frames
        file.write(data[len(data) - 7:])
    assert until(lambda: len(run.frames) == 4)
    assert np.array_equal(run.frames[0].pixels, frame_of(1).pixels)


def test_a_file_that_stays_broken_is_told_once_and_skipped(tmp_path: Path, collected: Any) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    run = collected(FillingFolder(folder, Stated(carm_file(tmp_path)), patience_s=0.4))
    (folder / "DOE1.png").write_bytes(png(1)[:-100])
    (folder / "DOE2.png").write_bytes(b"")
    (folder / "DOE3.png").write_bytes(png(3))
    assert until(lambda: run.frames)
    events = [g.reason for g in run.gaps if g.event]
    assert len(events) == 2 and all(e.startswith("a file after picture 0 was skipped: got") for e in events)
    assert not any("DOE" in e for e in events)  # names of files may name people, and events are recorded
    assert np.array_equal(run.frames[0].pixels, frame_of(3).pixels)


# ---- OpenIGTLink


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Sender:
    """The sender in a process of its own."""

    def __init__(self, port: int, folder: Path, pictures: np.ndarray, fps: float = 20.0) -> None:
        self.port, self.fps = port, fps
        self.path = folder / "pictures.npy"
        np.save(self.path, pictures)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(HERE / "igtl_sender.py"), str(self.port), str(self.path),
                                         str(self.fps)], stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    one = Sender(free_port(), tmp_path, np.stack([frame_of(k).pixels for k in range(10)]))
    yield one
    one.kill()


def test_a_stream_that_is_killed_and_restarted_comes_back_by_itself(
        tmp_path: Path, sender: Sender, collected: Any) -> None:
    stated = Stated(carm_file(tmp_path, primary_deg=None, secondary_deg=None))
    run = collected(NetworkSource("127.0.0.1", sender.port, stated, Devices()))
    assert until(lambda: run.gaps and run.gaps[0].state == "waiting")  # nobody is there yet
    sender.start()
    assert until(lambda: len(run.frames) >= 10, 20)
    first = run.frames[5]
    assert first.angles is not None and first.carm == CARM
    assert first.angles.primary_deg == pytest.approx(25, abs=1e-3)  # float32 on the wire
    assert first.angles.secondary_deg == pytest.approx(-10, abs=1e-3)
    assert first.table_in_room_mm == (1.0, 2.0, 3.0)  # R, A, S turned into L, P, S
    assert any(np.array_equal(first.pixels, frame_of(k).pixels) for k in range(10))
    assert time.time() - first.time_ns * 1e-9 < 30  # the sender's clock
    sender.kill()
    assert until(lambda: run.gaps[-1].state == "lost", 5)
    before = len(run.frames)
    time.sleep(0.5)
    sender.start()
    assert until(lambda: len(run.frames) >= before + 5, 20)
    indices, times = [f.index for f in run.frames], [f.time_ns for f in run.frames]
    assert indices == list(range(len(indices))) and times == sorted(set(times))


def test_every_picture_of_a_quick_stream_arrives(tmp_path: Path, sender: Sender, collected: Any) -> None:
    sender.fps = 100.0
    sender.start()
    run = collected(NetworkSource("127.0.0.1", sender.port, Stated(), Devices()))
    assert until(lambda: len(run.frames) >= 60, 20)
    known = [frame_of(k).pixels for k in range(10)]
    order = [next(k for k in range(10) if np.array_equal(known[k], f.pixels)) for f in run.frames[:60]]
    assert all((b - a) % 10 == 1 for a, b in pairwise(order))
    assert run.frames[0].carm is None and "--carm" in str(run.frames[0].geometry_fault)


def serve(data: bytes, port: int, *, then: float = 2.0) -> threading.Thread:
    """Send bytes to whoever connects first, then wait and close."""
    listener = socket.create_server(("127.0.0.1", port))

    def work() -> None:
        with listener:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(data)
                time.sleep(then)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_what_is_no_openigtlink_is_refused_and_tried_again(collected: Any) -> None:
    port = free_port()
    serve(b"HTTP/1.1 200 OK\r\n" + bytes(200), port)
    run = collected(NetworkSource("127.0.0.1", port, Stated(), Devices()))
    assert until(lambda: run.gaps and "broke (a header of version" in run.gaps[0].reason)


def test_pictures_that_cannot_be_used_are_told_once_and_the_next_is_taken(collected: Any) -> None:
    import pyigtl

    good = frame_of(0).pixels
    images = [good.astype(np.float32)[None], good.astype(np.float32)[None], np.stack([good, good]),
              np.stack([good, 255 - good, good], -1)[None], good[None], good[None].astype(np.uint16)]
    data = b"".join(pyigtl.ImageMessage(x, device_name="Image").pack() for x in images)
    stranger = pyigtl.ImageMessage(good[None], device_name="Camera").pack()
    port = free_port()
    serve(data + stranger, port)
    run = collected(NetworkSource("127.0.0.1", port, Stated(), Devices()))
    assert until(lambda: len(run.frames) == 2)
    assert len([g for g in run.gaps if g.event]) == 3  # float, stack, colors: each once
    assert [f.pixels.dtype for f in run.frames] == [np.uint8, np.uint16]
    assert np.array_equal(run.frames[1].pixels, good)
    time.sleep(0.2)
    assert len(run.frames) == 2  # another device's pictures are not ours
