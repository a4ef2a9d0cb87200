# SPDX-License-Identifier: Apache-2.0
"""Which part of a case is looked for in its pictures: the implant, the CT, the vessels, or what an MR lets guess?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from registration.errors import BadInput
from registration.geometry import Float64
from registration.model import Model, Settings
from registration.shapes import Polylines

if TYPE_CHECKING:
    from fluoronav.case import Case

Kind = Literal["implant", "volume", "vessels", "mr"]


def model_for_case(case: Case, settings: Settings, *, by: Kind | None = None,
                   target_mm: Float64 | None = None) -> Model:
    """What to register: the implant where the case has one (metal outshines all else), else the CT, else
    the vessels, else the MR (with low confidence at best); `by` chooses. target_mm (3,) replaces the case's own
    target. Raises BadInput."""
    kinds = kinds_of(case)
    if not kinds:
        raise BadInput(f"case {case.name}", got="no CT, vessel centerlines, implant or MR",
                       expected="one of them", remedy="create the case again with --ct, --vessels, --implant or --mr")
    kind = by or kinds[0]
    if kind not in kinds:
        raise BadInput(f"case {case.name}", got=f"no {kind}", expected=" or ".join(kinds),
                       remedy="choose what the case has, or create it again")
    target = target_mm
    if target is None and not case.target_assumed:
        target = case.target_mm
    if kind == "implant":
        from registration.implants import ImplantModel

        assert case.implant is not None
        return ImplantModel(case.implant, target_mm=target)
    if kind == "volume":
        from registration.geometry import attenuation_from_hu
        from registration.volume_model import VolumeModel

        volume = case.volume_hu
        assert volume is not None
        return VolumeModel(attenuation_from_hu(volume), target, threads=settings.threads, vessels_mm=_walls(case),
                           segmentation=case.bodies)
    if kind == "mr":
        from registration.multimodal import MrModel

        assert case.mr is not None
        return MrModel(case.mr, target, threads=settings.threads)
    from registration.vessels import VesselModel

    surface = next(iter(case.surfaces.values()), None)
    return VesselModel(joined(case.centerlines), surface, target)


def _walls(case: Case) -> Float64 | None:
    """Points (n, 3) on the walls of the case's vessels, some 10,000 at most; None without vessels."""
    points = [surface.vertices for surface in case.surfaces.values()]
    if not points:
        points = [lines.sampled(0.5) for lines in case.centerlines.values()]
    if not points:
        return None
    together = np.concatenate(points)
    return together[:: max(1, len(together) // 10_000)]


def kinds_of(case: Case) -> list[Kind]:
    """What a case could be registered by, the first choice first."""
    kinds: list[Kind] = []
    if case.implant is not None:
        kinds.append("implant")
    if case.volume_hu is not None:
        kinds.append("volume")
    if case.centerlines:
        kinds.append("vessels")
    if case.volume_hu is None and case.mr is not None:
        kinds.append("mr")  # a guess of bone and air; where there is a CT, the CT knows
    return kinds


def kinds_to_try(case: Case, by: Kind | None) -> list[Kind | None]:
    """What a picture is registered by, in turn until one is accepted: the choice, or the first kind; a
    case with CT and vessels may be seen with contrast where its bones do not tell enough."""
    kinds = kinds_of(case)
    if by is not None or not kinds or kinds[0] != "volume":
        return [by]
    return [kind for kind in kinds if kind != "implant"]


def center_of(case: Case, kind: str) -> tuple[Float64, str]:
    """Where `--init angles` puts the isocenter (3,), patient frame, and what that point is."""
    if kind == "volume":
        assert case.volume_hu is not None
        return case.volume_hu.center_mm, "the center of the CT"
    if kind == "mr":
        assert case.mr is not None
        return case.mr.center_mm, "the center of the MR"
    if kind == "implant":
        assert case.implant is not None
        return case.implant.vertices.mean(axis=0), "the mean of the mesh's vertices"
    return joined(case.centerlines).points.mean(axis=0), "the mean of the centerline"


def joined(centerlines: dict[str, Polylines]) -> Polylines:
    """All centerlines of a case as one."""
    parts = list(centerlines.values())
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(p.points) for p in parts)])
    radius = None
    if all(p.radius_mm is not None for p in parts):
        radius = np.concatenate([p.radius_mm for p in parts if p.radius_mm is not None])
    return Polylines(np.concatenate([p.points for p in parts]),
                     tuple(line + a for p, a in zip(parts, starts, strict=False) for line in p.lines), radius)
