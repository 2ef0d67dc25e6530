"""The supervisor's side of the embedded broker: keeps its process, knows its address."""

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import orjson

from actors.broker.config import BrokerConfig, broker_command, write_config
from actors.holder import Ended, Held, HolderFailed, Spawn, SpawnFailed
from actors.holding import Holding
from actors.output import Output, Outputs, Record, StreamName
from actors.runtime import Actor, Foreseen

logger = logging.getLogger("broker")

NAME = "embedded-broker"

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LEVELS = {"info": logging.DEBUG, "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
"""The child's everyday life is of interest only to who debugs."""

RELOADS_WITHIN = 5.0
"""Seconds that it has to read its configuration again, before those go on who need it."""

RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "time"}
"""What `extra` may not hold, and the time, which each line gets anyway."""


class BrokerDied(Foreseen):
    """The broker's process has ended by itself."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the holder keeps with the process: digests of its configuration, and where it listens."""

    listens: str
    runs: str
    host: str
    port: int

    @classmethod
    def read(cls, note: str) -> Self | None:
        try:
            document = orjson.loads(note)
            return cls(str(document["listens"]), str(document["runs"]), str(document["host"]), int(document["port"]))
        except (ValueError, KeyError, TypeError):
            return None


def _digest(config: BrokerConfig) -> str:
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


