"""The holder that we are attached to, and the next one after it was killed: what stays the same for who starts processes."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from actors.holder import Held, Holder, HolderFailed, Spawn, attach
from actors.holder.records import Records
from actors.output import StreamName

logger = logging.getLogger(__name__)

ATTACH_AGAIN = (0.1, 0.5, 2.0, 10.0)
"""Seconds until it is tried again to start a holder in the place of one that was killed; the last one repeats."""

LAST_WORKER = 5.0
"""Seconds that the holder has to end after it was told to; whoever is still held keeps it, and is told in the log."""


class Holding:
    """One for the program. All on the loop's thread.

    Where the holder is killed, the ends of its workers are told (`Held.ended`), and a new one is attached to; `spawn` waits
    for it.
    """

    def __init__(self, folder: Path, *, cgroups: Path | None = None) -> None:
        self._folder = folder
        self._cgroups = cgroups
        self.on_trouble: Callable[[str], None] = lambda _: None
        """Gets a sentence while there is no holder, each time that one cannot be started, and an empty text when there is one
        again.
        """
        self._holder: Holder | None = None
        self._attached = asyncio.Event()
        self._trouble = "there is no holder of workers"
        self._task: asyncio.Task[None] | None = None
        self.leaving = False
        """Processes are to run on for another supervisor: whoever has one lets go of it, where it would end it else."""
        self.rests: dict[str, dict[StreamName, bytes]] = {}
        """Output of an instance that was read and not used by who let go of it; the next one takes it from here."""

    async def open(self) -> Holder:
        """Attach, first of all at a start.

        Raises:
            HolderFailed: the message says why.
        """
        holder = await self._attach()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="holding")
        return holder

    def report(self) -> None:
        """Tell the log what was found when it was attached to."""
        holder = self._holder
        assert holder is not None
        if holder.leftovers:
            logger.warning(
                "%d processes of a supervisor that was killed were still there and are ended", len(holder.leftovers)
            )
        if holder.trouble:
            logger.warning("the holder of workers had trouble: %s", holder.trouble)

    @property
    def pid(self) -> int | None:
        return self._holder.pid if self._holder is not None else None

    def claim(self, service: str) -> Held | None:
        """Give the process of a service that is there, or has ended and was not forgotten."""
        return next((held for held in self._workers() if held.service == service), None)

    def others(self, services: set[str]) -> list[Held]:
        """Give the processes of services that are not among these: they left the manifest."""
        return [held for held in self._workers() if held.service not in services]

    def _workers(self) -> list[Held]:
        return list(self._holder.workers.values()) if self._holder is not None else []

    async def spawn(self, spawn: Spawn) -> Held:
        """Start a process: see `Holder.spawn`. Where there is no holder at present, the next one is waited for.

        Raises:
            SpawnFailed: see there.
            HolderFailed: see there.
        """
        while True:
            if self.leaving:
                raise HolderFailed("another supervisor takes over")
            if not self._attached.is_set():
                try:
                    async with asyncio.timeout(ATTACH_AGAIN[-1]):
                        await self._attached.wait()
                except TimeoutError:
                    raise HolderFailed(self._trouble) from None
            holder = self._holder
            if holder is None:
                raise HolderFailed("the supervisor stops")
            try:
                return await holder.spawn(spawn)
            except HolderFailed:
                # It was killed, and with it whatever may have come of this. The next one comes soon.
                if self._holder is holder:
                    self._attached.clear()

    def follow(self, held: Held, spawn: Spawn, *, unless: Iterable[int]) -> None:
        """Leave a standing order: see `Holder.follow`. Nothing where the holder is lost, or another supervisor takes over.

        Raises:
            SpawnFailed: see there.
        """
        if self._holder is not None and self._attached.is_set() and not self.leaving:
            with contextlib.suppress(HolderFailed):
                self._holder.follow(held, spawn, unless=unless)

    def restore(self) -> None:
        """Write the missing records of those who run: somebody has removed the folder, and a killed holder's are found by them.

        Blocks for small files. Raises OSError.
        """
        folder = self._folder / "instances"
        missing = [held for held in self._workers() if not (folder / held.service).exists()]
        if missing:
            records = Records(folder)
            for held in missing:
                keep: set[str] = set()
                for instance in held.recorded:
                    records.write(held.service, instance, keep)
                    keep.add(instance)

    async def stop(self) -> None:
        """End the holder, after its workers."""
        self._end_task()
        holder, self._holder = self._holder, None
        self._attached.set()
        if holder is None:
            return
        left = [held.service for held in holder.workers.values() if held.running]
        if left:
            logger.error("still there at the end, and killed: %s", ", ".join(left))
            for held in tuple(holder.workers.values()):
                held.kill()
        try:
            async with asyncio.timeout(LAST_WORKER):
                await holder.stop()
        except (TimeoutError, HolderFailed) as error:
            logger.error("the holder of workers did not end in order: %s", _why(error))  # noqa: TRY400  # the sentence says it
            holder.close()

    async def detach(self) -> None:
        """Let go of all in order, for the next supervisor; take the outputs off the loop before."""
        self._end_task()
        holder, self._holder = self._holder, None
        self._attached.set()
        if holder is None:
            return
        rests = {
            (instance, 1 if name == "stdout" else 2): data
            for instance, streams in self.rests.items()
            for name, data in streams.items()
            if instance in holder.workers
        }
        try:
            async with asyncio.timeout(LAST_WORKER):
                await holder.detach(rests)
        except (TimeoutError, HolderFailed, OSError) as error:
            # As after a death, which the holder is made for.
            logger.warning("the holder of workers was not left in order: %s", _why(error))
            holder.close()

    def close(self) -> None:
        """Let go as a death would: the workers run on."""
        self._end_task()
        holder, self._holder = self._holder, None
        self._attached.set()
        if holder is not None:
            holder.close()

    async def _attach(self) -> Holder:
        self._holder = holder = await attach(self._folder, cgroups=self._cgroups)
        self._trouble = ""
        self._attached.set()
        return holder

    async def _keep(self) -> None:
        """Attach to another holder whenever ours is lost."""
        while True:
            lost = self._holder
            assert lost is not None
            await asyncio.shield(lost.lost)
            self._attached.clear()
            # Whoever had a process there has been told its end before.
            lost.close()
            self._tell("the holder of workers was killed, and they with it; a new one is started")
            failures = 0
            while True:
                try:
                    await self._attach()
                    self.report()
                    break
                except (HolderFailed, OSError) as error:
                    self._tell(f"workers cannot be started, since there is no holder of them: {error}")
                    await asyncio.sleep(ATTACH_AGAIN[min(failures, len(ATTACH_AGAIN) - 1)])
                    failures += 1
            if failures:
                logger.warning("there is a holder of workers again")
            self.on_trouble("")

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            logger.error("%s", trouble)
        self.on_trouble(trouble)

    def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                if self._task.done():
                    self._task.exception()
            self._task = None


def _why(error: Exception) -> str:
    # Of a deadline that has passed there are no words.
    return str(error) or f"that took longer than {LAST_WORKER:g} s"
