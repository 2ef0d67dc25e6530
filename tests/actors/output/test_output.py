"""From a worker's pipes to records, through the public door, with real processes."""

import asyncio
import itertools
import os
import select
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.output import MASK, OutputLimits, Outputs, Record
from actors.output._settings import LINE_LIMIT, READ_SIZE
from tests.actors.output.conftest import INSTANCE, entries, messages
from tests.actors.output.test_file import largest_file
from tests.support import eventually

TRACEBACK = """
import sys
print("before", file=sys.stderr, flush=True)
def f(): raise ValueError("level=info is in here")
try: f()
except ValueError:
    import traceback; traceback.print_exc()
print("after", file=sys.stderr, flush=True)
"""


async def ended(process) -> None:
    await eventually(lambda: process.poll() is not None, what="the worker's end")


async def test_records_tell_who_said_what(outputs, worker, tmp_path) -> None:
    seen: list[Record] = []
    output = outputs.open("stt-worker", on_record=seen.append)
    process = worker(
        output, "import sys; print('out'); print('err', file=sys.stderr); print('{\"msg\":\"json\",\"a\":1}')"
    )
    await ended(process)
    output.detach()
    assert set(await output.last_lines(INSTANCE)) == {"out", "err", "json"}
    found = {entry["message"]: entry for entry in entries(output)}
    assert {name: (entry["stream"], entry["level"]) for name, entry in found.items()} == {
        "out": ("stdout", "info"),
        "err": ("stderr", "warning"),
        "json": ("stdout", "info"),
    }
    assert found["json"]["fields"] == {"a": 1}
    assert {(entry["service"], entry["instance"], entry["pid"]) for entry in found.values()} == {
        ("stt-worker", INSTANCE, process.pid)
    }
    assert [record.json for record in seen] == output.tail(10)
    numbers = [record.sequence for record in seen]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    await outputs.close()
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "logs" / "stt-worker.log").read_bytes() == b"".join(record.json for record in seen)
    assert (tmp_path / "logs" / "stt-worker.log").stat().st_mode & 0o777 == 0o600


