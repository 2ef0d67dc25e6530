"""Probes that ask, wait for an answer to a deadline, and ask again after an interval."""

import asyncio
import logging
import os
import socket
import ssl
from contextvars import Context

from actors.probes._answers import Failed, Question
from actors.probes._probe import Count, OnResult, Probe, aligned
from schemas.manifest import ExecProbe, HttpProbe, TcpProbe

FIRST_PAUSE = 0.1
"""Seconds from the first try to the second, while there was no success: doubling up to the interval. One that starts is not
made to wait for a whole interval because it was not ready at once.
"""

logger = logging.getLogger(__name__)


class Asking(Probe):
    """Asks in a task of its own, one question at a time. What a question has opened is closed before the next."""

    def __init__(self, spec: TcpProbe | HttpProbe | ExecProbe, question: Question, on_result: OnResult) -> None:
        super().__init__(on_result)
        self._spec = spec
        self._question = question
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    def stop(self) -> None:
        super().stop()
        # It may be the task itself that is told to stop, by whom it has told its result: it ends by itself then.
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def gone(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        loop, spec = asyncio.get_running_loop(), self._spec
        count = Count(
            successes=spec.success_threshold,
            failures=spec.failure_threshold,
            start_until=loop.time() + spec.start_period,
        )
        pause = FIRST_PAUSE
        while self._on_result is not None:
            ok, text = await self._ask()
            if count.take(ok, loop.time()):
                self._say(ok, text)
            if self._on_result is not None:
                starts = count.verdict is None and not ok
                await _until(aligned(loop.time(), min(pause, spec.interval) if starts else spec.interval))
                pause *= 2.0

    async def _ask(self) -> tuple[bool, str]:
        try:
            async with asyncio.timeout(self._spec.timeout):
                return True, await self._question()
        except Failed as failed:
            return False, str(failed)
        except TimeoutError:
            return False, f"no answer within {self._spec.timeout:g} s"
        except OSError as error:
            return False, _why(error)
        except Exception:
            # A probe that dies would be one that never fails.
            logger.exception("a probe cannot ask")
            return False, "the probe itself failed; see the log"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError | socket.gaierror) or not error.errno:
        return error.strerror or str(error) or type(error).__name__
    # asyncio puts a tuple of addresses into the error's own words.
    return os.strerror(error.errno)


async def _until(when: float) -> None:
    """Sleep until a time of the loop: all that sleep until the same are woken at once."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_at(when, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()
