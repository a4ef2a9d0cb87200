# SPDX-License-Identifier: Apache-2.0
"""`fluoronav enhance`: a run without its noise, in the same kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def enhance(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="DICOM file, picture, folder of pictures, or video")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="where to write the same kind")],
    contrast: Annotated[float, typer.Option(
        "--contrast", metavar="STRENGTH", help="raise lines and edges that stand above the noise, for the eye: "
        "0 is off, 1 up to doubles their contrast, at most 2")] = 0.0,
    superres: Annotated[bool, typer.Option(
        "--superres", help="pixels of half the size, for binned modes: binned 2x2 they are the clean picture "
        "again, within its noise")] = False,
    stabilise: Annotated[bool, typer.Option(
        "--stabilise", help="take the motion of the whole picture away (breathing, table); borders turn black, and "
        "the file's geometry no longer fits its pixels: not for registration")] = False,
    deblur: Annotated[bool, typer.Option(
        "--deblur", help="undo the blur of what moved while the tube was on, along its motion, where it stands above "
        "the noise; needs the length of the pulse in the header")] = False,
    uncertainty: Annotated[Path | None, typer.Option(
        "--uncertainty", metavar="FILE", help="also write the standard deviation of each clean pixel: the same kind, "
        "16 bits, the unit is printed and in the header; not with --contrast, --superres, --stabilise")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Remove noise from a run: same grey scale and bit depth, DERIVED, the chain named in the header.

    Noise alone, unless an option asks for more.
    """
    import statistics

    from fluoronav.cli.output import print_json, progress, tell, tell_some
    from fluoronav.enhance.chain import Chain, ChainSettings
    from fluoronav.enhance.contrast import checked_strength
    from fluoronav.enhance.derive import enhance_path

    # a file can wait for the better contrast; a live frame cannot
    chain = Chain(ChainSettings(contrast=checked_strength(contrast), contrast_by="auto", superres=superres,
                                stabilise=stabilise, deblur=deblur))

    with progress(f"enhance {source.name}", quiet=json_) as report:
        done = enhance_path(source, output, chain, report, uncertainty=uncertainty)
    for warning in done.warnings:
        tell(f"warning: {warning}")
    for badge, count in done.badges.items():
        tell(f"{badge} ({count} of {done.frames} frames)")
    tell_some([f"fluoronav: {sentence}" for sentence in done.refused])
    median = statistics.median(done.ms) if done.ms else 0.0
    if json_:
        print_json({"output": done.output, "frames": done.frames, "ms_per_frame": median, "badges": done.badges,
                    "warnings": done.warnings, "refused": done.refused, "chain": done.chain,
                    "uncertainty": done.uncertainty, "uncertainty_unit": done.uncertainty_unit,
                    "shifts_px": done.shifts_px})
    elif done.frames:
        tell(f"{done.output}: {done.frames} frame(s), {median:.1f} ms each; {done.chain}")
        if done.uncertainty is not None:
            tell(f"{done.uncertainty}: {done.uncertainty_unit}")
    if done.refused:
        raise typer.Exit(2)
