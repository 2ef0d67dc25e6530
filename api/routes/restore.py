"""The way back to settings of earlier."""

from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Scope
from structlog.contextvars import get_contextvars

from api.bodies import invalid
from api.command_bodies import read_question
from api.queries import Query
from api.responses import Finished, json_answer
from api.restore_models import RestoreBody
from api.routes import _restore_documents as documents
from api.routes._plans import plan_document
from api.routes._route import change
from api.routes.history import answered
from api.state import ApiState
from api.tokens import Identity
from schemas.history import Point
from schemas.problems import FieldError
from schemas.restores import Restore, Restored
from schemas.types import Revision, ServiceName, Version, service_name

_POINTS = ("history_entries", "version", "revision", "timestamp")


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    async def restore(scope: Scope, receive: Receive, identity: Identity) -> Finished:
        query = Query(scope)
        only_plan = query.flag("plan", default=False)
        query.check()
        body = await read_question(scope, receive, state.limits, RestoreBody)
        client = scope.get("client")
        wanted = Restore(
            service=_service(body),
            point=_point(body),
            entries=tuple(dict.fromkeys(body.history_entries or ())),
            changed_by=identity.name,
            request_id=get_contextvars()["request_id"],
            reason=body.reason,
            address=client[0] if client else None,
        )
        done = await answered(state.restore(wanted, only_plan=only_plan), state.board.services, field=_named(body)[0])
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
                "left_out": done.left_out,
                "secrets_kept": done.secrets,
                "message": _message(done, only_plan=only_plan),
            }
        )

    return [change("POST", "/api/config/history/restore", documents.RESTORE, restore, state.tokens)]


def _service(body: RestoreBody) -> ServiceName | None:
    if body.service is None:
        return None
    try:
        return service_name(body.service)
    except ValueError as error:
        raise invalid([FieldError("service", f"{error}.", "pattern")]) from None


def _named(body: RestoreBody) -> list[str]:
    return [each for each in _POINTS if getattr(body, each) is not None]


def _point(body: RestoreBody) -> Point | None:
    """The point that the body names; None where it names entries.

    Raises Problem: 422 where it names none or several, or a version or entries of nobody.
    """
    named = _named(body)
    if len(named) != 1:
        said = " and ".join(named) if named else "none of them"
        message = f"Name one of {', '.join(_POINTS)}; this names {said}. Nothing was changed."
        raise invalid([FieldError(named[1] if named else "", message, "conflict" if named else "missing")])
    if body.service is None and named[0] in {"history_entries", "version"}:
        message = f"Name the service whose {'entries' if named[0] == 'history_entries' else 'version'} you mean."
        raise invalid([FieldError("service", message, "missing")])
    if body.version is not None:
        return Point(version=Version(body.version))
    if body.revision is not None:
        return Point(revision=Revision(body.revision))
    return None if body.timestamp is None else Point(moment=body.timestamp)


def _message(done: Restored, *, only_plan: bool) -> str:
    if only_plan:
        return "Not saved yet." if done.plans else "Nothing would be different."
    if done.made.revision is None:
        return "Nothing was different."
    return f"Saved: {', '.join(done.made.services)}."
