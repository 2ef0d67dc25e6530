"""What the services' calls say of themselves."""

from api.bodies import JSON_TYPE, MERGE_PATCH_TYPE, ConfigChangeBody
from api.documents import IF_NONE_MATCH, Answer, Content, Operation, Parameter
from api.models import ChangeAnswer, PlanAnswer, ServiceConfig, ServiceList
from schemas.states import Role
from schemas.types import SERVICE_NAME_PATTERN

_EPOCH = "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20"
_ETAG = '"0b9d4c1e-3-8f14e45fceea167a"'
_TAG = "Configuration"

_SERVICE = Parameter(
    "service", "path", "The service's name.", {"type": "string", "pattern": SERVICE_NAME_PATTERN}, "stt-worker"
)
_INCLUDE_FIELDS = Parameter(
    "include_fields", "query", "`false` leaves `fields` out.", {"type": "boolean", "default": True}, False
)
_IF_MATCH = Parameter(
    "If-Match",
    "header",
    "The `ETag` of the GET, instead of `version` (or beside it, with the same version). Epoch and version count.",
    {"type": "string"},
    _ETAG,
)
_VALIDATOR = {"ETag": "Epoch, version and digest of this body.", "Cache-Control": "`private, no-cache`"}

_CONFIG = {
    "service": "stt-worker",
    "config": {"vad_threshold": 0.5, "log_level": "info"},
    "version": 3,
    "updated_at": "2026-11-20T08:00:00+00:00",
    "config_epoch": _EPOCH,
    "fields": [
        {
            "key": "vad_threshold",
            "title": "Speech threshold",
            "type": "float",
            "complexity": "simple",
            "description": "How sure it must be that somebody speaks.",
            "help_text": "Higher: fewer false starts. Lower: quiet voices are heard.",
            "examples": [0.5],
            "is_secret": False,
            "is_set": True,
            "source": "database",
            "env_override": False,
            "apply": "live",
            "default": 0.4,
            "minimum": 0.0,
            "maximum": 1.0,
            "pattern": None,
            "allowed": None,
            "unit": None,
        }
    ],
}
_CHANGE = {
    "service": "stt-worker",
    "config": {"vad_threshold": 0.6, "log_level": "info"},
    "version": 3,
    "config_epoch": _EPOCH,
    "reason": "too many false starts",
}
_CHANGED = {
    "success": True,
    "version": 4,
    "config_epoch": _EPOCH,
    "message": "Saved. The worker takes over while running: vad_threshold.",
    "rollout": None,
}
_PLANNED = {
    "service": "stt-worker",
    "version": 3,
    "config_epoch": _EPOCH,
    "valid": True,
    "changes": [
        {
            "key": "vad_threshold",
            "title": "Speech threshold",
            "old": 0.5,
            "new": 0.6,
            "old_is_default": False,
            "new_is_default": False,
            "apply": "live",
            "is_secret": False,
        }
    ],
    "restarts": [],
    "errors": [],
    "message": "Not saved yet. The worker takes over while running: vad_threshold.",
}
_WRITE_PROBLEMS = (
    "unknown-service",
    "service-mismatch",
    "stale-version",
    "overridden",
    "precondition-failed",
    "read-only",
    "outcome-unknown",
)
_ON_DISK = (
    "It is answered as soon as the change is on disk. Where nothing differs, the version stays as it was. The expected "
    "version comes as `version` or as `If-Match`; `confirm` and `deadline_s` are refused in this release."
)

LIST = Operation(
    id="listServices",
    summary="Names of the services",
    description="All services that have a configuration, in the manifest's order.",
    tag=_TAG,
    role=Role.READ,
    answers={200: Answer("The names.", Content(ServiceList, {"services": ["stt-worker", "tts-worker"]}))},
)
GET = Operation(
    id="getServiceConfig",
    summary="A service's configuration",
    description="What the worker runs with, the environment included; a secret is the mask `********` or null.",
    tag=_TAG,
    role=Role.READ,
    parameters=(_SERVICE, _INCLUDE_FIELDS, IF_NONE_MATCH),
    answers={
        200: Answer("The configuration.", Content(ServiceConfig, _CONFIG), _VALIDATOR),
        304: Answer("You have it already.", headers=_VALIDATOR),
    },
    problems=("unknown-service", "invalid"),
)
PUT = Operation(
    id="putServiceConfig",
    summary="Change a service's configuration as a whole",
    description=(
        "`config` is the whole object as a GET shows it, with changes: a key that is left out returns to its default, a "
        f"secret that is left out or sent as its mask is unchanged. {_ON_DISK}"
    ),
    tag=_TAG,
    role=Role.WRITE,
    parameters=(_SERVICE, _IF_MATCH),
    body=Content(ConfigChangeBody, _CHANGE),
    answers={200: Answer("It is on disk.", Content(ChangeAnswer, _CHANGED))},
    problems=_WRITE_PROBLEMS,
)
PATCH = Operation(
    id="patchServiceConfig",
    summary="Change some of a service's settings",
    description=(
        "`config` is a merge patch (RFC 7396): `null` returns a key to its default, a value equal to the default is "
        f"pinned, what is left out stays. {_ON_DISK}"
    ),
    tag=_TAG,
    role=Role.WRITE,
    parameters=(_SERVICE, _IF_MATCH),
    body=Content(
        ConfigChangeBody,
        {"service": "stt-worker", "config": {"vad_threshold": None}, "version": 3},
        (JSON_TYPE, MERGE_PATCH_TYPE),
    ),
    answers={200: Answer("It is on disk.", Content(ChangeAnswer, _CHANGED))},
    problems=_WRITE_PROBLEMS,
)
PLAN = Operation(
    id="planServiceConfig",
    summary="Tell what a change would do",
    description=(
        "The body as for PUT, or as `application/merge-patch+json` as for PATCH. Nothing is changed. Told is each setting that "
        "would be another, how the worker gets it, and whether it restarts; or, not `valid`, everything for which the change "
        "would be refused. A secret that is set counts as changed, whatever it is set to."
    ),
    tag=_TAG,
    role=Role.READ,
    parameters=(_SERVICE, _IF_MATCH),
    body=Content(ConfigChangeBody, _CHANGE, (JSON_TYPE, MERGE_PATCH_TYPE)),
    answers={200: Answer("What it would do.", Content(PlanAnswer, _PLANNED))},
    problems=(
        "unknown-service",
        "service-mismatch",
        "stale-version",
        "precondition-failed",
        "read-only",
        "outcome-unknown",
    ),
)
