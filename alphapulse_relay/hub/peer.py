"""What the factory sees of a peer, and the names of all that can happen to one."""

import ctypes
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.x509 import Certificate, DNSName, ExtensionNotFound, SubjectAlternativeName
from cryptography.x509.oid import NameOID
from OpenSSL.SSL import Connection

from alphapulse_relay.hub.credentials import credentials_of
from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.protocol_v2.control import Subscribe

if TYPE_CHECKING:
    from alphapulse_relay.hub.account import Account
    from alphapulse_relay.hub.delivery import Delivery

_SO_PEERGROUPS = 59
"""Option of a Unix socket by which the kernel tells the peer's supplementary groups (since Linux
4.13, asm-generic/socket.h)."""
_libc = ctypes.CDLL(None)  # Python's own getsockopt gives 256 groups at most


class Ending(StrEnum):
    """Why a connection ended: the same word in code, log, metric label and docs."""

    CLOSED = "closed"
    """The peer closed it."""
    RESET = "reset"
    """The peer vanished without closing, or its socket or its TLS failed."""
    MAGIC = "magic"
    """What the peer sent does not begin with the magic where a message must."""
    SIZE = "size"
    """The peer announced a message above the limit."""
    CROWDED = "crowded"
    """The peer sent a part of a large message, and those of all peers take the room there is."""
    OVERTAKEN = "overtaken"
    """The peer did not read, and the end of the window reached it."""
    FINISHED = "finished"
    """The peer asked for what there was, and has it."""
    DAMAGED = "damaged"
    """What it was to be sent next cannot be read from the disk any more."""
    UNREAD = "unread"
    """The peer asks and asks, and does not read the answers."""
    UNDURABLE = "undurable"
    """The peer wants to be told what is on the disk, and the disk has failed."""
    UNRESPONSIVE = "unresponsive"
    """A WebSocket peer that does not answer a ping."""
    VIOLATION = "violation"
    """A WebSocket peer that breaks that protocol (RFC 6455), or sends text."""
    OVERSIZED = "oversized"
    """A WebSocket peer that sends a larger frame or message than is taken."""
    REFUSED = "refused"
    """What a WebSocket peer asks for in its query cannot be had."""
    SHUTDOWN = "shutdown"
    """The relay is leaving."""
    CUT = "cut"
    """The relay is leaving, and the peer had not taken everything within ``--drain``."""
    FORBIDDEN = "forbidden"
    """The access rules have changed, and do not let it go on as it was."""
    FAULT = "fault"
    """The relay failed at this connection; the log has the traceback."""


class Refusal(StrEnum):
    """Why a connection was not accepted."""

    TOO_MANY_PEERS = "too_many_peers"
    """As many as ``--max-peers`` allows are connected."""
    FORBIDDEN = "forbidden"
    """No access rule lets it in."""
    TOO_MANY_OF_IDENTITY = "too_many_of_identity"
    """Its identity has as many connections as its access rule allows."""
    TOO_MANY_WEB_CONNECTIONS = "too_many_web_connections"
    """The side port has as many connections, or WebSocket peers, as it takes."""
    LEAVING = "leaving"
    """The relay leaves: no more WebSockets are taken in."""
    TIMEOUT = "timeout"
    """A connection to the side port did not send a whole request in time."""
    STALLED = "stalled"
    """A connection to the side port does not read what it asked for."""
    HOST = "host"
    """A request to the side port names a host that this is not: another page's, maybe."""
    ORIGIN = "origin"
    """A page of another origin asks for a WebSocket."""
    TOKEN = "token"  # noqa: S105
    """The side port needs a token, and got none or a wrong one."""
    REQUEST = "request"
    """A request for a WebSocket that is none, or whose query is not understood."""
    TLS = "tls"
    """A TLS handshake that failed, or did not end in time."""


class Miss(StrEnum):
    """Why a peer did not get messages that others got."""

    OVERTAKEN = "overtaken"
    """The end of the window reached it: it was closed, or moved on with a Gap."""
    MUTED = "muted"
    """It did not read while it published."""
    SKIPPED = "skipped"
    """It was behind, and had wished to be moved on to the head."""
    DAMAGED = "damaged"
    """The journal cannot read them any more."""


class State(StrEnum):
    """How a peer stands to the log."""

    LIVE = "live"
    """It is at the head, or being sent to."""
    BEHIND = "behind"
    """Its socket is full: it goes on from where it is when it reads."""
    MUTED = "muted"
    """It publishes and does not read: nothing is sent to it until it does."""


class Hold(Flag):
    """Why a peer is not read from; it is again when no reason is left."""

    PACE = auto()
    """The consumers are to catch up."""
    LIMIT = auto()
    """Its identity has sent more than its access rule allows."""
    LEAVING = auto()
    """The relay leaves."""


