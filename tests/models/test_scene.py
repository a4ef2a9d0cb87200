# SPDX-License-Identifier: Apache-2.0
"""Does the demo's truth lie where its pictures show it? Beads, wire, table, breathing, order of frames, sides."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluoronav.case import create_case
from fluoronav.imaging.frame import Frame
from fluoronav.imaging.intensity import line_integrals
from fluoronav.live.demo import AHEAD, CARM, DemoSource, write_demo_case_files
from fluoronav.live.source import Gap
from models.patient import DemoPatient
from models.patient.motion import EXCURSION_STEP_MM, Motion, arrivals
from registration.errors import BadInput
from registration.geometry import Rigid, Volume

SECONDS = 20.0
L3_PEDICLE = np.array([-18.0, 42.0, -14.0])
KIDNEY = np.array([72.0, 40.0, 20.0])


def with_bead(patient: DemoPatient, at_mm: np.ndarray) -> DemoPatient:
    """The patient with a dense bead (a bell of 1.6 mm) at a place of the body at end expiration."""
    volume = patient.anatomy_hu
    axes = [volume.patient_from_index[c, 3] + volume.spacing_mm[c] * np.arange(volume.data.shape[2 - c])
            for c in range(3)]
    x, y, z = (np.exp(-((axis - c) ** 2) / (2 * 1.6**2)) for axis, c in zip(axes, at_mm, strict=True))
    bell = z[:, None, None] * y[None, :, None] * x[None, None, :]
    return replace(patient, anatomy_hu=Volume(volume.data + np.float32(9000) * bell.astype(np.float32),
                                              volume.patient_from_index))


def bead_in_picture(plain: DemoSource, beaded: DemoSource, index: int, near_px: np.ndarray) -> np.ndarray:
    """Where the bead is seen (u, v): center of mass of what it adds to the line integrals."""
    with_, without = (line_integrals(source.frame(index))[0].astype(float) for source in (beaded, plain))
    added = with_ - without
    v, u = np.mgrid[: added.shape[0], : added.shape[1]]
    mass = np.where(np.hypot(u - near_px[0], v - near_px[1]) < 16, added, 0)
    mass = np.where(mass > 0.12 * mass.max(), mass, 0)
    assert mass.max() > 0.2
    return np.array([(mass * u).sum(), (mass * v).sum()]) / mass.sum()


def iodine_in_view(motion: Motion, t: float) -> float:
    """The most iodine (g/cm3) in vessels wider than 4 mm; some lingers in twigs."""
    filled = motion.contrast(t)
    return 0.0 if filled is None else float(filled.amount[filled.radius > 2.0].max(initial=0.0))


def quiet_frames(source: DemoSource) -> dict[str, int]:
    """Frames between heartbeats at end expiration, mid breath, full inspiration, and twice while the table moves.

    Without contrast: scatter weighs what a bead adds differently within and beside a dark vessel.
    """
    motion = source.scene.motion
    quiet = [i for i in range(source.frame_count) if motion.pulse(source.time_s(i)) < 0.03
             and iodine_in_view(motion, source.time_s(i)) < 0.003]
    breath = {i: motion.breathing_mm(source.time_s(i)) for i in quiet}
    moving = [i for i in quiet if motion.table_moves(source.time_s(i))]
    still = [i for i in quiet if i not in moving]
    middle = source.frame_count // 2
    return {"expiration": next(i for i in still if breath[i] == 0),
            "mid": next(i for i in still if 4 <= breath[i] <= 7),
            "inspiration": max(still, key=lambda i: breath[i]), "moving": min(moving, key=lambda i: abs(i - middle)),
            "moving late": moving[-2], "after": still[-1]}


@pytest.fixture(scope="module")
def plain(patient: DemoPatient) -> DemoSource:
    """The demo's run; its line integrals are kept from test to test."""
    return DemoSource(patient, SECONDS, paced=False, threads=2)


