# SPDX-License-Identifier: Apache-2.0
"""`fluoronav drr`: what would the C-arm see of the case?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def drr(
    case: Annotated[Path, typer.Argument(help="case folder")],
    out: Annotated[Path, typer.Argument(help="picture to write, PNG or TIFF")],
    carm: Annotated[Path, typer.Option(help="geometry of the picture, JSON")],
    init: Annotated[Path | None, typer.Option(help="JSON file with a pose, as register prints it")] = None,
    by: Annotated[str | None, typer.Option(help="implant, volume or vessels, where the case has several")] = None,
    threads: Annotated[int, typer.Option(help="threads of the projector", min=1)] = 2,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Compute the X-ray picture of the case's CT, implant or contrast-filled vessels at a pose."""
    from fluoronav.case import Case
    from fluoronav.cli.output import print_json, tell
    from fluoronav.locate.simulated import simulated_picture, write_picture

    made = simulated_picture(Case.open(case), carm, init, by=by, threads=threads)  # type: ignore[arg-type]
    write_picture(out, made.display)
    for line in made.notes:
        tell(line)
    if json_:
        print_json({"file": str(out), "kind": made.kind, "carm_from_patient": made.carm_from_patient,
                    "shape_rows_cols": made.display.shape, "line_integral_max": made.largest})
    else:
        tell(f"written: {out}, {made.kind}, line integrals 0 to {made.largest:.3g}")
