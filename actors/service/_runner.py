"""A service's process: its command and environment, its output without secrets, its end."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from actors.lines import Mask
from actors.process import INSTANCE_VARIABLE, Command, Ended, Process, SpawnFailed, new_instance, record_instance
from actors.service._environment import worker_environment
from actors.service._files import WorkerFiles
from actors.service._log import ServiceLog
from actors.service._surroundings import Surroundings
from actors.service._worker import Instance
from schemas.manifest import Service
from schemas.service_schema import ServiceSchema

output = logging.getLogger("worker")


class Runner:
    """Has at most one process. `on_end` is called on the loop once for each start that did not fail."""

    def __init__(
        self,
        service: Service,
        schema: ServiceSchema,
        around: Surroundings,
        files: WorkerFiles,
        *,
        on_end: Callable[[Ended], None],
        log: ServiceLog,
    ) -> None:
        self._service = service
        self._schema = schema
        self._around = around
        self._files = files
        self._on_end = on_end
        self._log = log
        self._process: Process | None = None
        self._gone = asyncio.Event()
        self._gone.set()
        # Secrets that the environment sets are the service's as much as those in the store.
        self._always = [
            str(value) for value in schema.secrets_from_environment(around.environment_of(service)).values()
        ]
        self._mask = Mask(self._always)

    def hide(self, secrets: Iterable[str]) -> None:
        """Strike these out of the output from now on. The ones before may still be in use, until the next start."""
        self._mask = self._mask.adding(secrets)

    def masked(self, text: str) -> str:
        return self._mask.clean_text(text)

    def start(self, secrets: Iterable[str]) -> Instance:
        """Spawn a new instance, which may know `secrets`.

        Raises:
            SpawnFailed: the message says why.
        """
        assert self._gone.is_set()
        name = new_instance()
        try:
            url = self._around.mqtt_url(self._service.name)
            # The record is there before the process, so that a crash between the two leaves nothing unknown.
            record_instance(self._around.instances, self._service.name, name)
        except OSError as error:
            raise SpawnFailed(f"{error.filename or 'a file'} cannot be used: {error.strerror}") from error
        self._mask = Mask([*self._always, *secrets, urlsplit(url).password or ""])
        self._process = Process(self._command(name, url), on_line=self._line, on_end=self._end, mask=lambda: self._mask)
        self._gone.clear()
        return Instance(name, self._process.pid)

    def terminate(self) -> None:
        """Ask it to end; it is killed after its grace."""
        if self._process is not None:
            self._process.terminate(self._service.stop_grace_s, on_overdue=self._overdue)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def gone(self) -> None:
        """Return when there is no process."""
        await self._gone.wait()

    def _command(self, instance: str, mqtt_url: str) -> Command:
        environment = worker_environment(
            self._around.environment,
            settings=[field.variable for field in self._schema.fields.values()],
            passed=self._service.pass_environment,
            declared=self._service.environment,
            given={
                "TARS_SERVICE": self._service.name,
                INSTANCE_VARIABLE: instance,
                "TARS_CONFIG_SNAPSHOT": str(self._files.snapshot),
                "TARS_CONFIG_PUBLIC_KEYS": str(self._around.public_keys),
                "TARS_STATE_DIRECTORY": str(self._files.state),
                "CREDENTIALS_DIRECTORY": str(self._files.credentials),
                "MQTT_URL": mqtt_url,
            },
        )
        return Command(self._service.command, self._service.cwd, environment)

    def _line(self, line: bytes) -> None:
        pid = self._process.pid if self._process is not None else None
        output.info("%s", line.decode("utf-8", "replace"), extra={"service": self._service.name, "pid": pid})

    def _overdue(self) -> None:
        self._log.warning("killed, since it did not end within %g s", self._service.stop_grace_s)

    def _end(self, ended: Ended) -> None:
        self._process = None
        self._gone.set()
        self._on_end(ended)
