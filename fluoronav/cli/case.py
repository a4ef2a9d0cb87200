# SPDX-License-Identifier: Apache-2.0
"""`fluoronav case`: make a case folder of what is known before, and look at one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fluoronav.case import Case

app = typer.Typer(no_args_is_help=True, help="Before the case: CT, vessels, implant, path and target in one folder.")


@app.callback()
def case() -> None:
    """Before the case: CT, vessels, implant, path and target in one folder."""


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(metavar="CASE", help="folder to make")],
    ct: Annotated[Path | None, typer.Option(help="DICOM folder, NIfTI, NRRD or MHA")] = None,
    vessels: Annotated[list[Path] | None, typer.Option(
        help="surface (STL, VTP, PLY), centerline (VTK, VTP) or label volume (NIfTI, NRRD, MHA); repeatable")] = None,
    implant: Annotated[Path | None, typer.Option(help="implant's mesh: STL, PLY, VTP")] = None,
    mr: Annotated[Path | None, typer.Option(help="MR: DICOM folder, NIfTI, NRRD or MHA")] = None,
    path: Annotated[Path | None, typer.Option(help="planned path: VTK, VTP, CSV, JSON")] = None,
    bodies: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE", help=(
        "part of the CT that may move by itself, from a label volume (NIfTI, NRRD, MHA): all that is not 0, or with "
        "NAME=FILE:3,4 these labels; repeatable"))] = None,
    target: Annotated[tuple[float, float, float] | None, typer.Option(help="L P S, mm")] = None,
    axes: Annotated[str | None, typer.Option(help="of mesh and line files: --axes=-z,y,x is L=-z, P=y, S=x")] = None,
    train_pose: Annotated[bool, typer.Option(
        "--train-pose", help="train a network on projections of the CT that proposes poses to `register --init search`")
    ] = False,
    train_minutes: Annotated[float, typer.Option(help="how long --train-pose may take")] = 3.0,
    force: Annotated[bool, typer.Option("--force", help="replace an existing case")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Read CT, vessels, implant, MR, path and target, check that they fit, and write the case folder."""
    from fluoronav.case import create_case
    from fluoronav.case.pose_network import check_trainable, train_pose_network
    from fluoronav.cli.output import print_json, progress, tell

    if train_pose:
        check_trainable(ct, train_minutes)
    with progress("case", quiet=json_) as report:
        made = create_case(folder, ct=ct, vessels=vessels or (), implant=implant, mr=mr, path=path, target=target,
                           axes=axes, bodies=bodies or (), progress=report, force=force)
    card = None
    if train_pose:
        with progress("pose network", quiet=json_) as report:
            card = train_pose_network(made, minutes=train_minutes, progress=report)
    if json_:
        print_json(described(made) | ({} if card is None else {"pose_network": card}))
    else:
        _tell(made)
        if card is not None:
            tell(f"pose network: {card['pictures']} projections in {card['seconds']:.0f} s on {card['device']}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="CASE", help="case folder")],
    png: Annotated[Path | None, typer.Option(help="picture to write")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Say what a case holds: read, derived, assumed; draw it into a PNG."""
    from fluoronav.case import Case
    from fluoronav.cli.output import print_json, tell

    opened = Case.open(folder)
    if json_:
        print_json(described(opened))
    else:
        _tell(opened)
    if png is not None:
        from fluoronav.case.picture import draw_case

        draw_case(opened, png)
        tell(f"written: {png}")


def described(case: Case) -> dict[str, Any]:
    """A case as plain numbers and words: folder, name, checksum, what is in it, notes."""
    def volume(v: Any) -> dict[str, Any] | None:
        return None if v is None else {"shape_kji": v.data.shape, "spacing_mm": v.spacing_mm, "center_mm": v.center_mm,
                                       "patient_from_index": v.patient_from_index,
                                       "values": [float(v.data.min()), float(v.data.max())]}

    def mesh(m: Any) -> dict[str, Any]:
        return {"triangles": len(m.faces), "low_mm": m.vertices.min(axis=0), "high_mm": m.vertices.max(axis=0)}

    return {
        "case": str(case.folder), "name": case.name, "checksum": case.checksum,
        "ct": volume(case.volume_hu), "mr": volume(case.mr), "mr_match": case.mr_match,
        "surfaces": {name: mesh(m) for name, m in case.surfaces.items()},
        "centerlines": {name: {"lines": len(p.lines), "points": len(p.points), "length_mm": p.length_mm,
                               "radius_mm": None if p.radius_mm is None else [p.radius_mm.min(), p.radius_mm.max()]}
                        for name, p in case.centerlines.items()},
        "bodies": None if case.bodies is None else list(case.bodies.names),
        "implant": None if case.implant is None else mesh(case.implant),
        "path_points": None if case.path_mm is None else len(case.path_mm),
        "target_mm": case.target_mm, "target_assumed": case.target_assumed, "notes": case.notes,
    }


def _tell(case: Case) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(f"[bold]{escape(case.name)}[/]  {', '.join(case.contents)}  ({escape(str(case.folder))})",
                  soft_wrap=True)
    x, y, z = case.target_mm
    how = "assumed" if case.target_assumed else "given"
    console.print(f"  target at ({x:.1f}, {y:.1f}, {z:.1f}) mm (L, P, S), {how}")
    colors = {"read": "green", "derived": "cyan", "assumed": "yellow", "warning": "red"}
    for note in case.notes:
        kind, _, text = note.partition(": ")
        console.print(f"  [{colors.get(kind, 'white')}]{kind:>8}[/]  {escape(text)}", soft_wrap=True)
    console.print(f"  checksum {case.checksum}", soft_wrap=True)
