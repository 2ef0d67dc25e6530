"""Pykka's documented behaviour, of its own actors and of ours alike.

Where ours differs, it does so on purpose:

- A blocking `get()`, `ask()`, `stop()`, `stop_all()` or `proxy.x = 1` on the loop's thread raises `BlockingOnLoop` instead of
  hanging; nothing has been sent then (`test_refusals`).
- An ask of an actor that is waiting for the one that asks raises `AskCycle` (`test_refusals`). That includes Pykka's "proxy to
  itself": there it is `proxy.method.defer()` here.
- `SystemExit`, `KeyboardInterrupt` and `CancelledError` in a handler end that actor; stock stops all actors (below).
- An exception in `on_start` is told by `ref.started` and `ref.exited` and not logged (below). An exception that goes to an
  asker is logged at DEBUG, not at INFO.
- A closing mailbox refuses messages, and those that wait in it are refused before `on_stop` runs; stock refuses them after
  it, and loses those that come later still (`test_races`).
- `stop()` is answered when the actor has ended altogether, its spawned tasks too.
- The mailbox is bounded: `MailboxFull` (`test_refusals`).
- A handler's awaitable result is awaited, unless it is a Pykka future. Context variables come with each message.
- Setting an expired reply does nothing; any other future set twice raises `queue.Full`, as stock.
- `on_failure` is called for a cancellation and for a failed task of its own, too, and has a time limit.
- Errors are `ActorDown`, `ActorDied`, `Expired`, `AskTimeout`, which are Pykka's `ActorDeadError` and `Timeout` as well.
"""

import logging
from typing import Any

import pykka
import pytest
from pykka import ActorDeadError, ActorRegistry

from tests.actors.runtime.support import DEADLINE, Flavour, Gate, on_a_thread

# mypy sees the mixins below without their base.
# mypy: disable-error-code="attr-defined,misc"


