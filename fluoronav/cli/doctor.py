# SPDX-License-Identifier: Apache-2.0
"""`fluoronav doctor`: what does this machine have, and which paths will be used?"""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Say what this machine has, which code paths will be used, and what is missing."""
    from fluoronav.cli.output import print_json
    from fluoronav.machine import examined

    findings = examined()
    if json_:
        print_json({f.name: {"state": f.state, "found": f.found, "remedy": f.remedy} for f in findings})
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("what", "state", "found", show_lines=False)
        colors = {"good": "green", "slow": "yellow", "missing": "yellow", "broken": "red"}
        for f in findings:
            table.add_row(f.name, f"[{colors[f.state]}]{f.state}[/]", f.found + (f"\n{f.remedy}" if f.remedy else ""))
        Console().print(table)
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)
