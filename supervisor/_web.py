"""The REST API over what the wiring has. The only module that imports the web stack, which is more than half of a start."""

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from api import ApiState, HostRule, Server, Token, Tokens, create_app
from schemas.states import Role
from supervisor import __version__
from supervisor.boot import Boot
from supervisor.logging import Log


def make_server(boot: Boot, log: Log, **parts: Any) -> Server:
    """Give the server, which takes no request yet. `parts`: of `ApiState`, what the wiring has."""
    settings = boot.settings
    state = ApiState(
        **parts,
        tokens=Tokens(
            Token(name=token.name, role=Role(token.role), secret=token.token.get_secret_value())
            for token in settings.api_tokens
        ),
        csrf_key=HKDF(hashes.SHA256(), 32, salt=None, info=b"tars csrf v1").derive(boot.keys.hmac),
        hosts=HostRule.of_this_machine(settings.api_host),
        version=__version__,
        access_log=log.access if settings.enable_access_log and log.tells_access else None,
    )
    return Server(create_app(state), state.limits)
