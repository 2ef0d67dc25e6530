"""Lean synchronous clients on plain sockets, and what the client's process does with them.

The same few lines talk to every side. `RawHttp` hands its bytes to the kernel and looks for the end of the answer: it adds as
little as Python can, so a ratio shows the server, at our worst. `http.client` is there for comparison.
"""

import http.client
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.mqtt import packets

HOST = "127.0.0.1"
TIMEOUT = 30.0
TOKEN_HEADER = "X-API-Token"


@dataclass(frozen=True)
class Request:
    """One HTTP request. `expect` is the version that a subscriber must have seen before the next one goes out."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    expect: int = 0

    def wire(self, port: int) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {HOST}:{port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return "\r\n".join((*lines, "", "")).encode() + self.body


def connect(port: int) -> socket.socket:
    made = socket.create_connection((HOST, port), timeout=TIMEOUT)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class RawHttp:
    """One keep-alive connection. Answers have a Content-Length; one that is not 200 is an error."""

    def __init__(self, port: int) -> None:
        self.socket = connect(port)
        self._data = b""

    def exchange(self, request: bytes) -> None:
        self.socket.sendall(request)
        while self.receive() is None:
            pass

    def receive(self) -> bytes | None:
        """Take what has arrived; the body, once the answer is complete."""
        more = self.socket.recv(1 << 18)
        if not more:
            raise ConnectionError("closed")
        data = self._data = self._data + more if self._data else more
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        at = data.find(b"ontent-", 0, end)
        while data[at + 7 : at + 14].lower() != b"length:":
            at = data.find(b"ontent-", at + 7, end)
            if at < 0:
                raise ValueError(f"no Content-Length: {data[: end + 200]!r}")
        size = int(data[at + 14 : data.find(b"\r", at)])
        if len(data) < end + 4 + size:
            return None
        if data[9:12] != b"200":
            raise ValueError(data[: end + 4 + size].decode(errors="replace"))
        self._data = b""
        return data[end + 4 :]

    def close(self) -> None:
        self.socket.close()


def get(port: int, request: Request) -> bytes:
    """One request on a connection of its own; the body."""
    client = RawHttp(port)
    try:
        client.socket.sendall(request.wire(port))
        while (body := client.receive()) is None:
            pass
        return body
    finally:
        client.close()


# -- loads: each gives latencies in seconds


def one_by_one(port: int, requests: Sequence[Request]) -> list[float]:
    prepared = [request.wire(port) for request in requests]
    client, taken, clock = RawHttp(port), [], time.perf_counter
    for request in prepared:
        began = clock()
        client.exchange(request)
        taken.append(clock() - began)
    client.close()
    return taken


def by_http_client(port: int, requests: Sequence[Request]) -> list[float]:
    client, taken, clock = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT), [], time.perf_counter
    client.connect()
    assert client.sock is not None
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for request in requests:
        headers = {**request.headers, "Content-Type": "application/json"} if request.body else request.headers
        began = clock()
        client.request(request.method, request.path, request.body or None, headers)
        answer = client.getresponse()
        body = answer.read()
        taken.append(clock() - began)
        if answer.status != 200:
            raise ValueError(body.decode(errors="replace"))
    client.close()
    return taken


def at_once(port: int, writers: Sequence[Sequence[Request]]) -> tuple[list[float], float]:
    """One connection per writer, each with one request under way; also the seconds that all of it took."""
    prepared = [[request.wire(port) for request in requests] for requests in writers]
    clients = [RawHttp(port) for _ in writers]
    taken: list[float] = []
    clock = time.perf_counter
    with selectors.DefaultSelector() as selector:
        for number, client in enumerate(clients):
            selector.register(client.socket, selectors.EVENT_READ, number)
        began = clock()
        sent = [began] * len(clients)
        at = [0] * len(clients)
        for number, client in enumerate(clients):
            sent[number] = clock()
            client.socket.sendall(prepared[number][0])
        left = len(clients)
        while left:
            ready = selector.select(TIMEOUT)
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                number = key.data
                if clients[number].receive() is None:
                    continue
                now = clock()
                taken.append(now - sent[number])
                at[number] += 1
                if at[number] == len(prepared[number]):
                    left -= 1
                    continue
                sent[number] = now
                clients[number].socket.sendall(prepared[number][at[number]])
        seconds = clock() - began
    for client in clients:
        client.close()
    return taken, seconds


def beside(port: int, requests: Sequence[Request], other: Request) -> list[float]:
    """One by one, while `other` is under way on a connection of its own, again and again."""
    prepared, again = [request.wire(port) for request in requests], other.wire(port)
    client, busy, taken, clock = RawHttp(port), RawHttp(port), [], time.perf_counter
    with selectors.DefaultSelector() as selector:
        for each in (client, busy):
            selector.register(each.socket, selectors.EVENT_READ, each)
        busy.socket.sendall(again)
        for request in prepared:
            began = clock()
            client.socket.sendall(request)
            answered = False
            while not answered:
                ready = selector.select(TIMEOUT)
                if not ready:
                    raise TimeoutError
                for each in [key.data for key, _ in ready]:
                    if each.receive() is None:
                        continue
                    if each is client:
                        taken.append(clock() - began)
                        answered = True
                    else:
                        busy.socket.sendall(again)
    client.close()
    busy.close()
    return taken


def until_received(port: int, requests: Sequence[Request], whose: bytes, receipts: socket.socket) -> list[float]:
    """From sending a request to the moment that the subscriber named `whose` noted that it has what was written."""
    prepared = [request.wire(port) for request in requests]
    client, taken, clock = RawHttp(port), [], time.perf_counter_ns
    receipts.settimeout(TIMEOUT)
    for request, wire in zip(requests, prepared, strict=True):
        began = clock()
        client.exchange(wire)
        while True:
            who, version, at = receipts.recv(64).split()
            if who == whose and int(version) >= request.expect:
                break
        # perf_counter is CLOCK_MONOTONIC, which is the same in every process.
        taken.append((int(at) - began) / 1e9)
    client.close()
    return taken


# -- MQTT


class Mqtt:
    """One MQTT 3.1.1 connection, clean session."""

    def __init__(self, port: int, user: str | None = None, password: str | None = None) -> None:
        self.socket = connect(port)
        self._framer = packets.Framer(1 << 20)
        login = packets.Connect(
            client_id="",
            clean_session=True,
            keep_alive=600,
            username=user,
            password=None if user is None else (password or "").encode(),
            will=None,
        )
        self.socket.sendall(packets.connect(login))
        answer = self.packet()
        if answer[1] != b"\0\0":
            raise ConnectionError(f"CONNACK {answer!r}")

    def subscribe(self, topic: str) -> None:
        self.socket.sendall(packets.subscribe(1, [(topic, 1)]))
        while self.packet()[0] >> 4 != 9:
            pass  # a retained message may come first

    def packet(self) -> tuple[int, bytes]:
        while (packet := self._framer.next()) is None:
            self.receive()
        return packet

    def receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("closed")
        self._framer.feed(data)

    def packets(self) -> list[tuple[int, bytes]]:
        """Give what is complete, without waiting."""
        found = []
        while (packet := self._framer.next()) is not None:
            found.append(packet)
        return found

    def close(self) -> None:
        self.socket.close()


def message(body: bytes) -> tuple[int, bytes]:
    """Packet id and payload of a PUBLISH of QoS 1."""
    at = 2 + int.from_bytes(body[:2], "big")
    return int.from_bytes(body[at : at + 2], "big"), body[at + 2 :]
