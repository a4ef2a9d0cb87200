# SPDX-License-Identifier: Apache-2.0
"""How does a case come about? Everything is read, brought into one patient frame, checked together, written whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fluoronav.case.body_files import read_bodies
from fluoronav.case.case import Case, Packer
from fluoronav.case.dicom_series import Progress, Series
from fluoronav.case.fit import check_centerlines, check_inside, check_mr, check_target, default_target, laid_onto_ct
from fluoronav.case.labels import centerline_of_surface, read_labels
from fluoronav.case.names import unused, vessel_name
from fluoronav.case.path_file import read_path
from fluoronav.case.shape_files import is_shape_file, parse_axes, read_shape
from fluoronav.case.store import check_place, write_case
from fluoronav.case.volumes import is_volume_file, read_patient_volume
from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Float64, Volume
from registration.multimodal import MrMatch
from registration.segmentation import Segmentation
from registration.shapes import Mesh, Polylines


@dataclass(slots=True)
class _Parts:
    """What was read so far."""

    notes: Notes = field(default_factory=Notes)
    ct: Series | None = None
    mr: Series | None = None
    mr_match: MrMatch | None = None
    surfaces: dict[str, Mesh] = field(default_factory=dict)
    centerlines: dict[str, Polylines] = field(default_factory=dict)
    implant: Mesh | None = None
    path_mm: Float64 | None = None
    bodies: Segmentation | None = None


def create_case(folder: str | Path, *, ct: str | Path | None = None, vessels: Sequence[str | Path] = (),
                implant: str | Path | None = None, mr: str | Path | None = None, path: str | Path | None = None,
                target: ArrayLike | None = None, axes: str | None = None, bodies: Sequence[str] = (),
                progress: Progress | None = None, force: bool = False) -> Case:
    """Read the inputs, check that they fit each other, write the case folder, open it.

    ct, mr: DICOM folder, NIfTI, NRRD or MHA; vessels: surfaces, centerlines, label volumes; implant: a mesh;
    path: planned path; target: (3,) L, P, S mm; axes: those of mesh and line files that are not L, P, S;
    bodies: parts of the CT that may move by themselves, `NAME=FILE` or `NAME=FILE:1,2` (label volumes);
    force: replace an existing case. Raises BadInput, and leaves nothing behind.
    """
    place = Path(folder)
    check_place(place, force=force)
    if ct is None and not vessels and implant is None and mr is None:
        raise BadInput("case", got="nothing to make it of", expected="a CT, vessels, an implant or an MR",
                       remedy="give at least one of --ct, --vessels, --implant, --mr")
    turn = None if axes is None else parse_axes(axes)
    report = progress or (lambda share, text: None)
    parts = _Parts()
    if ct is not None:
        parts.ct = read_patient_volume(Path(ct), "CT", parts.notes, lambda s, text: report(0.5 * s, text))
    if bodies:
        parts.bodies = read_bodies(bodies, None if parts.ct is None else parts.ct.volume, parts.notes)
    if mr is not None:
        report(0.5, "MR")
        parts.mr = read_patient_volume(Path(mr), "MR", parts.notes)
        check_mr(parts.mr, parts.ct, parts.notes)
        if parts.ct is not None:
            parts.mr_match = laid_onto_ct(parts.mr, parts.ct, parts.notes, lambda s, text: report(0.5 + 0.3 * s, text))
    _read_vessels(parts, [Path(v) for v in vessels], turn, report)
    if implant is not None:
        _read_implant(parts, Path(implant), turn)
    if path is not None:
        parts.path_mm = read_path(Path(path), turn, parts.notes)
        check_inside(parts.path_mm, "path", parts.ct, parts.notes)
    if turn is not None and implant is None and path is None and not any(is_shape_file(Path(v)) for v in vessels):
        raise BadInput("--axes", got="no mesh or line file", expected="one that they belong to", remedy="leave it out")
    report(0.9, "writing")
    _write(place, parts, target, force)
    return Case.open(place)


def _read_vessels(parts: _Parts, files: list[Path], turn: Float64 | None, report: Progress) -> None:
    given: dict[str, Polylines] = {}
    for n, file in enumerate(files):
        label = f"vessels {n + 1}"
        report(0.5 + 0.4 * n / len(files), label)
        if is_volume_file(file):
            for tree in read_labels(file, label, parts.notes):
                name = unused(vessel_name(file.name, ()) + tree.suffix, parts.surfaces)
                parts.surfaces[name] = tree.surface
                if tree.centerline is not None:
                    parts.centerlines[unused(name, parts.centerlines)] = tree.centerline
                check_inside(tree.surface.vertices, f"label {name}", parts.ct, parts.notes)
            continue
        shape = read_shape(file, label, turn, parts.notes)
        if isinstance(shape, Mesh):
            parts.surfaces[vessel_name(file.name, parts.surfaces)] = shape
            check_inside(shape.vertices, label, parts.ct, parts.notes)
        else:
            given[vessel_name(file.name, {**parts.centerlines, **given})] = shape
            check_inside(shape.points, label, parts.ct, parts.notes)
    for name, lines in given.items():
        check_centerlines(name, lines, parts.surfaces, parts.notes)
        parts.centerlines[name] = lines
    if not parts.centerlines:
        for name, mesh in parts.surfaces.items():
            found = centerline_of_surface(mesh, f"surface {name}", parts.notes)
            if found is None:
                parts.notes.warn(f"surface {name}: no centerline found in it")
            else:
                parts.centerlines[name] = found


def _read_implant(parts: _Parts, file: Path, turn: Float64 | None) -> None:
    shape = read_shape(file, "implant", turn, parts.notes)
    if not isinstance(shape, Mesh):
        raise BadInput(f"implant {file.name}", got="lines", expected="a surface", remedy="give the implant's mesh")
    if parts.ct is None and not parts.surfaces and not parts.centerlines and parts.mr is None:
        parts.notes.assumed("the patient frame is the implant mesh's own")
    else:
        check_inside(shape.vertices, "implant", parts.ct, parts.notes)
    parts.implant = shape


def _write(place: Path, parts: _Parts, target: ArrayLike | None, force: bool) -> None:
    from importlib.metadata import version

    volume = None if parts.ct is None else parts.ct.volume
    mr = None if parts.mr is None else parts.mr.volume
    if mr is not None and parts.mr_match is not None and parts.mr_match.matched:
        mr = Volume(mr.data, parts.mr_match.ct_from_mr @ mr.patient_from_index)
    if target is None:
        target_mm, what = default_target(parts.implant, parts.centerlines, parts.surfaces, volume, mr)
        parts.notes.assumed(f"target: {what}, ({target_mm[0]:.1f}, {target_mm[1]:.1f}, {target_mm[2]:.1f}) mm")
    else:
        target_mm = check_target(target, parts.ct, parts.notes)
    pack = Packer()
    content = {
        "made_by": f"fluoronav {version('fluoronav')}", "frame": "patient: L, P, S, mm",
        "parts": {
            "volume_hu": pack.volume("ct", volume), "mr": pack.volume("mr", mr),
            "surfaces": {name: pack.mesh(f"surface-{k}", m) for k, (name, m) in enumerate(parts.surfaces.items())},
            "centerlines": {name: pack.lines(f"centerline-{k}", m)
                            for k, (name, m) in enumerate(parts.centerlines.items())},
            "implant": None if parts.implant is None else pack.mesh("implant", parts.implant),
            "path": pack.path(parts.path_mm), "bodies": pack.bodies(parts.bodies)},
        "mr_match": None if parts.mr_match is None else {
            k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(parts.mr_match).items()},
        "target_mm": np.asarray(target_mm, float).tolist(), "target_assumed": target is None,
        "notes": parts.notes.lines}
    write_case(place, pack.arrays, content, force=force)
