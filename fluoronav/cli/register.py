# SPDX-License-Identifier: Apache-2.0
"""`fluoronav register`: where is the case's anatomy in these pictures?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def register(
    case: Annotated[Path, typer.Argument(help="case folder")],
    frames: Annotated[list[Path], typer.Argument(help="DICOM, picture or video files, or folders of them")],
    index: Annotated[int | None, typer.Option(min=0, help="register this frame of each run (from 0)")] = None,
    all_frames: Annotated[bool, typer.Option("--all-frames", help="register every frame")] = False,
    carm: Annotated[list[Path] | None, typer.Option(help="geometry of pictures, JSON; one a view")] = None,
    init: Annotated[str, typer.Option(help="angles, search, or a JSON file of poses")] = "angles",
    landmarks: Annotated[Path | None, typer.Option(
        help="begin where these lie: JSON of points in the patient and their pixels, in place of --init")] = None,
    bone_edges: Annotated[bool, typer.Option(
        "--bone-edges", help="with --init search: let outlines of the CT's bones propose poses too")] = False,
    joint: Annotated[bool, typer.Option("--joint", help="one pose for all files (views of a CT)")] = False,
    intrinsics: Annotated[str, typer.Option(
        help="with --joint: SDD and principal point as stated, estimated for one C-arm (shared) or for each view "
             "(stated, shared, each)")] = "stated",
    bodies: Annotated[str, typer.Option(
        help="where parts of the CT have moved against each other, answer for the one that holds the target (auto); "
             "for the CT as one body (one), for its spine, or for a body that the case names (spine, NAME)")] = "auto",
    by: Annotated[str | None, typer.Option(
        help="implant, volume, vessels or mr (bone and air guessed from it), where the case has several")] = None,
    target: Annotated[tuple[float, float, float] | None, typer.Option(
        help="point in the patient frame (L P S, mm) where errors are stated")] = None,
    tolerance_mm: Annotated[float, typer.Option(help="largest projected 95 % error that is accepted, mm")] = 5.0,
    tissue_motion_mm: Annotated[float, typer.Option(
        help="motion of the target against the bones of a CT that the bounds allow for, mm (one standard deviation)",
        min=0)] = 0.0,
    sdd: Annotated[float | None, typer.Option(help="source to detector, mm")] = None,
    sod: Annotated[float | None, typer.Option(help="source to isocenter, mm")] = None,
    pixel_spacing: Annotated[float | None, typer.Option(help="pitch at the detector, mm")] = None,
    seen_from: Annotated[str | None, typer.Option(help="detector or source")] = None,
    angles_in: Annotated[str, typer.Option(help="patient or room")] = "patient",
    threads: Annotated[int, typer.Option(help="threads of the projector; changes speed, never results", min=1)] = 2,
    overlay: Annotated[Path | None, typer.Option(help="write the pictures with their overlay, PNG")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Find the anatomy in each picture: pose, expected error, or an honest refusal."""
    import numpy as np

    from fluoronav.case import Case
    from fluoronav.cli.output import print_json, progress, tell
    from fluoronav.locate import Options, expand, register_frames, register_together
    from fluoronav.locate.simulated import check_picture_name
    from registration.errors import BadInput
    from registration.model import Settings

    _checked(by, tolerance_mm, index, all_frames)
    if overlay is not None:
        check_picture_name(overlay)
    _checked_together(joint, intrinsics)
    if landmarks is not None and (init != "angles" or joint or bodies not in ("auto", "one")):
        raise BadInput("--landmarks", got="with --init, --joint or --bodies", expected="one of them",
                       remedy="landmarks say where to begin in each file by itself")
    if bone_edges and (init != "search" or landmarks is not None):
        raise BadInput("--bone-edges", got="without a search", expected="--init search", remedy="add --init search")
    options = Options(
        init=init, bone_edges=bone_edges, index=index, all_frames=all_frames, carm_files=tuple(carm or ()),
        sdd_mm=sdd, sod_mm=sod, pixel_spacing_mm=pixel_spacing, seen_from=seen_from, angles_in=angles_in,
        by=by,  # type: ignore[arg-type]
        landmarks=landmarks, joint=joint, intrinsics=intrinsics, bodies=bodies,  # type: ignore[arg-type]
        target_mm=None if target is None else np.array(target, float),
        settings=Settings(tolerance_mm=tolerance_mm, threads=threads, tissue_mm=tissue_motion_mm,
                          bodies="auto" if bodies == "auto" else "one"))
    opened = Case.open(case)
    runs, faults = expand(frames, options)
    for line in faults:
        tell(f"fluoronav: {line}")
    if faults:
        raise typer.Exit(2)
    if not runs:
        raise BadInput("frames", got="none", expected="at least one picture", remedy="name files or folders")
    with progress("register", quiet=json_) as report:
        found = (register_together(opened, runs, options, say=tell) if joint or options.divides
                 else register_frames(opened, runs, options, progress=report, say=tell))
    if overlay is not None:
        from fluoronav.locate.drawing import write_overlays

        for path in write_overlays(opened, found, overlay):
            tell(f"written: {path}")
    entries = [f.entry for f in found]
    if json_:
        print_json({"frames": entries})
    else:
        _table(entries)
    if any(e["outcome"] != "ACCEPTED" for e in entries):
        raise typer.Exit(1)


def _checked(by: str | None, tolerance_mm: float, index: int | None, all_frames: bool) -> None:
    from registration.errors import BadInput

    if by is not None:
        _choice("--by", by, ("implant", "volume", "vessels", "mr"))
    if not tolerance_mm > 0:
        raise BadInput("--tolerance-mm", got=tolerance_mm, expected="a number above 0", remedy="give mm, such as 5")
    if index is not None and all_frames:
        raise BadInput("--index and --all-frames", got="both", expected="one of them", remedy="choose one")


def _checked_together(joint: bool, intrinsics: str) -> None:
    from registration.errors import BadInput

    _choice("--intrinsics", intrinsics, ("stated", "shared", "each"))
    if intrinsics != "stated" and not joint:
        raise BadInput("--intrinsics", got=f"{intrinsics} without --joint", expected="two or more views",
                       remedy="add --joint")


def _choice(name: str, got: str, allowed: tuple[str, ...]) -> None:
    from registration.errors import BadInput

    if got not in allowed:
        raise BadInput(name, got=got, expected=", ".join(allowed[:-1]) + f" or {allowed[-1]}",
                       remedy="choose one of them")


def _table(entries: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    vessels = any("vessel_mm_after" in e for e in entries)
    table = Table("file", "frame", "outcome", "projected mm", "3D mm", "ms",
                  *(["vessels mm"] if vessels else []))
    colors = {"ACCEPTED": "green", "AMBIGUOUS": "yellow", "LOST": "red"}
    for e in entries:
        row = [Path(e["file"]).name, "mean" if e["index"] is None else str(e["index"]),
               f"[{colors[e['outcome']]}]{e['outcome']}[/]", _mm(e["projected_error_mm"]),
               _mm(e["expected_error_mm"]), f"{e['elapsed_ms']:.0f}"]
        if vessels:
            row.append(f"{_mm(e.get('vessel_mm_before'))} -> {_mm(e.get('vessel_mm_after'))}")
        table.add_row(*row)
    console = Console()
    console.print(table)
    for e in entries:
        console.print(f"{Path(e['file']).name}: {e['why']}", soft_wrap=True, markup=False)


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
