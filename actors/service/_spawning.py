"""From a service of the manifest to what the holder is to start, and the note by which the next supervisor knows it again."""

import errno
import hashlib
import os
import pwd
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

import orjson

from actors.accounts import Account, UnknownAccount, find_account
from actors.holder import Held, Spawn, SpawnFailed
from actors.service._environment import PASSED_ALWAYS, worker_environment
from actors.service._files import WorkerFiles
from actors.service._surroundings import Surroundings
from schemas.manifest import Service
from schemas.service_schema import ServiceSchema
from schemas.types import JSON

_PASSES: Final = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.ETXTBSY, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.EINTR}
)
"""Errors of an exec that have to do with the moment, not with the command."""


@dataclass(frozen=True, slots=True)
class Note:
    """What the holder keeps with a worker. Times are of CLOCK_MONOTONIC, in seconds.

    `runs` is a digest of what it was started as, `knows` has one of each setting that it reads at its start alone. Neither
    can be turned back, and both are salted: what the holder has in its memory is no secret.
    """

    salt: str = ""
    runs: str = ""
    knows: Mapping[str, str] = field(default_factory=dict)
    spawned_at: float = 0.0
    ready_at: float | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read one; of what another release has written, an empty one."""
        try:
            document = orjson.loads(text)
            return cls(
                str(document["salt"]),
                str(document["runs"]),
                {str(key): str(value) for key, value in document["knows"].items()},
                float(document["spawned_at"]),
                None if document["ready_at"] is None else float(document["ready_at"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def text(self) -> str:
        return orjson.dumps(self).decode()

    def ready(self, at: float | None) -> "Note":
        return replace(self, ready_at=at)

    def spawned(self, at: float) -> "Note":
        return replace(self, spawned_at=at)

    def differing(self, values: Mapping[str, JSON]) -> list[str]:
        """Names of the settings that have another value than it knows."""
        now = {key: digest(self.salt, value) for key, value in values.items()}
        return [key for key in {**self.knows, **now} if self.knows.get(key) != now.get(key)]


def digest(salt: str, value: object) -> str:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=12, key=salt.encode()[:64]).hexdigest()


def account_of(service: Service) -> Account | None:
    """Give whom its worker runs as, where that is not us and we may change to them; else the start says so.

    Raises:
        SpawnFailed: there is no such user or group.
    """
    if service.user is None or os.geteuid() != 0:
        return None
    try:
        account = find_account(str(service.user), None if service.group is None else str(service.group))
    except UnknownAccount as unknown:
        raise SpawnFailed(str(unknown)) from None
    return None if account.uid == 0 else account


class Spawning:
    """Makes the orders of one service."""

    def __init__(self, service: Service, schema: ServiceSchema, around: Surroundings, files: WorkerFiles) -> None:
        self._service = service
        self._schema = schema
        self._around = around
        self._files = files

    def configure(self, service: Service) -> None:
        """Go by another entry of the manifest."""
        self._service = service

    def environment(self, notify: str | None) -> dict[str, str]:
        """Put together what the contract promises, but for what the holder adds. Raises OSError."""
        around, service, files = self._around, self._service, self._files
        given = {
            "TARS_SERVICE": service.name,
            "TARS_CONFIG_SNAPSHOT": str(files.snapshot),
            "TARS_CONFIG_PUBLIC_KEYS": str(around.public_keys),
            "TARS_STATE_DIRECTORY": str(files.state),
            "CREDENTIALS_DIRECTORY": str(files.credentials),
            "MQTT_URL": around.mqtt_url(service.name),
        }
        if notify is not None:
            given["NOTIFY_SOCKET"] = notify
        return worker_environment(
            around.environment,
            settings=[field.variable for field in self._schema.fields.values()],
            passed=service.pass_environment,
            declared=service.environment,
            given=given,
        )

    def order(self, instance: str, environment: Mapping[str, str], knows: Mapping[str, JSON]) -> Spawn:
        """Give the order for one start; `knows`: the settings that it will read at its start alone."""
        service = self._service
        note = Note(
            salt=instance,
            runs=self.digest(instance, environment),
            knows={key: digest(instance, value) for key, value in knows.items()},
            spawned_at=time.monotonic(),
        )
        return Spawn(
            service=service.name,
            argv=service.command,
            cwd=service.cwd,
            environment=environment,
            instance=instance,
            user=None if service.user is None else str(service.user),
            group=None if service.group is None else str(service.group),
            umask=0o077 if service.umask is None else service.umask,
            nice=service.nice,
            rlimits={
                getattr(resource, f"RLIMIT_{name.upper()}"): (
                    resource.RLIM_INFINITY if limit.soft is None else limit.soft,
                    resource.RLIM_INFINITY if limit.hard is None else limit.hard,
                )
                for name, limit in service.rlimits.items()
            },
            memory=service.memory_limit,
            note=note.text(),
        )

    def as_its_user(self) -> tuple[str, ...]:
        """Give what goes before a command that is to run as the worker's user, but is none (setpriv(1))."""
        user, group = self._service.user, self._service.group
        if (user is None and group is None) or os.getuid() != 0:
            return ()
        ids: list[str] = ["--clear-groups"]
        if user is not None:
            try:
                entry = pwd.getpwuid(int(user)) if str(user).isdecimal() else pwd.getpwnam(str(user))
                ids = ["--reuid", str(entry.pw_uid), "--init-groups"]
                group = entry.pw_gid if group is None else group
            except KeyError:
                ids += ["--reuid", str(user)]
        return ("setpriv", *ids, "--regid", str(user if group is None else group), "--")

    def digest(self, salt: str, environment: Mapping[str, str]) -> str:
        """Of all that a process has from its start on. What any program gets (PATH, LANG) is left out: it differs
        between a shell and a service manager, and is no reason to end a worker.
        """
        service = self._service
        own = {
            name: value
            for name, value in environment.items()
            if name not in PASSED_ALWAYS or name in service.environment or name in service.pass_environment
        }
        # Of these there are digests of their own.
        settings = {self._schema.fields[key].variable for key in self._schema.restart_keys}
        kept = {
            key: getattr(service, key)
            for key in ("command", "user", "group", "umask", "nice", "memory_limit", "watchdog")
        }
        limits = {name: (limit.soft, limit.hard) for name, limit in service.rlimits.items()}
        return digest(
            salt,
            {
                **kept,
                "cwd": str(service.cwd),
                "rlimits": limits,
                "environment": {name: value for name, value in own.items() if name not in settings},
            },
        )


def passes(error: SpawnFailed, spawn: Spawn | None) -> bool:
    """Whether a start that failed may succeed the next time without anybody mending something. `spawn`: what was ordered, if
    it came to that.
    """
    cause = error.__context__
    if cause is not None and not isinstance(cause, OSError | LookupError):
        # A step of the new process, and its error number.
        return getattr(cause, "code", 0) in _PASSES
    if spawn is None:
        return False
    try:
        spawn.order()
    except SpawnFailed:
        return False
    return True


def started_at(held: Held, note: Note) -> float:
    """When it was spawned, of CLOCK_MONOTONIC: by its note, else by the wall's clock."""
    return note.spawned_at or time.monotonic() - max(0.0, time.time() - held.started)
