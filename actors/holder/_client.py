"""The supervisor's end of the holder: its connection, and the workers that it holds.

Everything here runs on the loop's thread. The holder's records are the truth: what this end knows is what it was told.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from actors import trees
from actors.holder._spawn import Ended, Spawn, SpawnFailed, checked_note
from actors.holder.program import DESCRIPTORS, MESSAGE, PROTOCOL, contents, memfd, pack, unpack
from actors.holder.records import Records

STARTING = 10.0
"""Seconds that a command may take to be started: a working folder may lie on a network that hangs."""


class HolderFailed(Exception):
    """There is no holder to work with; the message says why."""


class HolderGone(HolderFailed):
    """The holder has ended, or was killed."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Output as it came: stream 1 or 2, seconds since 1970 at its first byte, and the bytes, which may end within a line."""

    stream: int
    at: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """Output that came while no supervisor was attached; `dropped` bytes came before it, and are lost."""

    pieces: tuple[Piece, ...] = ()
    dropped: int = 0


class Held:
    """A worker. `stdout` and `stderr` are the read ends of its output, non-blocking; read them after `kept`."""

    def __init__(self, holder: "Holder", facts: Mapping[str, str], descriptors: list[int], *, adopted: bool) -> None:
        self._holder = holder
        self.instance = facts["instance"]
        self.service = facts["service"]
        self.note = facts["note"]
        self.pid = int(facts["pid"])
        self.started = float(facts["started"])
        """Seconds since 1970."""
        self.adopted = adopted
        """Whether it was started for an earlier supervisor."""
        self.pidfd, self.stdout, self.stderr, kept = descriptors
        self.kept = _kept(contents(kept), int(facts["dropped"]))
        self.before = _before(facts["before"])
        """How the one ended that this followed by a standing order, where a supervisor died before it heard of that; the
        last output of that one is in `kept`, before this one's own."""
        self.cgroup = Path(facts["cgroup"]) if facts["cgroup"] else None
        self.marked = self.cgroup is not None or trees.marked(self.pid, self.instance)
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        """Its end, once nothing is left of its tree. Cancelled where this supervisor lets go of it before."""
        self._thorough = not self.marked
        self._open = True
        self._standing: Spawn | None = None
        self._ordered: set[str] = set()
        """Instances of all its standing orders: until its end is told, each may have been started."""
        self._successor: tuple[Spawn, asyncio.Future[Held]] | None = None

    @property
    def running(self) -> bool:
        return not self.ended.done()

    @property
    def recorded(self) -> tuple[str, ...]:
        """Its instance, and those that it may have been followed by: all have to be on record."""
        return (self.instance, *self._ordered)

    @property
    def memory_limited(self) -> bool:
        """Whether the kernel keeps to the limit of memory; where it does not, somebody has to watch."""
        if self.cgroup is None:
            return False
        with contextlib.suppress(OSError):
            return (self.cgroup / "memory.max").read_text().strip() != "max"
        return False

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; to none where it has ended. A standing order is taken back before."""
        self.withdraw()
        if self._open:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, number)

    def ask_to_end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the process a signal that ends it; what its tree leaves behind is then looked for thoroughly."""
        self._thorough = True
        # To the leader alone: it decides in which order its own children go.
        self.send_signal(number)

    async def stop(
        self, grace: float, number: signal.Signals = signal.SIGTERM, *, on_overdue: Callable[[], None] = lambda: None
    ) -> Ended:
        """Ask the process to end, kill its whole tree after `grace` seconds, and return when nothing is left of it.

        `on_overdue` is called before that killing. Cancelled, it has asked, and kills nothing.
        """
        self.ask_to_end(number)
        done, _ = await asyncio.wait((self.ended,), timeout=grace)
        if not done:
            on_overdue()
            self.kill()
        return await asyncio.shield(self.ended)

    def kill(self) -> None:
        """Kill the whole tree at once. `ended` follows."""
        self._thorough = True
        self.send_signal(signal.SIGKILL)
        for pidfd in trees.kill((self._tree(),), thorough=False).values():
            os.close(pidfd)

    def withdraw(self) -> None:
        """Take a standing order back: from now on `ended` tells of no successor. One that is there already is killed."""
        if self._standing is not None:
            self._standing = None
            self._holder._send(pack(do="withdraw", instance=self.instance))  # noqa: SLF001

    async def successor(self) -> "Held":
        """Give the process that `ended` tells of, when its command runs. Raises as `Holder.spawn` does."""
        assert self._successor is not None
        return await self._holder._started(*self._successor)  # noqa: SLF001

    def annotate(self, note: str) -> None:
        """Have the holder keep this note instead: at most 16 KiB."""
        self.note = checked_note(note)
        self._holder._send(pack(do="note", instance=self.instance, note=note))  # noqa: SLF001  # of one piece

    def taken(self) -> None:
        """What was `kept` is on record: the holder may forget it."""
        self.kept = Kept()
        self._holder._send(pack(do="taken", instance=self.instance))  # noqa: SLF001

    def forget(self) -> None:
        """Its end is on record: the holder may forget it, and another of its service may be started.

        Its descriptors are closed: take them off the loop before.
        """
        assert self.ended.done()
        if self.cgroup is not None:
            trees.remove(self.cgroup)
        self._holder._forget(self)  # noqa: SLF001
        self._close()

    def _tree(self, ended: int = 0) -> trees.Tree:
        return trees.Tree(self.instance, self.pid, ended, self.cgroup)

    def _close(self) -> None:
        if self._open:
            self._open = False
            for descriptor in (self.pidfd, self.stdout, self.stderr):
                os.close(descriptor)
        if not self.ended.done():
            self.ended.cancel()


