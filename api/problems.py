"""Errors as RFC 9457 problem details.

Each kind has a code, a status and a title; each problem a sentence that says what is wrong and what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from api.responses import NO_STORE, Finished, Headers, json_answer
from schemas.problems import FieldError

PROBLEM_TYPE: Final = b"application/problem+json"
# RFC 8141, section 5.1: an informal use, never registered; it names and need not lead anywhere.
PREFIX: Final = "urn:tars-supervisor:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """`meaning` is for the documentation: when it comes, and what a client does about it."""

    code: str
    status: int
    title: str
    meaning: str


_ALL: Final = (
    Kind(
        "malformed",
        400,
        "Malformed request",
        (
            "The request, its JSON or one of its header fields cannot be read. Where it is a value that is no JSON, such as "
            "NaN, `errors` names its field. Mend the client."
        ),
    ),
    Kind(
        "service-mismatch",
        400,
        "Body and path differ",
        "`service` in the body is another one than in the path. Nothing was changed.",
    ),
    Kind(
        "unauthorized",
        401,
        "No valid token",
        "Send a configured token as `X-API-Token`.",
    ),
    Kind(
        "forbidden",
        403,
        "Role not sufficient",
        "The token is known; its role does not include this call.",
    ),
    Kind(
        "not-found",
        404,
        "Not found",
        "There is nothing at this path.",
    ),
    Kind(
        "unknown-service",
        404,
        "Unknown service",
        "The manifest has no service of that name.",
    ),
    Kind(
        "unknown-profile",
        404,
        "Unknown profile",
        "There is no profile of that name.",
    ),
    Kind(
        "method-not-allowed",
        405,
        "Method not allowed",
        "`Allow` lists the methods that this path has.",
    ),
    Kind(
        "timeout",
        408,
        "Request too slow",
        "The content did not arrive in time. Nothing was changed.",
    ),
    Kind(
        "stale-version",
        409,
        "Stale version",
        (
            "Somebody else's change came first; `current` tells the version, its epoch and the `request_id` "
            "of the change that made it. Where that is your own, your change was made. Else GET, apply your "
            "change again, and send it."
        ),
    ),
    Kind(
        "overridden",
        409,
        "Set by the environment",
        "An environment variable of the supervisor wins over the store for these keys.",
    ),
    Kind(
        "not-possible",
        409,
        "Not possible for this service",
        "The service has no worker that this could be asked of. Nothing was done.",
    ),
    Kind(
        "profile-exists",
        409,
        "Name is taken",
        "Another profile has that name: choose another one, or save with `replace`. Nothing was changed.",
    ),
    Kind(
        "too-many-profiles",
        409,
        "Too many profiles",
        "There are as many profiles as there can be: delete or replace one. Nothing was changed.",
    ),
    Kind(
        "precondition-failed",
        412,
        "Precondition failed",
        "`If-Match` can match nothing, or `If-None-Match` does match. Nothing was changed.",
    ),
    Kind(
        "too-large",
        413,
        "Content too large",
        "The body is over the limit. Nothing was changed.",
    ),
    Kind(
        "unsupported-type",
        415,
        "Unsupported content",
        "The body must be JSON in UTF-8, not compressed, with a `Content-Type` that says so.",
    ),
    Kind(
        "unknown-host",
        421,
        "Unknown host",
        ("`Host` is none of this server's names. Call it by its address, `localhost` or the machine's name."),
    ),
    Kind(
        "invalid",
        422,
        "Invalid values",
        "`errors` names every field that is wrong. Nothing was changed.",
    ),
    Kind(
        "too-many-streams",
        429,
        "Too many streams",
        "As many streams are open as there may be, of this token or in all: ask again after `Retry-After` seconds.",
    ),
    Kind(
        "head-too-large",
        431,
        "Header fields too large",
        "Request line and header fields are over the limit.",
    ),
    Kind(
        "internal",
        500,
        "Internal error",
        "A fault of the program; the log has it under the `request_id`.",
    ),
    Kind(
        "busy",
        503,
        "Not available now",
        (
            "The part that would do this is starting, restarting or has too much to do. Nothing was changed: "
            "send it again after `Retry-After` seconds."
        ),
    ),
    Kind(
        "read-only",
        503,
        "The store cannot be written now",
        "Reading goes on. Nothing was changed: send it again after `Retry-After` seconds.",
    ),
    Kind(
        "outcome-unknown",
        504,
        "Outcome unknown",
        "It may have been done or not. `detail` says how to find out.",
    ),
)
KINDS: Final[Mapping[str, Kind]] = {kind.code: kind for kind in _ALL}


class Problem(Exception):
    """What goes wrong on the way to an answer, as that answer.

    `headers` and `members` (such as `errors`, `current`) are added to what every problem has.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = KINDS[code]
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members
        if errors:
            self.members["errors"] = [asdict(error) for error in errors]

    def document(self, request_id: str) -> dict[str, Any]:
        """The body, before it is JSON."""
        kind = self.kind
        return {
            "type": f"{PREFIX}{kind.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.members,
        }

    def answer(self, request_id: str, headers: Headers = ()) -> Finished:
        """The answer, with `headers` too. No field may hold a line break; `detail` may hold anything."""
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        return json_answer(
            self.document(request_id),
            status=self.kind.status,
            headers=(NO_STORE, *fields, *headers),
            media_type=PROBLEM_TYPE,
        )


def quoted(text: str, limit: int = 80) -> str:
    """`text` from outside for a sentence: in quotes, cut at `limit`."""
    return f'"{text[:limit]}…"' if len(text) > limit else f'"{text}"'
