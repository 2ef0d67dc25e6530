"""Profiles: what is set now, under a name, to be compared and put in force again."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Scope
from msgspec.structs import asdict
from structlog.contextvars import get_contextvars

from actors import OutcomeUnknown
from api.bodies import invalid
from api.command_bodies import read_command, read_question
from api.errors import RETRY_AFTER
from api.problems import Problem, quoted
from api.profile_models import ActivateProfileBody, ChangeProfileBody, SaveProfileBody
from api.queries import Query
from api.responses import Finished, json_answer
from api.routes import _profile_documents as documents
from api.routes._plans import plan_document
from api.routes._route import change, waiting_read
from api.state import ApiState
from api.tokens import Identity
from schemas.problems import FieldError, did_you_mean
from schemas.profiles import (
    Activated,
    Activation,
    Author,
    ProfileChange,
    ProfileExists,
    TooManyProfiles,
    UnknownProfile,
    profile_name,
)
from schemas.records import StoreUnavailable, UnknownService

T = TypeVar("T")

_ALL = "/api/config/profiles"
_ONE = f"{_ALL}/{{name:str}}"


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    calls = _Profiles(state)
    return [
        waiting_read(_ALL, documents.LIST, calls.entries, state.tokens),
        change("POST", _ALL, documents.SAVE, calls.save, state.tokens),
        waiting_read(_ONE, documents.GET, calls.compared, state.tokens),
        change("PUT", _ONE, documents.CHANGE, calls.change, state.tokens),
        change("DELETE", _ONE, documents.DELETE, calls.delete, state.tokens),
        change("PUT", f"{_ONE}/activate", documents.ACTIVATE, calls.activate, state.tokens),
    ]


class _Profiles:
    def __init__(self, state: ApiState) -> None:
        self._profiles = state.profiles
        self._services = state.board.services
        self._limits = state.limits

    async def entries(self, _: Scope, __: Identity) -> Finished:
        found = await self._answered(self._profiles.entries())
        return json_answer({"profiles": [asdict(each) for each in found]})

    async def save(self, scope: Scope, receive: Receive, identity: Identity) -> Finished:
        body = await read_question(scope, receive, self._limits, SaveProfileBody)
        name, services = _given(body.name), self._known(body.services)
        saved = self._profiles.save(
            name,
            description=body.description,
            services=services,
            replace=body.replace,
            author=_author(scope, identity),
        )
        return json_answer(asdict(await self._answered(saved)))

    async def compared(self, scope: Scope, identity: Identity) -> Finished:
        found = await self._answered(self._profiles.compared(_asked(scope), _author(scope, identity)))
        return json_answer(
            {
                **asdict(found.profile.entry),
                "settings": found.profile.settings,
                "plans": [plan_document(each) for each in found.plans],
                "unknown_keys": found.unknown_keys,
                "unknown_services": found.unknown_services,
            }
        )

    async def change(self, scope: Scope, receive: Receive, identity: Identity) -> Finished:
        name = _asked(scope)
        body = await read_question(scope, receive, self._limits, ChangeProfileBody)
        if body.name is None and body.description is None:
            raise invalid([FieldError("name", "Give it a new name, a new description, or both.", "missing")])
        wanted = ProfileChange(
            name=name,
            new_name=None if body.name is None else _given(body.name),
            description=body.description,
            author=_author(scope, identity),
        )
        return json_answer(asdict(await self._answered(self._profiles.change(wanted))))

    async def delete(self, scope: Scope, _: Receive, identity: Identity) -> Finished:
        name = _asked(scope)
        await self._answered(self._profiles.delete(name, _author(scope, identity)))
        return json_answer({"name": name, "message": "Deleted. No service's settings have changed."})

    async def activate(self, scope: Scope, receive: Receive, identity: Identity) -> Finished:
        name = _asked(scope)
        query = Query(scope)
        only_plan = query.flag("plan", default=False)
        query.check()
        body = await read_command(scope, receive, self._limits, ActivateProfileBody)
        wanted = Activation(
            name=name, drop_unknown=body.drop_unknown, author=_author(scope, identity), reason=body.reason
        )
        done = await self._answered(self._profiles.activate(wanted, only_plan=only_plan))
        return json_answer(
            {
                "revision": done.made.revision,
                "services": [
                    {
                        "service": service,
                        "version": each.version,
                        "config_epoch": each.config_epoch,
                        "message": each.message,
                    }
                    for service, each in done.made.services.items()
                ],
                "plans": [plan_document(plan) for plan in done.plans],
                "unknown_keys": done.unknown_keys,
                "unknown_services": done.unknown_services,
                "message": f"{_message(done, only_plan=only_plan)} {documents.SECRETS_STAY}",
            }
        )

    def _known(self, names: list[str] | None) -> list[str] | None:
        if names is None:
            return None
        services: Mapping[str, Any] = self._services
        unknown = [
            FieldError(
                "services", f"There is no service {quoted(each)}{did_you_mean(each, services) or '.'}", "not_allowed"
            )
            for each in dict.fromkeys(names)
            if each not in services
        ]
        if unknown:
            raise invalid(unknown)
        return list(dict.fromkeys(names))

    async def _answered(self, asked: Awaitable[T]) -> T:
        """What comes of it.

        Raises:
            Problem: 404, 409 or 422 for what there is not or is already, 503 where it cannot be read now, 504 where nobody knows.
        """
        try:
            return await asked
        except UnknownProfile as error:
            raise Problem("unknown-profile", str(error)) from error
        except ProfileExists as error:
            raise Problem("profile-exists", str(error)) from error
        except TooManyProfiles as error:
            raise Problem("too-many-profiles", str(error)) from error
        except UnknownService as error:
            raise invalid([FieldError("services", f"{error}.", "not_allowed")]) from error
        except StoreUnavailable as error:
            raise Problem(
                "busy", f"The profiles cannot be read now: {error}.", headers={"retry-after": str(RETRY_AFTER)}
            ) from error
        except OutcomeUnknown as error:
            raise Problem(
                "outcome-unknown",
                f"It is not known whether it was done: {error}. GET {_ALL} tells what profiles there are, "
                "GET /api/config/history whether one was activated; to activate it once more does no harm.",
            ) from error


def _asked(scope: Scope) -> str:
    """The profile that the path names. Raises Problem: no profile can have that name."""
    name: str = scope["path_params"]["name"]
    try:
        return profile_name(name)
    except ValueError:
        raise Problem("unknown-profile", str(UnknownProfile(name))) from None


def _given(name: str) -> str:
    try:
        return profile_name(name)
    except ValueError as error:
        raise invalid([FieldError("name", str(error), "pattern")]) from None


def _author(scope: Scope, identity: Identity) -> Author:
    client = scope.get("client")
    return Author(identity.name, get_contextvars()["request_id"], client[0] if client else None)


def _message(done: Activated, *, only_plan: bool) -> str:
    if only_plan:
        if done.refused:
            return "This would be refused; nothing would change."
        return "Not saved yet." if done.plans else "Nothing would be different."
    if done.made.revision is None:
        return "Nothing was different."
    return f"Saved: {', '.join(done.made.services)}."
