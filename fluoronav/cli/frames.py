# SPDX-License-Identifier: Apache-2.0
"""`fluoronav frames show`: what was read from a run, what was derived, what was assumed?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Look at frames: geometry, exposure, what was read or assumed.")


@app.callback()
def frames() -> None:
    """Look at frames."""


@app.command()
def show(
    files: Annotated[list[Path], typer.Argument(help="DICOM, PNG, TIFF or video files, or folders of pictures")],
    carm: Annotated[Path | None, typer.Option(help="geometry of pictures, JSON")] = None,
    sdd: Annotated[float | None, typer.Option(help="source to detector, mm")] = None,
    sod: Annotated[float | None, typer.Option(help="source to isocenter, mm")] = None,
    pixel_spacing: Annotated[float | None, typer.Option(help="pitch at the detector, mm")] = None,
    seen_from: Annotated[str | None, typer.Option(help="detector or source")] = None,
    angles_in: Annotated[str, typer.Option(help="patient or room")] = "patient",
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Say what was read, derived and assumed: geometry, exposure, meaning of the pixels."""
    from fluoronav.cli.output import print_json, tell
    from fluoronav.imaging import open_run
    from registration.errors import BadInput

    answers: list[dict[str, Any]] = []
    failed = False
    for file in files:
        try:
            run = open_run(file, carm_file=carm, sdd_mm=sdd, sod_mm=sod, pixel_spacing_mm=pixel_spacing,
                           seen_from=seen_from, angles_in=angles_in)  # type: ignore[arg-type]
            answers.append(run.describe())
        except BadInput as error:
            failed = True
            answers.append({"file": str(file), "fault": str(error)})
            tell(f"fluoronav: {error}")
    if json_:
        print_json({"runs": answers})
    else:
        _tables([answer for answer in answers if "fault" not in answer])
    if failed:
        raise typer.Exit(2)


def _tables(answers: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    colors = {"read": "green", "derived": "cyan", "assumed": "yellow", "warning": "red"}
    for answer in answers:
        table = Table(title=escape(answer["file"]), title_justify="left", show_header=False)
        for name, value in _rows(answer):
            table.add_row(name, escape(value))
        console.print(table)
        for note in answer["notes"]:
            kind, _, text = note.partition(": ")
            console.print(f"  [{colors.get(kind, 'white')}]{kind:>8}[/]  {escape(text)}", soft_wrap=True)
        if answer["geometry_fault"]:
            console.print(f"  [red]{'fault':>8}[/]  {escape(answer['geometry_fault'])}",
                          soft_wrap=True)


def _rows(answer: dict[str, Any]) -> list[tuple[str, str]]:
    g, e, i = answer["geometry"], answer["exposure"], answer["intensity"]
    unknown = "not used: see the fault below" if answer["geometry_fault"] else "unknown"
    rate = "not stated" if answer["interval_ms"] is None else f"{answer['interval_ms']:g} ms apart"
    return [
        ("frames", f"{answer['frames']} of {answer['shape_rows_cols'][0]} x {answer['shape_rows_cols'][1]}, {rate}"),
        ("angles", f"primary {_known(g['primary_deg'], 'deg')}, secondary {_known(g['secondary_deg'], 'deg')}"),
        ("distances", f"SDD {g['sdd_mm']:g} mm, SOD {g['sod_mm']:g} mm" if g["sdd_mm"] is not None else unknown),
        ("pitch", " x ".join(_number(p, "mm") for p in g["pitch_mm_row_col"]) if g["pitch_mm_row_col"] else unknown),
        ("principal point", ", ".join(f"{p:g}" for p in g["principal_px_u_v"]) + " px (u, v)"
         if g["principal_px_u_v"] else unknown),
        ("table", ", ".join(f"{t:g}" for t in answer["table_in_room_mm"]) + " mm (left, posterior, head)"
         if answer["table_in_room_mm"] else "not stated"),
        ("exposure", ", ".join(_number(e[k], u) for k, u in (("kvp", "kVp"), ("ma", "mA"), ("ms", "ms"),
                                                           ("dose_ugy", "uGy")))),
        ("pixels", f"{i['kind']}, dense is {i['dense']}, {i['bits']} bits, {answer['open_share']:.0%} open"),
    ]


def _number(value: float | None, unit: str) -> str:
    return f"{unit} not stated" if value is None else f"{value:g} {unit}"


def _known(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}"
