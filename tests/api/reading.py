"""Clients that read streams."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.api.conftest import READER, Running

EVENTS = "/api/events"
FOLLOW = "/api/services/stt-worker/logs?follow=true"


class Lines:
    """The lines of a stream, one at a time, with a deadline. Only a line feed ends one, unlike in `aiter_lines`."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._parts = response.aiter_bytes()
        self._begun = b""

    async def next(self) -> str:
        async with asyncio.timeout(30):
            while b"\n" not in self._begun:
                self._begun += await anext(self._parts)
        line, _, self._begun = self._begun.partition(b"\n")
        return line.decode()

    async def rest(self) -> list[str]:
        """Every line to the end, which has to come properly."""
        async with asyncio.timeout(30):
            rest = b"".join([self._begun, *[part async for part in self._parts]])
        assert rest.endswith(b"\n") or not rest
        return rest.decode().split("\n")[:-1]


@asynccontextmanager
async def reading(api: Running, path: str, *, token: str = READER, **headers: str) -> AsyncIterator[Lines]:
    async with api.client.stream("GET", path, headers={"X-API-Token": token, **headers}) as response:
        yield Lines(response)


@asynccontextmanager
async def not_reading(api: Running, path: str) -> AsyncIterator[socket.socket]:
    """A client that has asked, and whose kernel takes little."""
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(client, ("127.0.0.1", api.port))
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Token: {READER}\r\n\r\n"
        await loop.sock_sendall(client, request.encode())
        yield client
    finally:
        client.close()


async def everything(client: socket.socket) -> bytes:
    """What comes until the server ends it, in whatever way."""
    loop, parts = asyncio.get_running_loop(), []
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            while part := await loop.sock_recv(client, 65536):
                parts.append(part)
    return b"".join(parts)
