"""Workers started, killed, restarted and ended: ours against a floor in C and against the supervisors that people use."""

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

from bench._clients import RawHttp
from bench._harness import Bar, Row, Run, Series, interleaved
from bench._natives import Natives, gone
from bench._sides import Skipped
from bench._supervisors import PEERS, Native, Peer

FLOOR: Final = "C floor"
PAUSE: Final = 0.03
"""Seconds between two samples of a side: workers do not die in volleys, and a supervisor may prepare for the next one."""
AGE: Final = 1.2
"""Seconds for which a peer's worker has lived before it is killed: they hold back one that dies within its first second."""

STARTS: Final = 100
LIFTED: Final = 2000

VARIABLES: Final = 5000
HANDED_ON: Final = 256
"""Variables that a manifest may set, and again that it may pass on."""

STUBBORN: Final = 3
GRACE: Final = 0.5

Side = tuple[str, Callable[[], float | list[float]]]


def respawn(run: Run) -> Iterator[Row]:
    """From the signal that ends a worker to its successor's main(), and from a restart by REST to its answer.

    Ours restarts at once a worker that had been ready and fails for the first time in a while, so each of ours is killed
    only once; the others know no such record, and the same worker is killed again.
    """
    blocks, samples = run.blocks, run.count(5)
    many = {f"V{number:04}": f"value of variable {number:04}" for number in range(VARIABLES)}
    with contextlib.ExitStack() as stack:
        natives = stack.enter_context(Natives(run.folder))

        def names(side: str) -> list[str]:
            return [f"{side}-{number:02}" for number in range(blocks * samples)]

        def sleepers(side: str) -> dict[str, list[str]]:
            return {name: natives.sleeper(name) for name in names(side)}

        def killed(side: str) -> Side:
            fresh = iter(names(side))
            return "ms", lambda: _apart(natives.back, (next(fresh) for _ in range(samples)))

        def at_floor(name: str, sig: signal.Signals = signal.SIGKILL) -> Side:
            return "ms", lambda: _apart(lambda each: natives.back(each, sig), [name] * samples)

        ours = Native(run.folder / "ours", {**sleepers("ours"), "asked": natives.sleeper("asked")})
        stack.enter_context(ours)
        keys = {
            "pass_environment": list(many)[:HANDED_ON],
            "environment": {f"OWN_{name}": many[name] for name in list(many)[:HANDED_ON]},
        }
        loaded = Native(run.folder / "loaded", sleepers("loaded"), keys=keys, environment=many)
        stack.enter_context(loaded)
        stack.enter_context(natives.kept_by_floor(natives.sleeper("floor")))
        stack.enter_context(natives.kept_by_floor(natives.sleeper("floor-loaded"), environment=many))

        sides: dict[str, Side] = {
            "floor": at_floor("floor"),
            "ours": killed("ours"),
            "floor, TERM": at_floor("floor", signal.SIGTERM),
            "floor, loaded": at_floor("floor-loaded"),
            "loaded": killed("loaded"),
        }
        rest = "restart by REST, to the answer"
        reasons: dict[str, str] = {}
        try:
            sides[rest] = "ms", _by_rest(stack, natives, ours, samples)
        except Skipped as why:
            reasons[rest] = str(why)
        for kind in PEERS:
            try:
                sides[kind.name] = "ms", _peer(stack, natives, run, kind)
            except Skipped as why:
                reasons[kind.name] = str(why)
        found = interleaved(run, sides)

    what = "killed worker to its successor's main()"
    yield Row("respawn", what, found["ours"], found["floor"], FLOOR, bar=Bar(2.5))
    for kind in PEERS:
        if kind.name in found:
            yield Row("respawn", what, found["ours"], found[kind.name], kind.name)
        else:
            yield Row("respawn", f"{what}, {kind.name}", None, note=f"skipped: {reasons[kind.name]}")
    if rest in found:
        yield Row("respawn", rest, found[rest], found["floor, TERM"], FLOOR, bar=Bar(10))
    else:
        yield Row("respawn", rest, None, note=f"skipped: {reasons[rest]}")
    added = f"{VARIABLES} environment variables add"
    yield Row("respawn", added, _more(found["loaded"], found["ours"]), bar=Bar(2))
    yield Row("respawn", f"{added}, {FLOOR}", _more(found["floor, loaded"], found["floor"]))


def _apart(measure: Callable[[str], float], names: "Iterator[str] | list[str]") -> list[float]:
    taken = []
    for name in names:
        time.sleep(PAUSE)
        taken.append(measure(name))
    return taken


def _more(series: Series, than: Series) -> Series:
    return Series(series.unit, [each - other for each, other in zip(series.blocks, than.blocks, strict=True)])


