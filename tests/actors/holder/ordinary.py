"""What an ordinary user can do: run as one, prints what happened."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from actors.holder import Holder, Spawn, SpawnFailed, attach


def spawn(service: str, *argv: str, **more: object) -> Spawn:
    facts = {"cwd": Path("/"), "environment": {"PATH": "/usr/bin:/bin"}, **more}
    return Spawn(service=service, argv=argv, **facts)  # type: ignore[arg-type]  # of the test's making


async def refused(holder: Holder, **more: object) -> None:
    try:
        await holder.spawn(spawn("refused", "true", **more))
    except SpawnFailed as error:
        print(error)


async def main(folder: Path) -> None:
    holder = await attach(folder)
    held = await holder.spawn(spawn("worker", "sh", "-c", "(setsid env -i sleep 600 &); sleep 600"))
    print("marked", held.marked)
    await refused(holder, user="daemon")
    await refused(holder, group="daemon")
    await refused(holder, nice=-5)
    own = await holder.spawn(spawn("own", "true", user=str(os.getuid())))
    print(await own.ended)
    own.forget()
    pid = held.pid
    await holder.detach()
    holder = await attach(folder)
    (held,) = holder.workers.values()
    print("adopted", held.pid == pid)
    print(await held.stop(5))
    held.forget()
    await holder.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
