# SPDX-License-Identifier: Apache-2.0
"""`fluoronav live`: the anatomy over the pictures as they come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fluoronav.case import Case
    from fluoronav.live.pipeline import Pipeline
    from fluoronav.live.run import LiveRun, Recorder
    from fluoronav.live.source import Source, Stated
    from registration.geometry import CArm


def live(
    case: Annotated[str, typer.Argument(help="case folder; - for none: pictures are enhanced, nothing is registered")],
    source: Annotated[str, typer.Argument(
        help="demo, a DICOM or video file, a folder that fills, or igtl://HOST:PORT")],
    carm: Annotated[Path | None, typer.Option(help="geometry of pictures that state none, JSON")] = None,
    record: Annotated[Path | None, typer.Option(help="record the session into this new .mcap file")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="no console; ends with the source")] = False,
    port: Annotated[int, typer.Option(help="port of the console; 0 takes a free one", min=0, max=65535)] = 0,
    seconds: Annotated[float | None, typer.Option(help="stop after this time, s", min=0.1)] = None,
    finished: Annotated[bool, typer.Option(
        "--finished", help="a folder is one finished run: play it at its own pace and end")] = False,
    init: Annotated[str, typer.Option(help="angles, search, or a JSON file with one pose")] = "angles",
    by: Annotated[str | None, typer.Option(help="implant, volume, vessels or mr, where the case has several")] = None,
    tolerance_mm: Annotated[float, typer.Option(help="largest projected 95 % error that is accepted, mm")] = 5.0,
    tissue_motion_mm: Annotated[float, typer.Option(
        help="motion of the target against the bones of a CT that the bounds allow for, mm (one standard deviation)",
        min=0)] = 0.5,
    overlay: Annotated[str, typer.Option(help="who draws: auto, vtk, lines or none")] = "auto",
    view: Annotated[str, typer.Option(help="what is tracked: raw or enhanced pictures")] = "raw",
    contrast: Annotated[float, typer.Option(
        metavar="STRENGTH", help="raise lines and edges that stand above the noise, 0 (off) to 2")] = 0.0,
    superres: Annotated[bool, typer.Option("--superres", help="pixels of half the size, for binned modes")] = False,
    stabilise: Annotated[bool, typer.Option(
        "--stabilise", help="take the motion of the whole picture away; the C-arm moves with the pixels")] = False,
    threads: Annotated[int, typer.Option(help="threads of the projector; changes speed, never results", min=1)] = 2,
    sdd: Annotated[float | None, typer.Option(help="source to detector, mm")] = None,
    sod: Annotated[float | None, typer.Option(help="source to isocenter, mm")] = None,
    pixel_spacing: Annotated[float | None, typer.Option(help="pitch at the detector, mm")] = None,
    seen_from: Annotated[str | None, typer.Option(help="detector or source")] = None,
    angles_in: Annotated[str, typer.Option(help="patient or room")] = "patient",
    image_device: Annotated[str, typer.Option(help="igtl: name of the IMAGE; the first that comes if empty")] = "",
    carm_device: Annotated[str, typer.Option(
        help="igtl: TRANSFORM of the C-arm, named XToY: CArmToRoom, or RoomToCArm")] = "CArmToRoom",
    table_device: Annotated[str, typer.Option(help="igtl: TRANSFORM whose shift is the table's")] = "TableToRoom",
    room_axes: Annotated[str, typer.Option(help="igtl: axes of the room, ras or lps")] = "ras",
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object at the end")] = False,
) -> None:
    """Show live pictures with the case's anatomy where it lies, in the browser; record the session."""
    from fluoronav.case import Case
    from fluoronav.cli.output import print_json, tell
    from fluoronav.enhance.chain import ChainSettings
    from fluoronav.enhance.contrast import checked_strength
    from fluoronav.live.network import Devices
    from fluoronav.live.settings import PipelineSettings
    from fluoronav.live.source import Stated
    from registration.errors import BadInput

    if room_axes not in ("ras", "lps"):
        raise BadInput("--room-axes", got=room_axes, expected="ras or lps", remedy="choose one of them")
    stated = Stated(carm, sdd, sod, pixel_spacing, seen_from, angles_in)  # type: ignore[arg-type]
    opened = None if case == "-" else Case.open(case)
    devices = Devices(image_device, carm_device, table_device, room_axes)  # type: ignore[arg-type]
    frames = _source(source, stated, devices, seconds, fills=not finished)
    settings = PipelineSettings(tolerance_mm=tolerance_mm, threads=threads, init=_init(init), by=by,  # type: ignore[arg-type]
                                view=view, overlay=overlay, tissue_mm=tissue_motion_mm,  # type: ignore[arg-type]
                                chain=ChainSettings(contrast=checked_strength(contrast), superres=superres,
                                                    stabilise=stabilise))
    settings = _checked_geometry(frames, opened, settings)
    for line in frames.notes:
        tell(line)
    result = _run(opened, settings, frames, record, None if headless else port, seconds)
    if json_:
        print_json(result)
    else:
        tell(_told(result))
    if not result["frames"] or result["recording_note"]:  # nothing seen, or not all of it recorded
        raise typer.Exit(1)


