"""The program `tars-supervisor`: its command line, its exit codes, and what it says to a person.

Everything heavy is imported by the command that needs it: `--version` and `--help` answer at once.
"""

import argparse
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from supervisor import __version__

if TYPE_CHECKING:
    from supervisor.boot import StartRefused

OK = 0
REFUSED = 2
"""A person's mistake: the same code that argparse uses for a wrong argument."""

PROGRAM = "tars-supervisor"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the process's) ask for, and return its exit code."""
    _open_standard_descriptors()
    command = _parser().parse_args(arguments).command
    try:
        return _run() if command == "run" else _check()
    except KeyboardInterrupt:
        return OK


def _open_standard_descriptors() -> None:
    """Give 0, 1 and 2 to /dev/null where they are closed: a store or a lock under such a number would be written to."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # open(2) takes the lowest number that is free, so this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Runs a voice assistant's workers on one board and owns their configuration.",
        epilog="Settings come from the environment and from .env; see docs/environment.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser(
        "run",
        help="run until SIGTERM or ctrl-C, which end everything in order (a second one hurries)",
        description="Run the supervisor in the foreground. Exit codes: 0 ended in order, 1 failed, 2 start refused.",
    )
    commands.add_parser(
        "check",
        help="say what a start would use, and every mistake; changes nothing",
        description="Check settings, keys, folders, manifest and models. Exit codes: 0 sound, 2 mistakes.",
    )
    return parser


def _run() -> int:
    # Until the loop has handlers of its own, SIGTERM ends a start as ctrl-C does: what holds a lock lets go.
    signal.signal(signal.SIGTERM, _interrupt)
    from supervisor.boot import StartRefused, prepare  # noqa: PLC0415 - see the module's docstring

    try:
        boot = prepare(os.environ, Path.cwd())
        with boot.folders:
            from supervisor.run import run_supervisor  # noqa: PLC0415 - only once nothing stands against it

            return run_supervisor(boot)
    except StartRefused as refused:
        return _refuse(refused)


def _check() -> int:
    from supervisor.boot import StartRefused, examine  # noqa: PLC0415 - see the module's docstring
    from supervisor.report import report  # noqa: PLC0415

    try:
        findings = examine(os.environ, Path.cwd())
    except StartRefused as refused:
        return _refuse(refused)
    _say(1, report(findings))
    _say(2, [f"{PROGRAM}: warning: {warning}" for warning in findings.warnings])
    return OK


def _refuse(refused: "StartRefused") -> int:
    _say(2, [f"{PROGRAM}: {line}" for line in refused.lines])
    if refused.verbatim:
        _say(2, ["", *refused.verbatim, ""])
    return REFUSED


def _say(descriptor: int, lines: Sequence[str]) -> None:
    """Write lines as they are, odd bytes of file names too. A reader that has left is no reason to fail."""
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
