"""What happened to a service and its worker, told to people: one short line each, at the place where the fact is known."""

import logging
from collections.abc import MutableMapping
from typing import Any


class ServiceLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the service's name in front of each line, and beside it as the field `service`."""

    def __init__(self, logger: logging.Logger, service: str) -> None:
        super().__init__(logger, {"service": service})
        self._service = service

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """See `logging.LoggerAdapter`. A service's name has no `%`."""
        kwargs["extra"] = self.extra
        return f"{self._service}: {msg}", kwargs


def in_seconds(delay: float) -> str:
    """Say when, for a person."""
    return f"in {delay:.1f} s" if delay else "at once"
