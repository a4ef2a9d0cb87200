# SPDX-License-Identifier: Apache-2.0
"""What would the C-arm see of a case? A computed picture (DRR) at a stated geometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fluoronav.files import write_whole
from fluoronav.imaging.carm_file import StatedCarm, read_carm_file
from fluoronav.locate.models import Kind, center_of, kinds_of
from fluoronav.locate.starts import read_init
from registration.errors import BadGeometry, BadInput
from registration.geometry import Array, Float64, Rigid, Volume, attenuation_from_hu, carm_from_patient_at

if TYPE_CHECKING:
    from fluoronav.case import Case

VOXEL_MM = 0.5  # of bodies made from surfaces


@dataclass(frozen=True, slots=True)
class Simulated:
    """A computed picture: display (rows, columns) uint8, dense dark, as the C-arm shows it; kind of the
    body; pose; largest line integral; notes of what was assumed."""

    display: Array
    kind: Kind
    carm_from_patient: Float64
    largest: float
    notes: tuple[str, ...]


def simulated_picture(case: Case, carm_file: Path, init: Path | None, *, by: Kind | None = None,
                      threads: int = 2) -> Simulated:
    """Project the case's body at the pose of a file, else at the angles of the geometry. Raises BadInput."""
    from registration.projector import project

    stated = read_carm_file(carm_file)
    kind, body = body_of(case, by)
    source = stated.seen_from == "source"
    carm = stated.carm.flipped_columns() if source else stated.carm
    notes = []
    if init is not None:
        pose = read_init(init, [str(carm_file)])[0].carm_from_patient
    else:
        center, what = center_of(case, kind)
        pose = _at_angles(stated, center)
        notes.append(f"assumed: the isocenter is at {what}, {center.round(1).tolist()} mm (L, P, S)")
    integrals = project(body, carm, pose, threads=threads)
    picture = integrals[:, ::-1] if source else integrals
    return Simulated(_displayed(picture), kind, pose, float(integrals.max()), tuple(notes))


def body_of(case: Case, by: Kind | None) -> tuple[Kind, Volume]:
    """What absorbs in a case, as attenuation in 1/mm. Raises BadInput."""
    from registration.voxelize import implant_volume

    kinds: list[Kind] = [k for k in kinds_of(case) if k != "mr" and (k != "vessels" or case.surfaces)]
    if not kinds or (by is not None and by not in kinds):
        raise BadInput(f"case {case.name}", got=f"no {by or 'CT, implant or vessel surface'}",
                       expected=" or ".join(kinds) or "something that absorbs", remedy="create the case with it")
    kind = by or kinds[0]
    if kind == "volume":
        assert case.volume_hu is not None
        return kind, attenuation_from_hu(case.volume_hu)
    if kind == "implant":
        assert case.implant is not None
        return kind, implant_volume(case.implant, VOXEL_MM)
    return kind, implant_volume(next(iter(case.surfaces.values())), VOXEL_MM, "contrast")


def write_picture(path: Path, picture: Array) -> None:
    """Write an 8-bit picture, grey (h, w) or RGB (h, w, 3), whole or not at all. Raises BadInput."""
    import cv2

    check_picture_name(path)
    bgr = picture if picture.ndim == 2 else picture[:, :, ::-1]
    ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(bgr))
    assert ok
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data.tobytes())
    except OSError as error:
        raise BadInput(f"picture {path}", got=error.strerror or str(error), expected="a place to write to",
                       remedy="choose another place") from error


def check_picture_name(path: Path) -> None:
    """Whether `write_picture` knows the format; asked before the long work too. Raises BadInput."""
    if path.suffix.lower() not in (".png", ".tif", ".tiff"):
        raise BadInput(f"picture {path}", got=f"suffix {path.suffix or '(none)'}", expected=".png or .tif",
                       remedy="name it so")


def _at_angles(stated: StatedCarm, center: Float64) -> Float64:
    if stated.carm_from_room is not None:
        return np.asarray(stated.carm_from_room @ Rigid.translation(*(-center)))
    if stated.angles is None:
        raise BadGeometry(f"{stated.name}, angles", got="none", expected="primary_deg and secondary_deg, or "
                          "carm_from_room", remedy="add them, or give the pose with --init FILE")
    return carm_from_patient_at(stated.angles.primary_deg, stated.angles.secondary_deg, center)


def _displayed(integrals: Array) -> Array:
    """Grey values as a monitor shows them: logarithmic, dense dark, the densest 0.1 % cut off."""
    top = float(np.percentile(integrals, 99.9))
    if top <= 0:
        return np.full(integrals.shape, 255, np.uint8)
    return np.round(255 * (1 - np.clip(integrals / top, 0, 1))).astype(np.uint8)
