"""The worker of one service: does what its life says, and tells its life what happens."""

import asyncio
import contextlib
import errno
import functools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import Context
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from actors import trees
from actors.flag import Flag
from actors.holder import Ended as ProcessEnded
from actors.holder import Held, HolderFailed, Spawn, SpawnFailed, new_instance
from actors.output import Output, OutputLimits, Record, StreamName
from actors.probes import MAX_TEXT
from actors.process import Command
from actors.runtime import OutcomeUnknown, Rejected
from actors.service import _events as ev
from actors.service._files import WorkerFiles
from actors.service._fleet import Present
from actors.service._lifecycle import Foreseen, Life
from actors.service._log import LifeLog, ServiceLog, why
from actors.service._memory import MemoryWatch
from actors.service._policy import Policy
from actors.service._spawning import Note, Spawning, passes, started_at
from actors.service._surroundings import Surroundings
from actors.service._watch import Watch
from schemas.manifest import NotifyProbe, Service
from schemas.service_schema import ServiceSchema
from schemas.states import Lifecycle
from schemas.types import JSON

printed = logging.getLogger("worker")

SMALLEST_FILE = 256 * 1024
"""Bytes: see `OutputLimits`."""

_WATCHED = ("readiness", "liveness", "health_topic", "grace")
"""Keys of the manifest by which a worker is looked after."""

_STREAMS: Mapping[int, StreamName] = {1: "stdout", 2: "stderr"}

FORESIGHT = 0.5
"""Seconds after which a worker that is ready is provided for: the start of others needs the processor more."""

STARTS_WITHIN = 2.0
"""Seconds that a start has to come to a process, before another supervisor takes over."""

