"""Small state on disk that is believed only whole: JSON under its own SHA-256, bound to one service."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tars_config._files import FileTooLarge, put_aside, read_bounded, remove_strays, replace_durably

_MAX_FILE_BYTES = 128 * 1024

StateT = TypeVar("StateT")

_log = logging.getLogger(__name__)


class SealedFile:
    """One JSON object, mode 0600, replaced atomically.

    A file that is damaged all the same (a card that rots) is put aside and the reader starts without it, as on its
    first day. Refusing everything instead would take the worker down for good because of one bad block.
    """

    def __init__(self, path: Path, service: str, *, name: str, without_it: str) -> None:
        """`name` is what the object is called in file and log; `without_it` says what its loss means."""
        self._path = path
        self._service = service
        self._name = name
        self._without_it = without_it

    def load(self, parse: Callable[[dict[str, Any]], StateT]) -> StateT | None:
        """Read it; None where there is none or it is damaged, which is logged. `parse` may raise ValueError."""
        remove_strays(self._path)
        try:
            return parse(self._opened(read_bounded(self._path, _MAX_FILE_BYTES)))
        except FileNotFoundError:
            return None
        except (FileTooLarge, ValueError, KeyError, TypeError) as error:
            aside = put_aside(self._path)
            _log.error(
                "%s %s is damaged (%s)%s; starting without it: %s",
                self._name,
                self._path,
                error,
                f" and was renamed to {aside.name}" if aside else "",
                self._without_it,
            )
        except OSError as error:
            _log.error("%s cannot be read: %s; starting without it", self._name, error)
        return None

    def store(self, fields: dict[str, Any]) -> None:
        """Write it durably.

        Raises:
            OSError: such as a full disk; the file is as before.
        """
        body = {"service": self._service} | fields
        replace_durably(self._path, orjson.dumps({self._name: body, "sha256": _digest(body)}) + b"\n")

    def _opened(self, content: bytes) -> dict[str, Any]:
        document = orjson.loads(content)
        body: dict[str, Any] = document[self._name]
        if document["sha256"] != _digest(body):
            raise ValueError("its SHA-256 does not match")
        if body["service"] != self._service:
            raise ValueError(f"it belongs to service {body['service']!r}")
        return body


def _digest(body: object) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
