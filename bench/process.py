"""The process as a whole: cold start, memory, CPU when nothing happens, and what grows with the number of services."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from bench import _clients
from bench._clients import get
from bench._harness import Bar, Row, Run, Series, interleaved, plot, progress
from bench._processes import Clients
from bench._sides import SERVICE, Bare, Ours, broker, cpu_seconds, first_200, manifest, pss
from tests.support import free_port
from tests.system.program import config_only_manifest

PEER = "bare Litestar"
IDLE_SECONDS = 3.0
SIZES = (10, 100, 1000)


def start(run: Run) -> Iterator[Row]:
    """From the start of the process to the first 200, with a store, keys and compiled bytecode from an earlier start."""
    with contextlib.ExitStack() as stack:
        mqtt = stack.enter_context(broker(run.folder / "mosquitto"))
        programs = {
            "ours": Ours(run.folder / "ours", manifest(workers=True), MQTT_URL=mqtt.url),
            "embedded": Ours(run.folder / "embedded", manifest(workers=True)),
            "alone": Ours(run.folder / "alone", manifest(), MQTT_URL=mqtt.url),
        }
        body = run.folder / "body.json"
        for it in programs.values():
            with it:
                body.write_bytes(get(it.port, it.gets(fields=True)))

        def cold(it: Ours) -> list[float]:
            port = free_port()
            it.environment["CONFIG_API_PORT"] = str(port)
            question = it.gets()
            began = time.perf_counter()
            try:
                first_200(port, question, it.launch())
                taken = time.perf_counter() - began
            finally:
                it.__exit__()
            return [taken]

        def bare() -> list[float]:
            it = Bare(body)
            began = time.perf_counter()
            try:
                process = it.launch()
                first_200(it.port, it.gets(), process)
                taken = time.perf_counter() - began
            finally:
                it.__exit__()
            return [taken]

        sides: dict[str, tuple[str, Callable[[], list[float]]]] = {"bare": ("ms", bare)}
        for name, it in programs.items():
            sides[name] = ("ms", lambda it=it: cold(it))  # type: ignore[misc]  # a default binds it now
        found = interleaved(run, sides)
    name = "cold start to first 200"
    yield Row("start", f"{name}, six workers", found["ours"], found["bare"], PEER, bar=Bar(1.5, 1.25))
    yield Row("start", f"{name}, and the embedded broker", found["embedded"], found["bare"], PEER)
    yield Row("start", f"{name}, no workers", found["alone"], found["bare"], PEER)


def idle(run: Run) -> Iterator[Row]:
    """Memory of each process after some work, then its CPU when nothing happens; six workers, embedded broker."""
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        ours = stack.enter_context(Ours(run.folder / "ours", manifest(workers=True)))
        body = run.folder / "body.json"
        body.write_bytes(get(ours.port, ours.gets(fields=True)))
        bare = stack.enter_context(Bare(body))
        clients.do(_clients.one_by_one, ours.port, ours.puts(200))
        clients.do(_clients.one_by_one, ours.port, [ours.gets(fields=True)] * 1000)
        clients.do(_clients.one_by_one, bare.port, [bare.gets()] * 1000)
        children = ours.workers()
        # What followed from the last change is done, and what runs every few seconds has come round.
        time.sleep(1 if run.quick else 10)
        pids = {"supervisor": ours.pid, "bare": bare.pid, **children}
        memory = {name: Series("MiB") for name in pids}
        cpu = {name: Series("%") for name in pids}
        for _ in range(run.blocks):
            before, began = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.perf_counter()
            time.sleep(run.count(1) * IDLE_SECONDS)
            seconds = time.perf_counter() - began
            for name, pid in pids.items():
                cpu[name].blocks.append((cpu_seconds(pid) - before[name]) / seconds * 100)
                memory[name].blocks.append(pss(pid))
    yield Row("idle", "memory (PSS): supervisor", memory["supervisor"], memory["bare"], PEER, bar=Bar(1.4, 1.25))
    yield Row("idle", "memory (PSS): embedded broker", memory["embedded-broker"], memory["bare"], PEER)
    yield Row("idle", f"memory (PSS): {SERVICE} (demo)", memory[SERVICE], memory["bare"], PEER)
    yield Row("idle", "idle CPU, six services: supervisor", cpu["supervisor"], bar=Bar(0.5, 0.2))
    yield Row("idle", "idle CPU: embedded broker", cpu["embedded-broker"])
    yield Row("idle", f"idle CPU: {SERVICE} (demo)", cpu[SERVICE])


def scale(run: Run) -> Iterator[Row]:
    """Start, PUT, GET and memory with 10, 100 and 1000 services, configuration alone."""
    found: dict[str, dict[int, Series]] = {}
    sizes = SIZES[:2] if run.quick else SIZES
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        mqtt = stack.enter_context(broker(run.folder / "mosquitto"))
        programs: dict[int, Ours] = {}
        starts = {size: Series("ms") for size in sizes}
        for size in sizes:
            it = Ours(run.folder / str(size), config_only_manifest(size, SERVICE), MQTT_URL=mqtt.url)
            for _ in range(4):
                # The first start makes the store; the last one stays.
                began = time.perf_counter()
                it.__enter__()
                starts[size].blocks.append((time.perf_counter() - began) * 1e3)
                if len(starts[size].blocks) < 4:
                    it.__exit__()
            del starts[size].blocks[0]
            stack.push(it.__exit__)
            programs[size] = it
        first = "service-000"

        def puts(it: Ours) -> Callable[[], list[float]]:
            return lambda: clients.do(_clients.one_by_one, it.port, it.puts(run.count(200), first))

        def gets(it: Ours) -> Callable[[], list[float]]:
            return lambda: clients.do(_clients.one_by_one, it.port, [it.gets(first)] * run.count(300))

        for size, it in programs.items():
            puts(it)()
            progress(f"  {size} services: started in {starts[size].value:.0f} ms")
        found["start to summary"] = starts
        found["PUT p50"] = _by_size(interleaved(run, {str(size): ("us", puts(it)) for size, it in programs.items()}))
        found["GET p50"] = _by_size(interleaved(run, {str(size): ("us", gets(it)) for size, it in programs.items()}))
        found["memory (PSS)"] = {size: Series("MiB", [pss(it.pid)]) for size, it in programs.items()}
    less, most = sizes[-2:]
    for what, by_size in found.items():
        progress(plot(what, by_size[most].unit, {size: series.value for size, series in by_size.items()}))
        yield Row(
            "scale", f"{what}, {most} services", by_size[most], by_size[less], f"{less} services", bar=Bar(most / less)
        )


def _by_size(found: Mapping[str, Series]) -> dict[int, Series]:
    return {int(name): series for name, series in found.items()}