class Recorder:
    """Writes down what happens to it."""

    def __init__(self, diary: list[Any], *, name: str = "", failing: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._diary = diary
        self._failing = failing
        self.name = name

    def _note(self, what: str) -> None:
        self._diary.append(f"{self.name}{what}")
        if what in self._failing:
            raise ValueError(what)

    def on_start(self) -> None:
        self._note("on_start")

    def on_stop(self) -> None:
        self._note("on_stop")

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        assert exception_type is type(exception_value)
        assert traceback is exception_value.__traceback__
        self._note(f"on_failure {exception_value}")

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        self._diary.append(message)
        return ("reply to", message)

    def hold(self, gate: Gate) -> Any:
        return gate.wait()

    def stop_yourself(self) -> None:
        self.stop()


def _is_over(ref: pykka.ActorRef[Any]) -> None:
    """Return when the actor has ended, whatever of."""
    if hasattr(ref, "exited"):
        ref.exited.get(timeout=DEADLINE)
    else:
        ref.actor_stopped.wait(DEADLINE)
        ref.stop(timeout=DEADLINE)


# -- life


@on_a_thread
def test_hooks_frame_the_messages(flavour: Flavour) -> None:
    diary: list[Any] = []
    ref = flavour.start(Recorder, diary)
    ref.tell("first")
    assert ref.ask("second", timeout=DEADLINE) == ("reply to", "second")
    assert ref.stop(timeout=DEADLINE) is True
    assert diary == ["on_start", "first", "second", "on_stop"]


@on_a_thread
def test_an_exception_from_an_ask_is_the_askers(flavour: Flavour) -> None:
    diary: list[Any] = []
    ref = flavour.start(Recorder, diary)
    with pytest.raises(KeyError, match="mine"):
        ref.ask(KeyError("mine"), timeout=DEADLINE)
    assert ref.is_alive()
    assert ref.ask("next", timeout=DEADLINE) == ("reply to", "next")
    assert diary == ["on_start", "next"]


@on_a_thread
def test_an_exception_from_a_tell_ends_the_actor(flavour: Flavour) -> None:
    diary: list[Any] = []
    ref = flavour.start(Recorder, diary)
    ref.tell(KeyError("mine"))
    _is_over(ref)
    assert not ref.is_alive()
    assert ActorRegistry.get_by_urn(ref.actor_urn) is None
    assert diary == ["on_start", "on_failure 'mine'"]


@on_a_thread
def test_start_returns_a_reference_even_where_on_start_raises(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    diary: list[Any] = []
    ref = flavour.start(Recorder, diary, failing=("on_start",))
    _is_over(ref)
    assert diary == ["on_start"]
    assert not ref.is_alive()
    with pytest.raises(ActorDeadError):
        ref.ask("too late", timeout=DEADLINE)
    # On purpose: ours is told, not logged.
    assert bool(caplog.get_records("call")) is not flavour.ours
    if flavour.ours:
        with pytest.raises(ValueError, match="on_start"):
            ref.started.get(timeout=DEADLINE)


@on_a_thread
def test_on_stop_may_raise(flavour: Flavour) -> None:
    diary: list[Any] = []
    ref = flavour.start(Recorder, diary, failing=("on_stop",))
    assert ref.stop(timeout=DEADLINE) is True
    assert diary == ["on_start", "on_stop"]
    assert not ref.is_alive()


@on_a_thread
def test_on_failure_may_raise(flavour: Flavour) -> None:
    diary: list[Any] = []
    ref = flavour.start(Recorder, diary, failing=("on_failure told",))
    ref.tell(RuntimeError("told"))
    _is_over(ref)
    assert diary == ["on_start", "on_failure told"]
    assert not ref.is_alive()


@on_a_thread
def test_an_actor_may_stop_itself(flavour: Flavour) -> None:
    diary: list[Any] = []
    ref = flavour.start(Recorder, diary)
    ref.proxy().stop_yourself().get(timeout=DEADLINE)
    _is_over(ref)
    assert diary == ["on_start", "on_stop"]


@on_a_thread
def test_what_comes_before_a_stop_is_handled_and_what_comes_after_is_refused(flavour: Flavour) -> None:
    diary: list[Any] = []
    gate = flavour.gate()
    ref = flavour.start(Recorder, diary)
    held = ref.proxy().hold(gate)
    before = [ref.ask(number, block=False) for number in range(3)]
    stop = ref.stop(block=False)
    after = ref.ask("after", block=False)
    gate.open()
    held.get(timeout=DEADLINE)
    assert [each.get(timeout=DEADLINE) for each in before] == [("reply to", number) for number in range(3)]
    assert stop.get(timeout=DEADLINE) is True
    with pytest.raises(ActorDeadError):
        after.get(timeout=DEADLINE)
    assert diary == ["on_start", 0, 1, 2, "on_stop"]


@on_a_thread
def test_stop_is_true_once_and_false_afterwards(flavour: Flavour) -> None:
    ref = flavour.start(Recorder, [])
    gate = flavour.gate()
    ref.proxy().hold(gate)
    both = [ref.stop(block=False), ref.stop(block=False)]
    gate.open()
    assert [each.get(timeout=DEADLINE) for each in both] == [True, True]
    assert ref.stop(timeout=DEADLINE) is False
    assert ref.stop(block=False).get(timeout=DEADLINE) is False


@on_a_thread
def test_is_alive_until_the_end(flavour: Flavour) -> None:
    ref = flavour.start(Recorder, [])
    assert ref.is_alive()
    assert not ref.actor_stopped.is_set()
    ref.stop(timeout=DEADLINE)
    assert not ref.is_alive()
    assert ref.actor_stopped.is_set()


class Exiting(Recorder):
    def leave(self, error: BaseException) -> None:
        raise error


@on_a_thread
def test_a_system_exit_stops_all_actors_of_pykka_and_one_of_ours(flavour: Flavour) -> None:
    other = flavour.start(Recorder, [])
    ref = flavour.start(Exiting, [])
    ref.tell(SystemExit(3))
    _is_over(ref)
    if flavour.ours:
        assert other.is_alive()
    else:
        assert other.actor_stopped.wait(DEADLINE)


# -- ask and tell


class Silent:
    pass


@on_a_thread
def test_an_unexpected_message_is_logged_and_answered_with_none(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    ref = flavour.start(Silent)
    with caplog.at_level(logging.WARNING, logger="pykka"):
        assert ref.ask("what is this", timeout=DEADLINE) is None
    assert "what is this" in caplog.text


@on_a_thread
def test_tell_gives_nothing_back(flavour: Flavour) -> None:
    ref = flavour.start(Recorder, [])
    tell: Any = ref.tell  # for mypy it gives nothing already
    assert tell("hello") is None


@on_a_thread
def test_an_ask_that_does_not_block_gives_a_future(flavour: Flavour) -> None:
    ref = flavour.start(Recorder, [])
    future = ref.ask("hello", block=False)
    assert isinstance(future, type(flavour.future()))
    assert future.get(timeout=DEADLINE) == ("reply to", "hello")


@on_a_thread
def test_an_ask_times_out_and_the_message_is_handled_all_the_same(flavour: Flavour) -> None:
    diary: list[Any] = []
    gate = flavour.gate()
    ref = flavour.start(Recorder, diary)
    ref.proxy().hold(gate)
    gate.reached.get(timeout=DEADLINE)
    with pytest.raises(pykka.Timeout):
        ref.ask("slow", timeout=0.001)
    gate.open()
    ref.ask("next", timeout=DEADLINE)
    assert diary == ["on_start", "slow", "next"]


@on_a_thread
def test_a_dead_actor_refuses(flavour: Flavour) -> None:
    ref = flavour.start(Recorder, [])
    ref.stop(timeout=DEADLINE)
    with pytest.raises(ActorDeadError):
        ref.tell("too late")
    with pytest.raises(ActorDeadError):
        ref.ask("too late", timeout=DEADLINE)
    future = ref.ask("too late", block=False)
    with pytest.raises(ActorDeadError):
        future.get(timeout=DEADLINE)


@on_a_thread
def test_get_all_collects_replies(flavour: Flavour) -> None:
    ref = flavour.start(Recorder, [])
    futures = [ref.ask(number, block=False) for number in range(3)]
    assert pykka.get_all(futures, timeout=DEADLINE) == [("reply to", number) for number in range(3)]


# -- proxies


class Nested:
    pykka_traversable = True

    def __init__(self) -> None:
        self.inner = "inner value"

    def method(self, suffix: str) -> str:
        return f"nested {suffix}"


class Marked:
    def __init__(self) -> None:
        self.deeper = pykka.traversable(Nested())


class Opaque:
    value = 1


class Rich:
    kind = "class attribute"

    def __init__(self, diary: list[Any] | None = None) -> None:
        super().__init__()
        self.diary = diary
        self.field = "field value"
        self.nested = Nested()
        self.marked = pykka.traversable(Marked())
        self.opaque = Opaque()
        self._private = "hidden"
        self.level = 1

    @property
    def guarded(self) -> int:
        return self.level

    @guarded.setter
    def guarded(self, value: int) -> None:
        if value < 0:
            raise ValueError("must not be negative")
        self.level = value

    def add(self, one: int, *, two: int) -> int:
        return one + two

    def fail(self) -> None:
        raise ValueError("failed")

    def grow(self) -> None:
        self.grown = "since"

    def on_failure(self, *_: Any) -> None:
        if self.diary is not None:
            self.diary.append("on_failure")


@on_a_thread
def test_a_proxy_calls_methods(flavour: Flavour) -> None:
    proxy = flavour.start(Rich).proxy()
    assert proxy.add(1, two=2).get(timeout=DEADLINE) == 3
    with pytest.raises(ValueError, match="failed"):
        proxy.fail().get(timeout=DEADLINE)
    with pytest.raises(TypeError):
        proxy.add().get(timeout=DEADLINE)
    assert proxy.actor_ref.is_alive()


@on_a_thread
def test_a_proxy_reads_attributes(flavour: Flavour) -> None:
    proxy = flavour.start(Rich).proxy()
    assert proxy.field.get(timeout=DEADLINE) == "field value"
    assert proxy.kind.get(timeout=DEADLINE) == "class attribute"
    assert proxy.guarded.get(timeout=DEADLINE) == 1
    assert proxy.opaque.get(timeout=DEADLINE).value == 1
    assert proxy.actor_urn.get(timeout=DEADLINE) == proxy.actor_ref.actor_urn
    with pytest.raises(AttributeError):
        _ = proxy.missing
    with pytest.raises(AttributeError):
        _ = proxy._private
    assert {"field", "add", "nested"} <= set(dir(proxy))
    assert "_private" not in dir(proxy)


@on_a_thread
def test_a_proxy_sees_attributes_that_came_later(flavour: Flavour) -> None:
    proxy = flavour.start(Rich).proxy()
    proxy.grow().get(timeout=DEADLINE)
    assert proxy.grown.get(timeout=DEADLINE) == "since"


@on_a_thread
def test_a_proxy_sets_attributes_and_waits_for_it(flavour: Flavour) -> None:
    proxy = flavour.start(Rich).proxy()
    proxy.field = "changed"
    assert proxy.field.get(timeout=DEADLINE) == "changed"
    proxy.guarded = 7
    assert proxy.level.get(timeout=DEADLINE) == 7
    with pytest.raises(ValueError, match="negative"):
        proxy.guarded = -1
    assert proxy.actor_ref.is_alive()


@on_a_thread
def test_a_proxy_goes_through_traversable_attributes(flavour: Flavour) -> None:
    proxy = flavour.start(Rich).proxy()
    assert proxy.nested.method("call").get(timeout=DEADLINE) == "nested call"
    assert proxy.nested.inner.get(timeout=DEADLINE) == "inner value"
    assert proxy.marked.deeper.method("twice").get(timeout=DEADLINE) == "nested twice"
    proxy.nested.inner = "changed"
    assert proxy.nested.inner.get(timeout=DEADLINE) == "changed"


@on_a_thread
def test_a_deferred_call_is_a_tell(flavour: Flavour) -> None:
    diary: list[Any] = []
    ref = flavour.start(Rich, diary)
    proxy = ref.proxy()
    assert proxy.grow.defer() is None
    assert proxy.field.get(timeout=DEADLINE) == "field value"  # a proxy looks at the actor directly for names
    assert proxy.grown.get(timeout=DEADLINE) == "since"
    proxy.fail.defer()
    _is_over(ref)
    assert diary == ["on_failure"]


@on_a_thread
def test_proxies_of_one_actor_are_equal(flavour: Flavour) -> None:
    ref, other = flavour.start(Rich), flavour.start(Rich)
    assert ref.proxy() == ref.proxy()
    assert hash(ref.proxy()) == hash(ref.proxy())
    assert ref.proxy() != other.proxy()
    assert ref.proxy().nested != ref.proxy()


@on_a_thread
def test_a_dead_actors_proxy_refuses(flavour: Flavour) -> None:
    ref = flavour.start(Rich)
    proxy = ref.proxy()
    ref.stop(timeout=DEADLINE)
    with pytest.raises(ActorDeadError):
        ref.proxy()
    with pytest.raises(ActorDeadError):
        proxy.field.get(timeout=DEADLINE)
    with pytest.raises(ActorDeadError):
        proxy.add(1, two=2).get(timeout=DEADLINE)
    with pytest.raises(ActorDeadError):
        proxy.grow.defer()
    with pytest.raises(ActorDeadError):
        proxy.field = "changed"


class Worker:
    """Pykka's "proxy to itself": work in pieces, with other messages between."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[int] = []

    def on_start(self) -> None:
        self._later = self.actor_ref.proxy()

    def work(self, left: int) -> None:
        self.done.append(left)
        if left:
            self._later.work.defer(left - 1)


@on_a_thread
def test_a_proxy_to_itself_defers(flavour: Flavour) -> None:
    proxy = flavour.start(Worker).proxy()
    proxy.work(3).get(timeout=DEADLINE)
    while len(done := proxy.done.get(timeout=DEADLINE)) < 4:
        pass
    assert done == [3, 2, 1, 0]


# -- the registry


@on_a_thread
def test_the_registry_finds_actors(flavour: Flavour) -> None:
    kind = flavour.of(Recorder)
    special = type("Special", (kind,), {})
    plain, subclassed = flavour.start(kind, []), flavour.start(special, [])
    assert ActorRegistry.get_all() == [plain, subclassed]
    assert ActorRegistry.get_by_urn(plain.actor_urn) == plain
    assert ActorRegistry.get_by_urn("urn:uuid:unknown") is None
    assert ActorRegistry.get_by_class(kind) == [plain, subclassed]
    assert ActorRegistry.get_by_class(special) == [subclassed]
    assert ActorRegistry.get_by_class_name("Special") == [subclassed]
    plain.stop(timeout=DEADLINE)
    assert ActorRegistry.get_all() == [subclassed]


@on_a_thread
def test_broadcast_reaches_the_class(flavour: Flavour) -> None:
    diaries: list[list[Any]] = [[], []]
    kind = flavour.of(Recorder)
    special = type("Special", (kind,), {})
    refs = [flavour.start(kind, diaries[0]), flavour.start(special, diaries[1])]
    ActorRegistry.broadcast("to all")
    ActorRegistry.broadcast("to special", target_class=special)
    ActorRegistry.broadcast("by name", target_class="Recorder")
    for ref in refs:
        ref.ask("through", timeout=DEADLINE)
    assert diaries == [
        ["on_start", "to all", "by name", "through"],
        ["on_start", "to all", "to special", "through"],
    ]


@on_a_thread
def test_stop_all_stops_in_reverse(flavour: Flavour) -> None:
    diary: list[Any] = []
    for name in "abc":
        flavour.start(Recorder, diary, name=f"{name} ").ask("up", timeout=DEADLINE)
    diary.clear()
    assert ActorRegistry.stop_all(timeout=DEADLINE) == [True, True, True]
    assert diary == ["c on_stop", "b on_stop", "a on_stop"]
    assert ActorRegistry.get_all() == []


@on_a_thread
def test_stop_all_gives_futures_where_it_does_not_block(flavour: Flavour) -> None:
    for _ in range(3):
        flavour.start(Recorder, [])
    assert pykka.get_all(ActorRegistry.stop_all(block=False), timeout=DEADLINE) == [True, True, True]
