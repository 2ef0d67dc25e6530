"""What a command or a question carries: a small JSON object; for a command it may be nothing at all."""

from typing import Any, TypeVar

from litestar.types import Receive, Scope
from pydantic import ValidationError

from api.bodies import JSON_TYPE, content_type_fits, invalid, read_body
from api.problems import Problem
from api.state import Limits
from api.strict_json import loads
from schemas.base import Model
from schemas.problems import FieldError, unknown_keys

M = TypeVar("M", bound=Model)


async def read_command(scope: Scope, receive: Receive, limits: Limits, model: type[M]) -> M:
    """The request's content as `model`, which holds where there is none.

    Raises:
        Problem: see `api.bodies.read_body` and `api.strict_json.loads`; 415 and 422, the latter with every mistake.
    """
    raw = await read_body(scope, receive, limits)
    return _understood(scope, raw, limits, model) if raw else model()


async def read_question(scope: Scope, receive: Receive, limits: Limits, model: type[M]) -> M:
    """The same where there has to be a content."""
    return _understood(scope, await read_body(scope, receive, limits), limits, model)


def _understood(scope: Scope, raw: bytes, limits: Limits, model: type[M]) -> M:
    content_type_fits(scope, (JSON_TYPE,))
    document = loads(raw, depth=limits.depth)
    if not isinstance(document, dict):
        raise Problem(
            "invalid", "The body must be a JSON object.", errors=[FieldError("", "It must be an object.", "wrong_type")]
        )
    known = tuple(model.model_fields)
    errors = unknown_keys([key for key in document if key not in known], known)
    try:
        body = model.model_validate({key: document[key] for key in known if key in document})
    except ValidationError as error:
        errors += [_said(each) for each in error.errors(include_url=False, include_input=False)]
        raise invalid(errors) from None
    if errors:
        raise invalid(errors)
    return body


def _said(error: Any) -> FieldError:
    key = str(error["loc"][0])
    match error["type"]:
        case "missing":
            return FieldError(key, "It is missing.", "missing")
        case "bool_type":
            return FieldError(key, "It must be true or false.", "wrong_type")
        case "float_type":
            return FieldError(key, "It must be a number of seconds.", "wrong_type")
        case "int_type":
            return FieldError(key, "It must be a whole number.", "wrong_type")
        case "literal_error":
            return FieldError(key, f"It must be {error['ctx']['expected']}.", "not_allowed")
        case "string_type":
            return FieldError(key, "It must be a string.", "wrong_type")
        case "greater_than_equal":
            return FieldError(key, f"It must be at least {error['ctx']['ge']:g}.", "out_of_range")
        case "less_than_equal":
            return FieldError(key, f"It must be at most {error['ctx']['le']:g}.", "out_of_range")
        case "string_too_long":
            return FieldError(key, f"It must have at most {error['ctx']['max_length']} characters.", "too_long")
        case _:
            return FieldError(key, f"{error['msg']}.", "invalid")
