"""What each hub's wire looks like: frames of constant size, and what is said before the first.

Knows bytes and connected sockets; who listens on the other end it does not. Every message here has
the same size, so all that surrounds it is constant as well: that is what lets one load generator
(``load.c``) speak to every hub.
"""

import socket
import time
from dataclasses import dataclass

from alphapulse_relay.protocol_v2.control import Subscribe, build_control
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv

MESSAGE_SIZE = 216
"""Bytes of every message: a header (32) and an ArbitrageSignalTLV as deployed writers pad it."""
HEADER_SIZE = 32
TLV_TYPE = 21
TLV_SIZE = 182
"""Bytes of the TLV's value: what makes up the message with the TLV's own header (2)."""
SOURCE = 20
"""The first of the source numbers that are the strategies'."""
CHANNEL = b"s"
"""The one subject, or channel, of hubs that have such a thing: short, so that it costs least."""
ANSWER_MAX = 4096
"""Most bytes of an answer in a handshake; the longest is the INFO of nats-server, below 1 KiB."""


@dataclass(frozen=True)
class Framing:
    """What surrounds a message: as the publisher sends it, and as a consumer gets it."""

    sent_before: bytes = b""
    sent_after: bytes = b""
    got_before: bytes = b""
    got_after: bytes = b""

    def sent(self, message: bytes) -> bytes:
        """Return what a publisher sends for a message."""
        return self.sent_before + message + self.sent_after

    def got(self, message: bytes) -> bytes:
        """Return what a consumer is sent for a message."""
        return self.got_before + message + self.got_after


RAW = Framing()
"""The relay and the floor: messages end to end."""

NATS = Framing(
    sent_before=b"PUB %s %d\r\n" % (CHANNEL, MESSAGE_SIZE),
    sent_after=b"\r\n",
    got_before=b"MSG %s 1 %d\r\n" % (CHANNEL, MESSAGE_SIZE),
    got_after=b"\r\n",
)
"""https://docs.nats.io/reference/reference-protocols/nats-protocol; the subscription's id is 1."""

REDIS = Framing(
    sent_before=b"*3\r\n$7\r\nPUBLISH\r\n$1\r\n%s\r\n$%d\r\n" % (CHANNEL, MESSAGE_SIZE),
    sent_after=b"\r\n",
    got_before=b"*3\r\n$7\r\nmessage\r\n$1\r\n%s\r\n$%d\r\n" % (CHANNEL, MESSAGE_SIZE),
    got_after=b"\r\n",
)
"""RESP 2, https://redis.io/docs/latest/develop/reference/protocol-spec/."""

ZMTP = Framing(sent_before=bytes((0, MESSAGE_SIZE)), got_before=bytes((0, MESSAGE_SIZE)))
"""A last, short frame of ZMTP 3.0, https://rfc.zeromq.org/spec/23/: flags 0, length."""

ZMTP_GREETING = (
    b"\xff" + bytes(8) + b"\x7f"  # signature
    + b"\x03\x00"  # version 3.0: the one in which a subscription is a message
    + b"NULL".ljust(20, b"\0")  # security mechanism
    + bytes(32)  # not as a server; filler
)  # fmt: skip
"""64 bytes, the same from both sides (ZMTP 3.0, "greeting")."""


def build_sample() -> bytes:
    """Return the message that is sent; the load generator sets its sequence, time and checksum."""
    value = bytes(number % 251 for number in range(TLV_SIZE))
    return build_message(
        build_tlv(TLV_TYPE, value), source=SOURCE, sequence=1, timestamp=time.time_ns()
    )


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes. Raises ``ConnectionError`` if the hub closes before."""
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise ConnectionError("closed before all had come")
        received += piece
    return received


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    """Return all that comes up to and with ``end``. Raises ``ConnectionError`` if it closes."""
    received = b""
    while not received.endswith(end):
        received += (piece := connection.recv(ANSWER_MAX))
        if not piece or len(received) > ANSWER_MAX:
            raise ConnectionError(f"no {end!r} in the handshake, but {received!r}")
    return received


def receive_message(connection: socket.socket) -> bytes:
    """Return the next message of the relay's, whole. Raises ``OSError``."""
    header = receive_exactly(connection, HEADER_SIZE)
    payload = Header.unpack(header).message_size - HEADER_SIZE
    return header + receive_exactly(connection, payload)


def open_raw(connection: socket.socket, *, consumer: bool) -> None:
    """Nothing is said: whoever is connected gets everything."""


def subscribe(connection: socket.socket, wanted: Subscribe) -> None:
    """Ask the relay for something; its answer is still to come."""
    connection.sendall(build_control(wanted, timestamp=time.time_ns(), source=SOURCE))


def open_filtered(connection: socket.socket, *, consumer: bool) -> None:
    """Have a consumer of the relay's wish for the one source: a filter that all messages pass."""
    if consumer:
        subscribe(connection, Subscribe(sources=frozenset({SOURCE})))
        receive_message(connection)  # a SequenceSync: it is subscribed


def open_nats(connection: socket.socket, *, consumer: bool) -> None:
    """Connect, and subscribe a consumer; the PONG says that the server has done so."""
    subscribe = b"SUB %s 1\r\n" % CHANNEL if consumer else b""
    receive_until(connection, b"\r\n")
    connection.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n' + subscribe + b"PING\r\n")
    receive_until(connection, b"PONG\r\n")


def open_redis(connection: socket.socket, *, consumer: bool) -> None:
    """Subscribe a consumer; a publisher has nothing to say first."""
    if consumer:
        connection.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\n%s\r\n" % CHANNEL)
        receive_until(connection, b":1\r\n")


def open_zmtp(connection: socket.socket, *, consumer: bool) -> None:
    """Greet, say READY, and subscribe a consumer to everything."""
    connection.sendall(ZMTP_GREETING)
    receive_exactly(connection, len(ZMTP_GREETING))
    kind = b"SUB" if consumer else b"PUB"
    ready = b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    connection.sendall(bytes((4, len(ready))) + ready)
    _, length = receive_exactly(connection, 2)
    receive_exactly(connection, length)
    if consumer:
        connection.sendall(b"\x00\x01\x01")
