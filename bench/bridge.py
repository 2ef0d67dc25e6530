"""Figures of the bridge, through a real Mosquitto: `python -m bench.bridge`.

Latency from the call to a subscriber, against a bare aiomqtt client, interleaved in one run; CPU time of the bridge's
thread for a change, from the call to its token; and how long after a broker's return everything is right that changed
while it was away.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tars_config import wire

from actors.bridge import BridgeActor, Timing
from actors.signer import IssueTimes
from tests.actors.bridge.support import client, retained, running_bridge, unsigned
from tests.support import Mosquitto

WARM_UP, ROUNDS = 200, 2000
SERVICES, CHANGES, AWAY = 50, 20, 10.0
CONFIG = {f"setting_{number}": number for number in range(12)}


async def latency(url: str) -> None:
    key, times = Ed25519PrivateKey.generate(), IssueTimes()
    # The same topic length and nearly the same payload for all.
    topics = {name: f"system/config/{name}" for name in ("bare-pl", "brid-pl", "bare-sg", "brid-sg")}
    plain = orjson.dumps({"pad": "x" * 560})
    samples: dict[str, list[float]] = {name: [] for name in topics}
    async with (
        client(url) as subscriber,
        client(url) as bare,
        running_bridge(url, timing=Timing()) as rig,
    ):
        await subscriber.subscribe("system/config/+", qos=1)
        await rig.connected()
        contents = {name: unsigned(1, name, **CONFIG) for name in topics}

        async def bare_signed() -> None:
            it = contents["bare-sg"]
            await bare.publish(
                topics["bare-sg"],
                wire.encode_signed(
                    key,
                    service=it.service,
                    config_canonical=it.config_canonical,
                    config_checksum=it.checksum,
                    version=it.version,
                    config_epoch=it.config_epoch,
                    issued_at=times.next(),
                ),
                qos=1,
                retain=True,
            )

        async def tell(name: str, content: object) -> None:
            rig.bridge.tell(BridgeActor.retain, topics[name], content)  # type: ignore[arg-type]  # both kinds

        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "bare-pl": lambda: bare.publish(topics["bare-pl"], plain, qos=1, retain=True),
            "brid-pl": lambda: tell("brid-pl", plain),
            "bare-sg": bare_signed,
            "brid-sg": lambda: tell("brid-sg", contents["brid-sg"]),
        }
        messages = aiter(subscriber.messages)
        for number in range(WARM_UP + ROUNDS):
            for name, publish in ways.items():
                started = time.perf_counter()
                arrival = asyncio.ensure_future(anext(messages))
                await publish()
                message = await arrival
                elapsed = time.perf_counter() - started
                assert message.topic.value == topics[name]
                # The PUBACK of one must not be on the way while the next is measured.
                await asyncio.sleep(0.001)
                if number >= WARM_UP:
                    samples[name].append(elapsed)
    words = {"pl": "plain ", "sg": "signed"}
    for kind, word in words.items():
        ours, theirs = (statistics.median(samples[f"{who}-{kind}"]) * 1e6 for who in ("brid", "bare"))
        p99s = [statistics.quantiles(samples[f"{who}-{kind}"], n=100)[98] * 1e6 for who in ("brid", "bare")]
        print(
            f"{word}: bridge p50 {ours:.0f} us (p99 {p99s[0]:.0f}), bare aiomqtt p50 {theirs:.0f} us "
            f"(p99 {p99s[1]:.0f}), ratio {ours / theirs:.2f}"
        )


async def cpu(url: str) -> None:
    """One change at a time, and sixteen in a turn of the loop, of different topics."""
    versions = [unsigned(version, "service", **CONFIG) for version in (1, 2)]
    plain = orjson.dumps({"pad": "x" * 560})
    async with running_bridge(url, timing=Timing()) as rig:
        await rig.connected()
        for what, topics, contents in (
            ("plain", 1, [plain]),
            ("signed", 1, versions),
            ("signed, 16 at once", 16, versions),
        ):
            began, rounds = 0.0, ROUNDS // topics
            for number in range(WARM_UP + rounds):
                if number == WARM_UP:
                    began = time.thread_time()
                expected = len(rig.tokens) + topics
                for topic in range(topics):
                    rig.bridge.tell(BridgeActor.retain, f"t/{topic}", contents[number % len(contents)], number)
                while len(rig.tokens) < expected:
                    rig.news.clear()
                    await rig.news.wait()
            print(f"CPU, {what}: {(time.thread_time() - began) / rounds / topics * 1e6:.0f} us a change")


async def outage(broker: Mosquitto) -> None:
    names = [f"service-{number}" for number in range(SERVICES)]
    async with running_bridge(broker.url, timing=Timing()) as rig:
        for name in names:
            await rig.retain(f"system/config/{name}", unsigned(1, name, **CONFIG), (name, 1))
        await rig.acknowledged(*((name, 1) for name in names))
        broker.kill()
        away_since = time.monotonic()
        for version in range(2, 2 + CHANGES):
            for name in names:
                await rig.retain(f"system/config/{name}", unsigned(version, name, **CONFIG), (name, version))
            await asyncio.sleep(AWAY / CHANGES)
        await asyncio.to_thread(broker.start)
        returned = time.monotonic()
        await rig.acknowledged(*((name, 1 + CHANGES) for name in names))
        right = time.monotonic()
        found = await retained(broker.url, "system/config/+")
        assert {rig.verified(payload).version for payload in found.values()} == {1 + CHANGES}
        assert len(found) == SERVICES
    print(
        f"away {returned - away_since:.1f} s, {SERVICES} x {CHANGES} changes: right {right - returned:.3f} s after its return"
    )


async def flood(url: str) -> None:
    async with running_bridge(url, timing=Timing()) as rig:
        await rig.connected()
        started = time.perf_counter()
        total = 5000
        for number in range(total):
            await rig.bridge.ask(BridgeActor.retain, f"t/{number}", b"x" * 500, number)
        await rig.acknowledged(total - 1)
        print(f"{total} topics retained and acknowledged: {total / (time.perf_counter() - started):.0f} a second")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        broker = Mosquitto(Path(folder))
        broker.start()
        stack.callback(broker.stop)
        await latency(broker.url)
        await cpu(broker.url)
        await flood(broker.url)
        await outage(broker)


if __name__ == "__main__":
    asyncio.run(main())