@pytest.mark.parametrize("place", ["target", "vertebra", "kidney"])
def test_beads_lie_where_the_truth_says(patient: DemoPatient, plain: DemoSource, place: str) -> None:
    at = {"target": patient.target_mm, "vertebra": L3_PEDICLE, "kidney": KIDNEY}[place]
    beaded = DemoSource(with_bead(patient, at), SECONDS, paced=False, threads=2)
    names = quiet_frames(plain)
    for name, index in names.items():
        truth = plain.truth(index)
        assert truth is not None
        pose = np.array(truth["carm_from_patient"])
        place_now = patient.breathing.moved(at, truth["breathing_mm"])
        expected = CARM.project(truth["target_in_carm_mm"] if place == "target" else Rigid.apply(pose, place_now))
        seen = bead_in_picture(plain, beaded, index, expected)
        assert np.linalg.norm(seen - expected) < 0.3, f"{place}, {name}: {seen - expected} px"  # 0.12 mm
    if place == "vertebra":  # the bones do not breathe
        assert np.allclose(patient.breathing.moved(at, 12.0), at, atol=0.05)
    if place == "kidney":
        assert np.linalg.norm(patient.breathing.moved(at, 12.0) - at) > 4


def test_the_table_moves_by_15_mm_within_two_seconds_in_the_middle(patient: DemoPatient) -> None:
    source = DemoSource(patient, SECONDS, paced=False)
    poses = [np.array(source.truth(i)["carm_from_patient"]) for i in range(source.frame_count)]  # type: ignore[index]
    shift = np.array([np.linalg.norm(p[:3, 3] - poses[0][:3, 3]) for p in poses])
    assert shift[130] == 0 and shift[-1] == pytest.approx(15.0, abs=0.1)
    changing = np.flatnonzero(np.diff(shift) > 0) / 15.0
    assert changing[0] >= 8.9 and changing[-1] <= 11.1
    assert np.abs(np.diff(shift)).max() < 1.2  # mm a frame: a tracker can follow
    assert all(np.array_equal(p[:3, :3], poses[0][:3, :3]) for p in poses)


def test_the_patient_lies_off_what_the_gantry_says(patient: DemoPatient) -> None:
    from registration.geometry import carm_from_patient_at

    source = DemoSource(patient, SECONDS, paced=False)
    nominal = carm_from_patient_at(12.0, 0.0, patient.volume_hu.center_mm)
    off = np.array(source.truth(0)["carm_from_patient"]) @ np.linalg.inv(nominal)  # type: ignore[index]
    assert 2 < Rigid.angle_deg(off) < 3.5
    shift = np.linalg.norm(Rigid.apply(off, np.zeros(3)))
    assert 10 < shift < 15


def test_a_frame_is_the_same_whenever_it_is_made(coarse: DemoPatient) -> None:
    one, two = (DemoSource(coarse, SECONDS, paced=False) for _ in range(2))
    order = [0, 75, 148, 200]
    forward = {i: one.frame(i) for i in order}
    for i in reversed(order):
        assert np.array_equal(forward[i].pixels, two.frame(i).pixels), i
        assert forward[i].exposure == two.frame(i).exposure
    assert not np.array_equal(forward[0].pixels, DemoSource(coarse, SECONDS, seed=1, paced=False).frame(0).pixels)


def test_frames_say_what_their_numbers_mean(coarse: DemoPatient) -> None:
    source = DemoSource(coarse, SECONDS, paced=False)
    frame = source.frame(3)
    law = frame.intensity
    assert (law.kind, law.dense, law.bits, law.i0_source) == ("linear", "dark", 14, "header")
    assert frame.pixels.dtype == np.uint16 and frame.time_ns == 200_000_000
    assert frame.angles is not None and frame.angles.primary_deg == 12.0
    assert frame.exposure.ma and frame.exposure.dose_ugy and 3 < frame.exposure.dose_ugy < 60
    p, sigma, relative, _, _ = line_integrals(frame)
    assert not relative and 2.0 < np.median(p) < 6.0
    # the noise of the stated law against what frames at rest show: same breath, no contrast, other noise
    motion = source.scene.motion
    same = [i for i in range(130) if motion.breathing_mm(source.time_s(i)) == 0
            and motion.contrast(source.time_s(i)) is None]
    stack = np.stack([source.frame(i).pixels for i in same[:12]]).astype(float)
    even = np.s_[:, 40:140, 40:200]  # the liver: no wire passes here
    variance = stack[even].var(axis=0, ddof=1).mean()
    assert law.gain is not None and law.electronic is not None and len(same) >= 12
    expected = law.gain * (stack[even].mean() - law.dark) + law.electronic**2
    assert variance == pytest.approx(expected, rel=0.05)
    assert sigma is not None and float(np.median(sigma)) < 0.1


