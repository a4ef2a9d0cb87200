# SPDX-License-Identifier: Apache-2.0
"""`fluoronav demo`: before, during and after a case, on a patient whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    seconds: Annotated[float, typer.Option(help="length of the live run, s", min=1, max=3600)] = 40.0,
    headless: Annotated[bool, typer.Option("--headless", help="no console; end after the report")] = False,
    port: Annotated[int, typer.Option(help="port of the console; 0 takes a free one", min=0, max=65535)] = 0,
    out: Annotated[Path, typer.Option(help="folder for the case, the session and the report")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(help="another seed makes another patient")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Make a patient, load the CT, watch the live overlay, replay, verify and report it."""
    from fluoronav.cli.output import print_json, progress, tell
    from fluoronav.demo import Demo

    with Demo(out, seconds=seconds, seed=seed, port=None if headless else port, say=tell) as run:
        with progress("demo", quiet=json_) as report:
            run.prepare(report)
        run.live()
        with progress("demo", quiet=json_) as report:
            result = run.conclude(report)
        if json_:
            print_json(result)
        else:
            for line in run.told(result):
                tell(line)
        run.stay()
    if not result["replay_identical"]:
        raise typer.Exit(1)
