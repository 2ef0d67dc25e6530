"""A request's body: read within bounds of size and time, and understood as a change."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from litestar.types import Receive, Scope
from pydantic import Field, StringConstraints, ValidationError

from api.headers import field
from api.problems import Problem, quoted
from api.state import Limits
from schemas.base import Model
from schemas.problems import FieldError, unknown_keys
from schemas.types import Epoch

JSON_TYPE = "application/json"
MERGE_PATCH_TYPE = "application/merge-patch+json"
WHOLE_CONTENT = "tars.whole-content"
"""The extension of a scope in which our server hands over content that had all come when the request began."""


class ConfigChangeBody(Model):
    """What a PUT or PATCH of a service's configuration carries."""

    service: Annotated[str, Field(description="The service, as in the path.", examples=["stt-worker"])]
    config: Annotated[
        dict[str, Any],
        Field(
            description=(
                "PUT: the whole object as a GET shows it, with changes; a key that is left out returns to its default, "
                "a secret that is left out or sent as the mask `********` is unchanged. PATCH: a merge patch "
                "(RFC 7396); `null` returns a key to its default."
            ),
            examples=[{"log_level": "debug"}],
        ),
    ]
    version: Annotated[
        int | None,
        Field(ge=1, le=2**63 - 1, strict=True, description="The version that you have seen; else send `If-Match`."),
    ] = None
    config_epoch: Annotated[
        Epoch | None,
        Field(description="The epoch that you have seen, a UUID; it is compared where given."),
    ] = None
    reason: Annotated[
        Annotated[str, StringConstraints(max_length=1000)] | None,
        Field(description="Why; it stands in the history.", examples=["too many false alarms"]),
    ] = None


KNOWN = tuple(ConfigChangeBody.model_fields)
# Parts of the contract that need a rollout: refused in words, so that nobody believes in a safety net that is not there.
_ROLLOUT = ("confirm", "deadline_s")


def content_type_fits(scope: Scope, allowed: Sequence[str]) -> str:
    """Give the content's type, one of these. Raises Problem 415: it is not announced as JSON in UTF-8, or it is compressed."""
    announced = field(scope, b"content-type")
    expected = " or ".join(allowed)
    if announced is None:
        raise Problem("unsupported-type", f"The body needs a Content-Type: {expected}.")
    media_type, _, parameters = announced.decode("latin-1").partition(";")
    if media_type.strip().lower() not in allowed:
        raise Problem("unsupported-type", f"Content-Type is {quoted(media_type.strip())}; send {expected}.")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if charset.startswith("charset=") and charset not in {"charset=utf-8", "charset=utf8"}:
        raise Problem("unsupported-type", "JSON is sent in UTF-8 (RFC 8259, section 8.1); leave the charset out.")
    if (coding := field(scope, b"content-encoding")) not in {None, b"identity"}:
        raise Problem("unsupported-type", f"Content-Encoding {quoted(str(coding, 'latin-1'))}: send it as it is.")
    return media_type.strip().lower()


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The whole content of the request.

    Raises:
        Problem: 413 where it is over the limit (told by its length before any of it is read, or by what has come),
            408 where it does not come in time, 400 where the client goes away in the middle.
    """
    announced = field(scope, b"content-length")
    # The parser lets nothing but digits through.
    if announced is not None and int(announced) > limits.body:
        raise _too_large(limits)
    extensions: Any = scope.get("extensions")
    if extensions is not None and (content := extensions.get(WHOLE_CONTENT)) is not None:
        if len(content) > limits.body:
            raise _too_large(limits)
        return bytes(content)
    try:
        # A timer on the loop costs less than the wait that most requests do not need.
        async with asyncio.timeout(limits.body_seconds):
            return await _read(receive, limits)
    except TimeoutError:
        raise Problem(
            "timeout",
            f"The content did not arrive within {limits.body_seconds:g} s. Nothing was changed.",
            headers={"connection": "close"},
        ) from None


async def _read(receive: Receive, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            raise Problem("malformed", "The connection ended before the content did. Nothing was changed.")
        part = message["body"]
        size += len(part)
        if size > limits.body:
            raise _too_large(limits)
        parts.append(part)
        if not message["more_body"]:
            return b"".join(parts)


def _too_large(limits: Limits) -> Problem:
    return Problem("too-large", f"The body is over the limit of {limits.body} bytes. Nothing was changed.")


def understood(document: Any) -> ConfigChangeBody:
    """The change that `document` describes.

    Raises:
        Problem: 422, with every mistake at once.
    """
    try:
        return ConfigChangeBody.model_validate(document)
    except ValidationError:
        return _understood_in_part(document)


def _understood_in_part(document: Any) -> ConfigChangeBody:
    """The change, where there was nothing more than members of a rollout that ask for none."""
    if not isinstance(document, dict):
        raise Problem("invalid", "The body must be a JSON object.", errors=[_wrong("", "It must be an object.")])
    errors = unknown_keys([key for key in document if key not in KNOWN and key not in _ROLLOUT], KNOWN)
    errors += [
        FieldError(
            key,
            "This release has no rollouts that wait for a confirmation: leave it out. Nothing was changed.",
            "invalid",
        )
        for key in _ROLLOUT
        if document.get(key) is not None
    ]
    try:
        body = ConfigChangeBody.model_validate({key: document[key] for key in KNOWN if key in document})
    except ValidationError as error:
        errors += [_said(each) for each in error.errors(include_url=False, include_input=False)]
    if errors:
        raise invalid(errors)
    return body


def invalid(errors: Sequence[FieldError]) -> Problem:
    """422, whose detail names the first mistake and how many more there are."""
    first = errors[0]
    more = f" ({len(errors) - 1} more in `errors`)" if len(errors) > 1 else ""
    where = f"{first.field}: " if first.field and quoted(first.field) not in first.message else ""
    return Problem("invalid", f"{where}{first.message}{more}", errors=errors)


def _wrong(key: str, message: str) -> FieldError:
    return FieldError(key, message, "wrong_type")


def _said(error: Any) -> FieldError:
    """One of Pydantic's errors in our words; its input is never repeated, which may hold a secret."""
    key = ".".join(str(part) for part in error["loc"][:1])
    match error["type"]:
        case "missing":
            return FieldError(key, "It is missing.", "missing")
        case "string_type":
            return _wrong(key, "It must be a string.")
        case "dict_type":
            return _wrong(key, "It must be an object.")
        case "int_type" | "int_from_float":
            return _wrong(key, "It must be a whole number.")
        case "string_pattern_mismatch":
            return FieldError(key, "It must be a UUID, in lower case, as a GET shows it.", "pattern")
        case "greater_than_equal":
            return FieldError(key, "It must be at least 1.", "out_of_range")
        case "less_than_equal":
            return FieldError(key, "It is larger than any version.", "out_of_range")
        case "string_too_long":
            return FieldError(key, f"It must have at most {error['ctx']['max_length']} characters.", "too_long")
        case _:
            return FieldError(key, f"{error['msg']}.", "invalid")