def _by_rest(stack: contextlib.ExitStack, natives: Natives, ours: Native, samples: int) -> Callable[[], list[float]]:
    """Restart a worker that ends when it is asked to; answered when its successor runs. `Skipped` without that route."""
    request = ours.restarts("asked")
    asked = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=30)
    asked.request(request.method, request.path, headers=request.headers)
    status = asked.getresponse().status
    asked.close()
    if status in {404, 405}:
        raise Skipped("no such route")
    client = RawHttp(ours.port)
    stack.callback(client.close)
    wire = request.wire(ours.port)

    def restarted(name: str) -> float:
        sent = time.monotonic_ns()
        began = time.perf_counter()
        client.exchange(wire)
        taken = time.perf_counter() - began
        # Its exec is what is answered; main() may be some microseconds later.
        natives.until(name, sent, within=1)
        return taken

    return lambda: _apart(restarted, ["asked"] * samples)


def _peer(stack: contextlib.ExitStack, natives: Natives, run: Run, kind: type[Peer]) -> Callable[[], list[float]]:
    """Kill each of its workers once a block: several of one that is fast, one of one that takes a second or more."""
    names = [f"{kind.name}-{number}" for number in range(run.count(5) if kind.fast else 1)]
    stack.enter_context(kind(run.folder / kind.name, {name: natives.sleeper(name) for name in names}))
    for name in names:
        natives.until(name)
    return lambda: _apart(lambda name: natives.back(name, age=AGE), names)


def starts(run: Run) -> Iterator[Row]:
    """100 starts at once, from the first one's main() on; and the end of workers that do not hear SIGTERM."""
    with contextlib.ExitStack() as stack:
        natives = stack.enter_context(Natives(run.folder))
        names = [f"one-{number:03}" for number in range(STARTS + 1)]
        workers = {name: natives.sleeper(name) for name in names}
        ours = Native(run.folder / "ours", workers, concurrent_starts=LIFTED)
        stubborn = {
            f"stubborn-{number}": natives.sleeper(f"stubborn-{number}", "stubborn") for number in range(STUBBORN)
        }
        few = Native(run.folder / "few", stubborn, keys={"grace": f"{GRACE * 1000:g} ms"})
        first, last, overdue = Series("ms"), Series("ms"), Series("ms")

        def of_all(began: int, count: int) -> tuple[float, float]:
            """Milliseconds until the first main() and until the last."""
            told = [natives.take() for _ in range(count)]
            return (min(it.at for it in told) - began) / 1e6, (max(it.at for it in told) - began) / 1e6

        def at_floor() -> float:
            began = time.monotonic_ns()
            with natives.kept_by_floor(natives.sleeper("floor"), STARTS + 1):
                earliest, latest = of_all(began, STARTS + 1)
            return latest - earliest

        def by_ours() -> float:
            began = time.monotonic_ns()
            try:
                ours.begin()
                earliest, latest = of_all(began, STARTS + 1)
                last.blocks.append(latest)
            finally:
                ours.__exit__()
            return latest - earliest

        def refusing() -> float:
            began = time.monotonic_ns()
            try:
                few.__enter__()
                first.blocks.append(of_all(began, STUBBORN)[0])
                asked = time.monotonic()
                os.kill(few.pid, signal.SIGTERM)
                ends = [gone(natives.latest[name].pid, GRACE + 10) for name in stubborn]
            finally:
                few.__exit__()
            overdue.blocks.append((max(ends) - asked - GRACE) * 1e3)
            return overdue.blocks[-1]

        found = interleaved(run, {"floor": ("ms", at_floor), "ours": ("ms", by_ours), "few": ("ms", refusing)})
    yield Row("starts", f"{STARTS} starts after the first", found["ours"], found["floor"], FLOOR, bar=Bar(4))
    # What a supervisor prepares for all of them before the first one runs would not show above.
    yield Row("starts", "  all of the start that they add to one of three", _more(last, first), found["floor"], FLOOR)
    yield Row("starts", "does not hear TERM: gone after its grace +", overdue, bar=Bar(200))


def trees(run: Run) -> Iterator[Row]:
    """A worker that has double-forked 51 others, each in a session of its own, and is killed: who of them sees its successor."""
    with contextlib.ExitStack() as stack:
        natives = stack.enter_context(Natives(run.folder))
        names = [f"tree-{number}" for number in range(run.blocks)]
        workers = {name: natives.sleeper(name, "tree", run.folder / f"{name}.pids") for name in names}
        stack.enter_context(Native(run.folder / "ours", workers))
        took, survivors = Series("ms"), Series("")
        for name in names:
            took.blocks.append(natives.back(name) * 1e3)
            survivors.blocks.append(natives.latest[name].figure)
    survivors.blocks = [max(survivors.blocks)]
    yield Row("trees", "51 double-forked: alive at the successor's main()", survivors, bar=Bar(0))
    yield Row("trees", "  killed worker to its successor's main()", took)
