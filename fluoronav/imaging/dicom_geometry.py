# SPDX-License-Identifier: Apache-2.0
"""Where were source and detector when a DICOM frame was made? Distances, pitch, angles, table.

Everything is read, derived from other tags (and said so), or asked for; nothing is guessed.
Source: DICOM PS3.3 C.8.7.5 (positioner), C.8.7.6 (table), C.8.7.3 and C.8.19 (Enhanced XA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fluoronav.imaging.frame import Angles
from fluoronav.imaging.notes import Notes
from fluoronav.imaging.plausible import plausible
from fluoronav.imaging.tags import Header, Numbers
from registration.errors import BadGeometry
from registration.geometry import CArm

MOVED = "pixels moved against the detector"  # in the description of a run that was stabilised, frame by frame
AnglesIn = Literal["patient", "room"]


@dataclass(frozen=True, slots=True)
class Given:
    """What the person stated on the command line; it goes before what the file says."""

    sdd_mm: float | None = None
    sod_mm: float | None = None
    pixel_spacing_mm: float | None = None
    angles_in: AnglesIn = "patient"


def carm_of(header: Header, shape: tuple[int, int], given: Given, name: str, notes: Notes) -> CArm:
    """The C-arm of a frame of `shape`. Raises BadGeometry where a part is missing or broken."""
    if MOVED.upper() in header.code("DerivationDescription"):
        raise BadGeometry(f"geometry of {name}", got=f"a stabilised run ({MOVED})", expected="pixels where they were "
                          "detected", remedy="register from the run that it was made of")
    sdd, sod = _distances(header, given, name, notes)
    pitch = _pitch(header, shape, given, name, notes, sdd / sod)
    _check_magnification(header, sdd, sod, notes)
    notes.assumed("principal point in the center of the matrix")
    return plausible(CArm(shape, pitch, sdd, sod, ((shape[1] - 1) / 2, (shape[0] - 1) / 2)), name)


def _distances(header: Header, given: Given, name: str, notes: Notes) -> tuple[float, float]:
    sdd = _stated(given.sdd_mm, "--sdd", notes)
    sod = _stated(given.sod_mm, "--sod", notes)
    factor = _positive(header, "EstimatedRadiographicMagnificationFactor", name, "leave it empty") \
        if sdd is None or sod is None else None
    if sdd is None:
        sdd = _positive(header, "DistanceSourceToDetector", name, "give --sdd MM")
        if sdd is not None:
            notes.read(f"SDD {sdd:g} mm (DistanceSourceToDetector)")
    if sod is None:
        sod = _source_to_object(header, name, notes)
    if sod is None and sdd is not None and factor is not None:
        sod = sdd / factor
        notes.derived(f"SOD {sod:.1f} mm = SDD / magnification {factor:g}")
    if sdd is None and sod is not None and factor is not None:
        sdd = sod * factor
        notes.derived(f"SDD {sdd:.1f} mm = SOD x magnification {factor:g}")
    if sdd is None or sod is None:
        missing = " and ".join(x for x, y in (("SDD", sdd), ("SOD", sod)) if y is None)
        raise BadGeometry(f"source distances of {name}", got=f"no {missing}", expected="DistanceSourceToDetector "
                          "and DistanceSourceToIsocenter or DistanceSourceToPatient",
                          remedy="give --sdd MM and --sod MM")
    if sod > sdd:
        raise BadGeometry(f"source distances of {name}", got=f"SDD {sdd:g} mm below SOD {sod:g} mm",
                          expected="0 < SOD <= SDD", remedy="give --sdd MM and --sod MM")
    return sdd, sod


def _source_to_object(header: Header, name: str, notes: Notes) -> float | None:
    sod = _positive(header, "DistanceSourceToIsocenter", name, "give --sod MM")
    patient = _positive(header, "DistanceSourceToPatient", name, "give --sod MM")
    if sod is not None:
        notes.read(f"SOD {sod:g} mm (DistanceSourceToIsocenter)")
        if patient is not None and abs(patient - sod) > 0.02 * sod:
            notes.warn(f"DistanceSourceToPatient {patient:g} mm differs from DistanceSourceToIsocenter "
                       f"{sod:g} mm; the isocenter's is used")
        return sod
    if patient is not None:
        notes.assumed(f"isocenter at DistanceSourceToPatient, SOD {patient:g} mm "
                      "(DistanceSourceToIsocenter is not stated)")
    return patient


def _pitch(header: Header, shape: tuple[int, int], given: Given, name: str, notes: Notes,
           magnification: float) -> tuple[float, float]:
    """(row, column) pitch at the detector, mm."""
    stated = _stated(given.pixel_spacing_mm, "--pixel-spacing", notes)
    if stated is not None:
        return stated, stated
    found = header.numbers("ImagerPixelSpacing")
    if found.state != "absent":
        pitch = _two_positive(found, "ImagerPixelSpacing", name)
        notes.read(f"pitch {pitch[0]:g} x {pitch[1]:g} mm, row x column (ImagerPixelSpacing)")
        element = _element_pitch(header)
        if element is not None and any(abs(a - b) > 0.05 * a for a, b in zip(pitch, element, strict=True)):
            notes.warn(f"detector elements times binning say {element[0]:g} x {element[1]:g} mm; "
                       "ImagerPixelSpacing is used")
        return pitch
    element = _element_pitch(header)
    if element is not None:
        notes.derived(f"pitch {element[0]:g} x {element[1]:g} mm = DetectorElementSpacing x DetectorBinning")
        return element
    beam = header.numbers("ObjectPixelSpacingInCenterOfBeam")
    if beam.state == "ok" and len(beam.values) == 2 and min(beam.values) > 0:
        pitch = beam.values[0] * magnification, beam.values[1] * magnification
        notes.derived(f"pitch {pitch[0]:.4g} x {pitch[1]:.4g} mm = ObjectPixelSpacingInCenterOfBeam x SDD / SOD")
        return pitch
    derived = _pitch_of_field(header, shape, notes)
    if derived is None:
        other = header.numbers("PixelSpacing")
        hint = f"PixelSpacing {other.text} (in which plane is not stated)" if other.state == "ok" else \
            "no ImagerPixelSpacing, no field of view"
        raise BadGeometry(f"pixel pitch of {name}", got=hint, expected="ImagerPixelSpacing or FieldOfViewDimensions",
                          remedy="give --pixel-spacing MM, the pitch at the detector")
    return derived


def _element_pitch(header: Header) -> tuple[float, float] | None:
    element, binning = header.numbers("DetectorElementSpacing"), header.numbers("DetectorBinning")
    if element.state != "ok" or binning.state != "ok" or len(element.values) != 2 or len(binning.values) != 2:
        return None
    pitch = (element.values[0] * binning.values[0], element.values[1] * binning.values[1])
    return pitch if min(pitch) > 0 else None


def _pitch_of_field(header: Header, shape: tuple[int, int], notes: Notes) -> tuple[float, float] | None:
    """Pitch from FieldOfViewDimensions over the matrix, with IntensifierSize as the other reading."""
    field = header.numbers("FieldOfViewDimensions")
    if field.state == "absent":
        field = header.numbers("FieldOfViewDimensionsInFloat")
    if field.state != "ok" or min(field.values) <= 0:
        if field.state not in ("absent", "empty"):
            notes.warn(f"FieldOfViewDimensions {field.text} cannot be used")
        return None
    a, b = (field.values * 2)[:2]
    pitch = min(((a / shape[0], b / shape[1]), (b / shape[0], a / shape[1])), key=lambda p: abs(p[0] / p[1] - 1))
    if abs(pitch[0] / pitch[1] - 1) > 0.02:
        notes.warn(f"FieldOfViewDimensions {field.text} mm over {shape[0]} x {shape[1]} pixels is not square; "
                   "no pitch derived from it")
        return None
    notes.derived(f"pitch {pitch[0]:g} x {pitch[1]:g} mm = FieldOfViewDimensions {field.text} mm over "
                  f"{shape[0]} x {shape[1]} pixels, at the detector")
    size = header.numbers("IntensifierSize").first
    if size and abs(size / max(shape) - max(pitch)) > 0.01 * max(pitch):
        notes.warn(f"IntensifierSize {size:g} mm would give a pitch of {size / max(shape):g} mm; "
                   f"the field of view's {pitch[0]:g} mm is used (--pixel-spacing overrides it)")
    return pitch


def _check_magnification(header: Header, sdd: float, sod: float, notes: Notes) -> None:
    factor = header.numbers("EstimatedRadiographicMagnificationFactor").first
    if factor and abs(factor - sdd / sod) > 0.02 * sdd / sod:
        notes.warn(f"the magnification stated, {factor:g}, contradicts SDD / SOD = {sdd / sod:.4g}; "
                   "the distances are used")
    imager, other = header.numbers("ImagerPixelSpacing").first, header.numbers("PixelSpacing").first
    if imager and other and other > 0 and not any(
            abs(other - x) < 0.03 * imager for x in (imager, imager * sod / sdd)):
        notes.warn(f"PixelSpacing {other:g} mm is neither the pitch at the detector ({imager:g}) nor at the "
                   f"isocenter ({imager * sod / sdd:.4g}); it is not used")


# --------------------------------------------------------------------------------------------------
# Angles and table


def angles_of(header: Header, frame: int, given: Given, name: str, notes: Notes) -> Angles | None:
    """Gantry angles of a frame in reference to the patient; None where not stated.

    Raises BadGeometry where they are there and cannot be read or turned.
    """
    pair = tuple(_angle(header, f"Positioner{axis}Angle", name) for axis in ("Primary", "Secondary"))
    turned_from = None
    if pair[0] is None or pair[1] is None:
        iso = tuple(_angle(header, f"PositionerIsocenter{axis}Angle", name) for axis in ("Primary", "Secondary"))
        if iso[0] is None or iso[1] is None:
            return None
        pair, turned_from = iso, "isocenter angles of the equipment"
    elif given.angles_in == "room":
        turned_from = "angles given in the room (--angles-in room)"
    primary, secondary = float(pair[0] or 0), float(pair[1] or 0)
    if turned_from is None:
        steps = [_step(header, axis, frame, notes) for axis in ("Primary", "Secondary")]
        if None in steps:
            return None
        primary, secondary = primary + (steps[0] or 0), secondary + (steps[1] or 0)
        notes.read("positioner angles, in reference to the patient")
        return Angles(primary, secondary)
    return _turned(primary, secondary, header, turned_from, name, notes)


def missing_angles(name: str) -> BadGeometry:
    """The sentence for frames whose angles are not stated."""
    return BadGeometry(f"positioner angles of {name}", got="none", expected="PositionerPrimaryAngle and "
                       "PositionerSecondaryAngle", remedy="start with --init search or --init FILE")


def _angle(header: Header, keyword: str, name: str) -> float | None:
    found = header.numbers(keyword)
    if found.state in ("absent", "empty"):
        return None
    if found.state != "ok" or abs(found.values[0]) > 360:
        raise BadGeometry(f"{keyword} of {name}", got=found.text, expected="a number of degrees",
                          remedy="repair the tag, or start with --init search from frames without it")
    return found.values[0]


def _step(header: Header, axis: str, frame: int, notes: Notes) -> float | None:
    """Increment of a moving positioner at a frame: degrees from the stated angle; None: not known."""
    if header.enhanced or header.code("PositionerMotion") != "DYNAMIC":
        return 0.0
    steps = header.numbers(f"Positioner{axis}AngleIncrement")
    if steps.state == "ok" and frame < len(steps.values):
        notes.assumed("angle increments count from the stated angle, not from frame to frame")
        return steps.values[frame]
    if frame == 0:
        return 0.0
    notes.warn("the positioner moved and no increments are stated: only the first frame has angles")
    return None


def _turned(primary: float, secondary: float, header: Header, what: str, name: str, notes: Notes) -> Angles:
    """Equipment angles in reference to the patient, for the positions where no roll is left over.

    Turning the patient on its face (HFP) turns the axes (x, y) by half a turn, which is primary + 180.
    Feet first leaves a half turn of the picture that two angles cannot say: refused.
    """
    roll = header.numbers("PositionerIsocenterDetectorRotationAngle").first or 0.0
    if abs(roll) > 0.01:
        raise BadGeometry(f"{what} of {name}", got=f"a detector turned by {roll:g} degrees", expected="no roll",
                          remedy="start with --init search, or give the pose with --init FILE")
    position = patient_position(header)
    if position == "HFS":
        notes.read(f"{what}; patient position HFS: the same in reference to the patient")
        return Angles(primary, secondary)
    if position == "HFP":
        notes.derived(f"{what}, turned by patient position HFP: primary + 180 degrees")
        return Angles((primary + 360) % 360 - 180, secondary)
    raise BadGeometry(f"{what} of {name}", got=f"patient position {position or 'not stated'}",
                      expected="HFS or HFP", remedy="start with --init search, or give the pose with --init FILE")


def patient_position(header: Header) -> str:
    """HFS, FFP ...: from PatientPosition, or from the codes of Enhanced XA; "" where not stated."""
    stated = header.code("PatientPosition")
    if stated:
        return stated
    meanings = {
        keyword: " ".join(str(item.get("CodeMeaning", "")) for item in header.items(keyword)).lower()
        for keyword in ("PatientOrientationCodeSequence", "PatientOrientationModifierCodeSequence",
                        "PatientGantryRelationshipCodeSequence")}
    head = {"headfirst": "HF", "head first": "HF", "feet-first": "FF", "feet first": "FF", "head-first": "HF"}
    face = {"supine": "S", "prone": "P", "left lateral": "DL", "right lateral": "DR"}
    first = next((v for k, v in head.items() if k in meanings["PatientGantryRelationshipCodeSequence"]), "")
    last = next((v for k, v in face.items() if k in meanings["PatientOrientationModifierCodeSequence"]), "")
    return first + last if first and last else ""


def table_of(header: Header, notes: Notes) -> tuple[float, float, float] | None:
    """Table position (x left, y posterior, z head) mm for a supine patient, head first; None where not stated.

    DICOM: lateral + towards LAO, vertical + downwards, longitudinal + towards cranial (C.8.19.6.11).
    """
    keys = ("TableTopLateralPosition", "TableTopVerticalPosition", "TableTopLongitudinalPosition")
    stated = [header.numbers(key).first for key in keys]
    if all(v is not None for v in stated):
        notes.read("table position (TableTop...Position)")
        return float(stated[0] or 0), float(stated[1] or 0), float(stated[2] or 0)
    steps = [header.numbers(f"Table{axis}Increment") for axis in ("Lateral", "Vertical", "Longitudinal")]
    if any(s.state == "ok" for s in steps):
        at = [s.values[header.frame] if s.state == "ok" and header.frame < len(s.values) else 0.0 for s in steps]
        notes.assumed("table increments count from the start of the run")
        return at[0], at[1], at[2]
    creator = header.dataset.get((0x0019, 0x0010))
    if creator is not None and str(creator.value).strip() == "DLX_SERIE_01":  # GE: mm, vertical / long / lateral
        ge = [header.numbers(0x00191000 | low).first for low in (0x23, 0x21, 0x22)]
        if all(v is not None for v in ge):
            notes.assumed("directions of the table position in private tags of GE (0019,1021-1023)")
            return float(ge[0] or 0), float(ge[1] or 0), float(ge[2] or 0)
    return None


# --------------------------------------------------------------------------------------------------
# Single values


def _stated(value: float | None, option: str, notes: Notes) -> float | None:
    if value is None:
        return None
    if not 0 < value < float("inf"):
        raise BadGeometry(option, got=value, expected="a number above 0 mm", remedy=f"give {option} in mm")
    notes.read(f"{option} {value:g} mm, as given on the command line")
    return float(value)


def _positive(header: Header, keyword: str, name: str, remedy: str) -> float | None:
    found = header.numbers(keyword)
    if found.state in ("absent", "empty"):
        return None
    if found.state != "ok" or found.values[0] <= 0:
        raise BadGeometry(f"{keyword} of {name}", got=found.text, expected="a number above 0", remedy=remedy)
    return found.values[0]


def _two_positive(found: Numbers, keyword: str, name: str) -> tuple[float, float]:
    if found.state != "ok" or len(found.values) != 2 or min(found.values) <= 0:
        raise BadGeometry(f"{keyword} of {name}", got=found.text or "nothing",
                          expected="two finite numbers above 0 mm, row and column",
                          remedy="give --pixel-spacing MM, the pitch at the detector")
    return found.values[0], found.values[1]
