"""The one place that says which error is which answer."""

import structlog
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from actors import OutcomeUnknown, Rejected
from api.bodies import invalid
from api.problems import Problem, quoted
from schemas.changes import GroupRefused, OverriddenByEnvironment, ReadOnly, StaleVersion
from schemas.problems import ConfigInvalid, FieldError
from schemas.status import CommandRefused, UnknownService

# Seconds after which an actor that was down or busy is worth asking again.
RETRY_AFTER = 1


def problem_of(error: Exception, *, path: str, request_id: str) -> Problem:
    """`error` as the answer that the client gets; what nobody foresaw is logged, and tells the client nothing."""
    match error:
        case Problem():
            return error
        case StaleVersion():
            current = {
                "version": error.current,
                "config_epoch": error.config_epoch,
                # A row that the start made comes from no request.
                "request_id": error.request_id or None,
            }
            return Problem("stale-version", str(error), current=current)
        case OverriddenByEnvironment():
            errors = [
                FieldError(key, f"It is set by the environment variable {key.upper()}.", "not_allowed")
                for key in error.keys
            ]
            return Problem("overridden", str(error), errors=errors)
        case GroupRefused():
            return _group_refused(error)
        case ReadOnly():
            return Problem("read-only", str(error), headers={"retry-after": str(error.retry_after)})
        case ConfigInvalid():
            return invalid(error.errors) if error.errors else Problem("invalid", str(error))
        case UnknownService():
            return Problem("unknown-service", str(error))
        case CommandRefused():
            return Problem("not-possible", str(error))
        case Rejected():
            return Problem(
                "busy",
                f"This cannot be done now: {error}. Nothing was changed; send it again.",
                headers={"retry-after": str(RETRY_AFTER)},
            )
        case OutcomeUnknown():
            return Problem(
                "outcome-unknown",
                f"It is not known whether the change was made: {error}. To find out, send the same request again with "
                "the same expected version: 200 means that it had not been made and now is; 409 whose "
                f'`current.request_id` is "{request_id}" means that it had been made.',
            )
        case NotFoundException():
            return Problem("not-found", f"There is nothing at {quoted(path)}. /docs lists what there is.")
        case MethodNotAllowedException():
            allowed = _allowed(error)
            return Problem(
                "method-not-allowed", f"This path allows {', '.join(allowed)}.", headers={"allow": ", ".join(allowed)}
            )
        case HTTPException() if error.status_code < 500:
            return Problem("malformed", f"The request cannot be read: {error.detail}.")
        case _:
            structlog.get_logger("api").error("request failed", path=path, exc_info=error)
            return Problem("internal", f"A fault of the program. The log tells more under request_id {request_id}.")


def _group_refused(refused: GroupRefused) -> Problem:
    """Of a stale version that one tells, since the others' reasons may be no more than its consequence."""
    errors: list[FieldError] = []
    for service, reason in refused.reasons.items():
        match reason:
            case StaleVersion():
                current = {
                    "version": reason.current,
                    "config_epoch": reason.config_epoch,
                    "request_id": reason.request_id or None,
                }
                return Problem("stale-version", f"{service}: {reason}. Nothing was changed.", current=current)
            case ConfigInvalid():
                errors += [FieldError(f"{service}.{each.field}", each.message, each.type) for each in reason.errors]
            case _:
                errors.append(FieldError(service, str(reason), "invalid"))
    return invalid(errors)


def _allowed(error: MethodNotAllowedException) -> list[str]:
    methods = {method.strip() for method in (error.headers or {}).get("allow", "").split(",")}
    # HEAD is answered wherever GET is; the door sees to that.
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
