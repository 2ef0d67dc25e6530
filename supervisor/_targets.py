"""The structured values among the variables: the broker's address, API tokens, topic templates, hosts."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from schemas.base import Model
from schemas.broker_address import BrokerAddress, Listener, parse_mqtt_url
from supervisor._reader import BadValueError, shown

Role = Literal["config.read", "config.write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

SHORTEST_TOKEN = 8
GOOD_TOKEN = 16
"""Shorter tokens than this, in characters, are warned about."""
LONGEST_TOKEN = 256

_TOKEN = re.compile(r"[!-~]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

_EMBEDDED = re.compile(r"embedded:(//(127\.0\.0\.1)?(:(?P<port>[0-9]{1,5}))?/?)?", re.IGNORECASE)
DEFAULT_BROKER_PORT = 1883
_LISTENER_FORM = "write mqtt, mqtts, ws or wss, then ://address:port, with commas between several"
_MOST_LISTENERS = 8


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker of MQTT_URL. `embedded`: we run it ourselves, and port 0 lets the kernel choose."""

    embedded: bool
    address: BrokerAddress


class ApiToken(Model):
    """A token for the REST API that the environment grants. `name` stands in the audit log."""

    token: SecretStr
    name: str
    role: Role


class LegacyTopic(Model):
    """A topic template for readers of the old layout; `{service}` stands for the service's name."""

    template: str = Field(max_length=256)

    def topic(self, service: str) -> str:
        return self.template.replace("{service}", service)


def broker(text: str) -> Broker:
    """Parse MQTT_URL. Its errors repeat no part that may hold the password."""
    text = text.strip()
    if not text.lower().startswith("embedded:"):
        try:
            address = parse_mqtt_url(text)
        except ValueError as error:
            raise BadValueError(f"{error}; or write embedded: to have a broker run here") from None
        _check_host(address.host)
        return Broker(embedded=False, address=address)
    match = _EMBEDDED.fullmatch(text)
    port = int(match["port"] or DEFAULT_BROKER_PORT) if match else -1
    if not 0 <= port <= 65535:
        raise BadValueError(
            "asks for an embedded broker elsewhere than on a port of 127.0.0.1; "
            "write embedded: or embedded://127.0.0.1:port, or run a broker of your own and name it"
        )
    return Broker(embedded=True, address=BrokerAddress("127.0.0.1", port))


def listeners(text: str) -> tuple[Listener, ...]:
    """Parse MQTT_LISTENERS: further ways into the embedded broker."""
    found = tuple(_listener(part.strip()) for part in text.split(",") if part.strip())
    if len({(each.host, each.port) for each in found}) != len(found):
        raise BadValueError("names one address twice; keep one")
    if len(found) > _MOST_LISTENERS:
        raise BadValueError(f"names {len(found)} listeners; {_MOST_LISTENERS} is the most")
    return found


def _listener(text: str) -> Listener:
    scheme, separator, _ = text.partition("://")
    scheme = scheme.lower()
    try:
        parts = urlsplit(text)
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username if name else None
    if not separator or scheme not in {"mqtt", "mqtts", "ws", "wss"} or not name or not port or more:
        # A login does not belong here, and is not repeated.
        what = "an entry with a login" if "@" in text else shown(text)
        raise BadValueError(f"holds {what}, which is no listener; {_LISTENER_FORM}")
    _check_host(name)
    return Listener(host=name, port=port, websocket=scheme.startswith("ws"), tls=scheme in {"mqtts", "wss"})


def is_loopback(name: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def host(text: str) -> str:
    """An address or name to listen on, without a port."""
    name = text.strip()
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    _check_host(name)
    return name


def _check_host(name: str) -> None:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.removesuffix(".").split(".")
        # Four numbers that are no address are a slip of the pen, not a name.
        numeric = all(label.isdigit() for label in labels)
        if len(name) > 253 or numeric or any(_HOST_LABEL.fullmatch(label) is None for label in labels):
            raise BadValueError(
                f"has {shown(name)} as host, which is neither an IP address nor a name; "
                "write for example 127.0.0.1, without a port"
            ) from None


def tokens(text: str) -> tuple[tuple[ApiToken, ...], list[str]]:
    """Parse CONFIG_API_TOKENS: the good ones, and one sentence for each bad one (named by its place)."""
    good: list[ApiToken] = []
    mistakes: list[str] = []
    for place, part in enumerate(text.split(","), start=1):
        if not part.strip():
            continue  # a comma at the end is harmless
        try:
            good.append(_token(part.strip(), place))
        except BadValueError as error:
            mistakes.append(f"has a mistake in entry {place}: {error}")
    if not good and not mistakes:
        mistakes.append("holds no token; write token:role, with commas between several")
    return tuple(good), mistakes


def _token(part: str, place: int) -> ApiToken:
    parts = part.split(":")
    if len(parts) not in {2, 3} or not parts[0]:
        raise BadValueError("it is not token:role or token:name:role")
    secret, *name, role = parts
    if role not in ROLES:
        # The place may hold a secret where the order was mixed up, so it is not repeated.
        raise BadValueError(f"its last part is no role; write one of {', '.join(ROLES)}")
    if name and _NAME.fullmatch(name[0]) is None:
        raise BadValueError("its name is not made of at most 64 letters, digits, and . _ -")
    return ApiToken(token=token(secret), name=name[0] if name else f"env-{place}", role=role)


def token(text: str) -> SecretStr:
    """A bearer secret that fits into a header: printable ASCII, no white space."""
    if _TOKEN.fullmatch(text) is None:
        raise BadValueError("the token holds characters other than printable ASCII; make it of letters and digits")
    if not SHORTEST_TOKEN <= len(text) <= LONGEST_TOKEN:
        raise BadValueError(
            f"the token has {len(text)} characters; use {SHORTEST_TOKEN} to {LONGEST_TOKEN}, "
            "best as `openssl rand -hex 32` makes it"
        )
    return SecretStr(text)


def legacy_topics(text: str) -> tuple[LegacyTopic, ...]:
    templates = [part.strip() for part in text.split(",") if part.strip()]
    for template in templates:
        bare = template.replace("{service}", "x")
        if any(character in bare for character in "+#{}\0") or bare.startswith("$") or len(template) > 256:
            raise BadValueError(
                f"holds {shown(template)}, which is no topic to publish to; "
                "write topics without + and #, in which only {service} is replaced"
            )
        if bare.split("/")[0] == "system":
            raise BadValueError(f"holds {shown(template)}; topics under system/ are taken, choose another")
    if len(set(templates)) != len(templates):
        raise BadValueError("names one topic twice; keep one")
    return tuple(LegacyTopic(template=template) for template in templates)
