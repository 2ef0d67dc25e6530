"""MQTT over WebSocket (MQTT 3.1.1, section 6; RFC 6455): bytes of the connection in, bytes of MQTT out.

The `websockets` library speaks the protocol, without doing input or output: what is read, written and bounded is
the link's affair, the same as without WebSocket.
"""

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLOSED, CLOSING, OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from actors.mqtt.packets import ProtocolError

_DATA = frozenset({Opcode.BINARY, Opcode.CONT})
_HEADER = 16
"""Bytes that a message may have beside an MQTT packet's body, whose own header is up to five of them."""


class WebSocket:
    """One connection's WebSocket.

    `max_request_bytes`: of the HTTP request that opens it, and of MQTT packets until others are allowed.
    """

    def __init__(self, max_request_bytes: int) -> None:
        # Nothing is compressed: small messages do not gain, and what unpacks costs memory.
        self._protocol = ServerProtocol(subprotocols=[Subprotocol("mqtt")], extensions=None)
        self._request_left = max_request_bytes
        self.allow(max_request_bytes)

    def allow(self, packet_bytes: int) -> None:
        """Take messages that hold a packet of that size."""
        self._protocol.max_size = packet_bytes + _HEADER

    def decode(self, data: bytes) -> bytes:
        """The MQTT in it; afterwards there may be `answers` to send. Raises ProtocolError.

        Frames of a message, and packets in frames, may begin and end anywhere.
        """
        protocol = self._protocol
        if protocol.state is not OPEN:
            self._request_left -= len(data)
            if self._request_left < 0:
                raise ProtocolError("the request to open a WebSocket is too long")
        protocol.receive_data(data)
        found = []
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame):
                found.append(self._payload(event))
        if (error := protocol.handshake_exc or protocol.parser_exc) is not None:
            raise ProtocolError(f"WebSocket: {error}")
        return b"".join(found)

    def _payload(self, frame: Frame) -> bytes:
        if frame.opcode in _DATA:
            return bytes(frame.data)
        if frame.opcode is Opcode.TEXT:
            raise ProtocolError("WebSocket: MQTT comes in binary messages")
        return b""  # what it takes to answer it, the library does

    @property
    def is_closed(self) -> bool:
        """The client has closed it."""
        return self._protocol.state in (CLOSING, CLOSED)

    def answers(self) -> bytes:
        """What the protocol itself has to send."""
        return b"".join(self._protocol.data_to_send())

    def encode(self, payload: bytes) -> bytes:
        """A message; nothing, once it is being closed."""
        if self._protocol.state is OPEN:
            self._protocol.send_binary(payload)
        return self.answers()

    def goodbye(self) -> bytes:
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        return self.answers()