class BrokerActor(Actor):
    """Runs the broker's process: its end is this actor's failure, so that its supervisor starts both again.

    The process belongs to the holder, as workers do, and outlives this actor and its program: the next one takes it over
    where its configuration is the same. `on_address(host, port)` is called when it listens. A port that the kernel chose
    is kept for the next incarnation (`port` in what `on_address` was last told), since workers hold the address.
    `on_down(reason)` is called when it has ended by itself.
    """

    start_seconds: ClassVar[float] = 10.0
    stop_grace: ClassVar[float] = 4.0

    def __init__(
        self,
        config: BrokerConfig,
        *,
        folder: Path,
        holding: Holding,
        outputs: Outputs,
        on_address: Callable[[str, int], None],
        on_down: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._config = config
        self._folder = folder
        self._holding = holding
        self._outputs = outputs
        self._on_address = on_address
        self._on_down = on_down
        self._held: Held | None = None
        self._output: Output | None = None
        self._reloaded = asyncio.Event()
        self._listening: asyncio.Future[tuple[str, int]] | None = None

    async def on_start(self) -> None:
        await self._outputs.close_one(NAME)
        self._output = self._outputs.open(NAME, on_record=self._record)
        held = self._holding.claim(NAME)
        if held is not None:
            known = _Known.read(held.note)
            if known is not None and self._config.port in {0, known.port}:
                # Workers hold the address, so a port that the kernel chose is the broker's for good.
                self._config = self._config.model_copy(update={"port": known.port})
                if held.running and known.listens == self._listens():
                    await self._adopt(held, known)
                    return
            await held.stop(self.stop_grace)
            held.forget()
        await self._launch()

    async def on_stop(self) -> None:
        if self._held is not None and self._held.running and not self._holding.leaving:
            await self._held.stop(self.stop_grace)
        await self._leave()

    async def on_failure(self, *_reason: object) -> None:
        await self._leave()

    async def configure(self, config: BrokerConfig) -> None:
        """Take other users, and the certificate's file anew; return when the broker has, or says that it cannot.

        Clients stay connected, but for those whose login is another one now. Raises OSError.
        """
        self._config = config.model_copy(update={"port": self._config.port})
        held = self._held
        if held is None or not held.running:
            return  # the next one has it from its start on
        self._reloaded = asyncio.Event()
        await self._tell(held)
        known = _Known.read(held.note)
        if known is not None:
            held.annotate(orjson.dumps(replace(known, runs=self._digest())).decode())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELOADS_WITHIN):
                await self._reloaded.wait()

    async def _tell(self, held: Held) -> None:
        """Write the file, and have it read."""
        path = self._folder / "config.json"
        await asyncio.get_running_loop().run_in_executor(None, self._prepare, path)
        held.send_signal(signal.SIGHUP)

    def pid(self) -> int | None:
        return self._held.pid if self._held is not None and self._held.running else None

    def died(self, ended: Ended) -> None:
        raise BrokerDied(f"the embedded broker {ended}")

    async def _launch(self) -> None:
        loop = asyncio.get_running_loop()
        path = self._folder / "config.json"
        await loop.run_in_executor(None, self._prepare, path)
        self._listening = loop.create_future()
        spawn = Spawn(
            service=NAME,
            argv=tuple(broker_command(path)),
            cwd=self._folder,
            # Its log lines are read one by one as they come.
            environment={"PATH": DEFAULT_PATH, "PYTHONUNBUFFERED": "1"},
            umask=0o077,
        )
        try:
            held = await self._holding.spawn(spawn)
        except (SpawnFailed, HolderFailed) as error:
            raise BrokerDied(f"the embedded broker cannot be started: {error}") from error
        self._take(held)
        try:
            async with asyncio.timeout(self.start_seconds):
                host, port = await self._listening
        except BaseException as error:
            held.kill()
            await asyncio.wait([held.ended])
            await self._leave()
            if isinstance(error, TimeoutError):
                raise BrokerDied(f"the embedded broker does not listen after {self.start_seconds:g} s") from None
            raise
        held.annotate(orjson.dumps(_Known(self._listens(), self._digest(), host, port)).decode())
        self._on_address(host, port)

    async def _adopt(self, held: Held, known: "_Known") -> None:
        self._take(held, resumed=True)
        if known.runs != self._digest():
            # Other users: it learns of them while it runs.
            await self._tell(held)
            held.annotate(orjson.dumps(replace(known, runs=self._digest())).decode())
        self._on_address(known.host, known.port)

    def _digest(self) -> str:
        """Of the configuration, but for the port, which the kernel may have chosen."""
        return _digest(self._config.model_copy(update={"port": 0}))

    def _listens(self) -> str:
        """Of what a reload does not change."""
        return _digest(self._config.model_copy(update={"port": 0, "users": ()}))

    def _prepare(self, path: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_config(path, self._config)

    def _take(self, held: Held, *, resumed: bool = False) -> None:
        assert self._output is not None
        self._held = held
        kept = held.kept
        drained: list[tuple[StreamName, float, bytes]] = [
            (name, time.time(), data) for name, data in self._holding.rests.pop(held.instance, {}).items()
        ]
        drained += [("stdout" if piece.stream == 1 else "stderr", piece.at, piece.data) for piece in kept.pieces]
        # Copies: the descriptors themselves are the holder's end's, which closes them.
        self._output.attach(
            held.instance,
            held.pid,
            os.dup(held.stdout),
            os.dup(held.stderr),
            resumed=resumed,
            drained=drained,
            dropped=kept.dropped,
        )
        if resumed and held.running:
            held.taken()
        held.ended.add_done_callback(self._end, context=Context())

    def _record(self, record: Record) -> None:
        """Log a line of it: JSON, with its name in `event` where there is a `message` too."""
        fields = dict(record.fields)
        name = str(fields.pop("event", record.message))
        if name in {"reloaded", "reload_failed"}:
            self._reloaded.set()
        level = LEVELS.get(record.level, logging.INFO)
        if not record.message or not (record.fields or record.worker_time):
            # Nothing of its own log.
            level = max(level, logging.WARNING)
        if self._listening is not None and not self._listening.done():
            if name == "listening":
                self._listening.set_result((str(fields.get("host")), int(fields.get("port", 0))))
            elif name == "failed":
                self._listening.set_exception(BrokerDied(f"the embedded broker {fields.get('error', 'failed')}"))
        text = record.message or orjson.dumps(record.fields).decode()
        logger.log(level, "%s", text, extra={key: value for key, value in fields.items() if key not in RECORD})

    def _end(self, future: "asyncio.Future[Ended]") -> None:
        if future.cancelled() or self._held is None:
            return
        ended, held = future.result(), self._held
        if self._output is not None:
            self._output.detach()
        if not ended.survivors:
            held.forget()
        if self._listening is not None and not self._listening.done():
            # What it said last, such as why it failed, becomes known a moment later.
            self.spawn(self._not_listening(held.instance, ended))
        elif self.defer(self.died, ended):
            self._on_down(f"the embedded broker {ended}; it is started again")

    async def _not_listening(self, instance: str, ended: Ended) -> None:
        assert self._output is not None
        assert self._listening is not None
        await self._output.last_lines(instance)
        if not self._listening.done():
            self._listening.set_exception(BrokerDied(f"the embedded broker {ended} before it listened"))

    async def _leave(self) -> None:
        """Let go of the process, which runs on where it was not ended."""
        held, self._held = self._held, None
        if held is not None:
            held.ended.remove_done_callback(self._end)
            if held.running:
                if self._output is not None:
                    self._holding.rests[held.instance] = self._output.release()
            elif self._holding.claim(NAME) is held:
                if self._output is not None:
                    self._output.detach()
                held.forget()
        await self._outputs.close_one(NAME)
