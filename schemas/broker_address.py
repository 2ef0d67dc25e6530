"""Where an MQTT broker is, and how to log in there: the one reading of `MQTT_URL`; and where ours listens besides."""

from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LONGEST_URL = 2048
# MQTT 3.1.1, 1.5.3: a string on the wire has a length of two bytes.
_LONGEST_STRING = 65535
_FORM = "it is mqtt://[user:password@]host[:port], or mqtts:// for TLS"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One broker and a login there. Neither `str()` nor `repr()` shows the password."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listener:
    """One more way into the embedded broker, through the same gate: MQTT or MQTT over WebSocket, in clear or over TLS."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one."""
    websocket: bool = False
    tls: bool = False


def parse_mqtt_url(text: str) -> BrokerAddress:
    """Read `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS. Default ports: 1883 and 8883 (IANA).

    User name and password may be percent-encoded (RFC 3986, 2.1), and have to be where they hold one of
    `:/?#[]@%`. The scheme `embedded:` is not one of ours: whoever runs that broker knows its address.

    Raises:
        ValueError: what is wrong and how to mend it, to be read after the name of what holds the URL; it never repeats
            the password.
    """
    if len(text) > _LONGEST_URL:
        raise ValueError(f"is longer than {_LONGEST_URL} characters; {_FORM}")
    # urlsplit drops some of these in silence.
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError(f"has white space or control characters in it; {_FORM}")
    scheme, separator, _ = text.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise ValueError(f"has no scheme; {_FORM}")
    if scheme not in _PORTS:
        raise ValueError(f"has the scheme {scheme[:20]!r}; {_FORM}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Its own message may quote the part with the password.
        raise ValueError(
            "has a host or a port that cannot be read (a port is a number from 1 to 65535, "
            f"an IPv6 address stands in [brackets]); {_FORM}"
        ) from None
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(
            "goes on after the port; if that belongs to the user name or the password, "
            f"percent-encode its special characters ('/' is %2F, '#' is %23, '?' is %3F); {_FORM}"
        )
    if not host:
        raise ValueError(f"names no host; {_FORM}")
    if port == 0:
        raise ValueError("has port 0; a port is a number from 1 to 65535")
    user, password = _login(parts)
    return BrokerAddress(host, port or _PORTS[scheme], user, password, tls=scheme == "mqtts")


def _login(parts: SplitResult) -> tuple[str | None, str | None]:
    try:
        user = None if parts.username is None else unquote(parts.username, errors="strict")
        password = None if parts.password is None else unquote(parts.password, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has a user name or a password that is percent-encoded, but not as UTF-8") from None
    if password and not user:
        raise ValueError("has a password without a user name (MQTT 3.1.1, 3.1.2.9)")
    for name, value in (("user name", user), ("password", password)):
        if value is not None and ("\0" in value or len(value.encode()) > _LONGEST_STRING):
            raise ValueError(f"the {name} in has a NUL in it or is too long for MQTT")
    return user or None, password or None
