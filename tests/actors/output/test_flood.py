"""A worker that prints without end: it is not held up, nobody else is, memory keeps its bound, nothing is lost uncounted."""

import asyncio
import tracemalloc

from actors.output import Output
from tests.actors.output.conftest import INSTANCE, entries, messages
from tests.support import eventually

LINE = 100


def flood(megabytes: int, before: str = "", after: str = "last words") -> str:
    return (
        f"import os\nblock = (b'f' * {LINE - 1} + b'\\n') * 600\nos.write(1, {before.encode()!r})\n"
        f"for _ in range({megabytes} * 1_000_000 // len(block)):\n"
        "    view = memoryview(block)\n"
        "    while view: view = view[os.write(1, view):]\n"
        f"os.write(1, {after.encode()!r} + b'\\n')\n"
    )


class Count:
    """Adds up what a service's records tell."""

    def __init__(self) -> None:
        self.kept = 0
        self.dropped = 0

    def __call__(self, record) -> None:
        if record.stream == "supervisor":
            self.dropped += record.fields["dropped_bytes"]
        else:
            self.kept += len(record.message) + (not record.cut)  # and its end, where it has one


async def end(output: Output, process) -> tuple[str, ...]:
    await eventually(lambda: process.poll() is not None, timeout=60, what="the flood's end")
    output.detach()
    async with asyncio.timeout(30):
        return await output.last_lines(INSTANCE)


async def test_every_byte_is_kept_or_counted_and_the_last_words_are_there(outputs, worker) -> None:
    count = Count()
    output = outputs.open("stt-worker", on_record=count)
    process = worker(output, flood(60, "first words\n"))
    last = await end(output, process)
    assert last[-1] == "last words"
    assert len(last) == 20
    written = 60_000_000 // (600 * LINE) * 600 * LINE
    assert count.kept + count.dropped == written + len("first words\nlast words\n")
    assert count.dropped > 30_000_000
    assert count.kept >= 100_000  # a burst is kept


async def test_memory_grows_by_less_than_two_megabytes(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        process = worker(output, flood(20))
        await end(output, process)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 2_000_000


async def test_a_flood_takes_nothing_from_the_others(outputs, worker, pipes) -> None:
    """Its neighbour's lines, its own standard error, and the loop."""
    flooding, neighbour = outputs.open("flooding"), outputs.open("neighbour")
    process = worker(flooding, flood(10_000))
    pipe = pipes(neighbour)
    await eventually(lambda: any(entry["stream"] == "supervisor" for entry in entries(flooding)), timeout=30)
    turns = 0
    for number in range(200):
        pipe.write(b"line %d\n" % number)
        await asyncio.sleep(0.001)
        turns += 1
    await eventually(lambda: messages(neighbour) == [f"line {number}" for number in range(200)])
    assert process.poll() is None, "the flood was too short for this test"
    process.kill()
    await end(flooding, process)
    assert turns == 200


async def test_errors_are_not_drowned_by_the_other_stream(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    source = flood(30) + "os.write(2, b'ERROR: this is why\\n')\n" + flood(30)
    await end(output, worker(output, source))
    assert "ERROR: this is why" in messages(output)


async def test_a_flood_that_ends_is_told_without_waiting_for_more(outputs, worker) -> None:
    """Its last lines, and how much was dropped, although the worker lives on and says nothing."""
    output = outputs.open("stt-worker")
    process = worker(output, flood(20) + "import time; time.sleep(60)")
    await eventually(lambda: messages(output)[-1:] == ["last words"], timeout=30)
    assert output._turns.floods == 0
    assert process.poll() is None
    # Nothing to do, so nothing wakes us up.
    assert output._turns._handle is None
    assert all(stream._again.cancelled() for stream in output._captures[0].streams if stream._again is not None)


async def test_a_flood_of_a_worker_that_is_gone_leaves_no_mark(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    process = worker(output, flood(10_000))
    await eventually(lambda: output._turns.floods == 1, timeout=30)
    process.kill()
    await end(output, process)
    assert output._turns.floods == 0


async def test_blank_lines_are_not_multiplied(outputs, worker) -> None:
    """Each becomes a record that is two hundred times as long."""
    records = 0

    def count(_: object) -> None:
        nonlocal records
        records += 1

    output = outputs.open("stt-worker", on_record=count)
    last = await end(
        output, worker(output, "import os\nfor _ in range(100): os.write(1, b'\\n' * 60_000)\nos.write(1, b'end\\n')")
    )
    assert last[-1] == "end"
    assert records < 300_000
