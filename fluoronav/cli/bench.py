# SPDX-License-Identifier: Apache-2.0
"""`fluoronav bench`: print measured figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def bench(
    name: Annotated[str | None, typer.Argument(help="Which benchmark (see --list).")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="Print the names and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
    sheet: Annotated[Path | None, typer.Option(
        "--sheet", help="With enhance: write a contact sheet of real runs before and after (PNG).")] = None,
    store: Annotated[Path | None, typer.Option(
        "--store", help="With gate: keep pictures and trials in this folder, and go on from what is there.")] = None,
    minutes: Annotated[float | None, typer.Option(
        "--minutes", help="With gate: stop after so long, with the figures of what is there.", min=0)] = None,
    full: Annotated[bool, typer.Option(
        "--full", help="With enhance: BM4D too, and BM3D at 1024 x 1024: half an hour more.")] = False,
) -> None:
    """Measure speed or accuracy and print the figures with unit and n."""
    from fluoronav.bench import BENCHES, run
    from fluoronav.cli.output import print_json, progress
    from registration.errors import BadInput

    if sheet is not None:
        _sheet(name, sheet)
        return
    if list_them:
        for key in BENCHES:
            print(key)
        return
    if name is None:
        raise BadInput("benchmark", got="no name", expected="one of " + ", ".join(BENCHES),
                       remedy="see fluoronav bench --list")
    given = (("store", "gate", store), ("minutes", "gate", minutes), ("full", "enhance", full or None))
    options: dict[str, Any] = {option: value for option, _, value in given if value is not None}
    for option, bench_of_it, _ in given:
        if option in options and name != bench_of_it:
            raise BadInput(f"--{option}", got=f"bench {name}", expected=f"bench {bench_of_it}",
                           remedy="leave it out: no other benchmark runs for so long")
    with progress(f"bench {name}", quiet=as_json) as report:
        result = run(name, report, **options)
    if as_json:
        print_json(result)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", "unit", "n", "note", title=f"bench {name} on {result['machine']['cpu']}")
    for key, figure in result["figures"].items():
        value = "not measured" if figure["value"] is None else f"{figure['value']:.4g}"
        table.add_row(key, value, figure["unit"], str(figure["n"]), figure.get("note", ""))
    Console().print(table)
    if "table" in result:
        head, *rows = result["table"]
        beside = Table(*head, title="beside each other")
        for row in rows:
            beside.add_row(*row)
        Console().print(beside)


def _sheet(name: str | None, path: Path) -> None:
    from fluoronav.bench.enhance_sheet import sheet
    from registration.errors import BadInput

    if name != "enhance":
        raise BadInput("contact sheet", got=name or "no benchmark", expected="bench enhance --sheet FILE",
                       remedy="name the benchmark enhance")
    sheet(path)
    print(path)
