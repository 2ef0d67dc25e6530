"""What probes ask: a connection, a GET, a command.

Each gives a sentence, or raises `Failed` or `OSError`, and leaves nothing open, also where it is cancelled.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

from actors.process import Command, SpawnFailed, run_to_end

Question = Callable[[], Awaitable[str]]
"""Asks once. Cancelled at the deadline, or when the probe is stopped."""

MAX_HEAD = 16 * 1024
"""Bytes of an answer in which its status has to be."""

_AS_THEY_ARE = "%/?:@!$&'()*+,;=~-._[]"
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([^\r\n]*))?\r?\n")


class Failed(Exception):
    """There was an answer, and it is not a good one; the message says what it was."""


def tcp(host: str, port: int) -> Question:
    """Ask for a connection."""

    async def question() -> str:
        _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
        return f"{host}:{port} accepts connections"

    return question


def http(url: str) -> Question:
    """Ask for a page with GET: a status of 200 to 399 is a good answer (RFC 9110). Redirections are not followed.

    A certificate is not verified: it is asked whether the worker answers, not who it is; nothing secret is sent.
    """
    parts = urlsplit(url)
    secure, host = parts.scheme == "https", parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_THEY_ARE)
    name = f"[{host}]" if ":" in host else host
    authority = name if parts.port is None else f"{name}:{port}"
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {authority}",
        "User-Agent: tars-supervisor",
        "Accept: */*",
        "Connection: close",
    )
    request = "\r\n".join((*lines, "", "")).encode()
    context = _unverified() if secure else None

    async def question() -> str:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=MAX_HEAD)
        try:
            writer.write(request)
            status = await _status(reader)
        finally:
            writer.transport.abort()
        if not 200 <= status < 400:
            raise Failed(f"{url} answers with status {status}")
        return f"{url} answers with status {status}"

    return question


async def _status(reader: asyncio.StreamReader) -> int:
    """Read the status of the first answer that is not an interim one (RFC 9110, 15.2)."""
    status = read = 0
    while read <= MAX_HEAD:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            raise Failed("the connection was closed before there was an answer") from error
        except asyncio.LimitOverrunError:
            break
        read += len(line)
        if status:
            # A line of an interim answer; an empty one is its end.
            status = status if line.strip() else 0
            continue
        found = _STATUS.fullmatch(line)
        if found is None:
            break
        status = int(found[1])
        if status >= 200:
            return status
    raise Failed("what answers is not HTTP")


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def execute(command: Callable[[], Command]) -> Question:
    """Ask a command: exit status 0 is a good answer. What it has started is killed with it, as a process group.

    `command` is called for each try, since a worker's environment may have changed.
    """

    async def question() -> str:
        asked = command()
        try:
            how, words = await run_to_end(asked)
        except SpawnFailed as error:
            raise Failed(str(error)) from error
        if not how.clean:
            raise Failed(f"{asked.argv[0]} {how}{f': {words}' if words else ''}")
        return words or f"{asked.argv[0]} {how}"

    return question
