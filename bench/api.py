"""GET of a service's configuration, authenticated, against a bare Litestar handler that returns the same bytes.

Both run in this process, on uvicorn with httptools; the clients are another process. Rounds alternate.

    .venv/bin/python -m bench.api [rounds] [seconds a round]

Prints requests per second, CPU per request (which other programs on the machine disturb less), and ratios. The bare
handler asks nobody who they are, adds no header field, and compares no Host.
"""

import asyncio
import hashlib
import multiprocessing
import socket
import sys
import time
from statistics import median, quantiles
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


def client(orders: Any) -> None:
    """Takes (port, seconds) and answers with requests per second, until None comes."""
    while (order := orders.recv()) is not None:
        orders.send(asyncio.run(load(*order)))


async def load(port: int, seconds: float) -> tuple[int, float]:
    """Requests one after the other in each of several connections: how many were answered, and in what time."""
    request = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Token: {SECRET}\r\n\r\n".encode()

    async def one(until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        assert await reader.readexactly(len(BODY)) == BODY
        size = len(head) + len(BODY)
        done = 1
        while time.perf_counter() < until:
            writer.write(request)
            await reader.readexactly(size)
            done += 1
        writer.close()
        return done

    began = time.perf_counter()
    done = await asyncio.gather(*(one(began + seconds) for _ in range(CONNECTIONS)))
    return sum(done), time.perf_counter() - began


async def measure(orders: Any, port: int, seconds: float) -> tuple[float, float]:
    """Requests per second, and microseconds of this process's CPU for each."""
    answered = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(orders.fileno(), lambda: answered.set_result(orders.recv()))
    cpu = time.process_time()
    orders.send((port, seconds))
    done, took = await answered
    asyncio.get_running_loop().remove_reader(orders.fileno())
    return done / took, (time.process_time() - cpu) / done * 1e6


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
    orders, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=client, args=(theirs,))
    process.start()
    theirs.close()  # so that the end of the client's process is an error here and no wait
    for port in ports:
        await measure(orders, port, 1)
    rates: dict[int, list[float]] = {port: [] for port in ports}
    costs: dict[int, list[float]] = {port: [] for port in ports}
    for number in range(rounds):
        # Whoever comes first in a round does not always come first.
        for port in ports if number % 2 else ports[::-1]:
            rate, cost = await measure(orders, port, seconds)
            rates[port].append(rate)
            costs[port].append(cost)
    orders.send(None)
    process.join()
    for name, port in zip(("bare Litestar", "ours"), ports, strict=True):
        print(f"{name:14} {median(rates[port]):7.0f} requests/s   {median(costs[port]):6.1f} us CPU each")
    faster = [ours / bare for bare, ours in zip(*rates.values(), strict=True)]
    dearer = [ours / bare for bare, ours in zip(*costs.values(), strict=True)]
    print(
        f"GET, authenticated, of bare Litestar's rate: median {median(faster):.2f}, quartiles "
        f"{quantiles(faster)[0]:.2f} to {quantiles(faster)[2]:.2f}; of its CPU: {median(dearer):.2f}"
    )
    stock.should_exit = True
    await serving
    await server.stop(1)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40, float(sys.argv[2]) if len(sys.argv) > 2 else 0.25))
