# SPDX-License-Identifier: Apache-2.0
"""The command `fluoronav`: which commands there are, and how errors reach a person.

Command files import only typer and the standard library at their top, so that --help is quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

import typer

from fluoronav.cli import bench, case, demo, doctor, drr, enhance, frames, live, register, replay

OURS = "fluoronav-"  # so begin the names of threads that a live run leaves to end by themselves

app = typer.Typer(
    name="fluoronav",
    help="Fluoroscopy with the patient's anatomy on it: before, during, after the case. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo")(demo.demo)
app.add_typer(case.app, name="case")
app.add_typer(frames.app, name="frames")
app.command("drr")(drr.drr)
app.command("register")(register.register)
app.command("live")(live.live)
app.command("replay")(replay.replay)
app.command("enhance")(enhance.enhance)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The program: run the command line and end this process with its exit code."""
    code = answer()
    if any(thread.name.startswith(OURS) for thread in threading.enumerate()):
        # such as a registration that nobody waits for any more: in compiled code, it would abort the interpreter's end
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def answer() -> int:
    """Run the command line; bad input becomes one sentence and exit code 2, never a traceback. The exit code."""
    from registration.errors import BadInput

    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BadInput as error:
        _say(str(error))
        return 2
    except BrokenPipeError:
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: no fault of the program
        if os.environ.get("FLUORONAV_DEBUG"):
            raise
        _say(str(BadInput(str(error.filename or "file or network"), got=error.strerror or str(error) or "no answer",
                          expected="a place that can be read and written",
                          remedy="make room, check the rights, or choose another place")))
        return 2
    except Exception as error:  # the last door before the person
        if os.environ.get("FLUORONAV_DEBUG"):
            raise
        _say(f"internal error: {type(error).__name__}: {error}; set FLUORONAV_DEBUG=1 to see where, "
             "and please report it.")
        return 1
    return 0


def _say(sentence: str) -> None:
    print(f"fluoronav: {sentence}", file=sys.stderr)
