"""Control signals over a real Mosquitto: they arrive, also after reconnects, and each is acted on once."""

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tars_config import RESTART_EXIT_CODE, ConfigLibrary

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

CONTROL, APPLIED, HEALTH = "system/control/stt-worker", "system/applied/stt-worker", "system/health/stt-worker"
DEMO = Path(__file__).parents[2] / "demo" / "worker.py"


async def publish(broker, payload, *, topic=CONTROL, retain=False, **options):
    async with broker.client(**options) as client:
        await client.publish(topic, payload, qos=1, retain=retain)


@pytest.fixture
async def library(supervisor, broker, eventually):
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(MQTT_URL=broker.url)) as library:
        await library.get_values()
        await eventually(lambda: library.connected)
        yield library


@pytest.fixture
def seen(library):
    seen: list[str] = []
    library.on_control(lambda signal: seen.append(signal.command))
    return seen


async def test_a_signal_reaches_the_handler_also_after_each_reconnect(broker, supervisor, library, seen, eventually):
    await publish(broker, supervisor.sign_control("first").encode())
    await eventually(lambda: seen == ["first"])
    for command in ("second", "third"):
        broker.stop()
        await eventually(lambda: not library.connected)
        await broker.start()
        await eventually(lambda: library.connected)
        await publish(broker, supervisor.sign_control(command).encode())
        await eventually(lambda wanted=command: seen[-1] == wanted)
    assert seen == ["first", "second", "third"]
    assert not library.refused


async def test_one_that_somebody_retains_is_acted_on_once(broker, supervisor, library, seen, *, watcher, eventually):
    """Each connection brings it again, also that of the next process; it stays refused."""
    payload = supervisor.sign_control().encode()
    await publish(broker, payload, retain=True)
    await eventually(lambda: seen == ["restart"])
    # A first last will costs a reconnect, and so the retained message comes again.
    await library.report_health(True, "ready")
    await eventually(lambda: watcher.last(APPLIED).get("refused") == {"replayed": 1})
    await library.close()
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(MQTT_URL=broker.url)) as again:
        again.on_control(lambda signal: seen.append(signal.command))
        await eventually(lambda: again.refused == {"replayed": 1})
    assert seen == ["restart"]


async def test_what_is_refused_and_what_failed_is_reported(broker, supervisor, library, watcher, eventually):
    @library.on_control
    async def act(signal):
        raise OSError(f"{signal.command} is not to be had")

    await publish(broker, b"{}")
    await publish(broker, supervisor.sign_control("dance").encode())
    await eventually(lambda: "OSError: dance is not to be had" in (watcher.last(APPLIED).get("error") or ""))
    await eventually(lambda: watcher.last(APPLIED).get("refused") == {"unsigned": 1})
    assert watcher.last(APPLIED)["ok"]
    assert watcher.last(APPLIED)["version"] == 1


async def test_two_that_come_together_are_not_acted_on_together(broker, supervisor, library, eventually):
    began, gate, at_once = [], asyncio.Event(), []

    @library.on_control
    async def act(signal):
        began.append(signal.command)
        at_once.append(signal.command)
        assert len(at_once) == 1
        await gate.wait()
        at_once.clear()

    async with broker.client() as client:
        for command in ("first", "second"):
            await client.publish(CONTROL, supervisor.sign_control(command).encode(), qos=1)
        # In its order behind them on the same connection: when it is refused, they have been judged.
        await client.publish(CONTROL, b"{}", qos=1)
    await eventually(lambda: library.refused == {"unsigned": 1} and began == ["first"])
    gate.set()
    await eventually(lambda: began == ["first", "second"])
    async with asyncio.timeout(30):
        await library.settle()
    assert library.last_report.error is None


async def test_the_topics_of_the_two_kinds_are_not_mixed_up(broker, supervisor, library, seen, eventually):
    supervisor.version += 1
    await publish(broker, supervisor.sign().encode())
    await publish(broker, supervisor.sign_control().encode(), topic="system/config/stt-worker")
    # Which of its extra keys, or of its missing ones, is named first is of no matter.
    await eventually(lambda: library.refused == {"extra_key": 2})
    assert not seen
    assert library.version == 1


async def test_a_broker_that_refuses_the_control_topic_costs_the_updates_nothing(supervisor, eventually, caplog):
    caplog.set_level(logging.INFO, logger="tars_config")
    supervisor.version += 1
    topic, payload = b"system/config/stt-worker", supervisor.sign().encode()
    body = len(topic).to_bytes(2, "big") + topic + payload
    served = asyncio.Event()

    async def packet(reader):
        kind, length, shift = (await reader.readexactly(1))[0], 0, 0
        while True:
            digit = (await reader.readexactly(1))[0]
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return kind, await reader.readexactly(length)

    async def serve(reader, writer):
        try:
            await packet(reader)
            writer.write(b"\x20\x02\x00\x00")
            kind, subscribe = await packet(reader)
            assert kind == 0x82
            # MQTT 3.1.1, 3.9.3: granted QoS 1, failure, granted QoS 1.
            writer.write(b"\x90\x05" + subscribe[:2] + b"\x01\x80\x01")
            size = len(body)
            writer.write(b"\x30" + bytes([size % 128 | 128, size // 128]) + body)
            await reader.read()
        finally:
            writer.close()
            served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(MQTT_URL=url)) as library:
        await library.subscribe_values(lambda values: None)
        await eventually(lambda: library.connected and library.version == 2)
    assert f"the broker refuses the subscription to {CONTROL}" in caplog.text
    async with asyncio.timeout(30):
        await served.wait()
    server.close()


async def test_the_demo_worker_ends_for_a_restart_and_says_so(broker, supervisor, watcher, eventually, tmp_path):
    """Without a handler of its own; started again, it does not end a second time for the same signal."""
    log_path = tmp_path / "demo.log"

    def start():
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, DEMO, "--load-seconds", "0"],
                env=os.environ | supervisor.environment() | {"MQTT_URL": broker.url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    payload = supervisor.sign_control(reason="asked for").encode()
    child = start()
    try:
        await eventually(lambda: watcher.last(HEALTH).get("event") == "ready")
        await publish(broker, payload)
        assert await asyncio.to_thread(child.wait, 15) == RESTART_EXIT_CODE == 75
        await eventually(lambda: watcher.last(HEALTH).get("event") == "restarting")
        child = start()
        await eventually(lambda: watcher.last(HEALTH).get("event") == "ready")
        await publish(broker, payload)
        await eventually(lambda: watcher.last(APPLIED).get("refused") == {"replayed": 1})
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    said = log_path.read_text()
    assert "control signal restart, reason 'asked for'" in said
    assert "ending with exit code 75, to be started again" in said
    assert "Traceback" not in said
    assert "connection lost" not in [report["event"] for report in watcher.seen[HEALTH][:-1]]
