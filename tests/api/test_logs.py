"""A worker's output over REST: its last lines, those that come, and what a slow reader misses."""

import asyncio
import json
from pathlib import Path

import pytest

from actors.output import Outputs
from api.routes import logs
from tests.api.conftest import Running
from tests.api.reading import FOLLOW, everything, not_reading, reading
from tests.support import eventually

LOGS = "/api/services/stt-worker/logs"


def messages(text: str) -> list[str]:
    return [json.loads(line)["message"] for line in text.splitlines() if line]


def print_some(api: Running, count: int) -> None:
    """One line of each level in turn."""
    output = api.services.workers.outputs["stt-worker"]
    for number in range(count):
        output.print(str(number), logs.LEVELS[number % len(logs.LEVELS)])


class TestLastLines:
    async def test_the_last_hundred(self, api: Running):
        print_some(api, 150)
        answer = await api.client.get(LOGS)
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["cache-control"] == "no-store"
        assert messages(answer.text) == [str(number) for number in range(50, 150)]

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("lines=3", ["7", "8", "9"]),
            ("lines=0", []),
            ("lines=10000", [str(number) for number in range(10)]),
            ("level=error", ["3", "4", "8", "9"]),
            ("level=critical&lines=1", ["9"]),
            ("level=error&lines=3", ["4", "8", "9"]),
            ("level=debug&lines=1", ["9"]),
            ("lines=1&lines=2", ["8", "9"]),
            ("follow=false&lines=1&other=1", ["9"]),
        ],
    )
    async def test_some_of_them(self, api: Running, query: str, expected: list[str]):
        print_some(api, 10)
        answer = await api.client.get(f"{LOGS}?{query}")
        assert messages(answer.text) == expected

    async def test_of_one_that_has_printed_nothing(self, api: Running):
        answer = await api.client.get(f"{LOGS}?level=error")
        assert (answer.status_code, answer.content) == (200, b"")

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("lines=-1", "lines"),
            ("lines=10001", "lines"),
            ("lines=1e3", "lines"),
            ("lines=", "lines"),
            ("lines=%C2%B2", "lines"),
            (f"lines={'9' * 3000}", "lines"),
            ("level=loud", "level"),
            ("level=ERROR", "level"),
            ("follow=perhaps", "follow"),
        ],
    )
    async def test_what_is_wrong_is_named(self, api: Running, query: str, field: str):
        answer = await api.client.get(f"{LOGS}?{query}")
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["errors"]] == [field]

    async def test_everything_that_is_wrong_is_named(self, api: Running):
        answer = await api.client.get(f"{LOGS}?lines=x&level=y&follow=z")
        assert [each["field"] for each in answer.json()["errors"]] == ["lines", "level", "follow"]

    @pytest.mark.parametrize("query", ["", "?follow=true"])
    async def test_a_service_without_output(self, api: Running, query: str):
        answer = await api.client.get(f"/api/services/shared/logs{query}")
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:tars-supervisor:problem:not-possible")
        assert "config-only" in answer.json()["detail"]

    async def test_an_unknown_service(self, api: Running):
        assert (await api.client.get("/api/services/nobody/logs")).status_code == 404


class TestFollow:
    async def test_goes_on_where_the_last_lines_end(self, api: Running):
        print_some(api, 10)
        async with reading(api, f"{FOLLOW}&lines=2") as stream:
            assert messages(await stream.next()) == ["8"]
            assert messages(await stream.next()) == ["9"]
            for number in range(50):
                api.services.workers.outputs["stt-worker"].print(f"more {number}")
                assert messages(await stream.next()) == [f"more {number}"]

    async def test_of_a_level(self, api: Running):
        print_some(api, 10)
        async with reading(api, f"{FOLLOW}&lines=2&level=critical") as stream:
            assert messages(await stream.next()) == ["4"]
            assert messages(await stream.next()) == ["9"]
            print_some(api, 10)
            assert messages(await stream.next()) == ["4"]
            assert messages(await stream.next()) == ["9"]

    @pytest.mark.parametrize("level", ["debug", "error"])
    async def test_a_slow_reader_misses_lines_and_is_told_how_many(self, api: Running, level: str):
        output = api.services.workers.outputs["stt-worker"]
        count = 30_000
        async with not_reading(api, f"{FOLLOW}&lines=0&level={level}") as client:
            await eventually(lambda: api.state.streams)
            (connection,) = api.server._connections()
            most = 0
            for number in range(count):
                output.print(f"{number} {'x' * 500}", "error")
                if number % 10 == 0:
                    await asyncio.sleep(0)
                    most = max(most, connection.transport.get_write_buffer_size())
            assert connection.flow.write_paused
            # 64 KiB, and what one turn of the loop adds.
            assert most < 256 * 1024
            output.end()
            taking = asyncio.create_task(everything(client))
            await eventually(lambda: not api.state.streams)
            connection.shutdown()
            received = await taking
        body = received.partition(b"\r\n\r\n")[2]
        lines = [json.loads(line) for line in body.split(b"\r\n") if line.startswith(b"{")]
        told = [line["lost"] for line in lines if line["sequence"] is None]
        sequences = [line["sequence"] for line in lines if line["sequence"] is not None]
        assert told
        assert sequences == sorted(set(sequences))
        assert sequences[-1] == count
        assert len(sequences) + sum(told) == count


async def test_with_real_output(api: Running, tmp_path: Path):
    outputs = Outputs(tmp_path)
    output = outputs.open("stt-worker")
    api.services.workers.outputs["stt-worker"] = output  # type: ignore[assignment] # the fake is like it
    output.note("it begins")
    output.note("it does not", "error")
    async with reading(api, f"{FOLLOW}&level=warning") as stream:
        assert messages(await stream.next()) == ["it does not"]
        output.note("nobody sees this")
        output.note("but this", "critical")
        line = json.loads(await stream.next())
        assert (line["message"], line["service"], line["stream"]) == ("but this", "stt-worker", "supervisor")
        answer = await api.client.get(LOGS)
        assert messages(answer.text) == ["it begins", "it does not", "nobody sees this", "but this"]
        await outputs.close()
        assert await stream.rest() == []
