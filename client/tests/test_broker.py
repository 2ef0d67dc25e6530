"""The library and a real Mosquitto: delivery, reports, reconnects, and brokers that are no use."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from pydantic import BaseModel
from tars_config import AppliedReport, BrokerAddress, ConfigLibrary, WorkerHealth, _link

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

APPLIED, HEALTH, CONFIG = "system/applied/stt-worker", "system/health/stt-worker", "system/config/stt-worker"
DEMO = Path(__file__).parents[2] / "demo" / "worker.py"


class Stt(BaseModel):
    vad_threshold: float = 0.5
    channels: int = 1


async def publish(broker, supervisor, **changes):
    """Do what the supervisor does after a change: the next version, signed, retained."""
    supervisor.config |= changes
    supervisor.version += 1
    async with broker.client() as client:
        await client.publish(CONFIG, supervisor.sign().encode(), qos=1, retain=True)


@pytest.fixture
async def library(supervisor, broker):
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(MQTT_URL=broker.url)) as library:
        yield library


async def test_a_change_reaches_the_callback_and_its_report_the_broker(
    broker, supervisor, library, watcher, eventually
):
    seen = []
    await library.get_config(Stt)
    await library.subscribe_updates(lambda config: seen.append(config.channels), Stt)
    await eventually(lambda: watcher.last(APPLIED).get("version") == 1)
    await publish(broker, supervisor, channels=2)
    await eventually(lambda: watcher.last(APPLIED).get("version") == 2)
    assert seen == [2]
    report = watcher.last(APPLIED)
    assert set(report) == {
        "service", "instance", "config_epoch", "version", "ok", "applied_at", "error", "restart_required", "refused",
    }  # fmt: skip
    assert AppliedReport.model_validate_json(orjson.dumps(report)).ok
    assert report["applied_at"].endswith(("Z", "+00:00"))
    # Retained: whoever comes later sees it.
    async with broker.client() as client:
        await client.subscribe(APPLIED, qos=1)
        message = await anext(aiter(client.messages))
        assert message.retain
        assert orjson.loads(message.payload)["version"] == 2


async def test_a_retained_update_is_found_at_start_and_a_bad_one_reported(broker, supervisor, watcher, eventually):
    await publish(broker, supervisor, channels=2)
    around = supervisor.surroundings(MQTT_URL=broker.url)
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        await library.get_config(Stt)
        await library.subscribe_updates(lambda config: None, Stt)
        await eventually(lambda: watcher.last(APPLIED).get("version") == 2)
        async with broker.client() as client:
            await client.publish(CONFIG, b"{}", qos=1, retain=False)
            await client.publish(CONFIG, b"x" * 1_000_000, qos=1)
        await eventually(lambda: watcher.last(APPLIED).get("refused") == {"unsigned": 1, "too_large": 1})
        assert watcher.last(APPLIED)["version"] == 2


async def test_after_a_broker_restart_everything_is_back(broker, supervisor, library, watcher, eventually):
    """It forgets all retained messages: subscription, applied report and health come back by themselves."""
    seen = []
    await library.get_config(Stt)
    await library.subscribe_updates(lambda config: seen.append(config.channels), Stt)
    await library.report_health(True, "ready")
    await eventually(lambda: watcher.last(HEALTH) == {"ok": True, "event": "ready", "err": ""})
    for version in (2, 3):
        broker.stop()
        await eventually(lambda: not library.connected)
        await broker.start()
        async with broker.client() as client:
            await client.subscribe([(APPLIED, 1), (HEALTH, 1)])
            found = {}
            async for message in client.messages:
                found[str(message.topic)] = orjson.loads(message.payload)
                if len(found) == 2:
                    break
        assert found[APPLIED]["version"] == version - 1
        assert found[HEALTH]["ok"]
        await publish(broker, supervisor, channels=version)
        await eventually(lambda wanted=version: library.version == wanted)
    assert seen == [2, 3]


@pytest.mark.parametrize("connected_before", [False, True])
async def test_health_has_a_last_will(broker, supervisor, watcher, eventually, connected_before):
    """A worker that is killed; its connection says so for it."""
    code = (
        "import asyncio, sys\n"
        "from tars_config import ConfigLibrary\n"
        "async def main():\n"
        "    library = ConfigLibrary(health_topic='system/health/ears')\n"
        "    await library.initialize()\n"
        f"    while {connected_before} and not library.connected:\n"
        "        await asyncio.sleep(0.01)\n"
        "    await library.report_health(True, 'ready')\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | supervisor.environment() | {"MQTT_URL": broker.url},
        stderr=subprocess.PIPE,
    )
    try:
        await eventually(lambda: watcher.last("system/health/ears").get("ok") is True)
    finally:
        child.kill()
        await asyncio.to_thread(child.communicate)
    await eventually(lambda: watcher.last("system/health/ears").get("ok") is False)
    lost = watcher.last("system/health/ears")
    assert WorkerHealth.model_validate(lost).event == "connection lost"


async def test_an_orderly_end_leaves_the_last_word_to_the_worker(broker, supervisor, watcher, eventually):
    around = supervisor.surroundings(MQTT_URL=broker.url)
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        await eventually(lambda: library.connected)
        await library.report_health(True, "ready")
        await eventually(lambda: watcher.last(HEALTH).get("ok") is True)
        await library.report_health(False, "stopping")
    await eventually(lambda: watcher.last(HEALTH).get("event") == "stopping")
    async with broker.client() as client:
        await client.publish("system/marker", b"{}")
    await eventually(lambda: "system/marker" in watcher.seen)
    assert watcher.last(HEALTH)["event"] == "stopping"


@pytest.mark.parametrize("health", [True, False])
@pytest.mark.parametrize("foreign", [b"", b'{"ok":false,"event":"connection lost","err":""}'])
async def test_what_others_overwrite_is_said_again(
    broker, supervisor, library, watcher, eventually, *, foreign, health
):
    """A supervisor that clears the last instance's topics late, and a late last will of a lost connection."""
    await library.get_config(Stt)
    if health:
        await library.report_health(True, "ready")
        await eventually(lambda: watcher.last(HEALTH).get("event") == "ready")
    await eventually(lambda: watcher.last(APPLIED).get("version") == 1 and library.connected)
    said = len(watcher.seen[APPLIED])
    async with broker.client() as client:
        for topic in (HEALTH, APPLIED):
            await client.publish(topic, foreign, qos=1, retain=True)
    if foreign and not health:
        return  # somebody else reports this worker's health: none of ours
    await eventually(lambda: len(watcher.seen[APPLIED]) > said and watcher.last(APPLIED).get("version") == 1)
    if health:
        await eventually(lambda: watcher.last(HEALTH).get("event") == "ready")


