"""The program `tars-supervisor`: its command line, its exit codes, and what it says to a person.

Everything heavy is imported by the command that needs it: `--version` and `--help` answer at once.
"""

import argparse
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from supervisor import __version__
from supervisor._startup import short_start

if TYPE_CHECKING:
    from supervisor.boot import Boot, StartRefused
    from supervisor.succession import Succession

OK = 0
FAILED = 1
REFUSED = 2
"""A person's mistake: the same code that argparse uses for a wrong argument."""

PROGRAM = "tars-supervisor"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the process's) ask for, and return its exit code."""
    _open_standard_descriptors()
    environ = dict(os.environ)
    # Around the command line, too: argparse imports more than it needs.
    with short_start():
        given = _parser().parse_args(arguments)
        try:
            if given.command == "run":
                return _run(given.succeed, environ)
            return _check() if given.command == "check" else _upgrade(given.timeout)
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
    run = commands.add_parser(
        "run",
        help="run until SIGTERM or ctrl-C, which end everything in order (a second one hurries)",
        description="Run the supervisor in the foreground. Exit codes: 0 ended in order, 1 failed, 2 start refused.",
    )
    # For a supervisor that starts another one in its own place; see `supervisor.succession`.
    run.add_argument("--succeed", type=int, metavar="FD", help=argparse.SUPPRESS)
    commands.add_parser(
        "check",
        help="say what a start would use, and every mistake; changes nothing",
        description="Check settings, keys, folders, manifest and models. Exit codes: 0 sound, 2 mistakes.",
    )
    upgrade = commands.add_parser(
        "upgrade",
        help="have the version on disk take over from the one that runs; workers run on, no connection is refused",
        description=(
            "Have the supervisor of this folder's settings hand over to the version that is on disk now. "
            "Exit codes: 0 the new one serves, 1 it does not, and the one before serves on, 2 there is none to upgrade."
        ),
    )
    upgrade.add_argument(
        "--timeout", type=_seconds, default=120.0, metavar="SECONDS", help="how long to wait for it (default: 120)"
    )
    return parser


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3600")
    return number


def _run(succeed: int | None, environ: Mapping[str, str]) -> int:
    # Until the loop has handlers of its own, SIGTERM ends a start as ctrl-C does: what holds a lock lets go.
    signal.signal(signal.SIGTERM, _interrupt)
    # There is nothing to upgrade yet, and its default would end us.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    from supervisor.boot import StartRefused, prepare  # noqa: PLC0415 - see the module's docstring

    succession = None
    try:
        if succeed is not None:
            succession, boot = _succeed(succeed)
        else:
            boot = prepare(os.environ, Path.cwd())
        with boot.folders:
            from supervisor.run import run_supervisor  # noqa: PLC0415 - only once nothing stands against it

            return run_supervisor(boot, environ, succession)
    except StartRefused as refused:
        if succession is not None:
            succession.refuse(refused.lines)
        return _refuse(refused)


def _succeed(descriptor: int) -> "tuple[Succession, Boot]":
    """Prepare all that can be while another supervisor serves, have it let go, and take its locks."""
    from supervisor.boot import StartRefused, examine, prepare  # noqa: PLC0415 - see the module's docstring
    from supervisor.folders import plan  # noqa: PLC0415
    from supervisor.succession import PredecessorGone, Succession  # noqa: PLC0415

    try:
        succession = Succession(descriptor)
    except OSError as error:
        raise StartRefused(f"--succeed is for a supervisor that starts another one: {error.strerror}") from None
    try:
        findings = examine(os.environ, Path.cwd())
        # All that takes time at a start: now, and not while nobody serves.
        import supervisor._web  # noqa: PLC0415
        import supervisor.run  # noqa: PLC0415
        import supervisor.wiring  # noqa: PLC0415

        folders = plan(findings.settings)
        succession.take_over(supervisor.__version__, folders.data, folders.runtime)
        boot = prepare(os.environ, Path.cwd(), findings=findings, locks=succession.locks)
    except PredecessorGone:
        raise StartRefused("the supervisor that this one was to follow has ended, or wants it no more") from None
    except StartRefused as refused:
        succession.refuse(refused.lines)
        raise
    succession.close_locks(boot.folders.locks)
    return succession, boot


def _upgrade(timeout: float) -> int:
    from supervisor._upgrade_command import Refused, upgrade  # noqa: PLC0415 - see the module's docstring

    try:
        done, sentence = upgrade(os.environ, Path.cwd(), timeout)
    except Refused as refused:
        _say(2, [f"{PROGRAM}: {line}" for line in refused.lines])
        return REFUSED
    _say(1 if done else 2, [f"{PROGRAM}: {sentence}"])
    return OK if done else FAILED


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
