# SPDX-License-Identifier: Apache-2.0
"""The report says what the session holds, stands alone, and nothing recorded names anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import real_runs
import session_runs as runs

from fluoronav.imaging import open_run
from fluoronav.live.pipeline import Pipeline
from fluoronav.live.settings import PipelineSettings
from fluoronav.live.step import Decision
from fluoronav.session import Session
from fluoronav.session.mcap_read import McapFile
from fluoronav.session.plots import MOST_POINTS, thinned
from fluoronav.session.record import SessionRecorder
from fluoronav.session.report import chosen, headline, write_report
from fluoronav.session.summary import summary
from fluoronav.session.verify import Verification, verify
from registration.errors import BadInput


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    path = tmp_path_factory.mktemp("report") / "s.mcap"
    runs.record(path, runs.steps(runs.frames(12)))
    with Session.open(path) as opened:
        opened.about["settings"] = {}
        yield opened


class _Page(HTMLParser):
    """Collects what a page refers to and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)
        assert tag != "script"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_the_summary_counts_what_was_recorded(session: Session) -> None:
    found = summary(session)
    assert found["frames"] == 12 and found["drops"] == 2 and found["fps"] == pytest.approx(15, rel=1e-6)
    assert found["outcomes"] == {"ACCEPTED": 10, "AMBIGUOUS": 1, "LOST": 1}
    bounds = [0.5 + 0.05 * k for k in range(12) if k not in (3, 4)]
    assert found["projected_error_mm"] == pytest.approx(
        {"n": 10, "median": np.median(bounds), "p95": np.percentile(bounds, 95), "max": max(bounds)})
    assert found["dose_ugy"]["sum"] == pytest.approx(12 * 0.42)
    assert found["latency_ms"]["median"] == pytest.approx(25.5)
    assert found["within_bound_projected"] == {"n": 10, "share": 1.0}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_headline_is_one_sentence_that_a_physician_understands(session: Session) -> None:
    assert headline(summary(session), Verification(True, "bits", 12)) == (
        "Registered in 83.3 % of 12 frames; expected error 0.8 mm median, 1.1 mm at worst; 2 frames dropped; "
        "replay identical.")
    assert headline(summary(session), None).endswith("2 frames dropped.")
    differs = Verification(False, "bits", 12, [{"frame": 1, "index": 1, "what": ["pose"]}])
    assert headline(summary(session), differs).endswith("replay differs in 1 frame.")


def test_the_page_stands_alone_and_holds_figures_plots_stills_events_and_digests(
        session: Session, tmp_path: Path) -> None:
    path = write_report(session, tmp_path / "out", verify(session))
    page, html = page_of(path), path.read_text(encoding="utf-8")
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert len(page.ids) == len(set(page.ids)) and html.count("<svg") == 4
    assert sum(link.startswith("data:image/jpeg") for link in page.links) == 4  # best, median, worst, not registered
    text = " ".join(" ".join(page.words).split())
    for words in ("Registered in 83.3 % of 12 frames", "n = 10", "nudge", "loss", "2 frames dropped before this one",
                  "80 to 90 kV", session.about["session"], session.record(11)["chain"], "research use only",
                  "5.0 µGy", "replay differs"):  # the poses are made up, and verification says so
        assert words in text, words
    for unit in ("mm", "ms", "µGy", "kV", "mAs", "frames/s"):
        assert unit in text


def test_stills_are_those_that_the_bounds_choose(session: Session) -> None:
    assert chosen(session) == [("best", 0), ("median", 7), ("worst", 11), ("not registered", 4)]


def test_a_session_without_frames_or_poses_has_a_report_too(tmp_path: Path) -> None:
    runs.record(tmp_path / "empty.mcap", [])
    with Session.open(tmp_path / "empty.mcap") as empty:
        empty.about["settings"] = {}
        text = write_report(empty, tmp_path / "a").read_text(encoding="utf-8")
        assert "No frame was recorded." in text
    real_runs.record(tmp_path / "bare.mcap", None, real_runs.frames(4))
    with Session.open(tmp_path / "bare.mcap") as bare:
        text = write_report(bare, tmp_path / "b").read_text(encoding="utf-8")
        assert "Registered in 0.0 % of 4 frames; 0 frames dropped." in text and "no frame was registered" in text


def test_a_cut_session_says_so_in_its_report(session: Session, tmp_path: Path) -> None:
    data = session.path.read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) // 2])
    with Session.open(tmp_path / "cut.mcap") as cut:
        cut.about["settings"] = {}
        assert "recovered to its last whole frame" in write_report(cut, tmp_path).read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_one_sentence(session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="report folder"):
        write_report(session, tmp_path / "file")


def test_an_hour_is_thinned_to_its_worst_values_and_gaps_stay() -> None:
    x, y = np.arange(54_000) / 15, np.ones(54_000)
    y[30_000], y[10_000:12_000] = 9.0, np.nan
    thin_x, thin_y = thinned(x, y, np.nanmax)
    assert len(thin_x) == len(thin_y) == MOST_POINTS and np.nanmax(thin_y) == 9.0
    assert np.isnan(thin_y[(thin_x > 680) & (thin_x < 795)]).all()


# --------------------------------------------------------------------------------------------------
# Privacy

