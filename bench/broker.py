"""The embedded broker next to Mosquitto: `python -m bench.broker`.

One lean client (raw sockets, own process, the same for both sides), the two brokers in turn, nine blocks each:
`hop` is the time from sending a message of QoS 1 to its arrival at a subscriber of QoS 1, one at a time; `burst` is
the rate at which a publisher with 100 unacknowledged messages gets messages to that subscriber. 200 bytes each.
"""

import json
import secrets
import select
import socket
import statistics
import tempfile
import time
from pathlib import Path

from actors.broker import packets
from tests.brokers import HOST, SUPERVISOR, Broker, EmbeddedBroker, mosquitto_for

BLOCKS = 9
HOPS = 1200
BURST = 5000
WINDOW = 100
PAYLOAD = secrets.token_bytes(200)
TOPIC = b"system/config/stt"


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._framer = packets.Framer(1 << 20)
        body = _text("MQTT") + b"\x04\xc2" + (60).to_bytes(2, "big") + _text("")
        body += _text(SUPERVISOR.name) + _text(SUPERVISOR.password)
        self.socket.sendall(b"\x10" + bytes((len(body) & 0x7F | 0x80, len(body) >> 7)) + body)
        assert self.packet()[1] == b"\0\0"

    def subscribe(self) -> None:
        body = b"\0\1" + _text(TOPIC.decode()) + b"\1"
        self.socket.sendall(bytes((0x82, len(body))) + body)
        assert self.packet()[0] == 0x90

    def packet(self) -> tuple[int, bytes]:
        while (packet := self._framer.next()) is None:
            self.receive()
        return packet

    def receive(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, "closed"
        self._framer.feed(data)

    def packets(self) -> list[tuple[int, bytes]]:
        found = []
        while (packet := self._framer.next()) is not None:
            found.append(packet)
        return found


def hops(publisher: Client, subscriber: Client) -> list[float]:
    taken = []
    for number in range(HOPS):
        message = packets.publish(TOPIC, PAYLOAD, qos=1, packet_id=number + 1, retain=False)
        start = time.perf_counter()
        publisher.socket.sendall(message)
        _, body = subscriber.packet()
        taken.append(time.perf_counter() - start)
        subscriber.socket.sendall(packets.puback(_packet_id(body)))
        assert publisher.packet()[0] == 0x40
    return taken


def _packet_id(body: bytes) -> int:
    at = 2 + len(TOPIC)
    return int.from_bytes(body[at : at + 2], "big")


def burst(publisher: Client, subscriber: Client) -> float:
    sent = acknowledged = received = 0
    start = time.perf_counter()
    while received < BURST or acknowledged < BURST:
        if more := min(WINDOW - (sent - acknowledged), BURST - sent):
            publisher.socket.sendall(
                b"".join(
                    packets.publish(TOPIC, PAYLOAD, qos=1, packet_id=sent + each + 1, retain=False)
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
            subscriber.socket.sendall(b"".join(packets.puback(_packet_id(body)) for _, body in got))
    return BURST / (time.perf_counter() - start)


def pss(pid: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Pss")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        brokers: dict[str, Broker] = {
            "embedded": EmbeddedBroker(Path(folder, "embedded")),
            "mosquitto": mosquitto_for(Path(folder, "mosquitto")),
        }
        figures: dict[str, dict[str, list[float]]] = {}
        try:
            clients = {}
            for name, broker in brokers.items():
                start = time.perf_counter()
                broker.start()
                figures[name] = {"start_ms": [(time.perf_counter() - start) * 1e3], "pss_mib": [pss(broker.pid)]}
                figures[name] |= {"hop_p50_us": [], "hop_p99_us": [], "burst_per_s": []}
                publisher, subscriber = Client(broker.port), Client(broker.port)
                subscriber.subscribe()
                hops(publisher, subscriber)
                clients[name] = publisher, subscriber
            for _ in range(BLOCKS):
                for name, pair in clients.items():
                    taken = sorted(hops(*pair))
                    figures[name]["hop_p50_us"].append(statistics.median(taken) * 1e6)
                    figures[name]["hop_p99_us"].append(taken[len(taken) * 99 // 100] * 1e6)
                    figures[name]["burst_per_s"].append(burst(*pair))
            for name, broker in brokers.items():
                figures[name]["pss_after_mib"] = [pss(broker.pid)]
            for pair in clients.values():
                for client in pair:
                    client.socket.close()
        finally:
            for broker in brokers.values():
                broker.stop()
    medians = {
        name: {key: round(statistics.median(each), 1) for key, each in row.items()} for name, row in figures.items()
    }
    ours, theirs = medians["embedded"], medians["mosquitto"]
    ratios = {key: round(ours[key] / theirs[key], 2) for key in ("hop_p50_us", "hop_p99_us", "burst_per_s")}
    print(json.dumps({**medians, "ratio": ratios}, indent=1))


if __name__ == "__main__":
    main()