@pytest.mark.parametrize("password", ["s3cret:/@", "wrong"])
async def test_a_login_is_used_and_a_refused_one_told_without_the_password(
    stopped_broker, supervisor, eventually, caplog, password
):
    caplog.set_level(logging.DEBUG, logger="tars_config")
    stopped_broker.require_password("stt", "s3cret:/@")
    await stopped_broker.start()
    url = f"mqtt://stt:{password.replace(':', '%3A').replace('/', '%2F').replace('@', '%40')}@127.0.0.1:{stopped_broker.port}"
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(MQTT_URL=url)) as library:
        if password == "wrong":
            await eventually(lambda: caplog.text.lower().count("not authorized") > 2)
            assert await library.get_config(Stt) == Stt()
        else:
            await eventually(lambda: library.connected)
    assert password not in caplog.text


async def test_a_broker_that_is_away_delays_nothing_and_is_found_when_it_comes(stopped_broker, supervisor, eventually):
    around = supervisor.surroundings(MQTT_URL=stopped_broker.url)
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        assert await library.get_config(Stt) == Stt()
        assert not library.connected
        await stopped_broker.start()
        await eventually(lambda: library.connected)


@pytest.mark.parametrize("manner", ["silent", "closes", "garbage"])
async def test_a_broker_that_is_no_use_delays_nothing(supervisor, manner, eventually, monkeypatch):
    async def serve(reader, writer):
        nonlocal attempts, served
        attempts += 1
        if manner == "silent":
            await reader.read()
        elif manner == "garbage":
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        served += 1

    monkeypatch.setattr(_link, "MAX_DELAY_S", 0.05)
    attempts = served = 0
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with ConfigLibrary(
        "stt-worker", surroundings=supervisor.surroundings(MQTT_URL=f"mqtt://127.0.0.1:{port}")
    ) as library:
        assert await library.get_config(Stt) == Stt()
        await library.report_health(True)
        await eventually(lambda: attempts >= (1 if manner == "silent" else 10))
    server.close()
    await eventually(lambda: served == attempts)


