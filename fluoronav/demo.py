# SPDX-License-Identifier: Apache-2.0
"""How does a whole case go? Before, during and after, on the demo patient: the main way, start to end.

prepare: the patient is made, and its CT, vessels and path go through the same doors as any case.
live: fluoroscopy of it is cleaned, registered, overlaid, recorded and shown. conclude: the session is
opened again, every frame recomputed, and the report written with the true errors beside the stated ones.
"""

from __future__ import annotations

import contextlib
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fluoronav.live.step import Command, Feed, Status, Step
from registration.errors import BadInput
from registration.geometry import Array

if TYPE_CHECKING:
    from fluoronav.case import Case
    from fluoronav.console import ConsoleServer
    from fluoronav.live.demo import DemoSource
    from fluoronav.live.run import LiveRun
    from models.patient import DemoPatient

Progress = Callable[[float, str], None]
MARK = "fluoronav-demo"  # a file of this name says that a folder may be written over


class Demo:
    """One demo in a folder; use it as a context so that threads and files are closed whatever happens.

    port: None shows no console. say hears what a person should read. Raises BadInput where the folder
    holds something else.
    """

    def __init__(self, out: Path, *, seconds: float, seed: int, port: int | None,
                 say: Callable[[str], None]) -> None:
        self.out, self.seconds, self.seed, self.port, self.say = out, seconds, seed, port, say
        self.session = out / "session.mcap"
        self._feed = SwitchedFeed()
        self._server: ConsoleServer | None = None
        self._run: LiveRun | None = None
        self._source: DemoSource | None = None
        self._case: Case | None = None

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._run is not None:
            self._run.stop()
        if self._server is not None:
            self._server.stop()

    def prepare(self, progress: Progress) -> None:
        """Make the patient and the case folder, before the first frame."""
        from fluoronav.case import create_case
        from fluoronav.live.demo import DemoSource, write_demo_case_files
        from models.patient import DemoPatient
        from overlays.renderer import why_not_vtk

        _claim(self.out)
        reason = why_not_vtk()
        if reason is not None:
            self.say(f"the overlay is drawn as plain lines: {reason}")
        progress(0.05, "making the patient")
        patient: DemoPatient = DemoPatient.build(self.seed)
        self._source = DemoSource(patient, self.seconds, seed=self.seed, paced=True)
        self._source.begin()  # in the background, while the case is made
        progress(0.4, "writing CT, vessels and path")
        files = write_demo_case_files(patient, self.out / "input")
        progress(0.5, "making the case")
        self._case = create_case(self.out / "case", **files)
        progress(1.0, "ready")

    def live(self) -> None:
        """Run until the source ends; shown in the console where one is wanted."""
        from fluoronav.live.pipeline import Pipeline, PipelineSettings
        from fluoronav.live.run import LiveRun
        from fluoronav.session.record import SessionRecorder

        assert self._case is not None and self._source is not None
        pipeline = Pipeline(self._case, PipelineSettings())
        recorder = SessionRecorder(self.session, case=self._case, pipeline_settings=pipeline.settings.to_json(),
                                   fingerprint=pipeline.fingerprint(), source_name=self._source.name,
                                   nominal_interval_s=self._source.nominal_interval_s)
        self._run = LiveRun(pipeline, self._source, recorder=recorder, carm=self._source.scene.carm)
        self._feed.to(self._run)
        self._run.start()
        if self.port is not None:
            self._open_console(self.port)
        self._run.join()

    def conclude(self, progress: Progress) -> dict[str, Any]:
        """Close the session, verify it, write the report; the JSON object that the command prints."""
        from fluoronav.session.replay import ReplayFeed
        from fluoronav.session.report import write_report
        from fluoronav.session.session import Session
        from fluoronav.session.verify import verify

        assert self._run is not None
        self._run.stop()
        summary = self._run.summary()
        session = Session.open(self.session)
        case = session.case(None)
        verification = verify(session, case, lambda share, text: progress(0.8 * share, text))
        progress(0.8, "report")
        report = write_report(session, self.out / "report", verification, case=case)
        if self._server is not None:
            self._feed.to(ReplayFeed(session, case))
        progress(1.0, "done")
        return summary | {"session": str(self.session), "report": str(report),
                          "replay_identical": verification.identical, "replay": verification.text}

    def told(self, result: dict[str, Any]) -> list[str]:
        """The result as lines for a person."""
        return [
            f"{result['frames']} frames, {result['fps']:.1f} a second, {result['latency_ms_p50']:.0f} ms each "
            f"(95 %: {result['latency_ms_p95']:.0f} ms), {result['drops']} dropped",
            f"true target error {_mm(result['target_error_mm_median'])} mm median, "
            f"{_mm(result['target_error_mm_p95'])} mm at 95 %; in the picture's plane "
            f"{_mm(result['target_projected_error_mm_median'])} and {_mm(result['target_projected_error_mm_p95'])} mm",
            f"replay: {result['replay']}",
            f"session: {result['session']}", f"report: {result['report']}"]

    def stay(self) -> None:
        """Keep the console open with the replay until the person ends it."""
        if self._server is None:
            return
        self.say(f"the recorded session is now in the console: {self._server.url} (Ctrl-C ends)")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)

    def _open_console(self, port: int) -> None:
        from fluoronav.console import ConsoleServer

        self._server = ConsoleServer(self._feed, port=port)
        self._server.start()
        self.say(f"console: {self._server.url}")
        webbrowser.open(self._server.url)


class SwitchedFeed:
    """A feed that shows the live run first and its recording afterwards, under one address."""

    def __init__(self) -> None:
        self._feed: Feed | None = None

    def to(self, feed: Feed) -> None:
        """Show another feed from now on."""
        self._feed = feed

    @property
    def _now(self) -> Feed:
        if self._feed is None:
            raise RuntimeError("a feed is asked before it has something to show")
        return self._feed

    @property
    def layers(self) -> Any:
        return self._now.layers

    @property
    def tolerance_mm(self) -> float | None:
        return getattr(self._now, "tolerance_mm", None)

    def latest(self) -> Step | None:
        return self._now.latest()

    def status(self) -> Status:
        return self._now.status()

    def command(self, command: Command) -> None:
        self._now.command(command)

    def blend(self, step: Step) -> Array | None:
        return self._now.blend(step)

    def timeline(self) -> dict[str, Any] | None:
        return self._now.timeline()


def _claim(out: Path) -> None:
    """Make the folder empty of an earlier demo; refuse it where it holds something else."""
    import shutil

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).exists())):
        raise BadInput(f"--out {out}", got="a place that holds something else", expected="a new or empty folder, or "
                       "that of an earlier demo", remedy="choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).write_text("Made by `fluoronav demo`; the next demo in this folder writes over it.\n")
        for name in ("input", "case", "report"):
            if (out / name).exists():
                shutil.rmtree(out / name)
        (out / "session.mcap").unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}", got=str(error), expected="a folder that can be written",
                       remedy="choose another folder") from error


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