def test_exposure_follows_the_thickness(coarse: DemoPatient) -> None:
    front = DemoSource(coarse, SECONDS, paced=False, primary_deg=0.0).frame(0)
    side = DemoSource(coarse, SECONDS, paced=False, primary_deg=80.0).frame(0)
    assert side.exposure.ma is not None and front.exposure.ma is not None
    assert side.exposure.ma > 2 * front.exposure.ma
    middle = np.s_[128:-128, 128:-128]
    assert np.median(side.pixels[middle]) == pytest.approx(np.median(front.pixels[middle]), rel=0.1)


def test_the_liver_is_on_the_left_of_a_picture_from_the_front(coarse: DemoPatient) -> None:
    """Seen from the detector, as displays are: the patient's right is on the left; the stomach's gas on the right."""
    source = DemoSource(coarse, SECONDS, paced=False, primary_deg=0.0)
    p = line_integrals(source.frame(0))[0]
    pose = np.array(source.truth(0)["carm_from_patient"])  # type: ignore[index]
    (u_liver, v_liver), (u_gas, v_gas) = CARM.project_patient(pose, np.array([[-75.0, -10, 72], [64.0, -58, 86]]))
    assert u_liver < 200 < 300 < u_gas
    liver, gas = (p[int(v) - 6: int(v) + 6, int(u) - 6: int(u) + 6].mean() for u, v in
                  ((u_liver, v_liver), (u_gas, v_gas)))
    assert liver > gas + 0.2


def test_breathing_is_on_its_grid_and_pulse_is_below_a_millimeter(coarse: DemoPatient) -> None:
    motion = Motion(coarse, SECONDS, seed=4)
    at = np.arange(0, SECONDS, 1 / 15)
    breath = np.array([motion.breathing_mm(t) for t in at])
    assert np.array_equal(breath, np.round(breath / EXCURSION_STEP_MM) * EXCURSION_STEP_MM)
    assert breath.min() == 0 and 9 <= breath.max() <= 14
    assert 4 <= ((breath[:-1] < 6) & (breath[1:] >= 6)).sum() <= 6  # breaths in 20 s
    still = [t for t in at if motion.breathing_mm(t) == 0]
    wander = np.ptp([motion.target_mm(t) for t in still], axis=0)
    assert 0.2 < np.linalg.norm(wander) < 1.0


def test_the_wire_advances_to_the_kidney_and_draws_back_a_little(coarse: DemoPatient) -> None:
    motion = Motion(coarse, SECONDS)
    path = coarse.path_mm
    tips = []
    for t in np.arange(0, SECONDS, 0.2):
        shaft, tip = motion.wire(t)
        assert np.allclose(shaft.points[-1], tip.points[0])
        tips.append(sum(np.linalg.norm(np.diff(part.points, axis=0), axis=1).sum() for part in (shaft, tip)))
    assert tips[-1] > tips[0] + 100 and np.diff(tips).min() < 0
    assert np.linalg.norm(motion.wire(SECONDS)[1].points[-1] - path[-1]) < 12


