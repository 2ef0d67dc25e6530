"""REST against etcd and against a bare Litestar app: PUT, PUT to verified receipt, GET.

Services are configuration alone here, unless a figure says otherwise: as with etcd, nothing but the server and the client runs.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from bench import _clients
from bench._clients import Request, get
from bench._harness import LATENCIES, Bar, Block, Row, Run, Series, interleaved
from bench._processes import Clients, Subscriber, verify_updates, watch_key
from bench._sides import SERVICE, Bare, Etcd, Ours, broker, cpu_seconds, manifest, slow_fsync
from bench.store import fsyncs, sqlite_commits
from tests.system.program import Address

Load = Callable[[int, Sequence[Request]], list[float]]

WARM = 300
WRITERS = 16
MANY = tuple(f"service-{number:03}" for number in range(WRITERS))
READERS = 8
RAW = "raw"


def put(run: Run) -> Iterator[Row]:
    """PUT, one at a time."""
    few, tail = run.count(300), run.count(LATENCIES)
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        etcd = stack.enter_context(Etcd(run.folder / "etcd"))
        # Each with a broker of its own: the workers of one would get, and refuse, what the others publish.
        six, many, working = (
            stack.enter_context(
                Ours(
                    run.folder / name,
                    services,
                    MQTT_URL=stack.enter_context(broker(run.folder / f"mosquitto-{name}")).url,
                )
            )
            for name, services in (
                ("6", manifest()),
                ("106", manifest(more=100)),
                ("working", manifest(workers=True)),
            )
        )
        value = six.document()["config"]
        fsync = stack.enter_context(fsyncs(run.folder))
        sqlite = stack.enter_context(sqlite_commits(run.folder))

        def ours(it: Ours, count: int, load: Load = _clients.one_by_one) -> Block:
            return lambda: clients.do(load, it.port, it.puts(count))

        def theirs(count: int, load: Load = _clients.one_by_one) -> Block:
            return lambda: clients.do(load, etcd.port, etcd.puts(count, value))

        sides: dict[str, tuple[str, Block]] = {
            "fsync": ("us", lambda: fsync(few)),
            "sqlite": ("us", lambda: sqlite(few)),
            "etcd": ("us", theirs(tail)),
            "ours": ("us", ours(six, tail)),
            "etcd, http.client": ("us", theirs(few, _clients.by_http_client)),
            "ours, http.client": ("us", ours(six, few, _clients.by_http_client)),
            "106": ("us", ours(many, few)),
            "working": ("us", ours(working, few)),
        }
        for _, measure in sides.values():
            for _ in range(-(-WARM // few)):
                measure()
        found = interleaved(run, sides)
    yield Row("put", "raw fsync of 4 KiB", found["fsync"])
    yield Row("put", "raw sqlite3 commit, WAL, FULL", found["sqlite"], found["fsync"], "raw fsync")
    yield Row("put", "PUT p50", found["ours"], found["etcd"], "etcd PUT", RAW, Bar(1.8, 1.3))
    both = found["ours, http.client"], found["etcd, http.client"]
    yield Row("put", "PUT p50", *both, "etcd PUT", "http.client")
    yield Row("put", "PUT p50", found["ours"], found["sqlite"], "raw sqlite3", RAW)
    yield Row("put", "PUT p50, 106 services", found["106"], found["ours"], "6 services", RAW, Bar(1.2, 1.05))
    yield Row("put", "PUT p50, its worker applies each", found["working"], found["etcd"], "etcd PUT", RAW)


def receipt(run: Run) -> Iterator[Row]:
    """From a PUT to the moment a subscriber has it, decoded and verified."""
    count = run.count(LATENCIES)
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        mqtt = stack.enter_context(broker(run.folder / "mosquitto"))
        etcd = stack.enter_context(Etcd(run.folder / "etcd"))
        apart = stack.enter_context(Ours(run.folder / "apart", manifest(), MQTT_URL=mqtt.url))
        embedded = stack.enter_context(Ours(run.folder / "embedded", manifest()))
        value = apart.document()["config"]

        def side(name: str, it: Ours, address: Address) -> Block:
            login = (address.user, address.password) if address.user and address.password else None
            keys = it.folder / "runtime" / "public_keys.pem"
            subscriber = stack.enter_context(
                Subscriber(
                    name.encode(), clients, verify_updates, address.port, login, f"system/config/{SERVICE}", keys
                )
            )
            return lambda: clients.until_received(it.port, it.puts(count), subscriber)

        watcher = stack.enter_context(Subscriber(b"etcd", clients, watch_key, etcd.port, SERVICE.encode()))
        sides: dict[str, tuple[str, Block]] = {
            "etcd": ("us", lambda: clients.until_received(etcd.port, etcd.puts(count, value), watcher)),
            "mosquitto": ("us", side("mosquitto", apart, apart.broker)),
            "embedded": ("us", side("embedded", embedded, embedded.broker)),
        }
        for _, measure in sides.values():
            measure()
        found = interleaved(run, sides)
    peer = "etcd PUT to watch"
    name = "PUT to verified receipt p50"
    yield Row("receipt", f"{name}, Mosquitto", found["mosquitto"], found["etcd"], peer, RAW, Bar(2.3, 1.7))
    yield Row("receipt", f"{name}, embedded", found["embedded"], found["etcd"], peer, RAW)


def _sixteen(clients: Clients, port: int, requests: Iterable[list[Request]], rates: Series) -> list[float]:
    writers = list(requests)
    taken, seconds = clients.do(_clients.at_once, port, writers)
    rates.blocks.append(len(taken) / seconds)
    return taken


def writers(run: Run) -> Iterator[Row]:
    """PUTs by 16 connections at once, each on a service of its own; also where an fsync takes 5 ms."""
    count = -(-run.count(LATENCIES) // WRITERS)
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        mqtt = stack.enter_context(broker(run.folder / "mosquitto"))
        etcd = stack.enter_context(Etcd(run.folder / "etcd"))
        six, many = (
            stack.enter_context(Ours(run.folder / str(more), manifest(more=more), MQTT_URL=mqtt.url))
            for more in (WRITERS, 100)
        )
        value = six.document()["config"]
        rates = {name: Series("/s") for name in ("etcd", "22", "106")}

        def ours(it: Ours, name: str) -> Block:
            return lambda: _sixteen(clients, it.port, (it.puts(count, each) for each in MANY), rates[name])

        sides: dict[str, tuple[str, Block]] = {
            "etcd": (
                "us",
                lambda: _sixteen(clients, etcd.port, (etcd.puts(count, value, each) for each in MANY), rates["etcd"]),
            ),
            "22": ("us", ours(six, "22")),
            "106": ("us", ours(many, "106")),
        }
        for _, measure in sides.values():
            measure()
        for rate in rates.values():
            rate.blocks.clear()
        found = interleaved(run, sides)
    name = "PUT, 16 writers"
    yield Row("writers", f"{name}: p50", found["22"], found["etcd"], "etcd PUT", RAW, Bar(3.3, 2.0))
    yield Row("writers", f"{name}: rate", rates["22"], rates["etcd"], "etcd PUT", RAW, Bar(0.33, 0.6, at_least=True))
    yield Row("writers", f"{name}, 106 services: p50", found["106"], found["22"], "22 services", RAW)
    yield Row("writers", f"{name}, 106 services: rate", rates["106"], rates["22"], "22 services", RAW)


def slow(run: Run) -> Iterator[Row]:
    """What group commit is worth where an fsync takes 5 ms, as on an SD card. etcd is a static program: no shim for it."""
    shim = slow_fsync(run.folder)
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        mqtt = stack.enter_context(broker(run.folder / "mosquitto"))
        groups = stack.enter_context(
            Ours(run.folder / "groups", manifest(more=WRITERS), MQTT_URL=mqtt.url, preload=shim)
        )
        single = stack.enter_context(
            Ours(run.folder / "single", manifest(more=WRITERS), one_by_one=True, MQTT_URL=mqtt.url, preload=shim)
        )
        rates = {name: Series("/s") for name in ("groups", "single")}

        def sixteen(it: Ours, name: str, count: int) -> Block:
            return lambda: _sixteen(clients, it.port, (it.puts(count, each) for each in MANY), rates[name])

        sides: dict[str, tuple[str, Block]] = {
            "groups": ("us", sixteen(groups, "groups", run.count(75))),
            "single": ("us", sixteen(single, "single", run.count(20))),
            "sequential": ("us", lambda: clients.do(_clients.one_by_one, groups.port, groups.puts(run.count(100)))),
        }
        for _, measure in sides.values():
            measure()
        for rate in rates.values():
            rate.blocks.clear()
        found = interleaved(run, sides)
    name = "5 ms fsync: PUT"
    yield Row("slow", f"{name} p50", found["sequential"], client=RAW)
    yield Row("slow", f"{name}, 16 writers: p50", found["groups"], found["single"], "one commit per PUT", RAW)
    bar = Bar(5, 7, at_least=True)
    yield Row("slow", f"{name}, 16 writers: rate", rates["groups"], rates["single"], "one commit per PUT", RAW, bar)


def read(run: Run) -> Iterator[Row]:
    """GET, authenticated: rate against a bare Litestar app with the same bytes, time against etcd."""
    count, each = run.count(LATENCIES), run.count(1000)
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        mqtt = stack.enter_context(broker(run.folder / "mosquitto"))
        etcd = stack.enter_context(Etcd(run.folder / "etcd"))
        ours = stack.enter_context(Ours(run.folder / "ours", manifest(), MQTT_URL=mqtt.url))
        full, short = ours.gets(fields=True), ours.gets()
        body = run.folder / "body.json"
        body.write_bytes(get(ours.port, full))
        bare = stack.enter_context(Bare(body))
        etcd_put = etcd.puts(1, json.loads(get(ours.port, short))["config"])
        clients.do(_clients.one_by_one, etcd.port, etcd_put)
        cpu = {"ours": Series("us"), "bare": Series("us")}

        def rate(name: str, it: Ours | Bare, request: Request) -> Block:
            def measure() -> float:
                before = cpu_seconds(it.pid)
                taken, seconds = clients.do(_clients.at_once, it.port, [[request] * each] * READERS)
                cpu[name].blocks.append((cpu_seconds(it.pid) - before) / len(taken) * 1e6)
                return len(taken) / seconds

            return measure

        def times(port: int, request: Request) -> Block:
            return lambda: clients.do(_clients.one_by_one, port, [request] * count)

        sides: dict[str, tuple[str, Block]] = {
            "ours, rate": ("/s", rate("ours", ours, full)),
            "bare, rate": ("/s", rate("bare", bare, bare.gets())),
            "ours": ("us", times(ours.port, short)),
            "ours, full": ("us", times(ours.port, full)),
            "etcd": ("us", times(etcd.port, etcd.gets())),
            "bare": ("us", times(bare.port, bare.gets())),
        }
        for _, measure in sides.values():
            measure()
        for used in cpu.values():
            used.blocks.clear()
        found = interleaved(run, sides)
    peer = "bare Litestar"
    both = found["ours, rate"], found["bare, rate"]
    yield Row("get", "GET, 8 readers: rate", *both, peer, RAW, Bar(0.8, 1.0, at_least=True))
    yield Row("get", "GET, 8 readers: server's CPU each", cpu["ours"], cpu["bare"], peer, RAW)
    yield Row("get", "GET p50", found["ours"], found["etcd"], "etcd GET", RAW, Bar(0.4, 0.3))
    yield Row("get", "GET p50, with fields (12 kB)", found["ours, full"], found["etcd"], "etcd GET", RAW)
    yield Row("get", "GET p50, with fields (12 kB)", found["ours, full"], found["bare"], peer, RAW)
