# SPDX-License-Identifier: Apache-2.0
"""`fluoronav enhance`: a run without its noise, in the same kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def enhance(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="DICOM file, picture, folder of pictures, or video")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="where to write the same kind")],
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Remove noise from a run: same grey scale and bit depth, DERIVED, the chain named in the header."""
    import statistics

    from fluoronav.cli.output import print_json, progress, tell
    from fluoronav.enhance.derive import enhance_path

    with progress(f"enhance {source.name}", quiet=json_) as report:
        done = enhance_path(source, output, progress=report)
    for warning in done.warnings:
        tell(f"warning: {warning}")
    for badge, count in done.badges.items():
        tell(f"{badge} ({count} of {done.frames} frames)")
    for sentence in done.refused:
        tell(f"fluoronav: {sentence}")
    median = statistics.median(done.ms) if done.ms else 0.0
    if json_:
        print_json({"output": done.output, "frames": done.frames, "ms_per_frame": median, "badges": done.badges,
                    "warnings": done.warnings, "refused": done.refused, "chain": done.chain})
    else:
        tell(f"{done.output}: {done.frames} frame(s), {median:.1f} ms each; {done.chain}")
    if done.refused:
        raise typer.Exit(2)
