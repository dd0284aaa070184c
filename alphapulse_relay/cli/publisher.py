"""A publisher's end of a connection: sends, and meanwhile takes what others publish.

Knows sockets and the relay's Error; what it sends, it does not know. Who does not read is
overtaken, so whatever it waits for, it goes on reading.
"""

import select
import socket
import time
from contextlib import suppress

from alphapulse_relay.cli.connection import FROM_RELAY, RECEIVE_SIZE, closed
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.protocol_v2.control import parse_error
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import MessageReader

TOO_EARLY = "it had not read everything"


class Publisher:
    """Publishes on a connected socket. All methods raise :class:`Failure` if the relay closes."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._reader = MessageReader(FROM_RELAY)
        self._last = b""  # the last message that came: an Error precedes the end

    def send(self, data: bytes) -> None:
        """Send all of the data."""
        view = memoryview(data)
        while view:
            readable, writable, _ = select.select([self._connection], [self._connection], [])
            if readable and not self._take():
                raise self._closed()
            if writable:
                view = view[self._send(view) :]

    def wait_until(self, moment: float) -> None:
        """Wait for a moment of the monotonic clock."""
        while True:
            left = moment - time.monotonic()
            readable, _, _ = select.select([self._connection], [], [], max(left, 0))
            if readable and not self._take():
                raise self._closed()
            if left <= 0:
                return

    def wait_for(self, descriptor: int) -> None:
        """Wait for a file to be readable."""
        while True:
            ready, _, _ = select.select([self._connection.fileno(), descriptor], [], [])
            if self._connection.fileno() in ready and not self._take():
                raise self._closed()
            if descriptor in ready:
                return

    def finish(self) -> None:
        """Say that this was all, and wait until the relay closes: it has read everything then."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._connection.setblocking(True)
        while self._take():
            pass
        if self._last and parse_error(self._last):
            raise self._closed()

    def _send(self, view: memoryview) -> int:
        try:
            return self._connection.send(view)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            # The relay is gone, but may have told why before.
            while self._take():
                pass
            raise self._closed() from None

    def _take(self) -> bool:
        """Receive once; return whether there may be more."""
        try:
            data = self._connection.recv(RECEIVE_SIZE)
            for message in self._reader.feed(data):
                self._last = message
        except BlockingIOError:
            return True
        except ConnectionResetError:
            raise self._closed() from None
        except WireError as error:
            raise Failure(f"what comes back is not Protocol V2: {error}") from None
        return bool(data)

    def _closed(self) -> Failure:
        return closed(parse_error(self._last) if self._last else None, TOO_EARLY)
