"""A lean HTTP/1.1 keep-alive client on asyncio streams, for loads: the same few lines on whatever side is asked."""

import asyncio
import json
from typing import Any, Self
from urllib.parse import urlsplit


class LeanClient:
    """One connection. Bodies are JSON; answers have a Content-Length."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = f"Host: {self._host}:{self._port}\r\nX-API-Token: {token}\r\n"
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body. `OSError` or `asyncio.IncompleteReadError` where the other side is gone."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + content)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        length = 0
        for line in answer.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, await self._reader.readexactly(length)

    async def patch(self, service: str, version: int, **settings: Any) -> tuple[int, dict[str, Any]]:
        body = {"service": service, "config": settings, "version": version}
        status, answer = await self.request("PATCH", f"/api/config/services/{service}", body)
        return status, json.loads(answer)

    async def version(self, service: str) -> int:
        _, answer = await self.request("GET", f"/api/config/services/{service}?include_fields=false")
        found: int = json.loads(answer)["version"]
        return found
