"""Either kind of actor, and an end to all of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pykka
import pytest

from actors.runtime import Actor
from tests.actors.runtime.support import DEADLINE, Flavour


@pytest.fixture(params=[pykka.ThreadingActor, Actor], ids=["stock", "ours"])
async def flavour(request: pytest.FixtureRequest) -> AsyncIterator[Flavour]:
    """Pykka's own actors and ours, one after the other. Those that a test leaves running are stopped."""
    yield Flavour(request.param, asyncio.get_running_loop())
    await asyncio.to_thread(pykka.ActorRegistry.stop_all, timeout=DEADLINE)


@pytest.fixture(autouse=True)
def leaves_no_actor_registered(leaves_nothing_behind: None) -> Iterator[None]:
    """Pykka's registry is the process's own: what a test leaves there stays for ever."""
    assert pykka.ActorRegistry.get_all() == []
    yield
    left = pykka.ActorRegistry.get_all()
    for ref in left:
        pykka.ActorRegistry.unregister(ref)
    assert left == []
