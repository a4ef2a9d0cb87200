# SPDX-License-Identifier: Apache-2.0
"""What does a --carm FILE say? The geometry of pictures that carry none, as strict JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fluoronav.imaging.frame import Angles, Intensity, Kind
from fluoronav.imaging.plausible import plausible
from registration.errors import BadGeometry, BadInput
from registration.geometry import CArm, Float64, Rigid, carm_from_room

KEYS = ("shape_rows_cols, pitch_mm_row_col, sdd_mm, sod_mm, principal_px_u_v, primary_deg and secondary_deg or "
        "carm_from_room, seen_from, intensity, polarity")
ROLL_DEG = 0.01  # below it a rotation is what two angles say


@dataclass(frozen=True, slots=True)
class StatedCarm:
    """The geometry of a view as a file states it.

    carm belongs to the picture as stored (before a flip where seen_from is `source`); carm_from_room
    (4x4) and angles speak of the picture seen from the detector, as everywhere. angles is None where
    carm_from_room holds a roll that two angles cannot say.
    """

    carm: CArm
    carm_from_room: Float64 | None
    angles: Angles | None
    seen_from: Literal["detector", "source"] | None
    intensity: Kind | None
    polarity: Literal["dark", "bright"] | None
    name: str

    def intensity_with(self, bits: int) -> Intensity:
        """The meaning of the stored values, with what was not stated taken as display data, dense dark."""
        assumed = []
        if self.intensity is None:
            assumed.append("display pixels (intensity is not stated): line integrals are relative")
        if self.polarity is None:
            assumed.append("dense matter is dark (polarity is not stated)")
        return Intensity(self.intensity or "display", self.polarity or "dark", bits, assumed=tuple(assumed))


def read_carm_file(path: str | Path) -> StatedCarm:
    """Read and check a --carm file. Raises BadInput for its form, BadGeometry for its numbers."""
    where = Path(path)
    remedy = f"write JSON with the keys {KEYS}"
    try:
        data = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        got = error.strerror if isinstance(error, OSError) else f"text that is no JSON ({error})"
        raise BadInput(f"--carm {path}", got=got, expected="a JSON file",
                       remedy=remedy) from error
    return stated_carm(data, f"--carm {where.name}")


def stated_carm(data: Any, name: str) -> StatedCarm:
    """The geometry in a JSON object. Raises BadInput for its form, BadGeometry for its numbers."""
    from pydantic import ValidationError

    try:
        form = _schema().model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{name}, {key}", got=f"{first.get('input')!r} ({first['msg'].lower()})",
                       expected=f"the keys {KEYS}", remedy="correct this key") from error
    rows, columns = form.shape_rows_cols
    principal = form.principal_px_u_v or ((columns - 1) / 2, (rows - 1) / 2)
    carm = plausible(CArm((rows, columns), form.pitch_mm_row_col, form.sdd_mm, form.sod_mm, principal), name)
    pair = (form.primary_deg, form.secondary_deg)
    if (pair[0] is None) != (pair[1] is None) or (pair[0] is not None and form.carm_from_room is not None):
        raise BadInput(f"{name}, angles", got="half of them, or angles and carm_from_room",
                       expected="primary_deg and secondary_deg, or carm_from_room", remedy="give one of the two")
    angles: Angles | None = None
    room: Float64 | None = None
    if form.carm_from_room is not None:
        room = Rigid.checked(form.carm_from_room, f"{name}, carm_from_room")
        angles = angles_of_rotation(room)
    elif pair[0] is not None and pair[1] is not None:
        angles = Angles(*pair)
        room = carm_from_room(*pair)
    return StatedCarm(carm, room, angles, form.seen_from, form.intensity, form.polarity, name)


def angles_of_rotation(room: Float64) -> Angles | None:
    """The two gantry angles of a carm_from_room rotation, None where a roll is left over."""
    z = room[2, :3]
    primary = float(np.degrees(np.arctan2(-z[0], z[1])))
    secondary = float(np.degrees(np.arcsin(np.clip(-z[2], -1, 1))))
    rest = carm_from_room(primary, secondary)[:3, :3] @ room[:3, :3].T
    turn = np.eye(4)
    turn[:3, :3] = rest
    return Angles(primary, secondary) if Rigid.angle_deg(turn) < ROLL_DEG else None


def _schema() -> Any:
    from pydantic import BaseModel, ConfigDict, PositiveInt

    class CarmFile(BaseModel):
        model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

        shape_rows_cols: tuple[PositiveInt, PositiveInt]
        pitch_mm_row_col: tuple[float, float]
        sdd_mm: float
        sod_mm: float
        principal_px_u_v: tuple[float, float] | None = None
        primary_deg: float | None = None
        secondary_deg: float | None = None
        carm_from_room: list[list[float]] | None = None
        seen_from: Literal["detector", "source"] | None = None
        intensity: Literal["linear", "log", "display", "subtracted"] | None = None
        polarity: Literal["dark", "bright"] | None = None

    return CarmFile


def no_geometry(name: str) -> BadGeometry:
    """The sentence for pictures that came without a --carm file."""
    return BadGeometry(f"geometry of {name}", got="a picture without any", expected="a --carm FILE",
                       remedy=f"give --carm FILE, JSON with {KEYS}")


def mismatch(stated: StatedCarm, shape: tuple[int, int], name: str) -> BadGeometry:
    """The sentence for a --carm file that belongs to a picture of another size."""
    return BadGeometry(f"{stated.name} for {name}", got=f"shape_rows_cols {list(stated.carm.shape)}",
                       expected=f"the picture's {list(shape)}", remedy="give the geometry of this picture")
