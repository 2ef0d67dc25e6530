"""`ConfigLibrary`: a worker's configuration, typed, verified, and kept up to date."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from pydantic import BaseModel, SecretStr

from tars_config import _callbacks, _sources, ratchet
from tars_config._callbacks import Callback, CallbackFailed
from tars_config._control import ControlHandler, Controls
from tars_config._ending import RESTART_EXIT_CODE, Ending
from tars_config._inbox import Arrival, Inbox
from tars_config._link import Link
from tars_config._reporter import Reporter
from tars_config._sources import Loaded, Origin
from tars_config._state import StateDirectory
from tars_config._surroundings import Surroundings
from tars_config._values import Built, ConfigInvalid, Layers, Source, build, masked, plain, read_credentials
from tars_config.keys import TrustedKeys
from tars_config.reports import AppliedReport
from tars_config.wire import Refused, SignedUpdate

STALE_AFTER_S: Final = 300.0
CALLBACK_TIMEOUT_S: Final = 30.0
_FLUSH_S = 1.0

ModelT = TypeVar("ModelT", bound=BaseModel)
HandlerT = TypeVar("HandlerT", bound=ControlHandler)
P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("tars_config")


@dataclass(frozen=True, slots=True)
class _Taker:
    """What an update goes through: a model that it has to fit, and a callback that takes it. Either may be None."""

    model: type[BaseModel] | None = None
    callback: Callable[[Any], Any] | None = None

    def build(self, layers: Layers) -> Built[Any]:
        return plain(layers) if self.model is None else build(self.model, layers)


class ConfigLibrary:
    """One worker's access to its service's configuration.

    Everything happens on the event loop that called `initialize`. Updates are judged as they arrive and applied by
    one task, strictly one after another; of several that wait only the newest is applied. An update counts as
    applied when the callback has returned; then it is written to the state directory, then reported. A crash
    between these steps is harmless: the update comes again, with the next connection or when it is re-signed
    within 2 minutes, and is applied again. Control signals are acted on beside that, strictly one after another too;
    one is written to the state directory before, and never acted on twice.
    """

    def __init__(
        self,
        service: str | None = None,
        *,
        surroundings: Surroundings | None = None,
        health_topic: str | None = None,
        callback_timeout_s: float = CALLBACK_TIMEOUT_S,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Look at the surroundings; nothing is opened yet.

        `service` defaults to `TARS_SERVICE`, `surroundings` to the process environment, `health_topic` to
        `system/health/<service>`.

        Raises:
            SurroundingsError: a variable holds something that cannot be used.
            ValueError: no service is named.
        """
        around = surroundings or Surroundings.from_environment(os.environ)
        started_as = around.environment.get("TARS_SERVICE")
        name = service or started_as
        if not name:
            raise ValueError("which service? pass its name or set TARS_SERVICE")
        if started_as and started_as != name:
            _log.warning("this worker asks for service %s, but was started as %s", name, started_as)
        self.service = name
        self.instance = around.instance
        self._around = around
        self._callback_timeout_s = callback_timeout_s
        self._clock = clock
        self._keys = TrustedKeys(around.public_keys)
        self._inbox = Inbox(name, self._keys)
        # A thread of our own: the loop's executor may be full of models that load. It starts at its first use.
        self._files = ThreadPoolExecutor(1, thread_name_prefix="tars-config")
        self._state = StateDirectory(around.state_directory, name, self._files)
        self._reporter = Reporter(
            name,
            around.instance,
            health_topic=health_topic or f"system/health/{name}",
            clock=clock,
            secret_values=self._secret_values,
        )
        self._controls = Controls(
            name,
            self._keys,
            around.state_directory,
            self._files,
            reporter=self._reporter,
            clock=clock,
            timeout_s=callback_timeout_s,
            restart=self.end_process,
        )
        self._ending = Ending(self._last_words)
        self._loaded: Loaded | None = None
        self._credentials: Mapping[str, str] = {}
        self._secrets: Mapping[str, str] = {}
        self._values_from: Mapping[str, Source] = {}
        self._told_unknown: frozenset[str] = frozenset()
        self._subscribed = False
        self._arrived = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._one_at_a_time = asyncio.Lock()
        self._last_valid = time.monotonic()
        self._stale_timer: asyncio.TimerHandle | None = None
        self._link: Link | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    # --- life ---

    async def initialize(self) -> None:
        """Load the configuration from the first source that holds, and start listening to the broker.

        Takes file reads only: a broker that is away, silent or refusing is tried in the background. Logs each
        step; with nothing to read the model's defaults are in force.
        """
        if self._loaded is not None:
            return
        self._loaded = await self._in_thread(self._load)
        self._heard()
        if self._around.public_keys is None:
            _log.warning("%s: no TARS_CONFIG_PUBLIC_KEYS: every update will be refused", self.service)
        if self._around.state_directory is None:
            _log.warning(
                "%s: no TARS_STATE_DIRECTORY: a restart forgets what was applied, and no control signal is acted on",
                self.service,
            )
        if self._around.broker is None:
            _log.info("%s: no MQTT_URL: working offline", self.service)
            return
        topics = {
            f"system/config/{self.service}": self.receive,
            f"system/control/{self.service}": self.receive_control,
        }
        self._link = Link(self._around.broker, topics, own_topic=self._reporter.health_topic)
        self._reporter.link = self._link
        self._start(self._link.run())

    async def close(self) -> None:
        """Stop listening; a callback or handler that runs is cancelled. What is still unsent gets a second. Idempotent."""
        self._closed = True
        self._reporter.close()
        if self._stale_timer is not None:
            self._stale_timer.cancel()
        if self._link is not None:
            await self._link.flush(_FLUSH_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._controls.close()
        self._tasks.clear()
        await self._state.settle()
        self._files.shutdown()
        self._settled.set()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- reading ---

    async def get_config(self, model: type[ModelT]) -> ModelT:
        """Give the configuration in force as this model; the first time, report it as applied.

        Without a subscription, an update that has arrived since is taken over first.

        Raises:
            ConfigInvalid: it does not fit; every problem is named. Reported too.
        """
        value: ModelT = await self._give_out(_Taker(model))
        return value

    async def get_values(self) -> dict[str, Any]:
        """Give the configuration in force as a plain mapping, for a worker without a model; no secrets in it.

        Raises:
            ConfigInvalid: an environment variable that overrides a key is not of its type.
        """
        value: dict[str, Any] = await self._give_out(_Taker())
        return value

    async def subscribe_updates(self, callback: Callback[ModelT], model: type[ModelT]) -> None:
        """Have `callback` called with the new model at each update, from now on.

        It may be sync or async, runs on the event loop, and has 30 s. What it raises leaves the old configuration
        in force and is reported; the same version is not offered again before a restart. `RestartRequired`,
        returned or raised, takes the update over and reports which keys wait for a restart.

        Raises:
            RuntimeError: there is a subscription already, or the library is not initialized.
        """
        self._subscribe(_Taker(model, callback))

    async def subscribe_values(self, callback: Callback[dict[str, Any]]) -> None:
        """Do the same for a worker without a model: the callback gets what `get_values` would give."""
        self._subscribe(_Taker(None, callback))

    def on_control(self, handler: HandlerT) -> HandlerT:
        """Have `handler` called with each control signal, from now on; may be used as a decorator.

        It may be sync or async, runs on the event loop, and has 30 s; the next signal waits for it. What it raises is
        logged and reported. It gets every command, by name; without a handler `restart` does `end_process`, and any
        other command is logged and reported as unknown.

        Raises:
            RuntimeError: there is a handler already.
        """
        if self._controls.handler is not None:
            raise RuntimeError("there is a handler already; one can tell others")
        self._controls.handler = handler
        return handler

    def end_process(self) -> None:
        """End this process in order, so that whoever runs it starts it again: what `restart` does without a handler.

        Returns at once. Where the worker has reported its health, that becomes `restarting`; then the event loop is
        left by a `SystemExit` with `RESTART_EXIT_CODE` (75), so tasks are cancelled and `finally` and `atexit` run.
        What has not ended 10 s after the call is ended hard, with the same exit code.

        Raises:
            RuntimeError: the event loop is not in the main thread, where alone that ends the process.
        """
        self._ending.begin()
        _log.warning("%s: ending with exit code %d, to be started again", self.service, RESTART_EXIT_CODE)

    @property
    def secrets(self) -> Mapping[str, SecretStr]:
        """The secrets that are set, by key: credential files, overridden by the environment."""
        return MappingProxyType({key: SecretStr(value) for key, value in self._secrets.items()})

    def source_of(self, key: str) -> Source:
        """Tell where a key's value came from: `env`, `database` or `default`.

        The wire has defaults filled in, so a value equal to the model's default counts as `default`.

        Raises:
            KeyError: no such key in what was last given out.
        """
        return self._values_from[key]

    @property
    def is_read_only(self) -> bool:
        """Whether a fallback is in force: the last applied copy, the last known good, or defaults."""
        return not self.database_available

    @property
    def database_available(self) -> bool:
        """Whether what is in force came from the store's owner: a snapshot, an update, or the store itself."""
        return self._in_force.origin in {Origin.UPDATE, Origin.SNAPSHOT, Origin.STORE}

    @property
    def stale(self) -> bool:
        """Whether no valid update, repeats included, has come for 5 minutes."""
        return time.monotonic() - self._last_valid > STALE_AFTER_S

    @property
    def connected(self) -> bool:
        """Whether the broker is connected and the subscription stands."""
        return self._link is not None and self._link.connected

    @property
    def version(self) -> int | None:
        """The version in force, if its source names one."""
        return self._in_force.version

    @property
    def config_epoch(self) -> str | None:
        """The epoch of the version in force, if its source names one."""
        return self._in_force.config_epoch

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused updates and control signals since the start, by reason."""
        return dict(self._reporter.refused)

    @property
    def last_report(self) -> AppliedReport | None:
        """What was last reported on `system/applied/<service>`; None before anything was applied."""
        return self._reporter.last

    async def report_health(self, ok: bool, event: str = "", err: str = "") -> None:
        """Publish the worker's health, retained, now and after each reconnect; does not wait for the broker.

        From the first report on, the broker holds a last will that says `connection lost`.
        """
        self._reporter.health(ok, event, err)

    # --- updates ---

    def receive(self, payload: bytes) -> None:
        """Judge one message as though the broker had sent it; to be called on the event loop. Never raises.

        An acceptable one is applied by the subscription's task, or by the next `get_config`.
        """
        if not payload or self._closed:
            return
        try:
            arrival = self._inbox.accept(payload, self._clock())
        except Refused as refusal:
            self._reporter.refusal(refusal)
            return
        except Exception:  # noqa: BLE001 - a fault of ours must not end the connection
            _log.exception("%s: an update could not be judged", self.service)
            return
        self._heard()
        if arrival is Arrival.WAITS:
            self._settled.clear()
            self._arrived.set()
        elif arrival is Arrival.REPEAT and self._in_force.origin is Origin.COPY and not self._inbox.waiting:
            self._loaded = replace(self._in_force, origin=Origin.UPDATE)
            _log.info("%s: the supervisor confirms version %s", self.service, self.version)

    def receive_control(self, payload: bytes) -> None:
        """Judge one control signal as though the broker had sent it; to be called on the event loop. Never raises."""
        if payload and self._loaded is not None and not self._closed:
            self._controls.receive(payload)

    async def settle(self) -> None:
        """Wait until no accepted update or control signal waits; for tests. An update needs a subscription."""
        await self._settled.wait()
        await self._controls.settle()

    async def _apply_arrivals(self, taker: _Taker) -> None:
        while True:
            await self._arrived.wait()
            await self._apply_waiting(taker)

    async def _apply_waiting(self, taker: _Taker) -> None:
        async with self._one_at_a_time:
            self._arrived.clear()
            while self._inbox.waiting:
                try:
                    await self._apply(self._inbox.take(), taker)
                except Refused as refusal:
                    self._reporter.refusal(refusal)
                finally:
                    self._inbox.abandoned()
            self._settled.set()

    async def _apply(self, update: SignedUpdate, taker: _Taker) -> None:
        credentials = await self._in_thread(read_credentials, self._around.credentials_directory)
        layers = Layers(config=update.config, secrets=credentials, environment=self._around.environment)
        before = self._secrets
        try:
            built = taker.build(layers)
            self._secrets = built.secrets  # the callback may ask for those of the version that it is offered
            keys = await self._call(taker, built.value)
        except BaseException as error:
            offered, self._secrets = self._secrets, before
            if not isinstance(error, (ConfigInvalid, CallbackFailed)):
                raise
            text = self._reporter.clean(masked(str(error), [*offered.values(), *credentials.values()]))
            _log.error("%s: version %d is not taken over: %s", self.service, update.version, text)
            self._inbox.failed(update)
            self._reporter.applied(update.config_epoch, update.version, error=text)
            return
        old, self._loaded = self._in_force, _loaded_from(update)
        self._credentials = credentials
        self._adopt(built)
        state = self._inbox.succeeded(update)
        await self._state.store(update, state)
        self._reporter.restarts(keys, old.config, update.config)
        self._reporter.applied(update.config_epoch, update.version)

    async def _call(self, taker: _Taker, value: object) -> tuple[str, ...]:
        if taker.callback is None:
            return ()
        return await _callbacks.call(taker.callback, value, self._callback_timeout_s)

    # --- what is in force ---

    @property
    def _in_force(self) -> Loaded:
        if self._loaded is None:
            raise RuntimeError("call initialize() first")
        return self._loaded

    def _load(self) -> Loaded:
        """Read everything there is to read; in a thread, before anything else runs."""
        state = self._state.load()
        if state is not None:
            state = ratchet.clamped(state, self._clock())
        self._controls.load()
        loaded = _sources.load_first(self.service, self._around, self._keys, self._state.copy_path)
        self._inbox.start_from(state, loaded.update, snapshot=loaded.origin is Origin.SNAPSHOT)
        self._credentials = self._secrets = read_credentials(self._around.credentials_directory)
        return loaded

    async def _give_out(self, taker: _Taker) -> Any:
        in_force = self._in_force
        if not self._subscribed:
            await self._apply_waiting(taker)
            in_force = self._in_force
        layers = Layers(config=in_force.config, secrets=self._credentials, environment=self._around.environment)
        try:
            built = taker.build(layers)
        except ConfigInvalid as error:
            self._reporter.given_out(in_force.config_epoch, in_force.version, error=str(error))
            raise
        self._adopt(built)
        # What the worker starts with counts as applied once it has been given out.
        if in_force.update is not None and self._inbox.ratchet is not None and not self._closed:
            self._state.store_soon(in_force.update, self._inbox.ratchet)
        self._reporter.given_out(in_force.config_epoch, in_force.version)
        return built.value

    def _adopt(self, built: Built[Any]) -> None:
        self._values_from, self._secrets = built.sources, built.secrets
        fresh = built.unknown - self._told_unknown
        if fresh:
            self._told_unknown |= fresh
            names = ", ".join(sorted(fresh))
            _log.info("%s: keys that the worker's model does not know are left out: %s", self.service, names)

    async def _last_words(self) -> None:
        self._reporter.restarting()
        if self._link is not None:
            await self._link.flush(_FLUSH_S)

    def _secret_values(self) -> Iterable[str]:
        return self._secrets.values()

    # --- tasks and timers ---

    def _subscribe(self, taker: _Taker) -> None:
        if self._loaded is None:
            raise RuntimeError("call initialize() first")
        if self._subscribed:
            raise RuntimeError("there is a subscription already; one callback can tell others")
        self._subscribed = True
        self._start(self._apply_arrivals(taker))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s: a part of the library has failed; no more updates", self.service, exc_info=error)

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, partial(work, *args, **kwargs))

    def _heard(self) -> None:
        """Note a valid update, and tell when none has come for 5 minutes."""
        self._last_valid = time.monotonic()
        if self._stale_timer is not None:
            self._stale_timer.cancel()
        self._stale_timer = asyncio.get_running_loop().call_later(STALE_AFTER_S, self._tell_stale)

    def _tell_stale(self) -> None:
        _log.warning("%s: no valid update for 5 minutes; what is in force may be old", self.service)


def _loaded_from(update: SignedUpdate) -> Loaded:
    return Loaded(
        origin=Origin.UPDATE,
        config=update.config,
        config_epoch=update.config_epoch,
        version=update.version,
        update=update,
    )
