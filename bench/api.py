"""GET of a service's configuration, authenticated, against a bare Litestar handler that returns the same bytes.

Both run in this process, on uvicorn with httptools; the clients are another process. Rounds alternate.

    .venv/bin/python -m bench.api [rounds] [seconds a round]

Prints requests per second and the ratio's median. The bare handler asks nobody who they are, adds no header field,
and compares no Host.
"""

import asyncio
import hashlib
import multiprocessing
import socket
import statistics
import sys
import time
from typing import Annotated, Any

import orjson
import uvicorn
from litestar import Litestar, Response, get
from litestar.params import PathParameter

from actors import Board, ServiceView
from api import ApiState, HostRule, Limits, Server, Token, Tokens, create_app
from schemas.changes import ChangeAccepted, ConfigChange
from schemas.states import Role

CONNECTIONS = 8
SECRET = "benchmark-token-0123456789abcdef"
EPOCH = "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20"
FIELD = {"key": "key", "title": "A title", "description": "What it does, in a sentence.", "default": 0.5}
BODY = orjson.dumps(
    {
        "service": "stt-worker",
        "config": {f"key_{number}": number / 7 for number in range(10)},
        "version": 3,
        "updated_at": "2026-11-20T08:00:00+00:00",
        "config_epoch": EPOCH,
        "fields": [FIELD] * 10,
    }
)
PATH = "/api/config/services/stt-worker"


def load(port: int, seconds: float, answer: Any) -> None:
    """Requests one after the other in each of several connections; sends how many were answered in a second."""

    async def one(until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Token: {SECRET}\r\n\r\n".encode()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        assert await reader.readexactly(len(BODY)) == BODY
        size = len(head) + len(BODY)
        done = 0
        while time.perf_counter() < until:
            writer.write(request)
            await reader.readexactly(size)
            done += 1
        writer.close()
        return done

    async def all_of_them() -> float:
        began = time.perf_counter()
        done = await asyncio.gather(*(one(began + seconds) for _ in range(CONNECTIONS)))
        return sum(done) / (time.perf_counter() - began)

    answer.send(asyncio.run(all_of_them()))


async def measure(port: int, seconds: float) -> float:
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=load, args=(port, seconds, there))
    process.start()
    rate = await asyncio.to_thread(here.recv)
    process.join()
    return float(rate)


@get(PATH.replace("stt-worker", "{service:str}"))
async def bare(service: Annotated[str, PathParameter()]) -> Response[bytes]:
    assert service
    return Response(BODY, media_type="application/json")


def listener() -> socket.socket:
    # The explicit protocol has asyncio set TCP_NODELAY, which the bare server needs for a fair chance.
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.bind(("127.0.0.1", 0))
    return made


async def no_change(change: ConfigChange) -> ChangeAccepted:
    raise NotImplementedError(change.service)


def ours() -> Server:
    etag = f'"{EPOCH[:8]}-3-{hashlib.sha256(BODY).hexdigest()[:16]}"'
    view = ServiceView("stt-worker", 3, EPOCH, BODY, etag, BODY, etag)
    state = ApiState(
        board=Board(services={"stt-worker": view}),
        change=no_change,
        tokens=Tokens([Token("bench", Role.READ, SECRET), Token("other", Role.ADMIN, "another-token-of-somebody")]),
        csrf_key=b"k" * 32,
        hosts=HostRule.of_this_machine(),
        version="0",
        access_log=False,
    )
    return Server(create_app(state), Limits())


async def main(rounds: int, seconds: float) -> None:
    server = ours()
    socket_of_ours, socket_of_bare = listener(), listener()
    ports = (socket_of_bare.getsockname()[1], socket_of_ours.getsockname()[1])
    await server.start([socket_of_ours])
    app = Litestar([bare], openapi_config=None, logging_config=None)
    config = uvicorn.Config(app, http="httptools", loop="asyncio", lifespan="off", log_config=None, access_log=False)
    stock = uvicorn.Server(config)
    serving = asyncio.create_task(stock._serve([socket_of_bare]))
    while not stock.started:
        await asyncio.sleep(0.01)
    for port in ports:
        await measure(port, 0.5)
    ratios = []
    for number in range(rounds):
        # Whoever comes first in a round does not always come first.
        order = ports if number % 2 else ports[::-1]
        rates = {port: await measure(port, seconds) for port in order}
        ratios.append(rates[ports[1]] / rates[ports[0]])
        print(f"bare {rates[ports[0]]:8.0f}/s   ours {rates[ports[1]]:8.0f}/s   ratio {ratios[-1]:.3f}")
    print(
        f"GET, authenticated, of bare Litestar: median {statistics.median(ratios):.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f}, body {len(BODY)} bytes"
    )
    stock.should_exit = True
    await serving
    await server.stop(1)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, float(sys.argv[2]) if len(sys.argv) > 2 else 2.0))