@dataclass(frozen=True)
class Identity:
    """Who a peer is: a number that is never given twice, and what the kernel says of it.

    ``pid``, ``uid``, ``gid``, all ``gids`` and ``program`` are those of the process that connected
    to a Unix socket; ``address`` is where another came from. ``certificate`` are the names in the
    one that a TLS client has proved to be its own, None without one. ``gids`` is None where the
    kernel does not tell them.
    """

    number: int
    transport: str
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    program: str | None = None
    address: str | None = None
    certificate: tuple[str, ...] | None = None
    gids: frozenset[int] | None = frozenset()

    @property
    def fields(self) -> dict[str, Any]:
        """What a log event tells of it, in fields that a program can filter by."""
        who = {
            "pid": self.pid,
            "uid": self.uid,
            "program": self.program,
            "address": self.address,
            "certificate": None if self.certificate is None else ", ".join(self.certificate),
        }
        known = {name: value for name, value in who.items() if value is not None}
        return {"peer": str(self), "peer_number": self.number, **known}

    def __str__(self) -> str:
        if self.pid is None:
            names = [self.program, *(self.certificate or ())[:1]]
            who = "".join(f" {name}" for name in names if name)
            return f"{self.number} ({self.transport} {self.address}{who})"
        return f"{self.number} ({self.transport} pid={self.pid} uid={self.uid} {self.program})"


class Peer(Protocol):
    """What the factory asks of a peer, whatever carries it."""

    identity: Identity
    cursor: Cursor
    state: State
    delivery: "Delivery"
    messages_in: int
    bytes_in: int
    connected_at: float
    """When it came, in seconds of the factory's clock."""
    origin: int
    """Whose the log says what it publishes is; it is never sent that."""
    seat: int | None
    """For the fan-out: its place among those that ride at the head."""
    account: "Account | None"
    """By what it was let in, None where there are no access rules."""

    @property
    def woken(self) -> bool:
        """Whether it is to be woken for what is appended: nothing else sends that to it."""

    def published(self, length: int, messages: int) -> None:
        """Take note that the last ``length`` bytes of the log, so many messages, came from it."""

    @property
    def name(self) -> str:
        """What it calls itself; empty if nothing."""

    @property
    def asked(self) -> Subscribe:
        """What it has asked for; one that never did gets everything, live."""

    @property
    def patient(self) -> bool:
        """Whether it goes on publishing without a word from the relay."""

    def acknowledge(self, start: int, stop: int) -> None:
        """Tell it, if it wants to know, that what it published there is in the log."""

    def judge(self) -> None:
        """Go on by the access rules, which have changed; or close if they do not allow that."""

    def hold(self, why: Hold = Hold.PACE) -> None:
        """Leave what the peer sends unread, for that reason among others."""

    def release(self, why: Hold = Hold.PACE) -> None:
        """Read from the peer again, if there is no other reason not to."""

    def has_gone(self) -> bool:
        """Tell whether it has closed; if the relay did not know yet, what it sent last is read."""

    def stop_reading(self) -> None:
        """Leave unread what the peer sends, for good."""

    def read_rest(self) -> None:
        """Take what the peer has already sent, then nothing more."""

    def end(self, reason: Ending) -> None:
        """Close the connection for that reason."""

    def part(self, reason: Ending) -> None:
        """Close the connection as the relay leaves; who talks with it is told."""


def identify(number: int, handle: object, address: object) -> Identity:
    """Tell who is at the other end of a connected socket (SO_PEERCRED for Unix sockets), or TLS."""
    if not isinstance(handle, socket.socket) or handle.family != socket.AF_UNIX:
        host, port = getattr(address, "host", None), getattr(address, "port", None)
        where = f"{host}:{port}" if host is not None else str(address)
        if isinstance(handle, Connection):
            names = certificate_names(handle.get_peer_certificate(as_cryptography=True))
            return Identity(number, "tls", address=where, certificate=names)
        return Identity(number, getattr(address, "type", "stream").lower(), address=where)
    pid, uid, gid = credentials_of(handle)
    groups = groups_of(handle)
    gids = None if groups is None else groups | {gid}
    return Identity(number, "unix", pid, uid, gid, program_of(pid), gids=gids)


def groups_of(connected: socket.socket) -> frozenset[int] | None:
    """Return the supplementary groups of who connected to a Unix socket; None if not told."""
    groups, size = ctypes.create_string_buffer(0), ctypes.c_uint(0)
    # Without room for them the kernel only tells how many bytes they take.
    if _ask_for_groups(connected, groups, size):
        groups = ctypes.create_string_buffer(size.value)
        if _ask_for_groups(connected, groups, size):
            return None
    return frozenset(number for (number,) in struct.iter_unpack("I", groups.raw))


def _ask_for_groups(connected: socket.socket, groups: Any, size: Any) -> bool:
    """Have groups written, and ``size`` set to their bytes; tell whether that failed."""
    level, pointer = socket.SOL_SOCKET, ctypes.byref(size)
    return bool(_libc.getsockopt(connected.fileno(), level, _SO_PEERGROUPS, groups, pointer))


def program_of(pid: int) -> str:
    """Return the name of a process as proc(5) ``comm`` has it; ``?`` if it cannot be read."""
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return "?"
    return _printable(name.rstrip(b"\n").decode(errors="replace")) or "?"


def certificate_names(certificate: Certificate | None) -> tuple[str, ...] | None:
    """Return a certificate's common names, then its DNS names (RFC 5280, 4.2.1.6), each once.

    None without a certificate; one that cannot be read has no names.
    """
    if certificate is None:
        return None
    try:
        names = [
            str(each.value)
            for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
        with suppress(ExtensionNotFound):
            found = certificate.extensions.get_extension_for_class(SubjectAlternativeName)
            names += found.value.get_values_for_type(DNSName)
    except ValueError:
        return ()
    return tuple(dict.fromkeys(map(_printable, names)))


def _printable(name: str) -> str:
    """Return a name as it may be logged: whoever chose it must not be able to forge a line."""
    return "".join(char if char.isprintable() else "?" for char in name)
