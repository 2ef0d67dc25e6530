"""What a service's worker prints: its last lines, and those to come."""

from collections.abc import Callable
from typing import Final, TypeAlias

import orjson
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Scope

from actors import Output
from api.documents import Answer, Content, Operation, Parameter
from api.problems import Problem
from api.queries import Query
from api.responses import NO_STORE, Finished
from api.routes._route import waiting_read
from api.routes._streams import reader_of
from api.routes._worker_documents import SERVICE, TAG
from api.routes.workers import status_of
from api.state import ApiState
from api.streams import Form, Stream
from api.tokens import Identity
from schemas.states import Role

MEDIA_TYPE: Final = "application/x-ndjson"
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
MOST_LINES: Final = 10_000
USUAL_LINES: Final = 100
# As many as the manifest lets be kept in memory.
_ALL: Final = 100_000
_TYPE: Final = MEDIA_TYPE.encode()

_Wanted: TypeAlias = Callable[[bytes], bool]

_LINE = {
    "service": "stt-worker",
    "instance": "0f3a9c5d7e1b2468",
    "stream": "stderr",
    "pid": 4711,
    "time": "2026-11-20T08:00:00.000000+00:00",
    "sequence": 17,
    "level": "warning",
    "message": "no microphone",
    "fields": {"device": "hw:1"},
}

GET_LOGS = Operation(
    id="getServiceLogs",
    summary="What a service's worker prints",
    description=(
        "The last lines, the oldest first, each a JSON object on a line of its own; those from before a restart of the worker or "
        "the supervisor too. `stream` is `stdout`, `stderr`, or `supervisor` for what is said about the output.\n\n"
        "With `follow` each line comes as it is printed. A reader that is too slow loses lines and is told how many, "
        "by a line without a `sequence`; one that takes nothing at all is cut off. An empty line every 15 seconds is a sign of "
        "life. It ends with the server or the token."
    ),
    tag=TAG,
    role=Role.READ,
    parameters=(
        SERVICE,
        Parameter(
            "lines",
            "query",
            "How many at most; there may be fewer in memory.",
            {"type": "integer", "minimum": 0, "maximum": MOST_LINES, "default": USUAL_LINES},
            20,
        ),
        Parameter(
            "level",
            "query",
            "Only lines of this level, and those above it.",
            {"type": "string", "enum": list(LEVELS), "default": LEVELS[0]},
            "warning",
        ),
        Parameter("follow", "query", "`true` goes on.", {"type": "boolean", "default": False}, True),
    ),
    answers={200: Answer("The lines.", Content(None, f"{orjson.dumps(_LINE).decode()}\n", (MEDIA_TYPE,)))},
    problems=("unknown-service", "not-possible", "invalid", "too-many-streams"),
)


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    async def logs(scope: Scope, identity: Identity) -> ASGIApp:
        status = status_of(state.board.statuses, scope)
        query = Query(scope)
        count = query.whole("lines", default=USUAL_LINES, most=MOST_LINES)
        level = query.choice("level", LEVELS, default=LEVELS[0])
        follow = query.flag("follow", default=False)
        query.check()
        output = state.output(status.service)
        if output is None:
            raise Problem("not-possible", f"The output of {status.service} is not read here: it is {status.kind}.")
        wanted = _at_least(level)
        back = _back(output, count, wanted)
        if follow:
            form: Form[bytes] = Form(_TYPE, lambda line: line if wanted(line) else b"", b"\n")
            return Stream(state.streams, output.follow(back), form, reader_of(scope, identity, Role.READ, state))
        lines = (line for line in output.tail(back) if wanted(line))
        return Finished(b"".join(lines), [(b"content-type", _TYPE), NO_STORE])

    return [waiting_read("/api/services/{service:str}/logs", GET_LOGS, logs, state.tokens)]


def _at_least(level: str) -> _Wanted:
    """Tells whether a line is of that level, or above it, or tells a reader what it has missed."""
    if level == LEVELS[0]:
        return lambda _: True
    levels = LEVELS[LEVELS.index(level) :]

    def wanted(line: bytes) -> bool:
        entry = orjson.loads(line)
        return entry.get("level") in levels or entry.get("sequence") is None

    return wanted


def _back(output: Output, count: int, wanted: _Wanted) -> int:
    """How many lines back the last `count` begin that are wanted."""
    lines = output.tail(_ALL)
    left = count
    for back, line in enumerate(reversed(lines)):
        if not left:
            return back
        left -= wanted(line)
    return len(lines)
