"""What a restore carries, and what its answer looks like; see `api.models`."""

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from api.models import PlanAnswer
from schemas.base import Model

MOST_ENTRIES = 1000

_Number = Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]


class RestoreBody(Model):
    """What is to be brought back: one of `history_entries`, `version`, `revision`, `timestamp`."""

    service: Annotated[str | None, Field(description="Null or left out: all services.", examples=["stt-worker"])] = None
    history_entries: Annotated[
        list[_Number] | None,
        Field(
            min_length=1,
            max_length=MOST_ENTRIES,
            description="Ids of entries of that service's history: what they changed is undone, whatever came after.",
            examples=[[41, 42]],
        ),
    ] = None
    version: Annotated[_Number | None, Field(description="Of that service.", examples=[3])] = None
    revision: Annotated[
        Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)] | None, Field(description="Of the store.", examples=[17])
    ] = None
    timestamp: Annotated[
        AwareDatetime | None,
        Field(description="A time with its offset: what was in force then.", examples=["2026-11-20T08:00:00Z"]),
    ] = None
    reason: Annotated[
        Annotated[str, StringConstraints(max_length=1000)] | None,
        Field(description="Why; it stands in the history.", examples=["the new voice is worse"]),
    ] = None


class RestoredService(Model):
    """A service's new version."""

    service: str
    version: int
    config_epoch: str
    message: Annotated[str, Field(description="What follows, for people.")]


class RestoreAnswer(Model):
    """What came of it; of a plan, what would."""

    revision: Annotated[
        int | None, Field(description="The one that it made; null where nothing was different, or was planned.")
    ]
    services: list[RestoredService]
    plans: Annotated[list[PlanAnswer], Field(description="With `?plan=true`: of each service that would change.")]
    left_out: Annotated[dict[str, list[str]], Field(description="By service, keys of then that the model has no more.")]
    secrets_kept: Annotated[
        dict[str, list[str]],
        Field(
            description="By service, secrets that were set otherwise then; they stay as they are, the history has no values."
        ),
    ]
    message: str
