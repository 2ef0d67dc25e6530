"""What checking and applying an update costs: `python -m bench.client`. Medians, with the 95th percentile."""

import asyncio
import hashlib
import hmac
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
from pydantic import BaseModel
from tars_config import ConfigLibrary, wire
from tars_config.testing import TestSupervisor

SMALL = {f"setting_{number}": number / 8 for number in range(16)} | {"name": "x" * 40, "on": True}
LARGE = {f"key_{number:05}": "x" * 40 for number in range(4500)}


def show(what: str, seconds: list[float]) -> None:
    seconds.sort()
    median, tail = statistics.median(seconds), seconds[int(len(seconds) * 0.95)]
    print(f"{what:58} {median * 1e6:9.0f} µs   p95 {tail * 1e6:9.0f} µs")


def timed(function: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return taken


def signatures(folder: Path, name: str, config: Mapping[str, object], rounds: int) -> None:
    supervisor = TestSupervisor(folder, "stt-worker", config)
    payload, keys = supervisor.sign().encode(), (supervisor.private_key.public_key(),)
    canonical, checksum = wire.canonical(config), wire.checksum(config)
    update = supervisor.sign()

    def sign() -> None:
        wire.encode_signed(
            supervisor.private_key,
            service="stt-worker",
            config_canonical=canonical,
            config_checksum=checksum,
            version=1,
            config_epoch=supervisor.config_epoch,
            issued_at=update.issued_at,
        )

    show(f"signature check, {name}", timed(lambda: wire.verify(update, keys), rounds))
    show(f"decode and signature check, {name}", timed(lambda: wire.verify(wire.decode(payload), keys), rounds))
    show(f"sign and encode, canonical known, {name}", timed(sign, rounds))


def lkg() -> None:
    payload = {"payload": {f"service-{number}": SMALL for number in range(50)}, "config_epoch": "x"}
    content = orjson.dumps({"payload": payload})

    def check() -> None:
        hmac.new(b"k" * 32, wire.canonical(orjson.loads(content)["payload"]), hashlib.sha256).hexdigest()

    show("check of an LKG with 50 services", timed(check, 500))


async def applying(folder: Path) -> None:
    model = type("Model", (BaseModel,), {"__annotations__": {key: type(value) for key, value in SMALL.items()}})
    supervisor = TestSupervisor(folder, "stt-worker", SMALL)
    starts = []
    for _ in range(50):
        began = time.perf_counter()
        library = ConfigLibrary("stt-worker", surroundings=supervisor.surroundings())
        await library.initialize()
        await library.get_config(model)
        starts.append(time.perf_counter() - began)
        await library.close()
    show("initialize and get_config from a snapshot", starts)
    called, durable = [], []
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings()) as library:
        await library.get_config(model)
        await library.subscribe_updates(lambda _: called.append(time.perf_counter() - began), model)
        for version in range(300):
            supervisor.version += 1
            supervisor.config["setting_0"] = float(version)
            payload = supervisor.sign().encode()
            began = time.perf_counter()
            library.receive(payload)
            await library.settle()
            durable.append(time.perf_counter() - began)
    show("message to callback", called)
    show("message to written down (4 fsyncs) and reported", durable)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        signatures(Path(name) / "small", "18 settings", SMALL, 2000)
        signatures(Path(name) / "large", "256 KiB", LARGE, 200)
        lkg()
        asyncio.run(applying(Path(name) / "applying"))
