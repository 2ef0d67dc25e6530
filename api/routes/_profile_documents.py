"""What the profiles' calls say of themselves."""

from typing import Any, Final

from api.documents import Answer, Content, Operation, Parameter
from api.profile_models import (
    ActivateProfileBody,
    ActivationAnswer,
    ChangeProfileBody,
    ProfileAnswer,
    ProfileDeleted,
    ProfileEntry,
    ProfileList,
    SaveProfileBody,
)
from schemas.profiles import LONGEST_NAME, MOST_PROFILES
from schemas.states import Role

SECRETS_STAY: Final = "Secrets stay as they are: no profile holds one."

_TAG: Final = "Profiles"
_EPOCH = "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20"
_NAME = Parameter(
    "name", "path", "The profile's name.", {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}, "Evening"
)
_ENTRY: dict[str, Any] = {
    "name": "Evening",
    "description": "quiet",
    "services": ["tts-worker"],
    "created_at": "2026-11-20T20:00:00.250000+00:00",
    "created_by": "admin",
    "updated_at": "2026-11-20T20:00:00.250000+00:00",
    "updated_by": "admin",
}
_PLAN = {
    "service": "tts-worker",
    "version": 4,
    "config_epoch": _EPOCH,
    "valid": True,
    "changes": [
        {
            "key": "volume_percent",
            "title": "Volume",
            "old": 100,
            "new": 40,
            "old_is_default": True,
            "new_is_default": False,
            "apply": "live",
            "is_secret": False,
        }
    ],
    "restarts": [],
    "errors": [],
    "message": "Not saved yet. The worker would take over while running: volume_percent.",
}
_NOTHING_UNKNOWN: dict[str, Any] = {"unknown_keys": {}, "unknown_services": []}

LIST = Operation(
    id="listProfiles",
    summary="List the profiles",
    description="Name, description and services of each profile, and who made and changed it when.",
    tag=_TAG,
    role=Role.READ,
    answers={200: Answer("By name.", Content(ProfileList, {"profiles": [_ENTRY]}))},
)
SAVE = Operation(
    id="saveProfile",
    summary="Save the present as a profile",
    description=(
        "Keeps what is set now in these services, or all, under a name: what the owner has set, without defaults, what the "
        f"environment sets, and secrets. There can be {MOST_PROFILES} profiles."
    ),
    tag=_TAG,
    role=Role.WRITE,
    body=Content(SaveProfileBody, {"name": "Evening", "description": "quiet", "services": ["tts-worker"]}),
    answers={200: Answer("It is on disk.", Content(ProfileEntry, _ENTRY))},
    problems=("profile-exists", "too-many-profiles", "read-only", "outcome-unknown"),
)
GET = Operation(
    id="getProfile",
    summary="Show a profile, and what differs from it now",
    description=(
        "The whole profile, and of each service what its activation would change. What today's models and manifest do not "
        "know is named, and not compared."
    ),
    tag=_TAG,
    role=Role.READ,
    parameters=(_NAME,),
    answers={
        200: Answer(
            "The profile.",
            Content(
                ProfileAnswer,
                {**_ENTRY, "settings": {"tts-worker": {"volume_percent": 40}}, "plans": [_PLAN], **_NOTHING_UNKNOWN},
            ),
        )
    },
    problems=("unknown-profile", "read-only"),
)
CHANGE = Operation(
    id="changeProfile",
    summary="Rename a profile, or describe it anew",
    description="What it holds stays the same; to save the present in its place, save with `replace`.",
    tag=_TAG,
    role=Role.WRITE,
    parameters=(_NAME,),
    body=Content(ChangeProfileBody, {"name": "Late evening"}),
    answers={200: Answer("It is on disk.", Content(ProfileEntry, {**_ENTRY, "name": "Late evening"}))},
    problems=("unknown-profile", "profile-exists", "read-only", "outcome-unknown"),
)
DELETE = Operation(
    id="deleteProfile",
    summary="Delete a profile",
    description="No service's settings change by that.",
    tag=_TAG,
    role=Role.WRITE,
    parameters=(_NAME,),
    answers={200: Answer("It is gone.", Content(ProfileDeleted, {"name": "Evening", "message": "Deleted."}))},
    problems=("unknown-profile", "read-only", "outcome-unknown"),
)
ACTIVATE = Operation(
    id="activateProfile",
    summary="Put a profile in force",
    description=(
        "Gives each service of the profile the settings that it holds, what it does not hold their defaults, as one revision, "
        f"all or nothing; other services stay as they are. {SECRETS_STAY} Everything is judged first: what does not fit "
        "today's models and manifest is refused (422), each as `service.key`, unless `drop_unknown` leaves out what they have "
        "no more. With `?plan=true` only what would change is told."
    ),
    tag=_TAG,
    role=Role.WRITE,
    parameters=(
        _NAME,
        Parameter("plan", "query", "Only tell what would change.", {"type": "boolean", "default": False}, True),
    ),
    body=Content(ActivateProfileBody, {"reason": "the child sleeps"}),
    body_required=False,
    answers={
        200: Answer(
            "It is on disk, or planned.",
            Content(
                ActivationAnswer,
                {
                    "revision": 18,
                    "services": [
                        {
                            "service": "tts-worker",
                            "version": 5,
                            "config_epoch": _EPOCH,
                            "message": "Saved. The worker takes over while running: volume_percent.",
                        }
                    ],
                    "plans": [],
                    **_NOTHING_UNKNOWN,
                    "message": f"Saved: tts-worker. {SECRETS_STAY}",
                },
            ),
        )
    },
    problems=("unknown-profile", "read-only", "outcome-unknown"),
)
