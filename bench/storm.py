"""The supervisor while a hundred clients reconnect to its embedded broker, next to the supervisor in peace.

The real program, whose six services are configuration alone, and one lean client that asks it one thing at a time: blocks of
GETs and PATCHes of one service in peace, and the same while a process of its own lets a hundred clients come in waves: all
connect at once, log in, subscribe to `system/#`, get what is retained there, and vanish without a word; then the next wave.

Then, how soon a broker that is killed is back with all that it retained: from the end of its process to the moment its port
accepts connections, and from there to the moment a subscriber has seen every service.
"""

import asyncio
import contextlib
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

from actors.mqtt import packets
from bench._harness import Bar, Row, Run, Series
from tests.system.agreement import Retained, stored
from tests.system.lean import LeanClient
from tests.system.program import Address, Program, config_only_manifest

CLIENTS = 100
REQUESTS = 300
RESTARTS = 5
PAUSE = 0.2
"""Seconds between two waves."""
SERVICES = 6
SERVICE = "service-000"


async def _visit(broker: Address) -> None:
    """Connect, log in, subscribe, get what is retained, and vanish."""
    reader, writer = await asyncio.open_connection(broker.host, broker.port)
    try:
        login = packets.Connect(
            client_id="",
            clean_session=True,
            keep_alive=60,
            username=broker.user or "",
            password=(broker.password or "").encode(),
            will=None,
        )
        writer.write(packets.connect(login) + packets.subscribe(1, [("system/#", 1)]))
        framer, left = packets.Framer(1 << 20), SERVICES
        while left > 0:
            data = await reader.read(65536)
            assert data, "closed by the broker"
            framer.feed(data)
            while (packet := framer.next()) is not None:
                if packet[:1] == (0x20,) and packet[1] != b"\0\0":
                    return  # "too many of this user", of the wave before, whose end the broker has not seen
                left -= b"system/config/" in packet[1][:20]
    finally:
        writer.transport.abort()


async def storm(broker: Address) -> None:
    """Waves until the process is ended; says so after each."""
    while True:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(_visit(broker))
        with contextlib.suppress(BrokenPipeError):
            os.write(1, b".")
        await asyncio.sleep(PAUSE)


@contextlib.contextmanager
def _stormy(broker: Address) -> Iterator[None]:
    """A storm in a process of its own, from its second wave on."""
    command = [sys.executable, "-m", "bench.storm", broker.host, str(broker.port)]
    login = {"STORM_USER": broker.user or "", "STORM_PASSWORD": broker.password or ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **login})
    assert process.stdout is not None
    try:
        assert process.stdout.read(1), "the storm did not begin"
        yield
    finally:
        running = process.poll() is None
        process.kill()
        process.stdout.close()
        process.wait()
    assert running, "the storm ended by itself"


async def _taken(request: Callable[[], Awaitable[None]]) -> list[float]:
    taken = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        await request()
        taken.append(time.perf_counter() - began)
    return taken


async def _measure(program: Program, blocks: int) -> dict[tuple[str, str], Series]:
    """By request and by weather; both of them see each block."""
    found = {(what, weather): Series("us") for what in ("GET", "PATCH") for weather in ("idle", "storm")}
    async with LeanClient(program.url, program.token) as client:
        version = await client.version(SERVICE)

        async def get() -> None:
            status, _ = await client.request("GET", f"/api/config/services/{SERVICE}")
            assert status == 200, status

        async def change() -> None:
            nonlocal version
            status, answer = await client.patch(SERVICE, version, router_wake_ack_text=f"value {version}")
            assert status == 200, answer
            version = answer["version"]

        requests = {"GET": get, "PATCH": change}
        for request in requests.values():
            await _taken(request)
        for _ in range(blocks):
            for weather in ("idle", "storm"):
                with _stormy(program.broker) if weather == "storm" else contextlib.nullcontext():
                    for what, request in requests.items():
                        found[what, weather].blocks.append(statistics.median(await _taken(request)) * 1e6)
    return found


async def _killed(program: Program) -> tuple[float, float]:
    """Seconds from the end of the broker's process to its port, and from there to everything retained."""
    process = program.workers()["embedded-broker"]
    ended = os.pidfd_open(process)
    os.kill(process, signal.SIGKILL)
    select.select([ended], [], [])
    os.close(ended)
    killed = time.monotonic()
    while True:
        try:
            _, writer = await asyncio.open_connection(program.broker.host, program.broker.port)
        except OSError:
            await asyncio.sleep(0.002)
        else:
            writer.close()
            break
    back = time.monotonic()
    async with Retained(program.broker) as retained:
        await retained.until(stored(program.folder), timeout=30)
    return back - killed, time.monotonic() - back


def rows(run: Run) -> Iterator[Row]:
    """The embedded broker under a storm, and killed."""
    program = Program(run.folder / "program", config_only_manifest(SERVICES))
    listening, right = Series("ms"), Series("ms")
    try:
        program.start()
        found = asyncio.run(_measure(program, run.blocks))
        for _ in range(run.count(RESTARTS)):
            for series, seconds in zip((listening, right), asyncio.run(_killed(program)), strict=True):
                series.blocks.append(seconds * 1000)
        program.stop()
    finally:
        program.close()
    for what in ("GET", "PATCH"):
        pair = found[what, "storm"], found[what, "idle"]
        yield Row("storm", f"{what} p50 while {CLIENTS} clients reconnect", *pair, "in peace", bar=Bar(2.0))
    yield Row("storm", "embedded broker killed: listens again", listening)
    yield Row("storm", "  everything retained is there after that", right, bar=Bar(1000))


if __name__ == "__main__":
    asyncio.run(storm(Address(sys.argv[1], int(sys.argv[2]), os.environ["STORM_USER"], os.environ["STORM_PASSWORD"])))