NAMES = {
    "PatientName": "Zwiebelfisch^Annegret", "PatientID": "QX-778812", "OtherPatientNames": "Sonnenblum^Anne",
    "InstitutionName": "Klinikum Felsenburg", "InstitutionAddress": "Mondscheinallee 9",
    "ReferringPhysicianName": "Haferkamp^Lothar", "OperatorsName": "Distelrath^Ute",
    "PerformingPhysicianName": "Brombeer^Igor", "StationName": "KATHLAB7GRUEN", "AccessionNumber": "ACC990172",
    "StudyDescription": "Herzkatheter Zwiebelfisch", "PatientComments": "kennt Rotdorn",
    "DeviceSerialNumber": "SN55Q81"}
FILE_NAME = "Zwiebelfisch_Annegret_19611103.dcm"


def _named_dicom(path: Path, geometry: bool) -> Path:
    """Two XA frames whose headers, private tags and overlay plane name people and places."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    pixels = (np.random.default_rng(0).normal(0.5, 0.05, (3, 40, 60)) * 4095).astype(np.uint16)
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.12.1", generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Modality, ds.ImageType = "XA", ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelIntensityRelationship = 1, "MONOCHROME2", "LIN"
    ds.NumberOfFrames, ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.FrameTime = 66.7
    if geometry:
        ds.DistanceSourceToDetector, ds.DistanceSourceToPatient, ds.ImagerPixelSpacing = 1000, 750, [0.4, 0.4]
        ds.PositionerPrimaryAngle, ds.PositionerSecondaryAngle = 30, -10
    for name, value in NAMES.items():
        setattr(ds, name, value)
    block = ds.private_block(0x0019, "FELSENBURG PRIVAT", create=True)
    block.add_new(1, "LO", "Sachbearbeiter Rotdorn")
    ds.add_new((0x6000, 0x0010), "US", 40)
    ds.add_new((0x6000, 0x0011), "US", 60)
    ds.add_new((0x6000, 0x0022), "LO", "Wacholder Overlay")
    ds.add_new((0x6000, 0x0040), "CS", "G")
    ds.add_new((0x6000, 0x0050), "SS", [1, 1])
    ds.add_new((0x6000, 0x0100), "US", 1)
    ds.add_new((0x6000, 0x0102), "US", 0)
    ds.add_new((0x6000, 0x3000), "OW", b"WACHOLDERPLANE" + bytes(286))
    ds.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def _header_words(path: Path) -> set[str]:
    """Every text of the header that could name somebody: values and their parts, from six letters on."""
    words = set()
    for element in pydicom.dcmread(path).iterall():
        if element.VR in ("PN", "LO", "SH", "LT", "ST", "UI", "UT") and element.tag.group > 2:
            for value in element.value if isinstance(element.value, (list, pydicom.multival.MultiValue)) else [
                    element.value]:
                words |= {str(value), *re.split(r"[\^ ]", str(value))}
    known = {"1.2.840.10008.5.1.4.1.1.12.1", "Overlay"}  # the standard's own words
    return {w for w in words if len(w) >= 6} - known


def _everything(path: Path) -> bytes:
    """All bytes of a session: as they lie, and what is packed in its chunks."""
    out, file = [path.read_bytes()], McapFile(path)
    for opcode, at, length in file.walk():
        if opcode == 0x06:
            out += [m.data for m in file.messages(at, length)]
    file.close()
    return b"".join(out)


@pytest.mark.parametrize("geometry", [True, False])
def test_no_name_of_the_input_is_in_session_or_report(tmp_path: Path, geometry: bool) -> None:
    folder = tmp_path / "Station Holunder"
    folder.mkdir()
    source = _named_dicom(folder / FILE_NAME, geometry)
    run = open_run(source)
    assert FILE_NAME in run.frames[0].source_name or Path(FILE_NAME).stem in run.frames[0].source_name
    pipeline = Pipeline(None, PipelineSettings(overlay="none"))
    path = tmp_path / "s.mcap"
    with SessionRecorder(path, case=None, pipeline_settings=pipeline.settings.to_json(),
                         fingerprint=pipeline.fingerprint(), source_name=str(source)) as recorder:
        for frame in run.frames:
            step = pipeline.step(frame, (), [Decision("job", {"job": "1", "result": {"why": f"cannot read {source}"}})])
            recorder.write(step, snapshot=pipeline.snapshotter())
        recorder.event("lost", f"{FILE_NAME}: got nothing, expected pictures in {folder}", 0)
        recorder.event("lost", str(BadInput(f"source {source}", got="nothing", expected="x", remedy="y")), 0)
    words = _header_words(source) | {FILE_NAME, Path(FILE_NAME).stem, "Holunder", "WACHOLDERPLANE", "19611103",
                                     str(tmp_path)}
    assert len(words) > 20
    with Session.open(path) as session:
        assert session.frame_count == 3 and session.events[-1]["kind"] == "lost"
        if not geometry:
            assert session.frames[0].geometry_fault
        report = write_report(session, tmp_path / "report", verify(session)).read_bytes()
    for what, data in (("session", _everything(path)), ("report", report)):
        found: list[Any] = [w for w in words if w.lower().encode() in data.lower()]
        assert found == [], what
