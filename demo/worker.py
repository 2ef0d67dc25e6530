"""A worker that does nothing but live by its configuration; any service can be run with it.

It loads its configuration, takes its time as if it loaded a model, reports its health, and prints each change.
A control signal `restart` ends it, through the library, with exit code 75.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Any

from tars_config import ConfigInvalid, ConfigLibrary, RestartRequired, SurroundingsError


class Worker:
    """One run of the worker. Values are compared as plain JSON: it knows no model of any service."""

    def __init__(self, library: ConfigLibrary, load_seconds: float) -> None:
        self._library = library
        self._load_seconds = load_seconds
        self._values: dict[str, Any] = {}
        self._secrets: dict[str, str] = {}

    async def run(self) -> None:
        """Start, then work until cancelled."""
        await self._library.initialize()
        self._values = await self._library.get_values()
        self._secrets = self._revealed()
        set_secrets = f", secrets set: {', '.join(sorted(self._secrets))}" if self._secrets else ""
        say(f"version {self._library.version or 'none'}, {len(self._values)} settings{set_secrets}")
        await self._library.report_health(False, "starting")
        say(f"loading a model for {self._load_seconds:g} s")
        await asyncio.sleep(self._load_seconds)
        await self._library.subscribe_values(self.take)
        await self._library.report_health(True, "ready")
        say("ready")
        await asyncio.Event().wait()

    def take(self, values: dict[str, Any]) -> RestartRequired | None:
        """Print what an update changes, secrets by name only."""
        changes = [
            f"{key}: {shown(self._values.get(key))} -> {shown(values.get(key))}"
            for key in sorted(self._values.keys() | values.keys())
            if self._values.get(key) != values.get(key)
        ]
        secrets = self._revealed()
        changes += [
            f"{key}: secret changed"
            for key in sorted(secrets.keys() | self._secrets.keys())
            if secrets.get(key) != self._secrets.get(key)
        ]
        for change in changes or ["nothing changed for this worker"]:
            say(change)
        self._values, self._secrets = values, secrets
        return None

    def _revealed(self) -> dict[str, str]:
        return {key: secret.get_secret_value() for key, secret in self._library.secrets.items()}


def shown(value: Any) -> str:
    """Give a value as a line can hold it."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def say(line: str) -> None:
    print(line, flush=True)


async def main() -> int:
    """Run until SIGTERM or SIGINT; then 0. A configuration that cannot be used: 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", default=os.environ.get("TARS_SERVICE"), help="default: TARS_SERVICE")
    parser.add_argument("--load-seconds", type=float, default=1.0, help="how long its model takes to load")
    parser.add_argument("--health-topic", help="default: system/health/<service>")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)

    # The handlers come first: a signal during the start ends the worker as orderly as one later.
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        library = ConfigLibrary(options.service, health_topic=options.health_topic)
    except (SurroundingsError, ValueError) as error:
        say(f"cannot start: {error}")
        return 1
    work = asyncio.create_task(Worker(library, options.load_seconds).run())
    told = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, told}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        say("stopping")
        await library.report_health(False, "stopping")
    except ConfigInvalid as error:
        say(f"cannot start: {error}")
        await library.report_health(False, "configuration refused", str(error))
        return 1
    finally:
        for task in (work, told):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConfigInvalid):
                await task
        await library.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
