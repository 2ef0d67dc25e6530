"""A real server over a small store of its own, on a port from the kernel."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from api import ApiState, HostRule, Limits, Server, Token, Tokens, create_app
from api.door import Door
from schemas.states import Role
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

    async def exchange(self, request: bytes, *, timeout: float = 10) -> bytes:
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


@asynccontextmanager
async def running(
    limits: Limits | None = None, *, access_log: bool = False, state: ApiState | None = None
) -> AsyncIterator[Running]:
    services = FakeServices()
    state = state or ApiState(
        board=services.board,
        change=services.change,
        tokens=Tokens([Token(role.split(".")[-1], role, secret) for role, secret in TOKENS.items()]),
        csrf_key=b"k" * 32,
        hosts=HostRule(["tars.example"]),
        version="1.2.3",
        access_log=access_log,
        limits=limits or Limits(),
    )
    app = create_app(state)
    server = Server(app, state.limits)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    await server.start([listener])
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"X-API-Token": WRITER},
        trust_env=False,
        timeout=10,
        # Loading certificates that nobody needs takes longer than most tests.
        verify=False,
    ) as client:
        try:
            yield Running(server, app, state, services, port, client)
        finally:
            async with asyncio.timeout(10):
                await server.stop(0)


@pytest.fixture
async def api() -> AsyncIterator[Running]:
    async with running() as it:
        yield it
