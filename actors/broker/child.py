"""The supervisor's side of the embedded broker: keeps its process, knows its address."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import orjson

from actors.broker.config import BrokerConfig, broker_command, write_config
from actors.process import DEFAULT_PATH, INSTANCE_VARIABLE, Command, Ended, Process, new_instance, record_instance
from actors.runtime import Actor, Foreseen

logger = logging.getLogger("broker")

LEVELS = {"info": logging.DEBUG, "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
"""The child's everyday life is of interest only to who debugs."""

RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "time"}
"""What `extra` may not hold, and the time, which each line gets anyway."""


class BrokerDied(Foreseen):
    """The broker's process has ended by itself."""


class BrokerActor(Actor):
    """Runs the broker's process: its end is this actor's failure, so that its supervisor starts both again.

    `on_address(host, port)` is called when it listens. A port that the kernel chose is kept for the next incarnation (`port`
    in what `on_address` was last told), since workers hold the address. `on_down(reason)` is called when it has ended by itself.
    """

    start_seconds: ClassVar[float] = 10.0
    stop_grace: ClassVar[float] = 4.0

    def __init__(
        self,
        config: BrokerConfig,
        *,
        folder: Path,
        instances: Path,
        on_address: Callable[[str, int], None],
        on_down: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._config = config
        self._folder = folder
        self._instances = instances
        self._on_address = on_address
        self._on_down = on_down
        self._process: Process | None = None
        self._listening: asyncio.Future[tuple[str, int]] | None = None
        self._gone = asyncio.Event()

    async def on_start(self) -> None:
        loop = asyncio.get_running_loop()
        path = self._folder / "config.json"
        await loop.run_in_executor(None, self._prepare, path)
        instance = new_instance()
        record_instance(self._instances, "embedded-broker", instance)
        self._listening = loop.create_future()
        # Its log lines are read one by one as they come.
        environment = {"PATH": DEFAULT_PATH, INSTANCE_VARIABLE: instance, "PYTHONUNBUFFERED": "1"}
        command = Command(tuple(broker_command(path)), self._folder, environment)
        self._process = Process(command, on_line=self._line, on_end=self._end)
        try:
            async with asyncio.timeout(self.start_seconds):
                host, port = await self._listening
        except BaseException as error:
            self._process.kill()
            await self._gone.wait()
            if isinstance(error, TimeoutError):
                raise BrokerDied(f"the embedded broker does not listen after {self.start_seconds:g} s") from None
            raise
        self._on_address(host, port)

    async def on_stop(self) -> None:
        if self._process is not None:
            self._process.terminate(self.stop_grace)
            await self._gone.wait()

    async def on_failure(self, *_reason: object) -> None:
        if self._process is not None:
            self._process.kill()
            await self._gone.wait()

    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.running else None

    def died(self, ended: Ended) -> None:
        raise BrokerDied(f"the embedded broker {ended}")

    def _prepare(self, path: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_config(path, self._config)

    def _line(self, line: bytes) -> None:
        try:
            event: dict[str, Any] = orjson.loads(line)
            name = str(event.pop("event"))
            level = LEVELS.get(str(event.pop("level", "info")), logging.INFO)
        except (ValueError, KeyError, AttributeError, TypeError):
            logger.warning("%s", line.decode("utf-8", "replace"))
            return
        if self._listening is not None and not self._listening.done():
            if name == "listening":
                self._listening.set_result((str(event.get("host")), int(event.get("port", 0))))
            elif name == "failed":
                self._listening.set_exception(BrokerDied(f"the embedded broker {event.get('error', 'failed')}"))
        # What the broker's libraries say comes as `message`, which like others is an attribute of every log record.
        text = event.pop("message", name)
        logger.log(level, "%s", text, extra={key: value for key, value in event.items() if key not in RECORD})

    def _end(self, ended: Ended) -> None:
        self._gone.set()
        if self._listening is not None and not self._listening.done():
            self._listening.set_exception(BrokerDied(f"the embedded broker {ended} before it listened"))
        if self.defer(self.died, ended):
            self._on_down(f"the embedded broker {ended}; it is started again")
