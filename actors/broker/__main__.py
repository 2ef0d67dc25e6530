"""The broker's process: `python -m actors.broker --config FILE`.

Its first line on standard output is `{"event": "listening", "host": ..., "port": ..., "listeners": [...]}`, the last
with host and port of each further listener; then come log lines.
SIGTERM and SIGINT end it in order with exit status 0, in seconds at most; SIGHUP reads the file again.
Status 1: it could not start, and the line `{"event": "failed", "error": ...}` says why. 2: wrong arguments.
"""

import asyncio
import contextlib
import resource
import signal
import sys
from pathlib import Path

from actors.broker.engine import Engine
from actors.broker.gate import CannotListen, Gate
from actors.broker.log import Log, take_over_logging
from actors.broker.settings import Settings, SettingsError, load

_DESCRIPTORS = 4096
_SHUTDOWN_SECONDS = 1.0


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--config", file]:
            path = Path(file)
        case _:
            print("usage: python -m actors.broker --config FILE", file=sys.stderr)  # noqa: T201 - no log exists yet
            return 2
    log = Log()
    take_over_logging(log)
    try:
        settings = load(path)
    except SettingsError as error:
        log.fault("failed", error=str(error))
        return 1
    _allow_descriptors()
    return asyncio.run(_run(path, settings, log))


async def _run(path: Path, settings: Settings, log: Log) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine = Engine(settings.limits, log)
    gate = Gate(settings, engine, log)

    def reload() -> None:
        try:
            gate.reload(load(path))
        except (SettingsError, CannotListen) as error:
            log.fault("reload_failed", error=str(error))
        else:
            log.info("reloaded")

    loop.add_signal_handler(signal.SIGHUP, reload)
    await engine.start()
    try:
        (host, port), *others = await gate.start()
        log.info("listening", host=host, port=port, listeners=[{"host": host, "port": port} for host, port in others])
        await stop.wait()
        await gate.stop()
    except CannotListen as error:
        log.fault("failed", error=str(error))
        return 1
    finally:
        # No client is left that it could wait for; the bound is for what we do not know of it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                await engine.shutdown()
    log.info("stopped")
    return 0


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
