"""The services' configurations: read from the board, changed by one ask to the service's actor."""

from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Scope
from structlog.contextvars import get_contextvars

from actors import ServiceView
from api.bodies import (
    JSON_TYPE,
    MERGE_PATCH_TYPE,
    ConfigChangeBody,
    content_type_fits,
    invalid,
    read_body,
    understood,
)
from api.etags import joined, none_match, revalidated, seen_versions
from api.headers import fields
from api.problems import Problem, quoted
from api.queries import Query
from api.responses import Finished, json_answer
from api.routes import _service_documents as documents
from api.routes._plans import plan_document
from api.routes._route import change, read
from api.state import ApiState
from api.strict_json import loads
from api.tokens import Identity
from schemas.changes import ConfigChange
from schemas.problems import FieldError, did_you_mean

# The service's name itself stands in the path.
_SERVICE = "/api/config/services/{service:str}"


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    calls = _Services(state)
    return [
        read("/api/config/services", documents.LIST, calls.names, state.tokens),
        read(_SERVICE, documents.GET, calls.read, state.tokens),
        change("PUT", _SERVICE, documents.PUT, calls.put, state.tokens),
        change("PATCH", _SERVICE, documents.PATCH, calls.patch, state.tokens),
        change("POST", f"{_SERVICE}/plan", documents.PLAN, calls.plan, state.tokens),
    ]


class _Services:
    def __init__(self, state: ApiState) -> None:
        self._views = state.board.services
        self._change = state.change
        self._plan = state.plan
        self._limits = state.limits

    def names(self, _: Scope, __: Identity) -> Finished:
        return json_answer({"services": list(self._views)})

    def read(self, scope: Scope, _: Identity) -> Finished:
        view = self._view(scope)
        shown = view.full
        if scope["query_string"]:
            query = Query(scope)
            shown = view.full if query.flag("include_fields", default=True) else view.short
            query.check()
        return revalidated(scope, shown.body, shown.etag)

    async def put(self, scope: Scope, receive: Receive, identity: Identity) -> Finished:
        return await self._write(scope, receive, identity, merge=False)

    async def patch(self, scope: Scope, receive: Receive, identity: Identity) -> Finished:
        return await self._write(scope, receive, identity, merge=True)

    async def plan(self, scope: Scope, receive: Receive, identity: Identity) -> Finished:
        plan = await self._plan(await self._asked(scope, receive, identity, merge=None))
        return json_answer(plan_document(plan))

    async def _write(self, scope: Scope, receive: Receive, identity: Identity, *, merge: bool) -> Finished:
        accepted = await self._change(await self._asked(scope, receive, identity, merge=merge))
        return json_answer(
            {
                "success": True,
                "version": accepted.version,
                "config_epoch": accepted.config_epoch,
                "message": accepted.message,
                "rollout": None,
            }
        )

    async def _asked(self, scope: Scope, receive: Receive, identity: Identity, *, merge: bool | None) -> ConfigChange:
        """The change that a request asks for. `merge` None: the content's type says whether it is a merge patch."""
        view = self._view(scope)
        media_type = content_type_fits(scope, (JSON_TYPE,) if merge is False else (JSON_TYPE, MERGE_PATCH_TYPE))
        merge = media_type == MERGE_PATCH_TYPE if merge is None else merge
        raw = await read_body(scope, receive, self._limits)
        body = understood(loads(raw, depth=self._limits.depth))
        if body.service != view.service:
            raise Problem(
                "service-mismatch",
                f"The path names {quoted(view.service)}, the body {quoted(body.service)}. Nothing was changed.",
            )
        # The board may have moved on while the body came.
        view = self._view(scope)
        version, epoch = _expected(scope, view, body)
        client = scope.get("client")
        return ConfigChange(
            service=view.service,
            config=body.config,
            merge=merge,
            expected_version=version,
            expected_epoch=epoch,
            changed_by=identity.name,
            origin="rest",
            request_id=get_contextvars()["request_id"],
            reason=body.reason,
            address=client[0] if client else None,
        )

    def _view(self, scope: Scope) -> ServiceView:
        name: str = scope["path_params"]["service"]
        view = self._views.get(name)
        if view is None:
            # Neither half of it is longer than the contract's names.
            raise Problem(
                "unknown-service", f"There is no service {quoted(name)}{did_you_mean(name, self._views) or '.'}"
            )
        return view


def _expected(scope: Scope, view: ServiceView, body: ConfigChangeBody) -> tuple[int, str | None]:
    """Version and epoch that the sender has seen, by the body, by `If-Match`, or by both, which must then agree.

    The actor compares them inside its transaction. What can be seen here to match nothing is passed on all the same:
    the actor's refusal tells what is current.

    Raises:
        Problem: 412 (see `api.etags`, and where `If-None-Match` matches), 422 where neither names a version, or they
            contradict each other.
    """
    refused = joined(fields(scope, b"if-none-match"))
    if refused is not None and (none_match(refused, view.full.etag) or none_match(refused, view.short.etag)):
        raise Problem("precondition-failed", "If-None-Match matches what is there. Nothing was changed.")
    if_match = joined(fields(scope, b"if-match"))
    seen = seen_versions(if_match) if if_match is not None else ()
    if not seen:
        if body.version is None:
            message = "Name the version that you have seen: as `version`, or as If-Match with the ETag of the GET."
            raise invalid([FieldError("version", message, "missing")])
        return body.version, body.config_epoch
    # Any one of a list may match; where none does, the first one says it as well as any other.
    current = (view.config_epoch[:8], view.version)
    best = next((each for each in seen if (each.epoch8, each.version) == current), seen[0])
    if body.version is not None and body.version != best.version:
        message = f"The body says version {body.version}, If-Match says {best.version}. Send one, or the same."
        raise invalid([FieldError("version", message, "conflict")])
    if body.config_epoch is not None:
        if body.config_epoch[:8] != best.epoch8:
            message = f"The body says epoch {quoted(body.config_epoch)}, If-Match {quoted(best.epoch8)}."
            raise invalid([FieldError("config_epoch", message, "conflict")])
        return best.version, body.config_epoch
    # An entity tag holds the first eight digits only; those of another epoch than the board's match none.
    return best.version, view.config_epoch if best.epoch8 == view.config_epoch[:8] else best.epoch8
