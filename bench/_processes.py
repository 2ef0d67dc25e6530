"""The client's process and the subscribers' processes, as the bench's own process sees them."""

import base64
import json
import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tars_config import wire
from tars_config.keys import load_public_keys

from actors.mqtt import packets
from bench import _clients
from bench._clients import Mqtt, Request

P = ParamSpec("P")
T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")


class Clients:
    """A process that does what it is told, one load at a time; also the receipts' mailbox."""

    def __init__(self, folder: Path) -> None:
        self.receipts = folder / "receipts"
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, str(self.receipts)), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def do(self, load: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of the loads of `_clients` there."""
        self._pipe.send((load, args, kwargs))
        answer: T = self._answer()
        return answer

    def until_received(self, port: int, requests: Sequence[Request], subscriber: "Subscriber") -> list[float]:
        self._pipe.send((_clients.until_received, (port, requests, subscriber.name), None))
        taken: list[float] = self._answer()
        return taken

    def _answer(self) -> Any:
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(orders: Any, mailbox: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receipts:
        receipts.bind(mailbox)
        orders.send(None)
        while True:
            try:
                load, args, kwargs = orders.recv()
            except EOFError:
                return
            try:
                orders.send(load(*args, receipts) if kwargs is None else load(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                orders.send(RuntimeError(f"{type(error).__name__}: {error}"))


class Subscriber:
    """A process that tells the client's mailbox of each version it has, with the moment."""

    def __init__(
        self,
        name: bytes,
        clients: Clients,
        target: "Callable[Concatenate[Told, P], None]",
        *args: P.args,
        **_: P.kwargs,
    ) -> None:
        self.name = name
        ready, theirs = _SPAWN.Pipe()
        told = Told(name, str(clients.receipts), theirs)
        self._process = _SPAWN.Process(target=target, args=(told, *args), daemon=True)
        self._process.start()
        theirs.close()
        ready.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join(10)


class Told:
    """A subscriber's way to the mailbox."""

    def __init__(self, name: bytes, mailbox: str, pipe: Any) -> None:
        self._name = name
        self._mailbox = mailbox
        self._pipe = pipe
        self._socket: socket.socket | None = None

    def ready(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.connect(self._mailbox)
        self._pipe.send(None)

    def note(self, version: int, at: int) -> None:
        assert self._socket is not None
        self._socket.send(b"%s %d %d" % (self._name, version, at))


def verify_updates(told: Told, port: int, login: tuple[str, str] | None, topic: str, keys: Path) -> None:
    """Take the signed updates of a topic: decoded, checksum and signature checked, then noted."""
    trusted = load_public_keys(keys)
    client = Mqtt(port, *(login or ()))
    client.subscribe(topic)
    client.socket.settimeout(None)
    told.ready()
    while True:
        kind, body = client.packet()
        if kind >> 4 != packets.Kind.PUBLISH:
            continue
        packet_id, payload = _clients.message(body)
        update = wire.decode(payload)
        wire.verify(update, trusted)
        at = time.perf_counter_ns()
        client.socket.sendall(packets.puback(packet_id))
        told.note(update.version, at)


def watch_key(told: Told, port: int, key: bytes) -> None:
    """Take etcd's watch events of a key; what is noted is the version of the key."""
    body = json.dumps({"create_request": {"key": base64.b64encode(key).decode()}}).encode()
    client = _clients.connect(port)
    client.settimeout(None)
    client.sendall(Request("POST", "/v3/watch", body).wire(port))
    data = b""
    while True:
        data += client.recv(1 << 16)
        *lines, data = data.split(b"\n")
        for line in lines:
            # What is not the JSON of an event is the head, or the size of a chunk.
            if not line.startswith(b'{"result"'):
                continue
            result = json.loads(line)["result"]
            if result.get("created"):
                told.ready()
            for event in result.get("events", ()):
                base64.b64decode(event["kv"]["value"])
                at = time.perf_counter_ns()
                told.note(int(event["kv"]["version"]), at)
