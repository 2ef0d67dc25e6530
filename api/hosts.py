"""Which `Host` this server answers to.

A page of somebody else's site can have its name resolve to our address (DNS rebinding) and then talk to us from
the owner's browser. It needs a name for that, so any address literal is fine, and names only where they are ours.
"""

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
# A name has at most 253 characters (RFC 1035, section 2.3.4, without the root's).
_MAX_HOST = 300
# RFC 9110, section 7.2: host, and a port that is ignored here.
_HOST = re.compile(r"(?P<host>\[[0-9A-Za-z.:%_~-]+\]|[^:\[\]]+)(?::[0-9]{0,5})?")


class HostRule:
    """Allows loopback names, address literals, and `names`: the configured host, and what the machine is called."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(_canonical(name) for name in (*_LOOPBACK_NAMES, *names))
        # Per rule, so that the cache goes with it; bounded, since clients choose what is asked.
        self._remembered = lru_cache(256)(self._judge)

    @classmethod
    def of_this_machine(cls, *configured: str) -> "HostRule":
        """`configured`, and the machine's name with and without `.local` (RFC 6762)."""
        hostname = socket.gethostname()
        short = hostname.split(".")[0]
        return cls((*configured, hostname, short, f"{short}.local"))

    def allows(self, header: bytes) -> bool:
        """Whether a request with `Host: header` is meant for us; the port does not matter."""
        return len(header) <= _MAX_HOST and self._remembered(header)

    def _judge(self, header: bytes) -> bool:
        match = _HOST.fullmatch(header.decode("latin-1"))
        if match is None:
            return False
        host = match["host"]
        literal = host[1:-1] if host.startswith("[") else host
        try:
            ip_address(literal)
        except ValueError:
            return _canonical(host) in self._names
        return host.startswith("[") == (":" in literal)


def _canonical(name: str) -> str:
    return name.lower().removesuffix(".")
