"""Events: replayed, resumed, told when they are gone, never held up by a reader."""

import asyncio
from datetime import UTC, datetime

import orjson
import pytest

from actors.events import RESET, SLOW, ConfigChanged, Events, HealthChanged, Published, RolloutChanged, StateChanged
from schemas.health import HealthReport
from schemas.messages import StateMessage, VersionMark
from schemas.states import Kind, Lifecycle

AT = datetime(2026, 11, 20, tzinfo=UTC)


def state(service: str = "stt-worker", restarts: int = 0) -> StateChanged:
    message = StateMessage(
        service=service,
        kind=Kind.PROCESS,
        state=Lifecycle.READY,
        since=AT,
        reason="",
        instance=None,
        pid=None,
        restarts=restarts,
        desired=VersionMark(config_epoch="e", version=1),
        published=None,
        reported=None,
    )
    return StateChanged(service, message.model_dump_json().encode())


def config(version: int) -> ConfigChanged:
    return ConfigChanged("stt-worker", version, "e", version, ("a", "b"), "owner", "why")


async def take(subscription, count: int) -> list[Published]:
    async with asyncio.timeout(30):
        return [await anext(subscription) for _ in range(count)]


async def nothing_waits(subscription) -> bool:
    try:
        async with asyncio.timeout(0):
            await anext(subscription)
    except TimeoutError:
        return True
    return False


async def test_events_reach_everybody_in_order_with_rising_ids() -> None:
    events = Events()
    early, late = events.subscribe(), events.subscribe()
    ids = [events.publish(event) for event in (config(1), state(), HealthChanged(HealthReport(ok=True)))]
    ids.append(events.publish(RolloutChanged("r1", "stt-worker", "confirmed", 2, "e", "")))
    got = await take(early, 4)
    assert [event.id for event in got] == ids == [event.id for event in await take(late, 4)]
    assert [event.name for event in got] == ["config", "state", "health", "rollout"]
    assert [int(event_id.rpartition("-")[2]) for event_id in ids] == [1, 2, 3, 4]
    assert orjson.loads(got[0].data) == {
        "service": "stt-worker",
        "version": 1,
        "config_epoch": "e",
        "revision": 1,
        "keys": ["a", "b"],
        "changed_by": "owner",
        "reason": "why",
    }
    assert orjson.loads(got[1].data)["state"] == "ready"
    assert orjson.loads(got[3].data)["id"] == "r1"
    assert await nothing_waits(early)


async def test_a_subscription_begins_where_it_was_made() -> None:
    events = Events()
    events.publish(config(1))
    subscription = events.subscribe()
    events.publish(config(2))
    (event,) = await take(subscription, 1)
    assert orjson.loads(event.data)["version"] == 2


async def test_resuming_replays_what_was_missed_and_no_more() -> None:
    events = Events()
    before_all = events.last_id
    ids = [events.publish(config(version)) for version in range(1, 6)]
    assert [event.id for event in await take(events.subscribe(before_all), 5)] == ids
    assert [event.id for event in await take(events.subscribe(ids[2]), 2)] == ids[3:]
    latest = events.subscribe(events.last_id)
    assert await nothing_waits(latest)
    following = events.publish(config(6))
    assert [event.id for event in await take(latest, 1)] == [following]


@pytest.mark.parametrize(
    "after", ["", "-", "x", "other-3", "{life}-99", "{life}--1", "{life}-²", "{life}-1x", "9" * 500]
)
async def test_an_id_that_is_not_known_here_is_told(after: str) -> None:
    events = Events()
    events.publish(config(1))
    latest = events.publish(config(2))
    subscription = events.subscribe(after.replace("{life}", latest.rpartition("-")[0]))
    (reset,) = await take(subscription, 1)
    assert (reset.name, reset.id) == (RESET, latest)
    assert orjson.loads(reset.data)["reason"]
    following = events.publish(config(3))
    assert [event.id for event in await take(subscription, 1)] == [following]


async def test_an_id_of_an_earlier_life_is_told_and_ids_are_not_used_twice() -> None:
    first, second = Events(), Events()
    old, new = first.publish(config(1)), second.publish(config(1))
    assert old != new
    (reset,) = await take(second.subscribe(old), 1)
    assert (reset.name, reset.id) == (RESET, new)


async def test_what_is_gone_is_told_and_the_reset_resumes() -> None:
    events = Events(kept=3)
    ids = [events.publish(config(version)) for version in range(1, 6)]
    subscription = events.subscribe(ids[0])
    (reset,) = await take(subscription, 1)
    assert (reset.name, reset.id) == (RESET, ids[-1])
    following = events.publish(config(6))
    assert [event.id for event in await take(subscription, 1)] == [following]
    # One whose next event is the oldest that is kept has missed nothing.
    assert [event.id for event in await take(events.subscribe(ids[2]), 3)] == [*ids[3:], following]


async def test_kept_bytes_are_bounded_too() -> None:
    events = Events(kept_bytes=300)
    ids = [events.publish(config(version)) for version in range(1, 20)]
    (reset,) = await take(events.subscribe(ids[5]), 1)
    assert reset.name == RESET
    assert len(await take(events.subscribe(ids[-2]), 1)) == 1


async def test_a_reader_that_falls_behind_is_told_to_read_again() -> None:
    events = Events(kept=10)
    subscription = events.subscribe()
    for version in range(1, 30):
        events.publish(config(version))
    assert [event.name for event in await take(subscription, 1)] == [RESET]
    assert await nothing_waits(subscription)


async def test_a_slow_reader_gets_the_last_state_of_each_service_and_every_other_event() -> None:
    events = Events()
    slow = events.subscribe()
    for number in range(100):
        events.publish(state("a", number))
        events.publish(state("b", number))
        if number % 10 == 0:
            events.publish(config(number + 1))
    events.close()
    got = [event async for event in slow]
    versions = [orjson.loads(event.data)["version"] for event in got if event.name == "config"]
    assert versions == list(range(1, 101, 10))
    for service in "ab":
        seen = [orjson.loads(event.data)["restarts"] for event in got if event.subject == service]
        assert seen == sorted(seen)
        assert seen[-1] == 99
        assert len(seen) < SLOW
    numbers = [int(event.id.rpartition("-")[2]) for event in got]
    assert numbers == sorted(numbers)


async def test_a_cancelled_wait_loses_nothing() -> None:
    events = Events()
    subscription = events.subscribe()
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    published = events.publish(config(1))
    assert [event.id for event in await take(subscription, 1)] == [published]


async def test_closing_ends_subscriptions_after_what_is_there() -> None:
    events = Events()
    subscription, idle = events.subscribe(), events.subscribe(events.last_id)
    waiting = asyncio.ensure_future(anext(idle, None))
    await asyncio.sleep(0)
    published = events.publish(config(1))
    events.close()
    async with asyncio.timeout(30):
        assert [event.id async for event in subscription] == [published]
        first = await waiting
        assert first is not None
        assert first.id == published
        assert [event async for event in idle] == []
