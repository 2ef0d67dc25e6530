"""How a connection to the broker is made: its addresses one after the other, TLS, and every failure in words."""

import asyncio
import ipaddress
import socket
import ssl
from typing import Any

from actors.bridge._state import LinkFailed, Trouble
from schemas.broker_address import BrokerAddress


async def dial(address: BrokerAddress, tls: ssl.SSLContext | None, protocol: asyncio.BaseProtocol) -> None:
    """Connect, with TLS where there is a context for it, and give the transport to `protocol`.

    Without a deadline of its own; cancelled at any moment, it leaves nothing.

    Raises:
        LinkFailed: it could not be made.
    """
    try:
        sock = await _connect(address)
        # It closes the socket whatever happens, also when it is cancelled.
        await asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=sock, ssl=tls, server_hostname=address.host if tls else None
        )
    except ssl.SSLError as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        raise LinkFailed(
            Trouble.TLS, f"no TLS with the broker at {address}: {reason or 'the handshake failed'}"
        ) from error
    except ConnectionRefusedError as error:
        raise LinkFailed(Trouble.REFUSED, f"nobody listens at {address}: is the broker running?") from error
    except OSError as error:
        if tls is not None and isinstance(error, ConnectionResetError):
            raise LinkFailed(
                Trouble.TLS, f"no TLS with the broker at {address}: it closed the connection during the handshake"
            ) from error
        why = error.strerror or type(error).__name__
        raise LinkFailed(Trouble.UNREACHABLE, f"the broker at {address} cannot be reached: {why}") from error


async def _connect(address: BrokerAddress) -> socket.socket:
    """A connected, non-blocking socket to the first of the host's addresses that answers; OSError if none does."""
    problem: OSError | None = None
    for family, target in await _resolve(address):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, target)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem or OSError("the host has no address")


async def _resolve(address: BrokerAddress) -> list[tuple[int, Any]]:
    try:
        version = ipaddress.ip_address(address.host).version
    except ValueError:
        # In the loop's default executor; a cancelled lookup ends there by itself, without effect.
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return [(family, target) for family, _, _, _, target in found]
    return [(socket.AF_INET if version == 4 else socket.AF_INET6, (address.host, address.port))]
