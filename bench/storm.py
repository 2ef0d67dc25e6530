"""The supervisor while a hundred clients reconnect to its embedded broker, next to the supervisor in peace.

The real program, whose six services are configuration alone, and one lean client that asks it one thing at a time:
blocks of GETs and PATCHes of one service in peace, and the same while a process of its own lets a hundred clients
come in waves: all connect at once, log in, subscribe to `system/#`, get what is retained there, and vanish without
a word; then the next wave, after `--pause` seconds. With 0, on a machine of two cores, the broker has one of them
and the clients the other. By turns; medians of the blocks, and their ratio.

Then, how soon a broker that is killed is back with all that it retained: from the end of its process to the moment
its port accepts connections, and from there to the moment a subscriber has seen every service.

    .venv/bin/python -m bench.storm [--blocks 9] [--pause 0.2]
"""

import argparse
import asyncio
import contextlib
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from actors.broker import packets
from tests.system.agreement import Retained, stored
from tests.system.lean import LeanClient
from tests.system.program import Address, Program, config_only_manifest

CLIENTS = 100
REQUESTS = 300
RESTARTS = 5
SERVICES = 6
SERVICE = "service-000"


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _packet(first: int, body: bytes) -> bytes:
    assert len(body) < 1 << 14
    return bytes((first, len(body) & 0x7F | 0x80, len(body) >> 7)) + body


async def _visit(broker: Address) -> None:
    """Connect, log in, subscribe, get what is retained, and vanish."""
    reader, writer = await asyncio.open_connection(broker.host, broker.port)
    try:
        body = _text("MQTT") + b"\x04\xc2\0\x3c" + _text("") + _text(broker.user or "") + _text(broker.password or "")
        writer.write(_packet(0x10, body) + _packet(0x82, b"\0\1" + _text("system/#") + b"\1"))
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


async def storm(broker: Address, pause: float) -> None:
    """Waves until the process is ended; says so after the first."""
    while True:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(_visit(broker))
        with contextlib.suppress(BrokenPipeError):
            os.write(1, b".")
        await asyncio.sleep(pause)


@contextlib.contextmanager
def stormy(broker: Address, pause: float, waves: list[int]) -> Iterator[None]:
    """A storm in a process of its own, from its second wave on."""
    command = [sys.executable, "-m", "bench.storm", "--storm", f"{broker.host}:{broker.port}", "--pause", str(pause)]
    login = {"STORM_USER": broker.user or "", "STORM_PASSWORD": broker.password or ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **login})
    assert process.stdout is not None
    try:
        assert process.stdout.read(1), "the storm did not begin"
        yield
    finally:
        running = process.poll() is None
        process.kill()
        waves.append(len(process.stdout.read()))
        process.stdout.close()
        process.wait()
    assert running, "the storm ended by itself"


async def p50(request: Callable[[], Awaitable[None]]) -> float:
    taken = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        await request()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


async def measure(program: Program, blocks: int, pause: float) -> None:
    figures: dict[str, dict[str, list[float]]] = {what: {"idle": [], "storm": []} for what in ("GET", "PUT")}
    waves: list[int] = []
    async with LeanClient(program.url, program.token) as client:
        version = await client.version(SERVICE)

        async def get() -> None:
            status, _ = await client.request("GET", f"/api/config/services/{SERVICE}")
            assert status == 200, status

        async def put() -> None:
            nonlocal version
            status, answer = await client.patch(SERVICE, version, router_wake_ack_text=f"value {version}")
            assert status == 200, answer
            version = answer["version"]

        for request in (get, put):
            await p50(request)
        for _ in range(blocks):
            for weather in ("idle", "storm"):
                with stormy(program.broker, pause, waves) if weather == "storm" else contextlib.nullcontext():
                    figures["GET"][weather].append(await p50(get))
                    figures["PUT"][weather].append(await p50(put))
    print(f"{CLIENTS} clients in waves, {pause:g} s apart; {statistics.median(waves):g} waves in a block of each")
    for what, by_weather in figures.items():
        idle, stormy_ = (statistics.median(by_weather[weather]) for weather in ("idle", "storm"))
        ratio = statistics.median(b / a for a, b in zip(by_weather["idle"], by_weather["storm"], strict=True))
        print(f"  {what} p50: idle {idle:.0f} us, storm {stormy_:.0f} us, ratio {ratio:.2f}")


async def restart(program: Program) -> tuple[float, float]:
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


async def run(blocks: int, pause: float) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        program = Program(Path(folder, "program"), config_only_manifest(SERVICES))
        try:
            program.start()
            await measure(program, blocks, pause)
            taken = [await restart(program) for _ in range(RESTARTS)]
            listening, right = (statistics.median(each) for each in zip(*taken, strict=True))
            print(f"  broker killed: listens {listening:.3f} s later; all retained {right:.3f} s after that")
            program.stop()
        finally:
            program.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--pause", type=float, default=0.2)
    parser.add_argument("--storm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.storm:
        host, _, port = arguments.storm.rpartition(":")
        broker = Address(host, int(port), os.environ["STORM_USER"], os.environ["STORM_PASSWORD"])
        asyncio.run(storm(broker, arguments.pause))
    else:
        asyncio.run(run(arguments.blocks, arguments.pause))


if __name__ == "__main__":
    main()