@pytest.mark.parametrize("before_freezing", ["reported", "nothing"])
async def test_a_broker_that_freezes_is_left_and_the_report_arrives_after(
    supervisor, watcher, broker, eventually, *, monkeypatch, before_freezing
):
    monkeypatch.setattr(_link, "ANSWER_TIMEOUT_S", 0.1)
    around = supervisor.surroundings(MQTT_URL=broker.url)
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        await eventually(lambda: library.connected)
        if before_freezing == "reported":
            await library.report_health(False, "starting")
            await eventually(lambda: watcher.last(HEALTH).get("event") == "starting")
            await eventually(lambda: library.connected)
        broker.freeze()
        await library.report_health(True, "while frozen")
        await eventually(lambda: not library.connected)
        broker.thaw()
        await eventually(lambda: watcher.last(HEALTH).get("event") == "while frozen")


async def test_the_newest_report_wins_over_one_that_is_under_way(broker, library, watcher, eventually):
    await library.report_health(False, "starting")
    await eventually(lambda: watcher.last(HEALTH).get("event") == "starting" and library.connected)
    broker.freeze()
    for event in ("under way", "newer", "newest"):
        await library.report_health(True, event)
        await asyncio.sleep(0)  # on its way, without an answer
        await asyncio.sleep(0)
    broker.thaw()
    await eventually(lambda: watcher.last(HEALTH).get("event") == "newest")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1", "127.0.0.1:1883", "mqtt://", "mqtt://h:0", "mqtt://h:99999", "mqtt://h:x", "mqtt://h/topic",
        "mqtt://user:hunter2@ho st", "mqtt://user:hunter2@h?x=1", "",
    ],
)  # fmt: skip
async def test_a_url_of_another_form_is_said_without_its_password(url):
    with pytest.raises(ValueError, match="expected mqtt://") as error:
        BrokerAddress.parse(url)
    assert "hunter2" not in str(error.value)


async def test_urls_of_the_right_form():
    assert BrokerAddress.parse("mqtt://h") == BrokerAddress(host="h", port=1883)
    assert BrokerAddress.parse("mqtts://u:p%40%3A@[::1]:99/") == BrokerAddress(
        host="::1", port=99, tls=True, user="u", password="p@:"
    )
    assert "p%40" not in repr(BrokerAddress.parse("mqtts://u:p%40@h"))


# --- the demo worker ---


@pytest.fixture
async def demo(supervisor, tmp_path):
    """Start the demo worker; gives its process, with what it has printed so far as `output()`."""
    children = []
    log_path = tmp_path / "demo.log"

    def start(*arguments, **environment):
        with log_path.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, DEMO, *arguments],
                env=os.environ | supervisor.environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        child.output = log_path.read_text
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()


async def test_the_demo_worker_shows_each_change_and_ends_in_order(broker, supervisor, watcher, eventually, demo):
    supervisor.set_secret("api_key", "hunter2")
    child = demo("--load-seconds", "0", "--health-topic", "system/health/ears", MQTT_URL=broker.url)
    await eventually(lambda: watcher.last("system/health/ears").get("event") == "ready")
    supervisor.set_secret("api_key", "hunter3")
    await publish(broker, supervisor, vad_threshold=0.7, whisper_model="small")
    await eventually(lambda: watcher.last(APPLIED).get("version") == 2)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(child.wait, 10) == 0
    output = child.output()
    assert "vad_threshold: 0.5 -> 0.7\nwhisper_model: 'base.en' -> 'small'\napi_key: secret changed\n" in output
    assert "hunter" not in output
    await eventually(lambda: watcher.last("system/health/ears").get("event") == "stopping")


@pytest.mark.parametrize("when", ["loading", "ready"])
async def test_the_demo_worker_without_a_broker_ends_without_a_traceback(stopped_broker, eventually, demo, when):
    child = demo("--load-seconds", "0" if when == "ready" else "3600", MQTT_URL=stopped_broker.url)
    await eventually(lambda: f"\n{when}" in child.output())
    child.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(child.wait, 10) == 0
    assert "Traceback" not in child.output()


async def test_the_demo_worker_says_what_is_wrong_with_its_config(broker, watcher, eventually, demo):
    child = demo(CHANNELS="many", MQTT_URL=broker.url)
    assert await asyncio.to_thread(child.wait, 10) == 1
    assert "cannot start: environment: channels (environment variable CHANNELS)" in child.output()
    await eventually(lambda: watcher.last(HEALTH).get("event") == "configuration refused")
    await eventually(lambda: watcher.last(APPLIED).get("ok") is False)
    assert "CHANNELS" in watcher.last(APPLIED)["error"]