def test_contrast_travels_downstream_and_washes_out(coarse: DemoPatient) -> None:
    motion = Motion(coarse, SECONDS)
    first: dict[str, float] = {}
    for t in np.arange(0, 8, 0.05):
        filled = motion.contrast(t)
        if filled is not None:
            for n in np.unique(filled.branch[filled.amount > 0.02]):
                first.setdefault(coarse.tree.branches[n].name, t)
    assert first["aorta"] < first["renal_left"] < first["renal_left_anterior"]
    assert first["renal_left"] < first["common_iliac_left"] < first["external_iliac_left"]
    assert motion.contrast(0.0) is None and motion.contrast(13.0) is None
    reach = {b.name: a for b, a in arrivals(coarse)}
    assert reach["aorta"][0] < 0 < reach["aorta"][-1] < reach["external_iliac_left"][-1] < 6


def test_contrast_darkens_the_aorta(coarse: DemoPatient) -> None:
    source = DemoSource(coarse, SECONDS, paced=False)
    before, during = (line_integrals(source.frame(i))[0] for i in (30, 75))
    pose = np.array(source.truth(75)["carm_from_patient"])  # type: ignore[index]
    u, v = CARM.project_patient(pose, coarse.tree["aorta"].points[np.abs(coarse.tree["aorta"].points[:, 2]).argmin()])
    here = np.s_[int(v) - 3: int(v) + 4, int(u) - 5: int(u) + 6]
    assert during[here].mean() - before[here].mean() > 0.5


def test_source_hands_out_every_frame_and_says_that_it_ended(coarse: DemoPatient) -> None:
    source = DemoSource(coarse, 0.8, fps=10.0, paced=False)
    items = list(source)
    frames = [f for f in items if isinstance(f, Frame)]
    assert [f.index for f in frames] == list(range(8)) == list(range(source.frame_count))
    assert isinstance(items[-1], Gap) and items[-1].ended
    assert np.array_equal(frames[5].pixels, source.frame(5).pixels)
    assert source.truth(8) is None and source.nominal_interval_s == pytest.approx(0.1)


def test_paced_frames_come_when_they_are_due(coarse: DemoPatient) -> None:
    source = DemoSource(coarse, 1.2, fps=10.0, paced=True)
    came = [time.monotonic() for f in source if isinstance(f, Frame)]
    # never early; late only where the machine is busy with other things
    assert all(t - came[0] >= 0.1 * n - 0.02 for n, t in enumerate(came))
    assert AHEAD < 200  # frames of half a megabyte


def test_a_closed_source_ends(coarse: DemoPatient) -> None:
    source = DemoSource(coarse, 60.0, paced=True)
    begun = time.monotonic()
    for n, _ in enumerate(source):
        if n == 1:
            source.close()
    assert time.monotonic() - begun < 20 and n < 5


def test_a_run_without_length_is_refused(coarse: DemoPatient) -> None:
    for seconds, fps in ((0.0, 15.0), (float("nan"), 15.0), (5.0, 0.0)):
        with pytest.raises(BadInput, match="demo run"):
            DemoSource(coarse, seconds, fps)


def test_the_patients_files_make_a_case(coarse: DemoPatient, tmp_path: Path) -> None:
    files = write_demo_case_files(coarse, tmp_path / "files")
    case = create_case(tmp_path / "case", ct=files["ct"], vessels=files["vessels"], path=files["path"],
                       target=files["target"])
    assert case.volume_hu is not None and case.path_mm is not None
    assert np.allclose(case.volume_hu.patient_from_index, coarse.volume_hu.patient_from_index, atol=1e-4)
    assert np.array_equal(case.volume_hu.data, coarse.volume_hu.data)
    assert np.allclose(case.path_mm, coarse.path_mm, atol=1e-3) and not case.target_assumed
    (surface,), (lines,) = case.surfaces.values(), case.centerlines.values()
    assert abs(len(surface.faces) - len(coarse.vessels.faces)) < 30  # triangles that float32 shrinks to nothing go
    assert lines.radius_mm is not None
    assert np.allclose(lines.radius_mm, coarse.centerline.radius_mm, atol=1e-4)
    assert not any("outside" in note and not note.startswith("warning: vessels") for note in case.notes)
