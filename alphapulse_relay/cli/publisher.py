"""A publisher's end of a connection: sends, and meanwhile takes what others publish.

Knows sockets and what the relay says; what it sends, it does not know. Who does not read is
overtaken, so whatever it waits for, it goes on reading.
"""

import select
import socket
import time
from contextlib import suppress

from alphapulse_relay.cli.connection import (
    FROM_RELAY,
    RECEIVE_SIZE,
    closed,
    not_a_relay,
    why_silent,
)
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.core import CLIENT_SOURCE, NOTHING
from alphapulse_relay.protocol_v2.control import (
    ControlError,
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Heartbeat,
    SequenceSync,
    Subscribe,
    build_control,
    parse_control,
)
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import MessageReader
from alphapulse_relay.protocol_v2.header import Domain

TOO_EARLY = "it may not have read everything"
ANSWER_SECONDS = 2.0
"""For how long the answer to what is asked is waited for, which a relay gives at once."""
_DROPPED = frozenset({ErrorCode.MALFORMED, ErrorCode.FORBIDDEN})
"""Errors about messages, after which the connection goes on."""
_DOMAIN_OFFSET = 4


class Publisher:
    """Publishes on a connected socket. All methods raise :class:`Failure` if the relay closes."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._reader = MessageReader(FROM_RELAY)
        self._error: ErrorMessage | None = None  # if it came last: it precedes the end
        self._dropped: ErrorMessage | None = None  # the first about messages
        self._answers = False  # what is asked
        self._read_all = False
        self._answer_by: float | None = None  # if it is asked
        self._reason = why_silent(connection, TOO_EARLY)

    def ask_for_errors(self) -> None:
        """Have the relay tell what it drops, of which :meth:`finish` tells; and send no messages.

        To be called first. What is no relay of this kind takes it for a message.
        """
        self._say(Subscribe(types=NOTHING))
        self._answer_by = time.monotonic() + ANSWER_SECONDS

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

    def finish(self, *, whole: bool = True) -> None:
        """Say that this was all, and wait until the relay closes: it has read everything then.

        Raises :class:`Failure`, too, if it has told that it dropped something. ``whole`` is whether
        what was sent ends where a message does: only then it can be asked whether it has all.
        """
        if whole and self._answer_by is not None:
            self._wait_for_all(self._answer_by)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._connection.setblocking(True)
        while self._take():
            pass
        if self._dropped is not None:
            raise Failure(f"the relay has dropped messages, first: {self._dropped.text}")
        if self._error is not None:
            raise self._closed()

    def _wait_for_all(self, answer_by: float) -> None:
        """Wait until a relay that answers has read everything, and has told what it dropped."""
        while not self._answers and (left := answer_by - time.monotonic()) > 0:
            readable, _, _ = select.select([self._connection], [], [], left)
            if readable and not self._take():
                raise self._closed()
        if self._answers:
            self._say(Heartbeat(time.time_ns(), 0))
        while self._answers and not self._read_all:
            select.select([self._connection], [], [])
            if not self._take():
                raise self._closed()

    def _say(self, content: ControlMessage) -> None:
        self.send(build_control(content, timestamp=time.time_ns(), source=CLIENT_SOURCE))

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
        except BlockingIOError:
            return True
        except ConnectionResetError:
            raise self._closed() from None
        try:
            for message in self._reader.feed(data):
                self._error, self._reason = None, TOO_EARLY
                if message[_DOMAIN_OFFSET] == Domain.SYSTEM:
                    self._hear(message)
        except WireError as error:
            raise not_a_relay(data, f"what comes back is not Protocol V2: {error}") from None
        return bool(data)

    def _hear(self, message: bytes) -> None:
        """Note what the relay says."""
        with suppress(ControlError):
            match parse_control(message):
                case SequenceSync():
                    self._answers = True
                case Heartbeat():
                    self._read_all = True
                case ErrorMessage() as error:
                    self._error = error
                    if self._answers and error.code in _DROPPED:
                        self._dropped = self._dropped or error

    def _closed(self) -> Failure:
        return closed(self._error, self._reason)