def _source(spec: str, stated: Stated, devices: Any, seconds: float | None, *, fills: bool) -> Source:
    from fluoronav.live.sources import open_source

    if spec == "demo":
        from fluoronav.live.demo import DemoSource
        from models.patient import DemoPatient

        return DemoSource(DemoPatient.build(0), seconds or 60.0)
    return open_source(spec, stated, fills=fills, devices=devices)


def _init(init: str) -> str | dict[str, Any]:
    """`angles`, `search`, or the one pose of a file."""
    if init in ("angles", "search"):
        return init
    from fluoronav.locate.starts import read_init

    return {"carm_from_patient": read_init(init, ["live"])[0].carm_from_patient}


def _checked_geometry(source: Source, case: Case | None, settings: Any) -> Any:
    """Settings that the source's geometry can serve. A fault of geometry stops overlays: raises BadGeometry."""
    from dataclasses import replace

    from fluoronav.imaging.carm_file import no_geometry
    from fluoronav.live.filling import FillingFolder
    from fluoronav.live.network import NetworkSource
    from fluoronav.live.sources import RunSource
    from registration.errors import BadGeometry

    if case is None:
        return settings
    if isinstance(source, (NetworkSource, FillingFolder)):
        if isinstance(source, NetworkSource) and source.stated.carm is None:
            raise no_geometry(source.name)  # a stream states no distances
        return settings
    if not isinstance(source, RunSource):
        return settings
    run, first = source.run, source.run.frames[0]
    if first.carm is None and run.geometry_error is not None:
        raise run.geometry_error
    if settings.init == "angles" and first.angles is None:
        if run.carm_from_room is None:
            raise run.geometry_error or BadGeometry(
                f"{run.name}, gantry angles", got="none", expected="primary and secondary angle",
                remedy="use --init search or --init FILE")
        from fluoronav.locate.models import center_of, kinds_of
        from fluoronav.locate.starts import pose_at_angles

        center, _ = center_of(case, settings.by or kinds_of(case)[0])  # a roll that two angles cannot say
        return replace(settings, init={"carm_from_patient": pose_at_angles(run, first, center)})
    return settings


def _run(case: Case | None, settings: Any, source: Source, record: Path | None, port: int | None,
         seconds: float | None) -> dict[str, Any]:
    """Run until the source ends (headless), the time is over, or the person ends it; the summary."""
    import contextlib

    from fluoronav.live.pipeline import Pipeline
    from fluoronav.live.run import LiveRun

    pipeline = Pipeline(case, settings)
    recorder = None if record is None else _recorder(record, pipeline, source)
    run = LiveRun(pipeline, source, recorder=recorder, carm=_expected(source))
    server, said = None, ""
    with _ends_on_sigterm(), contextlib.suppress(KeyboardInterrupt):
        try:
            run.start()
            server = None if port is None else _console(run, port)
            if port is None or seconds is not None:
                run.join(seconds)
                said = run.status().source_note
            else:
                _stay()
        finally:
            run.stop()
            if server is not None:
                server.stop()
    result = run.summary() | {"session": None if record is None else str(record),
                              "recording_note": "" if recorder is None else recorder.state()[1]}
    return result if result["frames"] else result | {"ended": said or result["ended"]}


def _expected(source: Source) -> CArm | None:
    """The C-arm of the pictures to come, where the source knows it beforehand."""
    from fluoronav.live.demo import DemoSource
    from fluoronav.live.sources import RunSource

    if isinstance(source, DemoSource):
        return source.scene.carm
    return source.run.frames[0].carm if isinstance(source, RunSource) else None


def _stay() -> None:
    """Until the person ends it: the last picture stays in the console after the source has ended."""
    import time

    while True:
        time.sleep(1)


def _ends_on_sigterm() -> Any:
    """SIGTERM ends a run as Ctrl-C does, with its session closed."""
    import contextlib
    import signal

    @contextlib.contextmanager
    def handled() -> Any:
        # not by way of SIGINT: a shell's background job ignores that
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    return handled()


def _recorder(path: Path, pipeline: Pipeline, source: Source) -> Recorder:
    from fluoronav.session.record import SessionRecorder

    return SessionRecorder(path, case=pipeline.case, pipeline_settings=pipeline.settings.to_json(),
                           fingerprint=pipeline.fingerprint(), source_name=source.name,
                           nominal_interval_s=source.nominal_interval_s)


def _console(run: LiveRun, port: int) -> Any:
    from fluoronav.cli.output import tell
    from fluoronav.console import ConsoleServer

    server = ConsoleServer(run, port=port)
    server.start()
    tell(f"console: {server.url} (Ctrl-C ends)")
    return server


def _told(result: dict[str, Any]) -> str:
    outcomes = ", ".join(f"{count} {name}" for name, count in result["outcomes"].items() if count) or "nothing answered"
    text = (f"{result['frames']} frames, {result['fps']:.1f} a second, {result['latency_ms_p50']:.0f} ms each (95 %: "
            f"{result['latency_ms_p95']:.0f} ms), {result['drops']} dropped; {outcomes}; {result['ended']}")
    text += f"; session: {result['session']}" if result["session"] else ""
    return text + (f"; {result['recording_note']}" if result["recording_note"] else "")
