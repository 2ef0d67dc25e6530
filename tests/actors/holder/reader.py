"""A supervisor that writes down all that its one worker says: `python -m tests.actors.holder.reader FOLDER`. Tests kill it."""

import asyncio
import os
import sys
from pathlib import Path

from actors.holder import Held, Spawn, attach

WORKER = "import time\nfor n in range(1500):\n print(n, flush=True)\n if n % 10 == 0: time.sleep(0.005)\n"


def take(held: Held, book: int) -> bool:
    """Write down what there is; tell whether there may be more."""
    try:
        data = os.read(held.stdout, 65536)
    except BlockingIOError:
        return True
    os.write(book, data)
    return bool(data)


async def main(folder: Path) -> None:
    holder = await attach(folder)
    book = os.open(folder / "book", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if not holder.workers:
        argv = (sys.executable, "-I", "-S", "-c", WORKER)
        environment = {"TARS_TEST_PLACE": str(folder)}
        await holder.spawn(Spawn(service="worker", argv=argv, cwd=Path("/"), environment=environment))
    (held,) = holder.workers.values()
    for piece in held.kept.pieces:
        os.write(book, piece.data)
    held.taken()
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    print("attached", holder.pid, flush=True)

    def readable() -> None:
        if not take(held, book):
            loop.remove_reader(held.stdout)
            done.set()

    loop.add_reader(held.stdout, readable)
    await done.wait()
    await held.ended
    held.forget()
    await holder.stop()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
