"""Which instances there may be, on disk: written before the holder hears of one, for the day it is killed."""

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import Path

_INSTANCE = re.compile(rb"[0-9a-f]{32}")


class Records:
    """One file for each service, with the instances that were about to be started and may still be there. Nothing here is
    synchronised: a power cut ends the processes too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def write(self, service: str, instance: str, keep: Collection[str] = ()) -> None:
        """Note the instance, in the place of one that is not among those to keep. One write of 32 bytes over the 32 that
        were there, or behind the last: no kill can tear it.
        """
        descriptor = os.open(self._folder / service, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            there = _instances(os.read(descriptor, 32 * (len(keep) + 2)))
            place = next((number for number, each in enumerate(there) if each not in keep), len(there))
            os.pwrite(descriptor, instance.encode("ascii"), 32 * place)
            if len(there) > len(keep) + 1:
                os.ftruncate(descriptor, 32 * (len(keep) + 1))
        finally:
            os.close(descriptor)

    def read(self) -> dict[str, list[str]]:
        """Give the recorded instances of each service. Whatever else lies there is left alone."""
        found = {}
        for record in self._folder.iterdir():
            with contextlib.suppress(OSError):
                if record.is_file() and (instances := _instances(record.read_bytes())):
                    found[record.name] = instances
        return found

    def remove(self, service: str, instances: list[str]) -> None:
        """The trees of these instances are gone."""
        with contextlib.suppress(OSError):
            if _instances((self._folder / service).read_bytes()) == instances:
                (self._folder / service).unlink()


def _instances(text: bytes) -> list[str]:
    return [match.decode() for match in _INSTANCE.findall(text)]
