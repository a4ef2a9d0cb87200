# SPDX-License-Identifier: Apache-2.0
"""`fluoronav replay`: a recorded session in the console, verified, or as a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def replay(
    session: Annotated[Path, typer.Argument(help="session file (.mcap)")],
    case: Annotated[Path | None, typer.Option(help="case folder, where the session does not carry its own")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="compute every frame anew and compare")] = False,
    report: Annotated[Path | None, typer.Option(help="folder for a report of one HTML page")] = None,
    port: Annotated[int, typer.Option(help="port of the console; 0 takes a free one", min=0, max=65535)] = 0,
    json_: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Look at a recorded session; with --verify or --report, check or report it instead."""
    from fluoronav.cli.output import print_json, progress, tell
    from fluoronav.session.session import Session

    with progress("open", quiet=json_) as bar:
        opened = Session.open(session, bar)
    with opened:
        if opened.recovered:
            tell(f"fluoronav: {session.name}: {opened.recovered}")
        if not verify and report is None:
            _console(opened, case, port)
            return
        result: dict[str, Any] = {"session": str(session), "recovered": opened.recovered}
        result |= _checked(opened, case, verify, report, json_)
        if json_:
            print_json(result)
        elif "report" in result:
            tell(f"written: {result['report']}")
        if verify and not result["verification"]["identical"]:
            raise typer.Exit(1)


def _checked(opened: Any, case: Path | None, verify: bool, report: Path | None, quiet: bool) -> dict[str, Any]:
    """Figures of the session, its verification and its report, as asked."""
    from fluoronav.cli.output import progress, tell
    from fluoronav.session.summary import summary

    verification = None
    out: dict[str, Any] = {"summary": summary(opened)}
    if verify:
        from fluoronav.session.verify import verify as recompute

        with progress("verify", quiet=quiet) as bar:
            verification = recompute(opened, opened.case(case), bar)
        tell(verification.text)
        out["verification"] = verification.to_json()
    if report is not None:
        from fluoronav.session.report import write_report

        with progress("report", quiet=quiet) as bar:
            out["report"] = str(write_report(opened, report, verification, case=opened.case(case), progress=bar))
    return out


def _console(opened: Any, case: Path | None, port: int) -> None:
    """The session in the console until the person ends it."""
    import contextlib
    import time
    import webbrowser

    from fluoronav.cli.output import tell
    from fluoronav.console import ConsoleServer
    from fluoronav.session.replay import ReplayFeed

    feed = ReplayFeed(opened, opened.case(case))
    server = ConsoleServer(feed, port=port)
    server.start()
    try:
        tell(f"console: {server.url} (Ctrl-C ends)")
        webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
    finally:
        server.stop()
        feed.close()
