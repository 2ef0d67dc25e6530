"""Server-sent events: what is on the wire, as a reader by the standard understands it, and resuming."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors import Events
from actors.events import ConfigChanged, HealthChanged
from api.routes.events import RETRY_MS
from api.server_sent_events import HEARTBEAT, beginning, event
from schemas.health import HealthReport
from tests.api.conftest import Running, running, state_over
from tests.api.fake_services import EPOCH, FakeServices
from tests.api.reading import EVENTS, Lines, reading


@dataclass
class Message:
    """An event as a page gets it."""

    name: str
    data: str
    last_id: str


class EventSource:
    """WHATWG HTML, section 9.2.6, word for word."""

    def __init__(self) -> None:
        self.retry: int | None = None
        self.last_id = ""
        self._id = ""
        self._data = ""
        self._name = ""

    def feed(self, lines: Iterable[str]) -> Iterator[Message]:
        for line in lines:
            if not line:
                yield from self._dispatch()
            elif not line.startswith(":"):
                name, _, value = line.partition(":")
                self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._name = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self) -> Iterator[Message]:
        self.last_id = self._id
        data, name = self._data, self._name
        self._data = self._name = ""
        if data:
            yield Message(name or "message", data.removesuffix("\n"), self.last_id)

    async def next(self, stream: Lines) -> Message:
        while True:
            for message in self.feed([await stream.next()]):
                return message


def with_line_feeds(text: str) -> str:
    """Only these three end a line, whatever `splitlines` believes."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(text: str) -> list[str]:
    return with_line_feeds(text).split("\n")[:-1]


word = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=20)
anything = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n:\0 "), max_size=60)


@given(events=st.lists(st.tuples(word, anything, word), max_size=5), beats=st.booleans())
@example(events=[("state", "\r", "1"), ("state", "", "2"), ("state", "\r\n\n: x\n", "3")], beats=False)
def test_any_data_arrives_as_it_was(events: list[tuple[str, str, str]], beats: bool):
    text = beginning(RETRY_MS, None)
    for name, data, event_id in events:
        text += HEARTBEAT * beats + event(name, data.encode(), event_id)
    source = EventSource()
    found = list(source.feed(lines_of(text.decode())))
    # All line ends are alike.
    assert found == [Message(name, with_line_feeds(data), event_id) for name, data, event_id in events]
    assert source.retry == RETRY_MS


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\0"])
def test_a_line_end_in_a_name_is_refused(end: str):
    with pytest.raises(ValueError, match="line of its own"):
        event(f"state{end}data: forged", b"", "1")
    with pytest.raises(ValueError, match="line of its own"):
        event("state", b"", f"1{end}")


def health(text: str) -> HealthChanged:
    return HealthChanged(HealthReport(event=text))


def config(version: int) -> ConfigChanged:
    return ConfigChanged("stt-worker", version, EPOCH, version, ("vad_threshold",), "owner", "")


async def test_events_come_as_they_happen(api: Running):
    source = EventSource()
    async with reading(api, EVENTS) as stream:
        assert stream.response.headers["content-type"] == "text/event-stream"
        for version in range(2, 5):
            event_id = api.state.events.publish(config(version))
            message = await source.next(stream)
            assert (message.name, message.last_id) == ("config", event_id)
            assert json.loads(message.data)["version"] == version
            assert "\n" not in message.data
        assert source.retry == RETRY_MS
        api.state.events.publish(health("é\u2028\r\n"))
        assert json.loads((await source.next(stream)).data)["event"] == "é\u2028\r\n"


class TestResume:
    async def test_behind_the_last_one(self, api: Running):
        ids = [api.state.events.publish(config(version)) for version in range(5)]
        async with reading(api, EVENTS, **{"Last-Event-ID": ids[1]}) as stream:
            source = EventSource()
            assert [(await source.next(stream)).last_id for _ in range(3)] == ids[2:]

    async def test_of_one_that_had_seen_none(self, api: Running):
        """The connection breaks before the first event: what happens meanwhile is not missed."""
        source = EventSource()
        async with reading(api, EVENTS) as stream:
            while not source.last_id:
                assert not list(source.feed([await stream.next()]))
        event_id = api.state.events.publish(config(2))
        async with reading(api, EVENTS, **{"Last-Event-ID": source.last_id}) as stream:
            assert (await source.next(stream)).last_id == event_id

    async def test_nothing_is_missed_and_nothing_doubled_over_many_breaks(self, api: Running):
        source = EventSource()
        seen: list[int] = []

        async def publish() -> None:
            for version in range(200):
                api.state.events.publish(config(version))
                await asyncio.sleep(0)

        async with reading(api, EVENTS) as stream:
            while not source.last_id:
                list(source.feed([await stream.next()]))
        publishing = asyncio.create_task(publish())
        while len(seen) < 200:
            async with reading(api, EVENTS, **{"Last-Event-ID": source.last_id}) as stream:
                some = [await source.next(stream) for _ in range(min(20, 200 - len(seen)))]
            seen += [json.loads(message.data)["version"] for message in some]
        await publishing
        assert seen == list(range(200))

    @pytest.mark.parametrize("last", ["of-another-life-7", "x" * 5000, "\u00e9", "-", "0"])
    async def test_behind_one_that_is_not_known(self, api: Running, last: str):
        api.state.events.publish(config(1))
        async with reading(api, EVENTS, **{"Last-Event-ID": last.encode()}) as stream:  # type: ignore[arg-type]
            source = EventSource()
            message = await source.next(stream)
            assert (message.name, message.last_id) == ("reset", api.state.events.last_id)
            event_id = api.state.events.publish(config(2))
            assert (await source.next(stream)).last_id == event_id

    async def test_behind_one_that_is_not_kept_any_more(self):
        events = Events(kept=3)
        async with running(state=replace(state_over(FakeServices()), events=events)) as api:
            ids = [events.publish(config(version)) for version in range(6)]
            async with reading(api, EVENTS, **{"Last-Event-ID": ids[0]}) as stream:
                message = await EventSource().next(stream)
                assert (message.name, message.last_id) == ("reset", ids[-1])
            async with reading(api, EVENTS, **{"Last-Event-ID": ids[2]}) as stream:
                assert (await EventSource().next(stream)).last_id == ids[3]

    async def test_an_empty_id_is_that_of_a_new_reader(self, api: Running):
        api.state.events.publish(config(1))
        async with reading(api, EVENTS, **{"Last-Event-ID": ""}) as stream:
            source = EventSource()
            event_id = api.state.events.publish(config(2))
            assert (await source.next(stream)).last_id == event_id

    async def test_two_ids_are_no_id(self, api: Running):
        headers: Any = [("Last-Event-ID", "a"), ("Last-Event-ID", "b")]
        assert (await api.client.get(EVENTS, headers=headers)).status_code == 400
