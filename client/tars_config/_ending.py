"""Ending the process for a restart: in order, with a told exit code, and within a told time."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

RESTART_EXIT_CODE: Final = 75
"""The exit code of a process that ends to be started again: `EX_TEMPFAIL` of sysexits.h(3head), "try again"."""

GRACE_S = 10.0


class Ending:
    """One end of the process, whoever asks for it and however often.

    `SystemExit` is raised from the event loop itself: it leaves `asyncio.run`, which cancels every task and waits for
    them, so that their `finally` runs, and then the interpreter, which runs what `atexit` holds. What does not end
    within `GRACE_S`, such as a thread that blocks, is ended with the process by _exit(2): a restart that was asked for
    must not wait for ever.
    """

    def __init__(self, last_words: Callable[[], Awaitable[object]]) -> None:
        """`last_words` are awaited before the end; they have to be bounded in time."""
        self._last_words = last_words
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Let the end come; to be called on the event loop.

        Raises:
            RuntimeError: the loop is not in the main thread, where alone an exception ends the process.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "the process can be ended for a restart only from an event loop in the main thread; "
                "end it yourself in a handler (on_control)"
            )
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._end())
            # Without a word: whatever blocks may hold the lock of a log handler.
            last_resort = threading.Timer(GRACE_S, os._exit, (RESTART_EXIT_CODE,))
            last_resort.daemon = True
            last_resort.start()

    async def _end(self) -> None:
        """Say the last words and leave; cancelled, by a loop that ends already, leave that to it."""
        await self._last_words()
        # Not from this task, whose exception asyncio would want somebody to retrieve.
        asyncio.get_running_loop().call_soon(_leave)


def _leave() -> NoReturn:
    raise SystemExit(RESTART_EXIT_CODE)
