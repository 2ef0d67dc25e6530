"""Who reads a stream, and within which bounds."""

from litestar.types import Scope

from api.problems import Problem
from api.routes._route import authorize
from api.state import ApiState
from api.streams import Reader
from api.tokens import Identity
from schemas.states import Role


def reader_of(scope: Scope, identity: Identity, role: Role, state: ApiState) -> Reader:
    """Whoever the request is from, for as long as it would be let in again."""

    def still_may() -> bool:
        try:
            authorize(scope, state.tokens, role)
        except Problem:
            return False
        return True

    limits = state.limits
    return Reader(
        name=identity.name,
        still_may=still_may,
        most=limits.streams,
        most_each=limits.streams_of_a_token,
        heartbeat_seconds=limits.heartbeat_seconds,
    )