class Holder:
    """An attachment to the holder; `actors.holder.attach` makes one."""

    def __init__(self, connection: socket.socket, records: Records, on_wanted: Callable[[int], None]) -> None:
        self._socket = connection
        self._records = records
        self._on_wanted = on_wanted
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._starting: dict[str, tuple[str, asyncio.Future[Held]]] = {}
        """Services and futures of the instances that are on their way."""
        self._sweeps: set[asyncio.Task[None]] = set()
        self._met: asyncio.Future[None] = self._loop.create_future()
        self._parted: asyncio.Future[None] = self._loop.create_future()
        self._leaving = False
        self.pid = 0
        self.cgroups = ""
        self.trouble = ""
        """What went wrong in the holder while nobody was there to be told; for the log."""
        self.workers: dict[str, Held] = {}
        """Those of the holder, by instance, from their start to `forget`."""
        self.sockets: dict[str, socket.socket] = {}
        """The listening sockets that were deposited, the caller's to use and to close."""
        self.leftovers: tuple[int, ...] = ()
        """Processes of a holder that had been killed, which were ended before this one was started."""
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the holder was killed, and its workers with it; their ends are told before. Attach again."""

    async def _meet(self) -> None:
        self._loop.add_reader(self._socket, self._receive)
        self._send(pack(do="attach", protocol=PROTOCOL))
        await self._met

    async def spawn(self, spawn: Spawn) -> Held:
        """Start a process; return when its command runs. A caller that is cancelled leaves no process behind.

        Raises:
            SpawnFailed: the message says why. There is no process.
            HolderFailed: the holder is gone.
        """
        order, body = self._ordered(spawn)
        started = self._expect(spawn)
        try:
            self._send(pack(do="spawn", **order), (body,))
        finally:
            os.close(body)
        return await self._started(spawn, started)

    def follow(self, held: Held, spawn: Spawn, *, unless: Iterable[int] = ()) -> None:
        """Leave a standing order: when `held` ends by itself, the holder starts `spawn` at once, and `Ended.successor` tells.

        It is for one start. It does not where the code (`Ended.code`) is one of `unless`, where something is left of the
        tree (that is ended first, as ever), or where several end within a moment: all but the first are left to you. The order
        is replaced by the next, and taken back by `withdraw`, by each signal that is sent, `stop` and `kill`, and with the
        attachment.

        Raises:
            SpawnFailed: the message says why. Nothing is changed.
            HolderFailed: the holder is gone.
        """
        assert held.service == spawn.service
        order, body = self._ordered(spawn)
        try:
            if held.running:
                # What it takes to say why it failed; one is kept for each worker.
                path = {name: spawn.environment[name] for name in ("PATH",) if name in spawn.environment}
                held._standing = replace(spawn, environment=path, note="")  # noqa: SLF001
                held._ordered.add(spawn.instance)  # noqa: SLF001
                self._send(pack(do="follow", after=held.instance, unless=",".join(map(str, unless)), **order), (body,))
        finally:
            os.close(body)

    def _ordered(self, spawn: Spawn) -> tuple[dict[str, object], int]:
        """Note the intent, and give the order with its memfd."""
        if self._parted.done():
            raise HolderGone("the holder was killed")
        order, text = spawn.order()
        there = set[str]()
        for held in self.workers.values():
            if held.service == spawn.service:
                there |= {held.instance, *held._ordered}  # noqa: SLF001
        there |= {instance for instance, (service, _) in self._starting.items() if service == spawn.service}
        try:
            # The holder is told afterwards: a process that nobody knows of cannot be.
            self._records.write(spawn.service, spawn.instance, there)
            return order, memfd(text)
        except OSError as error:
            raise SpawnFailed(f"{error.filename or 'a memfd'} cannot be used: {error.strerror}") from error

    def _expect(self, spawn: Spawn) -> "asyncio.Future[Held]":
        started: asyncio.Future[Held] = self._loop.create_future()
        self._starting[spawn.instance] = spawn.service, started
        return started

    async def _started(self, spawn: Spawn, started: "asyncio.Future[Held]") -> Held:
        try:
            async with asyncio.timeout(STARTING):
                return await started
        except TimeoutError:
            raise SpawnFailed(
                f"{spawn.argv[0]} was not started within {STARTING:g} s; look at the disk or network that it or "
                f"{spawn.cwd} lies on"
            ) from None
        except _Failed as failed:
            raise SpawnFailed(spawn.explain(failed.step, failed.code)) from None

    def deposit(self, sockets: Mapping[str, socket.socket]) -> None:
        """Leave the listening sockets of these names with the holder, instead of those that were there."""
        self._send(
            pack(do="deposit", names=",".join(sockets)), tuple(listener.fileno() for listener in sockets.values())
        )

    async def detach(self, rests: Mapping[tuple[str, int], bytes] | None = None) -> None:
        """Let go: the workers run on, and the next supervisor takes over.

        Stop reading output before; `rests` is what was read and not used, by instance and stream.
        """
        for (instance, stream), data in (rests or {}).items():
            body = memfd(data)
            self._send(pack(do="rest", instance=instance, stream=stream), (body,))
            os.close(body)
        self._leaving = True
        self._send(pack(do="detach"))
        await self._parted
        self.close()

    async def stop(self) -> None:
        """End the holder, once the last worker has ended."""
        self._leaving = True
        self._send(pack(do="stop"))
        await self._parted
        self.close()

    def close(self) -> None:
        """Close this end, as a death would; `detach` is better. Take the workers' output off the loop before."""
        self._leaving = True
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
        while self._outbox:
            _close(self._outbox.popleft()[1])
        for sweep in self._sweeps:
            sweep.cancel()
        for held in self.workers.values():
            held._close()  # noqa: SLF001
        self.workers.clear()
        self._refuse(HolderFailed("the supervisor let go of the holder"))
        self.lost.cancel()

    def _refuse(self, error: Exception) -> None:
        for _, started in self._starting.values():
            if not started.done():
                started.set_exception(error)
                started.exception()  # it may be that nobody waits
        self._starting.clear()
        for future in (self._met, self._parted):
            if not future.done():
                future.set_exception(error)
                future.exception()  # it may be that nobody waits

    # The wire

    def _send(self, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
        self._outbox.append((data, tuple(map(os.dup, descriptors))))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outbox:
            data, descriptors = self._outbox[0]
            try:
                socket.send_fds(self._socket, [data], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                pass  # it is gone; the reader sees that, after what it said before
            self._outbox.popleft()
            _close(descriptors)
        self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._hang_up()
            return
        fields = unpack(data)
        match fields.pop("is"):
            case "hello":
                self.pid, self.cgroups, self.trouble = int(fields["pid"]), fields["cgroups"], fields["trouble"]
                names = [name for name in fields["names"].split(",") if name]
                self.sockets = {
                    name: socket.socket(fileno=number) for name, number in zip(names, descriptors, strict=True)
                }
                self._send(pack(do="next"))
            case "worker":
                self._hold(fields, descriptors, adopted=True)
                self._send(pack(do="next"))
            case "attached":
                self._met.set_result(None)
            case "spawned":
                held = self._hold(fields, descriptors, adopted=False)
                _, starting = self._starting.pop(held.instance, ("", None))
                if starting is None or starting.done():
                    # Its caller was cancelled.
                    held.ended.add_done_callback(lambda _: held.forget() if held._open else None)  # noqa: SLF001
                    held.kill()
                else:
                    starting.set_result(held)
            case "refused":
                self._refused(fields)
            case "end":
                self._end(fields)
            case "wanted":
                self._on_wanted(int(fields["pid"]))
            case "detached":
                self._parted.set_result(None)

    def _refused(self, fields: dict[str, str]) -> None:
        if not self._met.done():
            self._met.set_exception(HolderFailed(fields["why"]))
            return
        _, starting = self._starting.pop(fields["instance"], ("", None))
        if starting is not None and not starting.done():
            starting.set_exception(SpawnFailed(fields["why"]))

    def _hold(self, facts: dict[str, str], descriptors: list[int], *, adopted: bool) -> Held:
        held = Held(self, facts, descriptors, adopted=adopted)
        self.workers[held.instance] = held
        return held

    def _forget(self, held: Held) -> None:
        if self.workers.pop(held.instance, None) is not None:
            self._send(pack(do="forget", instance=held.instance))

    # Ends

    def _end(self, fields: dict[str, str]) -> None:
        held = self.workers.get(fields["instance"])
        if held is None:
            # It never became the command.
            self._send(pack(do="forget", instance=fields["instance"]))
            _, starting = self._starting.pop(fields["instance"], ("", None))
            if starting is not None and not starting.done():
                step, code = fields["failure"].split()
                starting.set_exception(_Failed(step, int(code)))
            return
        ended = _ended(held.pid, fields)
        standing, held._standing = held._standing, None  # noqa: SLF001
        if ended.successor and self._met.done():
            if standing is not None and standing.instance == ended.successor:
                held._successor = standing, self._expect(standing)  # noqa: SLF001
                held.ended.set_result(ended)
            else:
                self._background(self._undo(held, ended))
            return
        # A supervisor before us knew of it, and it is gone by now.
        ended = replace(ended, successor="")
        tree = held._tree(int(fields["ticks"]))  # noqa: SLF001
        # Nearly always there is nothing left, and what waits for the next start need not wait for a task.
        if fields["alone"] == "1" or (not held._thorough and trees.clear(tree)):  # noqa: SLF001
            held.ended.set_result(ended)
        else:
            self._background(self._sweep(held, tree, ended))

    async def _undo(self, held: Held, ended: Ended) -> None:
        """It was followed before the holder heard that it should not be."""
        started: asyncio.Future[Held] = self._loop.create_future()
        self._starting[ended.successor] = held.service, started
        with contextlib.suppress(_Failed, HolderFailed):
            follower = await started
            follower.kill()
            await asyncio.shield(follower.ended)
            follower.forget()
        if held.running:
            held.ended.set_result(replace(ended, successor=""))

    async def _sweep(self, held: Held, tree: trees.Tree, ended: Ended) -> None:
        survivors = await trees.end((tree,), thorough=held._thorough)  # noqa: SLF001
        held.ended.set_result(replace(ended, survivors=tuple(survivors)))

    def _hang_up(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if not self._leaving:
            self._refuse(HolderGone("the holder was killed"))
            self._background(self._lose())
        elif not self._parted.done():
            self._parted.set_result(None)

    async def _lose(self) -> None:
        """The holder was killed. The kernel has killed the workers with it, but not their children."""
        running = [held for held in self.workers.values() if held.running]
        survivors = tuple(await trees.end([held._tree() for held in running]))  # noqa: SLF001
        for held in running:
            if held.running:
                end = Ended(held.pid, -signal.SIGKILL, failure="its holder was killed", survivors=survivors)
                held.ended.set_result(end)
        self.lost.set_result(None)

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)


class _Failed(Exception):
    """A new process reported the step that failed, and its error number."""

    def __init__(self, step: str, code: int) -> None:
        self.step = step
        self.code = code


def _ended(pid: int, fields: Mapping[str, str]) -> Ended:
    return Ended(
        pid,
        int(fields["code"]),
        failure=fields["failure"],
        at=float(fields["at"]),
        memory=int(fields["memory"]),
        cpu=float(fields["cpu"]),
        successor=fields["follower"],
    )


def _before(text: str) -> Ended | None:
    return _ended(0, dict(line.split("=", 1) for line in text.split("\n"))) if text else None


def _kept(dump: bytes, dropped: int) -> Kept:
    pieces, at = [], 0
    while at < len(dump):
        head = dump.index(b"\n", at)
        stream, when, size = dump[at:head].split()
        at = head + 1 + int(size)
        pieces.append(Piece(int(stream), float(when), dump[head + 1 : at]))
    return Kept(tuple(pieces), dropped)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
