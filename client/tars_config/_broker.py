"""The broker's address, as `MQTT_URL` gives it."""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_FORM = "mqtt://[user:password@]host[:port] or mqtts://..."


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where the broker listens and who we are there. Its text form leaves the password out."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> "BrokerAddress":
        """Parse `mqtt://[user:password@]host[:port]`; user and password may be percent-encoded.

        Raises:
            ValueError: of another form; the message does not repeat the URL, which holds a password.
        """
        if re.search(r"[\s\x00-\x1f]", url):
            raise ValueError(f"holds white space; expected {_FORM}")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"host or port is malformed; expected {_FORM}") from None
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError(f"unknown scheme; expected {_FORM}")
        if not parts.hostname or port == 0 or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError(f"expected {_FORM}")
        return cls(
            host=parts.hostname,
            port=port or _DEFAULT_PORTS[parts.scheme],
            tls=parts.scheme == "mqtts",
            user=unquote(parts.username) if parts.username is not None else None,
            password=unquote(parts.password) if parts.password is not None else None,
        )
