# SPDX-License-Identifier: Apache-2.0
"""One pose for several files: what `register --joint` and `--bodies NAME` do, on a case's CT, vessels or
implant."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fluoronav.imaging import Frame, Run
from fluoronav.locate.models import center_of, kinds_of, model_for_case
from fluoronav.locate.pictures import Picture, pictures_of, view_of
from fluoronav.locate.registering import LONGEST, Located, Options, entry_of
from fluoronav.locate.starts import InitEntry, read_init, starts_for
from registration.errors import BadGeometry, BadInput
from registration.geometry import Float64, Rigid, carm_from_room
from registration.implants import ImplantModel
from registration.joint import Joint, JointModel, RoomView
from registration.joint_shapes import JointShape
from registration.model import Model, Start
from registration.vessels import VesselModel
from registration.volume_model import VolumeModel

if TYPE_CHECKING:
    from fluoronav.case import Case


def register_together(case: Case, runs: Sequence[Run], options: Options, *,
                      say: Callable[[str], None] = lambda line: None) -> list[Located]:
    """One answer for each run, all from one pose of the patient in the room; with one run, just the bodies.

    Where each C-arm stands comes from its gantry angles, or carm_from_room of its --carm file; all share one
    isocenter. Raises BadInput, BadGeometry.
    """
    _possible(case, runs, options)
    kind = options.by or kinds_of(case)[0]
    whole = model_for_case(case, options.settings, by=kind, target_mm=options.target_mm)
    center, what = center_of(case, kind)
    pictures = [next(iter(pictures_of(run, index=options.index))) for run in runs]
    places = _moved_with_table([_place(run, picture.frame) for run, picture in zip(runs, pictures, strict=True)],
                               [picture.frame for picture in pictures], say)
    if options.init == "angles":
        say(f"assumed: the isocenter is at {what}, {center.round(1).tolist()} mm (L, P, S)")
    for run, picture in zip(runs, pictures, strict=True):
        say(f"{run.name}: registered on {picture.note}")
    bodies = _bodies(whole, options, say) if isinstance(whole, VolumeModel) else None
    begin = time.perf_counter()
    views = [RoomView(view_of(p, LONGEST[kind]), place) for p, place in zip(pictures, places, strict=True)]
    starts = _starts(whole, runs, pictures, views, center, options)
    if isinstance(whole, VolumeModel) and bodies is not None:
        model = JointModel(bodies, intrinsics=options.intrinsics)
        found = model.register(views, starts, options.settings, whole=whole)
    else:
        assert isinstance(whole, VesselModel | ImplantModel)
        found = JointShape(whole).register(views, starts, options.settings)
    elapsed = (time.perf_counter() - begin) * 1000
    return [_located(run, picture, view, found, n, kind, elapsed)
            for n, (run, picture, view) in enumerate(zip(runs, pictures, views, strict=True))]


def _possible(case: Case, runs: Sequence[Run], options: Options) -> None:
    kinds = kinds_of(case)
    if not kinds or options.by not in (None, *kinds):
        raise BadInput("joint registration", got=options.by or "an empty case", expected=" or ".join(kinds) or "a CT, "
                       "vessels or an implant", remedy="choose what the case has, or create it again")
    if (options.by or kinds[0]) == "mr":
        raise BadInput("joint registration", got="an MR without a CT", expected="a CT, vessels or an implant",
                       remedy="register each view by itself (an MR alone is a guess), or give a CT")
    by = options.by or kinds[0]
    if by != "volume" and options.divides:
        raise BadInput("--bodies", got=f"{options.bodies}, registered by {by}", expected="a CT, of which it is a part",
                       remedy="leave it out" if case.volume_hu is None else "leave it out, or add --by volume")
    if by != "volume" and options.intrinsics != "stated":
        raise BadInput("--intrinsics", got=f"{options.intrinsics}, registered by {by}", expected="a CT, whose many "
                       "edges tell SDD and principal point", remedy="leave it out")
    names = () if case.bodies is None else case.bodies.names
    if options.divides and options.bodies not in ("spine", *names):
        raise BadInput("--bodies", got=options.bodies, expected=", ".join(("auto", "one", "spine", *names)),
                       remedy="choose one of them, or name it with `fluoronav case create --bodies NAME=FILE`")
    if options.all_frames:
        raise BadInput("--all-frames", got="with --joint or --bodies", expected="one picture of each run",
                       remedy="choose it with --index")
    for run in runs:
        if run.geometry_error is not None:
            raise run.geometry_error
    if options.joint and len(runs) < 2:
        raise BadInput("--joint", got=f"{len(runs)} file", expected="two or more views of the same patient",
                       remedy="name more files, or leave --joint out")
    if not options.joint and len(runs) > 1:
        raise BadInput("--bodies", got=f"{len(runs)} files", expected="one file, or --joint for several views",
                       remedy="add --joint where the patient lay still between them")


def _place(run: Run, frame: Frame) -> Float64:
    """carm_from_room of a picture."""
    if run.carm_from_room is not None:
        return run.carm_from_room
    if frame.angles is None:
        raise BadGeometry(f"{run.name}, gantry angles", got="none", expected="primary and secondary angle, or "
                          "carm_from_room", remedy="state where the C-arm stands with --carm FILE")
    return carm_from_room(frame.angles.primary_deg, frame.angles.secondary_deg)


def _moved_with_table(places: Sequence[Float64], frames: Sequence[Frame],
                      say: Callable[[str], None]) -> list[Float64]:
    """carm_from_room where the room goes with the table: the patient lies still in it, whatever the table did.

    The first view's table is the room's. Where not all views state their table, it is taken to have stood still.
    """
    tables = [frame.table_in_room_mm for frame in frames]
    stated = [np.array(table) for table in tables if table is not None]
    if len(stated) < len(tables):
        return list(places)
    shifts = [table - stated[0] for table in stated]
    for frame, shift in zip(frames, shifts, strict=True):
        if np.linalg.norm(shift) > 0:
            say(f"{frame.source_name}: the table moved by {shift.round(1).tolist()} mm (L, P, S) since the first view")
    return [place @ Rigid.translation(*shift) for place, shift in zip(places, shifts, strict=True)]


def _bodies(whole: VolumeModel, options: Options, say: Callable[[str], None]) -> VolumeModel | dict[str, VolumeModel]:
    """The CT, or its parts, the one whose pose is the answer first."""
    if not options.divides:
        return whole
    named = whole.segmentation is not None and options.bodies in whole.segmentation.names
    if named and whole.segmentation is not None:
        parts, middle = whole.segmentation.parts(whole.attenuation, options.bodies), None
        say(f"derived: the CT is split into {', '.join(parts)}; the answer is the pose of {options.bodies}")
        if whole.target_assumed:
            middle = whole.segmentation.middle_mm(options.bodies)
    else:
        from registration.bodies import spine_of

        spine = spine_of(whole.attenuation)
        parts, middle = spine.parts(whole.attenuation), spine.middle_mm
        say("derived: the CT is split into its spine and the rest; the answer is the pose of the spine")
    target = whole.target_mm if middle is None or not whole.target_assumed else middle
    if whole.target_assumed:
        say(f"assumed: errors are stated at the middle of {options.bodies}, {target.round(1).tolist()} mm (L, P, S)")
    return {name: VolumeModel(part, target, threads=options.settings.threads) for name, part in parts.items()}


def _starts(whole: Model, runs: Sequence[Run], pictures: Sequence[Picture], views: Sequence[RoomView],
            center: Float64, options: Options) -> list[Start]:
    """Poses of the first view: from angles or a search in it; from a file, what every view's pose says of it."""
    if options.init in ("angles", "search"):
        return list(starts_for(whole, views[0].view, runs[0], pictures[0].frame, center, options.settings,
                               options.init))
    entries: Sequence[InitEntry] = read_init(options.init, [str(run.path) for run in runs])
    first = views[0].carm_from_room
    poses = [first @ Rigid.inverse(v.carm_from_room) @ e.carm_from_patient
             for v, e in zip(views, entries, strict=True)]
    # a single pose for all files can only be the first view's
    return [Start(p, "file") for p in (poses[:1] if len({id(e) for e in entries}) == 1 else poses)]


def _located(run: Run, picture: Picture, view: RoomView, found: Joint, n: int, kind: str,
             elapsed_ms: float) -> Located:
    answer = found.registrations[n]
    entry: dict[str, Any] = entry_of(answer, file=str(run.path), index=picture.index, elapsed_ms=elapsed_ms)
    entry |= {"by": kind, "picture": picture.note, "joint_views": len(found.registrations),
              "carm_from_room": view.carm_from_room, "room_from_patient": found.room_from_patient}
    if answer.bodies:
        entry["bodies"] = {name: np.asarray(pose) for name, pose in answer.bodies.items()}
    if found.carm_sd:
        k = round(picture.values.shape[0] / view.view.carm.shape[0])
        sd, carm = found.carm_sd[found.which[n]], found.carms[n]
        u, v = carm.principal_px_u_v
        entry["carm"] = {"sdd_mm": carm.sdd_mm, "sdd_sd_mm": carm.sdd_mm * sd[0],
                         "principal_px_u_v": [(u + 0.5) * k - 0.5, (v + 0.5) * k - 0.5],
                         "principal_sd_mm_u_v": [sd[1], sd[2]]}
    return Located(entry, answer, picture)
