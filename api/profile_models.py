"""What the profiles' calls carry, and what their answers look like; see `api.models`."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue, StrictBool, StringConstraints

from api.models import PlanAnswer
from api.restore_models import RestoredService
from schemas.base import Model
from schemas.profiles import LONGEST_NAME

_Name = Annotated[
    str,
    Field(
        description=f"1 to {LONGEST_NAME} printable characters without a slash; spaces around it are taken off.",
        examples=["Evening"],
    ),
]
_Description = Annotated[str, StringConstraints(max_length=1000)]


class SaveProfileBody(Model):
    """The name for what is set now."""

    name: _Name
    description: Annotated[
        _Description | None, Field(description="Left out where one is replaced: as it was.", examples=["quiet"])
    ] = None
    services: Annotated[
        list[str] | None,
        Field(min_length=1, description="Null or left out: all services.", examples=[["tts-worker"]]),
    ] = None
    replace: Annotated[StrictBool, Field(description="Whether one of that name may be replaced.")] = False


class ChangeProfileBody(Model):
    """What is to be different; at least one of the two."""

    name: Annotated[_Name | None, Field(description="The new name.")] = None
    description: Annotated[_Description | None, Field(examples=["quiet, after ten"])] = None


class ActivateProfileBody(Model):
    """All of it may be left out."""

    reason: Annotated[
        Annotated[str, StringConstraints(max_length=1000)] | None,
        Field(description="Why; it stands in the history.", examples=["the child sleeps"]),
    ] = None
    drop_unknown: Annotated[
        StrictBool,
        Field(description="Whether what is no setting, or no service, any more may be left out; else it is refused."),
    ] = False


class ProfileEntry(Model):
    """A profile without what it holds."""

    name: str
    description: str
    services: Annotated[list[str], Field(description="Those whose settings it holds.")]
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str


class ProfileList(Model):
    """All profiles by name."""

    profiles: list[ProfileEntry]


_UnknownKeys = Annotated[
    dict[str, list[str]],
    Field(description="By service, keys that its model has no more, or that are secrets now."),
]
_UnknownServices = Annotated[list[str], Field(description="Services that have left the manifest.")]


class ProfileAnswer(ProfileEntry):
    """A whole profile, and what would be different with it."""

    settings: Annotated[
        dict[str, dict[str, JsonValue]],
        Field(description="By service, what was set; everything else had its default. Secrets are in no profile."),
    ]
    plans: Annotated[
        list[PlanAnswer],
        Field(
            description="Of each service that would change, or whose model refuses a value; without what is unknown."
        ),
    ]
    unknown_keys: _UnknownKeys
    unknown_services: _UnknownServices


class ProfileDeleted(Model):
    """It is gone."""

    name: str
    message: str


class ActivationAnswer(Model):
    """What came of it; of a plan, what would."""

    revision: Annotated[
        int | None, Field(description="The one that it made; null where nothing was different, or was planned.")
    ]
    services: list[RestoredService]
    plans: Annotated[list[PlanAnswer], Field(description="With `?plan=true`: of each service that would change.")]
    unknown_keys: _UnknownKeys
    unknown_services: _UnknownServices
    message: str
