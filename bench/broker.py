"""The embedded broker next to Mosquitto, both with passwords and topic rules: one hop, a burst.

`hop` is the time from sending a message of QoS 1 to its arrival at a subscriber of QoS 1, one at a time; `burst` is
the rate at which a publisher with 100 unacknowledged messages gets messages to that subscriber. 200 bytes each.
Publisher and subscriber are one process, which is the clients'.
"""

import secrets
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from actors.mqtt import packets
from bench._clients import Mqtt, message
from bench._harness import LATENCIES, Bar, Row, Run, Series, interleaved
from bench._processes import Clients
from bench._sides import pss
from tests.brokers import SUPERVISOR, Broker, EmbeddedBroker, mosquitto_for

T = TypeVar("T")

BURST = 5000
WINDOW = 100
PAYLOAD = secrets.token_bytes(200)
TOPIC = "system/config/stt"


def hops(port: int, login: tuple[str, str], count: int) -> list[float]:
    publisher, subscriber, taken = Mqtt(port, *login), Mqtt(port, *login), []
    subscriber.subscribe(TOPIC)
    for number in range(count):
        data = packets.publish(TOPIC.encode(), PAYLOAD, qos=1, packet_id=number + 1, retain=False)
        began = time.perf_counter()
        publisher.socket.sendall(data)
        _, body = subscriber.packet()
        taken.append(time.perf_counter() - began)
        subscriber.socket.sendall(packets.puback(message(body)[0]))
        assert publisher.packet()[0] >> 4 == packets.Kind.PUBACK
    publisher.close()
    subscriber.close()
    return taken


def burst(port: int, login: tuple[str, str], count: int) -> float:
    publisher, subscriber = Mqtt(port, *login), Mqtt(port, *login)
    subscriber.subscribe(TOPIC)
    sent = acknowledged = received = 0
    began = time.perf_counter()
    while received < count or acknowledged < count:
        if more := min(WINDOW - (sent - acknowledged), count - sent):
            publisher.socket.sendall(
                b"".join(
                    packets.publish(TOPIC.encode(), PAYLOAD, qos=1, packet_id=sent + each + 1, retain=False)
                    for each in range(more)
                )
            )
            sent += more
        ready, _, _ = select.select([publisher.socket, subscriber.socket], [], [], 10)
        assert ready, f"stalled: {sent} sent, {acknowledged} acknowledged, {received} received"
        if publisher.socket in ready:
            publisher.receive()
            acknowledged += len(publisher.packets())
        if subscriber.socket in ready:
            subscriber.receive()
            got = subscriber.packets()
            received += len(got)
            subscriber.socket.sendall(b"".join(packets.puback(message(body)[0]) for _, body in got))
    rate = count / (time.perf_counter() - began)
    publisher.close()
    subscriber.close()
    return rate


def rows(run: Run) -> Iterator[Row]:
    login = (SUPERVISOR.name, SUPERVISOR.password)
    with ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        brokers: dict[str, Broker] = {
            "embedded": EmbeddedBroker(run.folder / "embedded"),
            "mosquitto": mosquitto_for(run.folder / "mosquitto"),
        }
        for it in brokers.values():
            it.start()
            stack.callback(it.stop)

        def each(load: Callable[[int, tuple[str, str], int], T], count: int, it: Broker) -> Callable[[], T]:
            return lambda: clients.do(load, it.port, login, count)

        hop = interleaved(run, {name: ("us", each(hops, run.count(LATENCIES), it)) for name, it in brokers.items()})
        rate = interleaved(run, {name: ("/s", each(burst, run.count(BURST), it)) for name, it in brokers.items()})
        memory = {name: Series("MiB", [pss(it.pid)]) for name, it in brokers.items()}

    def row(name: str, found: dict[str, Series], bar: Bar | None = None) -> Row:
        return Row("broker", f"embedded broker: {name}", found["embedded"], found["mosquitto"], "Mosquitto", "raw", bar)

    yield row("QoS 1 hop p50", hop, Bar(5, 3))
    yield row("burst, QoS 1: rate", rate, Bar(0.25, 0.4, at_least=True))
    yield row("memory (PSS) after that", memory)
