"""What the restore's call says of itself."""

from api.documents import Answer, Content, Operation, Parameter
from api.restore_models import RestoreAnswer, RestoreBody
from schemas.states import Role

_EPOCH = "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20"

RESTORE = Operation(
    id="restoreHistory",
    summary="Bring earlier settings back",
    description=(
        "Undoes entries of a service's history, or brings back what one service or all had set at a version, a revision or a "
        "moment, as new versions in one revision, all or nothing. Secrets stay as they are, since the history has none of their "
        "values; which ones were set otherwise then is told. With `?plan=true` only what would change is told. Who changes one "
        "of the services in between is not overwritten: then it is refused (409), and nothing is changed."
    ),
    tag="History",
    role=Role.WRITE,
    parameters=(
        Parameter("plan", "query", "Only tell what would change.", {"type": "boolean", "default": False}, True),
    ),
    body=Content(RestoreBody, {"service": "stt-worker", "version": 3, "reason": "the new threshold is worse"}),
    answers={
        200: Answer(
            "It is on disk, or planned.",
            Content(
                RestoreAnswer,
                {
                    "revision": 18,
                    "services": [
                        {
                            "service": "stt-worker",
                            "version": 5,
                            "config_epoch": _EPOCH,
                            "message": "Saved. The worker takes over while running: vad_threshold.",
                        }
                    ],
                    "plans": [],
                    "left_out": {},
                    "secrets_kept": {},
                    "message": "Saved: stt-worker.",
                },
            ),
        )
    },
    problems=("stale-version", "read-only", "outcome-unknown"),
)
