"""What the calls about workers say of themselves."""

from typing import Any, Final

from api.documents import Answer, Content, Operation, Parameter
from api.worker_models import CommandAnswer, CommandBody, RestartAllBody, ServiceDetails, ServiceDetailsList
from schemas.states import Role
from schemas.status import Verb
from schemas.types import SERVICE_NAME_PATTERN

TAG: Final = "Workers"
SERVICE: Final = Parameter(
    "service", "path", "The service's name.", {"type": "string", "pattern": SERVICE_NAME_PATTERN}, "stt-worker"
)

_MARK = {"config_epoch": "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20", "version": 3}
_END = {
    "at": "2026-11-20T07:59:58Z",
    "instance": "9b1c0d2e4f6a8b3c",
    "reason": "it was killed by SIGKILL",
    "exit_code": None,
    "signal": "SIGKILL",
    "last_lines": ["loading the model"],
    "memory": 734003200,
    "ran_s": 41.2,
    "restarted": True,
}
_STATUS: dict[str, Any] = {
    "service": "stt-worker",
    "kind": "process",
    "state": "ready",
    "since": "2026-11-20T08:00:00Z",
    "reason": "it says that it is ready",
    "wanted": True,
    "instance": "0f3a9c5d7e1b2468",
    "pid": 4711,
    "started_at": "2026-11-20T07:59:58Z",
    "ready_at": "2026-11-20T08:00:00Z",
    "restarts": 1,
    "ends": [_END],
    "waits_for": [],
    "due": None,
    "desired": _MARK,
    "published": _MARK,
    "reported": _MARK,
    "diverged": [],
}
_FIGURES = {
    "pid": 4711,
    "uptime_s": 62.5,
    "cpu_s": 12.34,
    "cpu_percent": 3.5,
    "memory": 734003200,
    "memory_kind": "pss",
    "fds": 17,
    "threads": 9,
}
_BRIEF = {**_STATUS, "ends": [{**_END, "last_lines": []}]}
_BROKER = {
    "service": "embedded-broker",
    "kind": "internal",
    "state": "ready",
    "since": "2026-11-20T07:59:57Z",
    "reason": "listening",
    "process": {**_FIGURES, "pid": 4700, "uptime_s": None, "memory": 31457280},
}
_ANSWER = {
    "done": True,
    "took_s": 1.2041,
    "message": "Restarted: stt-worker.",
    "services": [_BRIEF],
    "trouble": {},
    "untouched": [],
}
_LATE = {
    **_ANSWER,
    "done": False,
    "took_s": 30.0,
    "message": "To restart stt-worker has not come true yet. stt-worker: it is starting: loading the model",
    "services": [{**_BRIEF, "state": "starting", "reason": "loading the model", "ready_at": None}],
    "trouble": {"stt-worker": "it is starting: loading the model"},
}
_WAITS = (
    "It is answered when it is done, or when `wait_s` are over; what has begun by then goes on. It makes no difference whether "
    "the client is still there."
)
_MEANING = {
    Verb.START: (
        "Start a service's worker",
        "It is wanted from now on, across restarts of the supervisor and the machine.",
    ),
    Verb.STOP: (
        "Stop a service's worker",
        "It stays stopped, across restarts of the supervisor and the machine, until somebody starts or restarts it.",
    ),
    Verb.RESTART: (
        "Restart a service's worker",
        "A new instance, when nothing of the one before is left; one that was stopped is started. An external one is asked to.",
    ),
}

LIST = Operation(
    id="listWorkers",
    summary="How all services are",
    description=(
        "State, versions and figures of each; the ends without their last lines, which the call for one service has. `internal` "
        "are processes that the supervisor runs for itself, such as the embedded broker."
    ),
    tag=TAG,
    role=Role.READ,
    answers={
        200: Answer(
            "All of them.",
            Content(ServiceDetailsList, {"services": [{**_BRIEF, "process": _FIGURES}], "internal": [_BROKER]}),
        )
    },
)
GET = Operation(
    id="getWorker",
    summary="How a service is",
    description=(
        "State, versions and figures; the last 20 ends of its workers with their last lines. `desired` is the version that is in "
        "force, `published` the one that was told, `reported` the one that the worker says it runs with."
    ),
    tag=TAG,
    role=Role.READ,
    parameters=(SERVICE,),
    answers={200: Answer("The service.", Content(ServiceDetails, {**_STATUS, "process": _FIGURES}))},
    problems=("unknown-service",),
)


def _answers() -> dict[int, Answer]:
    return {
        200: Answer("It is done.", Content(CommandAnswer, _ANSWER)),
        202: Answer("Not all of it has come true: `trouble` says why.", Content(CommandAnswer, _LATE)),
    }


COMMANDS: Final = {
    verb: Operation(
        id=f"{verb}Worker",
        summary=summary,
        description=f"{meaning} {_WAITS}",
        tag=TAG,
        role=Role.WRITE,
        parameters=(SERVICE,),
        body=Content(CommandBody, {"reason": "it hears nothing", "dependants": False, "wait_s": 30}),
        body_required=False,
        answers=_answers(),
        problems=("unknown-service", "not-possible", "outcome-unknown"),
    )
    for verb, (summary, meaning) in _MEANING.items()
}
RESTART_ALL: Final = Operation(
    id="restartAllWorkers",
    summary="Restart all workers",
    description=(
        f"Those that their owner has stopped stay so. {_WAITS} A rolling restart begins with no other one then: `untouched` "
        "names those that are left."
    ),
    tag=TAG,
    role=Role.WRITE,
    body=Content(RestartAllBody, {"reason": "a new sound card", "rolling": True, "wait_s": 300}),
    body_required=False,
    answers=_answers(),
    problems=("not-possible", "outcome-unknown"),
    path="/api/services/restart",
)
