"""One connection of a blocking client: a socket, bytes that wait to be sent, and deadlines.

Knows sockets; what flows over them, it does not.
"""

import math
import select
import socket
import struct
from typing import Protocol

from alphapulse_relay.client.address import Place, TLSAddress, UnixAddress
from alphapulse_relay.client.errors import WrongUserError
from alphapulse_relay.client.tls import encrypted

RECEIVE_SIZE = 256 * 1024
"""Bytes asked of a socket at once: more than its buffer holds by default (212,992 bytes)."""
CONNECT_SECONDS = 10.0
"""How long one attempt to connect may take: a listener whose queue is full does not answer."""
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid: struct ucred of unix(7)


class Clock(Protocol):
    """Time as the module ``time`` has it."""

    def monotonic(self) -> float:
        """Return seconds."""

    def time_ns(self) -> int:
        """Return ns since the epoch."""

    def sleep(self, seconds: float, /) -> None:
        """Let time pass."""


class Deadline:
    """A moment after which nothing is waited for any more; ``None`` seconds are for ever."""

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._at = math.inf if seconds is None else clock.monotonic() + seconds
        self._looked = False

    def left(self) -> float:
        """Return the seconds that are left.

        Raises ``TimeoutError`` once it has passed, but never before one last look at what is
        there, for which 0 is returned.
        """
        left = self._at - self._clock.monotonic()
        if left > 0:
            return left
        if self._looked:
            raise TimeoutError("nothing came in time")
        self._looked = True
        return 0


def open_connection(place: Place, uid: int | None, timeout: float) -> socket.socket:
    """Return a connected socket.

    Raises ``OSError`` if nothing listens there, or not within ``timeout`` seconds;
    :class:`WrongUserError` if the listener is not of the user ``uid``; and
    :class:`CertificateError` if it has not proved to be the one that is meant.
    """
    timeout = min(timeout, CONNECT_SECONDS)
    connection = _connected(place, timeout)
    try:
        check_user(connection, uid)
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(place: Place, timeout: float) -> socket.socket:
    if not isinstance(place, UnixAddress):
        connection = socket.create_connection((place.host, place.port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return encrypted(connection, place) if isinstance(place, TLSAddress) else connection
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(place.path)
    except BaseException:
        connection.close()
        raise
    return connection


def check_user(connection: socket.socket, uid: int | None) -> None:
    """Raise :class:`WrongUserError` if the other end of a socket is not of the user ``uid``.

    The kernel tells who that is, the process that called ``listen`` (SO_PEERCRED, unix(7)); over
    TCP it is nobody. ``None`` stands for any user.
    """
    if uid is None:
        return
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, found, _ = _CREDENTIALS.unpack(data)
    if found != uid:
        raise WrongUserError(f"the listener (pid {pid}) is of user {found}, not of {uid}")


class Link:
    """A connected socket. ``out`` is what is still to be sent."""

    def __init__(self, connection: socket.socket, out: bytes) -> None:
        connection.setblocking(False)
        self.out = bytearray(out)
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, 0)
        self._deaf = False  # takes no more, but may have told why

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()

    def turn(self, timeout: float, *, reading: bool = True) -> bytes:
        """Wait until something can be sent or received, do so once, and return what came.

        Waits at most ``timeout`` seconds. Without ``reading`` nothing is received, for as long as
        the other end takes what is sent. Raises ``OSError`` when the connection is over and all
        that came has been returned.
        """
        reading = reading or self._deaf or not self.out
        writing = bool(self.out) and not self._deaf
        self._poll.modify(self._connection, select.POLLIN * reading | select.POLLOUT * writing)
        ready = self._poll.poll(None if timeout == math.inf else math.ceil(timeout * 1000))
        if not ready:
            return b""
        if writing:
            self._send()
        return self._receive() if reading else b""

    def _send(self) -> None:
        try:
            del self.out[: self._connection.send(self.out)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._deaf = True

    def _receive(self) -> bytes:
        try:
            data = self._connection.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionResetError("the relay closed the connection")
        return data
