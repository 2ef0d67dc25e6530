"""Who calls, and their CSRF token."""

from datetime import UTC, datetime

from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from api.csrf import CsrfTokens
from api.documents import Answer, Content, Operation
from api.models import CsrfToken, Me
from api.responses import Finished, json_answer
from api.routes._route import read
from api.state import ApiState
from api.tokens import Identity
from schemas.states import PERMISSIONS, Role

GET_ME = Operation(
    id="getMe",
    summary="Who I am, and what I may do",
    description="The token's name, its role, and every role that this one includes.",
    tag="Identity",
    role=Role.READ,
    answers={
        200: Answer(
            "The identity behind the token.",
            Content(Me, {"name": "owner", "role": "config.write", "permissions": ["config.read", "config.write"]}),
        )
    },
)
GET_CSRF_TOKEN = Operation(
    id="getCsrfToken",
    summary="A CSRF token",
    description="To be sent as `X-CSRF-Token`; a call under `X-API-Token` needs none. It survives a restart.",
    tag="Identity",
    role=Role.READ,
    answers={
        200: Answer(
            "The token, and when it ends.",
            Content(
                CsrfToken,
                {"csrf_token": f"1795204800.{'0123456789abcdef' * 4}", "expires_at": "2026-11-20T20:00:00Z"},
            ),
        )
    },
)


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    csrf = CsrfTokens(state.csrf_key)

    def me(_: Scope, identity: Identity) -> Finished:
        permissions = PERMISSIONS[identity.role]
        return json_answer({"name": identity.name, "role": identity.role, "permissions": permissions})

    def csrf_token(_: Scope, identity: Identity) -> Finished:
        token, expires = csrf.issue(identity.name, datetime.now(UTC))
        return json_answer({"csrf_token": token, "expires_at": expires})

    return [
        read("/api/config/me", GET_ME, me, state.tokens),
        read("/api/config/csrf-token", GET_CSRF_TOKEN, csrf_token, state.tokens),
    ]
