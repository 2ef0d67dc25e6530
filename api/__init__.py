"""Litestar: take, ask, return. No rule of the domain lives here.

May import `schemas`, and of `actors` only what its `__init__` exports.
"""

from api.app import create_app
from api.hosts import HostRule
from api.server import Server
from api.state import ApiState, Limits
from api.tokens import Identity, Token, Tokens

__all__ = ["ApiState", "HostRule", "Identity", "Limits", "Server", "Token", "Tokens", "create_app"]
