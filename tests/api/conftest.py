"""A real server over a small store of its own, on a port from the kernel."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import pytest

from actors import Events
from api import ApiState, HostRule, Limits, Server, Token, Tokens, create_app
from api.app import all_routes
from api.door import Door
from api.openapi import openapi_document
from api.routes.documentation import described_by
from api.state import AccessLog
from schemas.states import Role
from tests.api.fake_history import FakeHistory
from tests.api.fake_profiles import FakeProfiles
from tests.api.fake_services import FakeServices

READER, WRITER, ADMIN = "reader-token-000", "writer-token-000", "admin-token-0000"
TOKENS = {Role.READ: READER, Role.WRITE: WRITER, Role.ADMIN: ADMIN}


@dataclass
class Running:
    """A server that runs, and what it stands on."""

    server: Server
    app: Door
    state: ApiState
    services: FakeServices
    port: int
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def exchange(self, request: bytes, *, timeout: float = 30) -> bytes:
        """Send `request` as it is, and return everything that comes until the server closes, in order or not."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            async with asyncio.timeout(timeout):
                writer.write(request)
                with contextlib.suppress(ConnectionResetError):
                    while part := await reader.read(65536):
                        answer += part
                return answer
        finally:
            writer.close()


def state_over(
    services: FakeServices, limits: Limits | None = None, *, access_log: AccessLog | None = None
) -> ApiState:
    return ApiState(
        board=services.board,
        change=services.change,
        plan=services.plan,
        tokens=Tokens([Token(role.split(".")[-1], role, secret) for role, secret in TOKENS.items()]),
        csrf_key=b"k" * 32,
        hosts=HostRule(["tars.example"]),
        version="1.2.3",
        command=services.workers.command,
        reload=services.workers.reload,
        history=FakeHistory(),
        restore=services.restore,
        profiles=FakeProfiles(),
        output=services.workers.outputs.get,
        events=Events(),
        access_log=access_log,
        limits=limits or Limits(),
    )


@cache
def documented() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Each path of the OpenAPI document as a pattern, with its operations."""
    described = described_by(all_routes(state_over(FakeServices())))
    paths = openapi_document(described, "1.2.3")["paths"]
    return [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), item) for path, item in paths.items()]


async def is_documented(response: httpx.Response) -> None:
    """Fail the test that meets an answer which the OpenAPI document does not have."""
    method = response.request.method.lower().replace("head", "get")
    for pattern, item in documented():
        if pattern.fullmatch(response.url.path) and method in item:
            answer = item[method]["responses"][str(response.status_code)]
            found = response.headers.get("content-type", "").partition(";")[0]
            assert found in answer.get("content", {"": None}), (found, response.url)


@asynccontextmanager
async def running(
    limits: Limits | None = None, *, access_log: AccessLog | None = None, state: ApiState | None = None
) -> AsyncIterator[Running]:
    services = FakeServices()
    state = state or state_over(services, limits, access_log=access_log)
    app = create_app(state)
    server = Server(app, state.limits)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    await server.start([listener])
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"X-API-Token": WRITER},
        trust_env=False,
        timeout=30,
        # Loading certificates that nobody needs takes longer than most tests.
        verify=False,
        event_hooks={"response": [is_documented]},
    ) as client:
        try:
            yield Running(server, app, state, services, port, client)
        finally:
            async with asyncio.timeout(30):
                await server.stop(0)


@pytest.fixture
async def api() -> AsyncIterator[Running]:
    async with running() as it:
        yield it