LEVELS = {"debug": logging.DEBUG, "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}


class Runner:
    """Feeds the life of one worker, `life`, and carries out its actions, one event after the other.

    `feed` is called on the loop by whoever has something to tell, past the actor's mailbox, so that what is shown is never
    behind what is. What an action brings about at once waits until those before it are done. There is at most one process,
    which belongs to the holder: where this object's actor fails, the next one takes it over.
    """

    def __init__(
        self,
        service: Service,
        schema: ServiceSchema,
        around: Surroundings,
        files: WorkerFiles,
        *,
        wanted: bool,
        prepare: Callable[[], Awaitable[Mapping[str, JSON]]],
        run: Callable[[Coroutine[Any, Any, Any]], object],
        on_change: Callable[[], None],
        on_end: Callable[[], None],
        log: ServiceLog,
    ) -> None:
        """Make one that is down.

        `prepare` writes what a worker is given, and gives the settings that it will read at its start alone; it raises
        SpawnFailed, OSError, Rejected, OutcomeUnknown or ValueError. `run` runs a coroutine as the actor's own. `on_change` is
        called when something has changed that is shown, `on_end` when an instance has ended, before its life is told.
        """
        self._service = service
        self._around = around
        self._files = files
        self._prepare = prepare
        self._run = run
        self._on_change = on_change
        self._on_end = on_end
        self._spawning = Spawning(service, schema, around, files)
        self._log = LifeLog(log)
        self.life = Life(
            Policy.of(service), now=_moment(), draw=random.random, new_instance=new_instance, wanted=wanted
        )
        self.output = _output_of(service, around)
        around.fleet.listen(service.name, self._heard_line)
        # Secrets that the environment sets are the service's as much as those in the store.
        self.output.hide(map(str, schema.secrets_from_environment(around.environment_of(service)).values()))
        self._events: list[ev.Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._held: Held | None = None
        self._note: Note | None = None
        self._watch: Watch | None = None
        self._memory: MemoryWatch | None = None
        self._taking: asyncio.Task[None] | None = None
        self._doomed = ""
        self._foresight: asyncio.TimerHandle | None = None
        # One whose end was followed by the holder, until it is decided what becomes of the follower; and the end of one
        # that is not wanted.
        self._followed: Held | None = None
        self._ending_follower: asyncio.Task[None] | None = None
        self._down = Flag(up=True)
        self._spawned = Flag(up=True)
        self._showing = False
        self._let_go = False

    # -- told

    def feed(self, event: ev.Event) -> None:
        """Take what has happened, and do what follows from it."""
        if self._let_go:
            return
        self._events.append(event)
        if len(self._events) > 1:
            return  # from within an action: it is its turn later
        try:
            while self._events:
                self._feed(self._events[0])
                del self._events[0]
        except Exception as error:  # noqa: BLE001  # it may be a timer that calls; the actor has to fail, and begins anew
            self._events.clear()
            self._run(_failing(error))

    def heard(self, ok: bool, text: str) -> None:
        """Take what it said on its health topic."""
        if self._watch is not None:
            self._watch.heard(ok, text)

    def hide(self, secrets: Iterable[str]) -> None:
        """Strike these out of the output from now on."""
        self.output.hide(secrets)

    def configure(self, service: Service) -> None:
        """Go by another entry of the manifest, which differs in what only the supervisor goes by; the worker is left alone."""
        before, self._service = self._service, service
        self._spawning.configure(service)
        self.life.policy = Policy.of(service)
        self._look_ahead()
        watch, held = self._watch, self._held
        if any(getattr(before, key) != getattr(service, key) for key in _WATCHED) and watch and held and held.running:
            watch.close()
            if self.life.instance == held.instance and self.life.state is not Lifecycle.STOPPING:
                self._watch = anew = self._new_watch(held.instance)
                try:
                    self._open(anew)
                except OSError as error:
                    self._log.warning("its notifications are not heard: %s", why(error))
                anew.began(held.pid, ready=self.life.ready_at is not None)
        self.output.configure(_limits_of(service))

    def adopt(self) -> bool:
        """Take over the process that is there, or has ended since an earlier supervisor, or actor, had it."""
        held = self._around.holding.claim(self._service.name)
        if held is None:
            return False
        self._note = note = Note.read(held.note)
        watch = self._new_watch(held.instance)
        try:
            self._open(watch)
        except OSError as error:
            self._log.warning("its notifications are not heard: %s", why(error))
        # What an actor before this one had read of it, and not used, is whole; after another supervisor a line may be cut.
        rests = self._around.holding.rests.pop(held.instance, None)
        drained: list[tuple[StreamName, float, bytes]] = [
            (name, time.time(), data) for name, data in (rests or {}).items()
        ]
        drained += [(_STREAMS[piece.stream], piece.at, piece.data) for piece in held.kept.pieces]
        self._attach(held, resumed=rests is None, drained=drained, dropped=held.kept.dropped)
        self._taking = asyncio.ensure_future(self._take(held))
        reason = "it ran already when this supervisor was started"
        self.feed(ev.Adopted(held.instance, held.pid, started_at(held, note), note.ready_at, reason))
        self._began(held, watch, ready=note.ready_at is not None)
        return True

    def outdated(self, values: Mapping[str, JSON]) -> str:
        """What the present instance was started with and is different now, for people; empty where nothing is."""
        if self.life.instance is None or self._note is None:
            return ""
        if keys := self._note.differing(values):
            return ", ".join(keys)
        environment = self._spawning.environment(self._notify_path())
        if self._note.runs != self._spawning.digest(self._note.salt, environment):
            return "its command or environment"
        return ""

    @property
    def prepared(self) -> bool:
        """The present instance has been given what it starts with."""
        return self._note is not None

    async def shut_down(self) -> None:
        """End the worker and return when nothing is left of it; it is killed after its grace, or when the owner hurries."""
        self.feed(ev.Close("the supervisor stops"))
        gone = asyncio.ensure_future(self._down.wait())
        hurried = asyncio.ensure_future(self._around.hurry.wait())
        try:
            await asyncio.wait({hurried, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                self.feed(ev.Hurry())
            await gone
        finally:
            hurried.cancel()
            gone.cancel()
        if self._watch is not None:
            await self._watch.gone()
        if self._ending_follower is not None:
            await self._ending_follower

    async def settled(self) -> None:
        """Return when no start is under way: one that is cut off costs the new process its life."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTS_WITHIN):
                await self._spawned.wait()

    def let_go(self) -> None:
        """The actor ends: nothing is done any more. A process that is there runs on, for whoever adopts it."""
        self._let_go = True
        self._arm(None)
        self._rest()
        if self._foresight is not None:
            self._foresight.cancel()
        if self._taking is not None:
            self._taking.cancel()
        if self._ending_follower is not None:
            self._ending_follower.cancel()
        if self._held is not None and self._held.running:
            self._around.holding.rests[self._held.instance] = self.output.release()
        self._around.fleet.leave(self._service.name)

    # -- the one door

    def _feed(self, event: ev.Event) -> None:
        life, before = self.life, self.life.state
        pid = life.pid
        actions = life.feed(event, _moment())
        if life.instance is None:
            self._down.set()
        else:
            self._down.clear()
        for action in actions:
            self._do(action)
        self._log.told(event, before, life, actions, new=life.pid is not None and pid is None)
        note, held = self._note, self._held
        if note is not None and held is not None and life.ready_at != note.ready_at and held.instance == life.instance:
            self._note = note.ready(life.ready_at)
            held.annotate(self._note.text())
        if life.state is not before:
            self._look_ahead()

    def _do(self, action: ev.Action) -> None:
        fleet, name = self._around.fleet, self._service.name
        match action:
            case ev.Keep():
                pass  # whoever told the wish has written it down before
            case ev.Queue(ticket):
                fleet.queue(name, ticket)
            case ev.Withdraw(ticket):
                fleet.withdraw(name, ticket)
            case ev.Release():
                fleet.release(name)
            case ev.Spawn(instance):
                self._note = None
                self._run(self._spawn(instance))
            case ev.Terminate(_, signal):
                if self._held is not None:
                    self._held.ask_to_end(signal)
            case ev.KillTree(instance):
                self._kill(instance)
            case ev.Arm(at):
                self._arm(at)
            case ev.Tell():
                if self.life.state is Lifecycle.STOPPING:
                    self._rest()
                self._show()

    def _show(self) -> None:
        life = self.life
        if not self._showing:
            # After what follows from the change, such as the next start, which does not wait for this; before anybody who
            # waits for the change.
            self._showing = True
            asyncio.get_running_loop().call_soon(self._show_now, context=Context())
        present = Present(life.state, life.instance, life.reason, life.coming_up, life.wanted)
        self._around.fleet.note(self._service.name, present, spawned=life.pid is not None)

    def _show_now(self) -> None:
        self._showing = False
        if not self._let_go:
            self._on_change()

    def _arm(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self.feed, ev.Due(at), context=Context())

    # -- a start

    async def _take(self, held: Held) -> None:
        """Have the holder forget what it had kept of the output, once that is on record."""
        await self.output.adopted(held.instance)
        if self._held is held and not self._let_go:
            held.taken()

    async def _spawn(self, instance: str) -> None:
        """Start it; its life is told how that went, whatever happens, but for the end of the actor."""
        self._spawned.clear()
        try:
            await self._spawn_now(instance)
        finally:
            self._spawned.set()

    async def _spawn_now(self, instance: str) -> None:
        spawn = watch = None
        if self._ending_follower is not None:
            await self._ending_follower
        followed, self._followed = self._followed, None
        if followed is not None and followed.ended.result().successor == instance:
            await self._take_follower(instance, followed)
            return
        try:
            knows = await self._prepare()
            watch = self._new_watch(instance)
            environment = self._spawning.environment(self._open(watch))
            self.output.hide([urlsplit(environment["MQTT_URL"]).password or ""])
            spawn = self._spawning.order(instance, environment, knows)
            self._note = Note.read(spawn.note)
            if self._doomed == instance:
                raise SpawnFailed("it is not wanted any more")  # noqa: TRY301
            held = await self._around.holding.spawn(spawn)
        except (SpawnFailed, HolderFailed, OSError, Rejected, OutcomeUnknown, ValueError) as error:
            if watch is not None:
                watch.close()
            self._not_spawned(instance, error, spawn)
            return
        except BaseException:
            if watch is not None:
                watch.close()
            raise
        self._attach(held)
        self.feed(ev.Spawned(instance, held.pid))
        self._began(held, watch)
        if self._doomed == instance:
            held.kill()

    def _not_spawned(self, instance: str, error: Exception, spawn: Spawn | None = None) -> None:
        retry = not isinstance(error, SpawnFailed) or passes(error, spawn)
        self.feed(ev.SpawnFailed(instance, f"it cannot be started: {why(error)}", retry))

    # -- a start ahead of its time

    def _look_ahead(self) -> None:
        """Have the holder make the next start by itself, where it would be made at once: that saves the way to here and back."""
        if self._foresight is not None:
            self._foresight.cancel()
            self._foresight = None
        held, foreseen = self._held, self.life.foresee()
        if held is None:
            return
        held.withdraw()
        self.life.next_instance = None
        # A notify socket is opened for each start before there is anybody to use it.
        if foreseen is not None and not isinstance(self._service.readiness, NotifyProbe):
            loop = asyncio.get_running_loop()
            at = max(foreseen.at, loop.time() + FORESIGHT)
            self._foresight = loop.call_at(at, self._provide, held, foreseen, context=Context())

    def _provide(self, held: Held, foreseen: Foreseen) -> None:
        self._foresight = None
        if held.running and self.life.foresee() == foreseen:
            self._run(self._leave_order(held, foreseen))

    async def _leave_order(self, held: Held, foreseen: Foreseen) -> None:
        try:
            knows = await self._prepare()
            environment = self._spawning.environment(None)
            # What was prepared is current, and so is this: nothing is waited for in between.
            if held is self._held and self.life.foresee() == foreseen:
                self.life.next_instance = instance = new_instance()
                order = self._spawning.order(instance, environment, knows)
                self._around.holding.follow(held, order, unless=foreseen.unless)
        except (SpawnFailed, OSError, Rejected, OutcomeUnknown, ValueError):
            return  # the start will say it, if it is still so then

    async def _take_follower(self, instance: str, followed: Held) -> None:
        """Take over what the holder has started by the order that was left with it."""
        try:
            if not self._files.snapshot.exists():
                # A login manager has removed the runtime folder, say: it would run without its settings.
                await self._end_follower(followed)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._files.snapshot))
            held = await followed.successor()
        except (SpawnFailed, HolderFailed, OSError) as error:
            self._not_spawned(instance, error)
            return
        self._note = Note.read(held.note).spawned(time.monotonic())
        self._attach(held)
        self.feed(ev.Spawned(instance, held.pid))
        held.annotate(self._note.text())
        self._began(held, self._new_watch(instance))
        if self._doomed == instance:
            held.kill()

    async def _end_follower(self, followed: Held) -> None:
        """It has not its turn, or is not wanted any more."""
        with contextlib.suppress(SpawnFailed, HolderFailed):
            held = await followed.successor()
            held.kill()
            await held.ended
            held.forget()

    def _attach(
        self,
        held: Held,
        *,
        resumed: bool = False,
        drained: Iterable[tuple[StreamName, float, bytes]] = (),
        dropped: int = 0,
    ) -> None:
        # Copies: the descriptors themselves are the holder's end's, which closes them.
        stdout, stderr = os.dup(held.stdout), os.dup(held.stderr)
        self._held = held
        self.output.attach(held.instance, held.pid, stdout, stderr, resumed=resumed, drained=drained, dropped=dropped)

    def _began(self, held: Held, watch: Watch, *, ready: bool = False) -> None:
        """Look after it from now on, unless it is to end already."""
        if self.life.instance != held.instance or self.life.state is Lifecycle.STOPPING:
            watch.close()
        elif held.running:
            self._watch = watch
            watch.began(held.pid, ready=ready)
            limit = self._service.memory_limit
            if limit is not None and not held.memory_limited:
                self._memory = MemoryWatch(held.pid, limit, lambda text: self.feed(ev.Condemned(held.instance, text)))
        else:
            watch.close()
        held.ended.add_done_callback(functools.partial(self._ended, held), context=Context())

    def _new_watch(self, instance: str) -> Watch:
        return Watch(self._service, instance, self._said, self._command, believes_reports=self._around.believes_reports)

    def _said(self, event: "ev.Ready | ev.Unhealthy | ev.Condemned") -> None:
        """Take what a watch has found; in its words may be the worker's, or a probe's command's that has the same secrets."""
        # Shortened only now: half a secret would not be found.
        self.feed(msgspec.structs.replace(event, reason=self.output.clean(event.reason)[:MAX_TEXT]))

    def _open(self, watch: Watch) -> str | None:
        path = self._notify_path()
        if path is not None:
            watch.open(Path(path), user=None if self._files.owner is None else self._files.owner.uid)
        return path

    def _notify_path(self) -> str | None:
        # Of the service, not the instance: one that is adopted goes on with the path that it was given.
        return str(self._files.runtime / "notify") if isinstance(self._service.readiness, NotifyProbe) else None

    def _command(self, argv: tuple[str, ...]) -> Command:
        """Give a probe's command the worker's user, folder and environment."""
        environment = self._spawning.environment(None)
        if (instance := self.life.instance) is not None:
            environment["TARS_INSTANCE"] = instance
        return Command((*self._spawning.as_its_user(), *argv), self._service.cwd, environment)

    # -- an end

    def _ended(self, held: Held, future: "asyncio.Future[ProcessEnded]") -> None:
        if future.cancelled() or self._let_go:
            return
        if self._taking is not None and not self._taking.done():
            # The holder forgets its last words with it.
            self._taking.add_done_callback(lambda _: self._ended(held, future), context=Context())
            return
        ended = future.result()
        self._rest()
        self.output.detach()
        tree_gone = not ended.survivors
        if tree_gone:
            self._forget(held)
        else:
            self._log.error("processes %s of it cannot be ended", ", ".join(map(str, ended.survivors)))
        self._on_end()
        how = str(ended)
        if ended.failure and ended.code < 0:
            # It is not to blame, so it does not count as a failure of its own.
            self.feed(ev.Renew(f"it was lost: {ended.failure}"))
            how = f"was lost: {ended.failure}"
        self._followed = held if ended.successor else None
        if not ended.successor:
            self.life.next_instance = None
        self.feed(ev.Ended(held.instance, ended.code, how, tree_gone, memory=ended.memory or None))
        if ended.successor and self.life.instance != ended.successor:
            self._followed = self.life.next_instance = None
            self._ending_follower = asyncio.ensure_future(self._end_follower(held))
        self._run(self._recall(held.instance))

    async def _recall(self, instance: str) -> None:
        """Its last words become known a little later: what follows from its end does not wait for them."""
        lines = await self.output.last_lines(instance)
        for number, end in enumerate(self.life.ends):
            if end.instance == instance and lines:
                self.life.ends[number] = replace(end, last_lines=lines)
                self._on_change()

    def _kill(self, instance: str) -> None:
        held = self._held
        if held is None or held.instance != instance:
            # Its start is under way.
            self._doomed = instance
        elif held.running:
            held.kill()
        else:
            self._run(self._sweep(held))

    async def _sweep(self, held: Held) -> None:
        """End what could not be ended when its first process was."""
        if not await trees.end([trees.Tree(held.instance, cgroup=held.cgroup)]) and self._held is held:
            self._forget(held)
            self.feed(ev.TreeGone(held.instance))

    def _forget(self, held: Held) -> None:
        held.forget()
        if self._held is held:
            self._held = None

    def _rest(self) -> None:
        """Look after it no more."""
        if self._watch is not None:
            self._watch.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _heard_line(self, record: Record) -> None:
        watch = self._watch
        if watch is not None and watch.listens and record.instance == self.life.instance:
            watch.line(record.message)


def _output_of(service: Service, around: Surroundings) -> Output:
    """Open the service's output, or give the one that an earlier actor has opened."""

    def on_record(record: Record) -> None:
        extra: dict[str, Any] = {"service": record.service, "pid": record.pid}
        if record.fields:
            extra["fields"] = record.fields
        printed.log(LEVELS.get(record.level, logging.INFO), "%s", record.message, extra=extra)
        around.fleet.printed(record)

    return around.outputs.get(service.name) or around.outputs.open(
        service.name, _limits_of(service), on_record=on_record
    )


def _limits_of(service: Service) -> OutputLimits:
    kept = service.output
    return OutputLimits(file_bytes=max(kept.file_size, SMALLEST_FILE), files=kept.files, ring_lines=kept.ring_lines)


def _moment() -> ev.Moment:
    return ev.Moment(time.monotonic(), datetime.now(UTC))


async def _failing(error: Exception) -> None:
    raise error