async def test_a_traceback_stays_in_order_and_is_an_error(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    await ended(worker(output, TRACEBACK))
    output.detach()
    await output.last_lines(INSTANCE)
    lines = [(entry["level"], entry["message"]) for entry in entries(output)]
    assert lines[0] == ("warning", "before")
    assert lines[-1] == ("warning", "after")
    assert lines[1] == ("error", "Traceback (most recent call last):")
    assert lines[-2] == ("error", "ValueError: level=info is in here")
    assert {level for level, _ in lines[1:-1]} == {"error"}


async def test_lines_that_belong_to_one_share_its_level(outputs, pipes) -> None:
    output = outputs.open("stt-worker")
    pipes(output).write(b"ERROR: disk\n  more of it\nsomething else\n")
    await eventually(lambda: len(messages(output)) == 3)
    assert [entry["level"] for entry in entries(output)] == ["error", "error", "info"]


async def test_a_secret_over_two_reads_is_struck_out(outputs, pipes) -> None:
    output = outputs.open("stt-worker")
    output.hide(["open-sesame"])
    pipe = pipes(output)
    for half in (b"first\nopen-", b"sesame and open", b"-ses", b"ame\n"):
        pipe.write(half)
        await eventually(lambda: not _unread(output))
    await eventually(lambda: len(messages(output)) == 2)
    assert messages(output) == ["first", f"{MASK} and {MASK}"]


def _unread(output) -> bool:
    """Whether something of its pipes has not come to be looked at."""
    capture = output._captures[-1]
    readable, _, _ = select.select([stream._descriptor for stream in capture.streams if stream.open], [], [], 0)
    return bool(readable or capture.backlog or capture.current)


async def test_a_worker_killed_in_the_middle_of_a_line(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    output.hide(["open-sesame"])
    process = worker(output, "import os, time; os.write(1, b'whole\\nthe word is open-ses'); time.sleep(60)")
    await eventually(lambda: messages(output) == ["whole"])
    process.kill()
    await ended(process)
    output.detach()
    assert await output.last_lines(INSTANCE) == ("whole", f"the word is {MASK}")
    assert entries(output)[-1]["cut"] is True


async def test_characters_over_block_borders_stay_whole(outputs, pipes) -> None:
    output = outputs.open("stt-worker")
    pipe = pipes(output)
    text = "x" + "🙂" * 1000 + "\n"
    data = (text * (2 * READ_SIZE // len(text.encode()))).encode()
    for at in range(0, len(data), 4096):
        pipe.write(data[at : at + 4096])
        await asyncio.sleep(0)
    await eventually(lambda: len(messages(output)) == data.count(b"\n"))
    assert set(messages(output)) == {text[:-1]}
    for byte in "é\n".encode():
        pipe.write(bytes([byte]))
        await eventually(lambda: not _unread(output))
    await eventually(lambda: messages(output)[-1] == "é")


async def test_binary_and_a_line_of_ten_megabytes(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    source = (
        "import os; os.write(1, bytes(range(256)) + b'\\n'); "
        "f = open(1, 'wb'); f.write(b'y' * 10_000_000 + b'\\nend\\n'); f.close()"
    )
    await ended(worker(output, source))
    output.detach()
    last = await output.last_lines(INSTANCE)
    assert last[-1] == "end"
    found = entries(output)
    assert found[0]["message"].startswith("\\x00\\x01")
    long = next(entry for entry in found if entry["message"].startswith("yyy"))
    assert long["cut"] is True
    assert long["message"] == "y" * LINE_LIMIT
    told = sum(entry["fields"]["dropped_bytes"] for entry in found if entry["stream"] == "supervisor")
    # The line's own end may be among what was left out.
    assert told - (10_000_000 - LINE_LIMIT) in {0, 1}


async def test_a_grandchild_that_holds_the_pipe_holds_nobody_up(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    source = "import os, time\nprint('last words', flush=True)\nif os.fork() == 0: time.sleep(60)\nelse: os._exit(0)"
    process = worker(output, source)
    await ended(process)
    output.detach()
    async with asyncio.timeout(30):
        assert await output.last_lines(INSTANCE) == ("last words",)
    os.killpg(process.pid, 9)


async def test_a_worker_that_closes_its_output_early(outputs, worker) -> None:
    output = outputs.open("stt-worker")
    worker(output, "import os, time; os.write(1, b'going quiet'); os.close(1); os.close(2); time.sleep(60)")
    await eventually(lambda: messages(output) == ["going quiet"])
    output.detach()
    assert await output.last_lines(INSTANCE) == ("going quiet",)


async def test_the_next_instance_comes_after_the_one_before(outputs, pipes) -> None:
    output = outputs.open("stt-worker")
    first = pipes(output, "a" * 32)
    first.write(b"".join(b"first %d\n" % number for number in range(3000)) + b"no end")
    second = pipes(output, "b" * 32)
    second.write(b'{"msg": "second", "instance": "%s"}\n' % (b"a" * 32))
    await eventually(lambda: messages(output)[-1:] == ["second"])
    assert (await output.last_lines("a" * 32))[-2:] == ("first 2999", "no end")
    assert await output.last_lines("b" * 32) == ("second",)
    assert await output.last_lines("c" * 32) == ()


async def test_after_a_restart_numbers_rise_and_the_tail_is_there(tmp_path, pipes) -> None:
    before = Outputs(tmp_path)
    pipes(before.open("stt-worker")).write(b"one\ntwo\n")
    await before.close()
    with (tmp_path / "stt-worker.log").open("ab") as file:
        file.write(b'{"sequence": 1}\nnot ours\n{"torn')
    after = Outputs(tmp_path)
    output = after.open("stt-worker")
    assert messages(output) == ["one", "two"]
    pipes(output, resumed=True).write(b"three\n")
    await eventually(lambda: messages(output) == ["one", "two", "three"])
    numbers = [entry["sequence"] for entry in entries(output)]
    assert numbers == sorted(set(numbers))
    assert await output.last_lines(INSTANCE) == ("one", "two", "three")
    await after.close()
    assert (tmp_path / "stt-worker.log").read_bytes().splitlines()[-1].startswith(b'{"service":"stt-worker"')


async def test_numbers_rise_although_the_clock_was_set_back(tmp_path) -> None:
    (tmp_path / "stt-worker.log").write_bytes(
        orjson.dumps({"sequence": 10**17, "instance": None, "stream": "stdout", "message": "m"}) + b"\n"
    )
    outputs = Outputs(tmp_path)
    output = outputs.open("stt-worker")
    output.note("next")
    assert entries(output)[-1]["sequence"] == 10**17 + 1
    await outputs.close()


async def test_what_was_drained_while_nobody_was_here_comes_first(outputs, pipes, tmp_path) -> None:
    output = outputs.open("stt-worker")
    output.hide(["open-sesame"])
    drained = [("stdout", 1.5, b"end of a lost line\nout 1\nout "), ("stderr", 2.0, b"sesame tail\nerr 1\n")]
    pipe = pipes(output, resumed=True, drained=drained, dropped=1000)
    async with asyncio.timeout(30):
        await output.adopted(INSTANCE)
    written = (tmp_path / "logs" / "stt-worker.log").read_bytes().splitlines()
    assert orjson.loads(written[-1])["message"] == "err 1"
    pipe.write(b"2\n")
    await eventually(lambda: messages(output)[-1:] == ["out 2"])
    assert messages(output) == [
        "1000 bytes of stdout were left out: more was printed than is kept",
        "the rest of a line of stdout, 18 bytes, was left out",
        "out 1",
        f"{MASK} tail",
        "err 1",
        "out 2",
    ]
    times = {entry["message"]: entry["time"] for entry in entries(output)}
    assert times["out 1"] == "1970-01-01T00:00:01.500000+00:00"
    assert times["err 1"] == "1970-01-01T00:00:02.000000+00:00"
    assert times["out 2"] > "2026"


async def test_what_is_released_is_left_for_the_next_reader(outputs, pipes) -> None:
    output = outputs.open("stt-worker")
    stdout, end = os.pipe()
    stderr, other_end = os.pipe()
    kept = os.dup(stdout)
    output.attach(INSTANCE, 7, stdout, stderr)
    os.write(end, b"before\nbeg")
    await eventually(lambda: messages(output) == ["before"])
    os.write(other_end, b"err\nun")
    output._captures[0].streams[1]._read()  # it is read, and not looked at
    os.write(end, b"un\n")
    assert output.release() == {"stdout": b"beg", "stderr": b"err\nun"}
    assert os.read(kept, 100) == b"un\n"
    assert await output.last_lines(INSTANCE) == ("before",)
    assert output.release() == {}
    for descriptor in (end, other_end, kept):
        os.close(descriptor)


async def test_a_callback_that_fails_stops_nothing(outputs, pipes, caplog) -> None:
    def fail(_: Record) -> None:
        raise ValueError("ours")

    output = outputs.open("stt-worker", on_record=fail)
    pipes(output).write(b"one\ntwo\n")
    await eventually(lambda: messages(output) == ["one", "two"])
    assert "was not dealt with" in caplog.text


async def test_followers_get_the_tail_and_what_comes(outputs, pipes) -> None:
    output = outputs.open("stt-worker")
    pipe = pipes(output)
    pipe.write(b"one\ntwo\n")
    await eventually(lambda: len(messages(output)) == 2)
    follower, all_of_it, idle = output.follow(1), output.follow(100), output.follow()
    waiting = asyncio.ensure_future(anext(idle))
    await asyncio.sleep(0)
    waiting.cancel()  # which loses nothing
    pipe.write(b"three\n")
    async with asyncio.timeout(30):
        assert [orjson.loads(await anext(follower))["message"] for _ in range(2)] == ["two", "three"]
        assert [orjson.loads(await anext(all_of_it))["message"] for _ in range(3)] == ["one", "two", "three"]
        assert orjson.loads(await anext(idle))["message"] == "three"
        rest = asyncio.ensure_future(anext(follower, None))
        await outputs.close_one("stt-worker")
        assert await rest is None


async def test_a_slow_follower_is_told_what_it_lost(outputs, pipes) -> None:
    output = outputs.open("stt-worker", OutputLimits(ring_lines=10))
    slow = output.follow()
    pipes(output).write(b"".join(b"%d\n" % number for number in range(100)))
    await eventually(lambda: messages(output)[-1:] == ["99"])
    async with asyncio.timeout(30):
        notice = orjson.loads(await anext(slow))
        assert (notice["stream"], notice["fields"]) == ("supervisor", {"dropped_lines": 90})
        assert [orjson.loads(await anext(slow))["message"] for _ in range(10)] == [str(n) for n in range(90, 100)]


async def test_memory_keeps_its_bounds(outputs, pipes) -> None:
    output = outputs.open("stt-worker", OutputLimits(ring_lines=5000, ring_bytes=256 * 1024))
    pipe = pipes(output)
    for _ in range(40):
        pipe.write(b"x" * 10_000 + b"\n")
        await eventually(lambda: not _unread(output))
    assert sum(map(len, output.tail(10_000))) <= 256 * 1024
    assert len(output.tail(10_000)) > 20


async def test_a_full_disk_is_told_and_heals(outputs, pipes, monkeypatch, caplog, tmp_path: Path) -> None:
    monkeypatch.setattr("actors.output._writer.RETRY", (0.01,))
    monkeypatch.setattr("actors.output._writer.UNWRITTEN", 2000)
    output = outputs.open("stt-worker")
    pipe = pipes(output)
    pipe.write(b"before\n")
    file = tmp_path / "logs" / "stt-worker.log"
    await eventually(lambda: file.exists() and file.stat().st_size)
    with largest_file(file.stat().st_size):
        pipe.write(b"".join(b"full %d\n" % number for number in range(100)))
        await eventually(lambda: output.trouble)
        assert output.trouble == "File too large"
        await eventually(lambda: messages(output)[-1:] == ["full 99"])  # memory and followers have it all
    await eventually(lambda: output.trouble is None)
    pipe.write(b"healed\n")
    await eventually(lambda: b'"healed"' in file.read_bytes())
    written = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    texts = [entry["message"] for entry in written]
    lost = 100 - sum(text.startswith("full ") for text in texts)
    assert lost > 50
    assert [entry["fields"] for entry in written if entry["stream"] == "supervisor"] == [{"dropped_lines": lost}]
    assert "cannot be written" in caplog.text
    assert f"{lost} lines were lost" in caplog.text


async def test_a_folder_that_is_missing_ends_nothing(outputs, pipes, tmp_path: Path) -> None:
    (tmp_path / "logs").rmdir()
    output = outputs.open("stt-worker")
    pipes(output).write(b"one\n")
    await eventually(lambda: output.trouble)
    assert messages(output) == ["one"]


async def test_rotation_under_load_loses_nothing(outputs, worker, tmp_path: Path) -> None:
    output = outputs.open("stt-worker", OutputLimits(file_bytes=256 * 1024, files=20))
    source = "import sys\nfor n in range(2600): sys.stdout.write(f'{n} ' + 'x' * 90 + '\\n')"
    process = worker(output, source)
    await ended(process)
    output.detach()
    await output.last_lines(INSTANCE)
    await outputs.close()
    files = sorted(
        (tmp_path / "logs").iterdir(), key=lambda each: -int(each.suffix[1:]) if each.suffix != ".log" else 0
    )
    assert len(files) >= 3
    written = [orjson.loads(line) for each in files for line in each.read_bytes().splitlines()]
    sequences = [entry["sequence"] for entry in written]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    lines = [int(entry["message"].split()[0]) for entry in written if entry["stream"] == "stdout"]
    dropped = sum(entry["fields"]["dropped_bytes"] for entry in written if entry["stream"] == "supervisor")
    total = sum(len(f"{n} ") + 91 for n in range(2600))
    assert sum(len(f"{n} ") + 91 for n in lines) + dropped == total
    assert lines[-1] == 2599


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
async def test_any_bytes_in_any_chunks_give_the_same_records(tmp_path_factory, data: bytes, cuts: list[int]) -> None:
    outputs = Outputs(tmp_path_factory.mktemp("logs"))
    found = []
    for name, edges in (
        ("whole", [0, len(data)]),
        ("cut", [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]),
    ):
        output = outputs.open(name)
        output.hide(["\x00\x00\x00\x00", "abcd"])
        stdout, end = os.pipe()
        stderr, other_end = os.pipe()
        output.attach(INSTANCE, 7, stdout, stderr)
        for start, stop in itertools.pairwise(edges):
            if stop > start:
                os.write(end, data[start:stop])
                await asyncio.sleep(0)
        os.close(end)
        os.close(other_end)
        output.detach()
        await output.last_lines(INSTANCE)
        found.append([(entry["level"], entry["message"], entry.get("cut")) for entry in entries(output)])
    await outputs.close()
    assert found[0] == found[1]


@pytest.mark.parametrize("wrong", [{"file_bytes": 1}, {"files": -1}, {"ring_lines": 0}, {"ring_bytes": 1}])
def test_limits_that_are_too_small_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="too small"):
        OutputLimits(**wrong)
