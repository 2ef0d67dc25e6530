"""Header fields of a request, read from its ASGI scope: names are bytes in lower case."""

from litestar.types import Scope

from api.problems import Problem


def fields(scope: Scope, name: bytes) -> list[bytes]:
    """Every field of that name, in order."""
    return [value for key, value in scope["headers"] if key == name]


def field(scope: Scope, name: bytes) -> bytes | None:
    """The field of that name, or None.

    Raises:
        Problem: 400 where it stands there more than once, for then it is not clear which one counts.
    """
    found = fields(scope, name)
    if len(found) > 1:
        raise Problem("malformed", f"The header field {name.decode('latin-1')} stands there more than once.")
    return found[0] if found else None
