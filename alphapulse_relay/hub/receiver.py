"""Bytes in, runs of whole messages out: a Protocol that frames by the V2 header.

What ``Int32StringReceiver`` does for length prefixes, this does for Protocol V2, except that the
bytes are received straight into the log and handed on as runs. What is not to be forwarded as it
is comes apart: control is handed on as such, compressed messages are expanded. It knows neither
peers nor delivery.
"""

from time import perf_counter

from twisted.internet.protocol import Protocol

from alphapulse_relay.hub.gathering import Gathering, NoRoomError, Room
from alphapulse_relay.hub.log import Log
from alphapulse_relay.protocol_v2.compression import expand
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Rules, Run, check, message_size
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain, Header

RECEIVE_SIZE = 64 * 1024
"""Bytes asked of a socket at once: what the kernel gives at most from one write of a peer."""
GATHER_SIZE = 4 * 1024
"""From this size on a torn message is gathered apart until it is whole, instead of being copied
in front of each further piece: so the cost stays linear however it is cut."""


class MessageRunReceiver(Protocol):
    """Receives into ``log`` by ``rules`` and calls :meth:`runReceived` with each run.

    Either transport drives it: one that receives into a buffer (:meth:`getBuffer`, then
    :meth:`bufferUpdated`, as ``asyncio.BufferedProtocol``) or an ordinary one
    (:meth:`dataReceived`).
    """

    log: Log
    rules: Rules
    room: Room
    """Memory for large messages of which a part has come."""

    def __init__(self) -> None:
        self.torn_bytes = b""
        """The beginning of a message, to be put in front of what comes next."""
        self._large: Gathering | None = None
        self._crowded = False  # there was no room for what is torn
        self.ended = False
        """Whether nothing more is taken: the stream is broken, or the connection over."""
        self.stream_offset = 0
        """Bytes of the stream that have been dealt with, up to the end of what is handed on."""

    @property
    def gathering(self) -> bool:
        """Whether a large message is being gathered apart."""
        return self._large is not None

    @property
    def torn(self) -> int:
        """Bytes of a message whose end has not come."""
        return len(self.torn_bytes) if self._large is None else self._large.length

    def torn_error(self) -> WireError:
        """Return what to say of a message whose end will not come."""
        detail = f"the stream ends {self.torn} bytes into a message"
        return WireError(Rejection.TORN, self.stream_offset, detail)

    def runReceived(self, run: memoryview, messages: int, received_at: float) -> None:
        """Take whole, checked messages that lie behind the log's head; override.

        ``received_at`` is when their last bytes were received, in ``perf_counter`` seconds.
        """
        raise NotImplementedError

    def controlReceived(self, message: bytes) -> None:
        """Take a control message, in its place among the runs; override.

        It is whole, and its checksum right or 0. It ends at :attr:`stream_offset`.
        """
        raise NotImplementedError

    def controlEnded(self) -> None:
        """Take note that no more control is at hand; override."""

    def messagesRejected(self, run: Run, offset: int) -> None:
        """Take note that messages of a sound stream were dropped; override.

        ``offset`` is where in the stream the chunk began that the run was found in, in bytes.
        """
        raise NotImplementedError

    def streamBroken(self, error: WireError) -> None:
        """Take note that the stream cannot be read on, and close; override."""
        raise NotImplementedError

    def roomEnded(self) -> None:
        """Take note that nothing more can be kept of a large message, and close; override."""
        raise NotImplementedError

    def getBuffer(self) -> memoryview:
        """Return where the next bytes belong. Good until anything else is appended to the log."""
        if self._large is not None and not self.ended:
            return self._large.space()
        torn = len(self.torn_bytes)
        space = self.log.space(torn + RECEIVE_SIZE)
        space[:torn] = self.torn_bytes
        return space[torn:]

    def bufferUpdated(self, length: int) -> None:
        """Take note that ``length`` bytes were put where :meth:`getBuffer` said."""
        if self.ended:
            return
        if self._large is not None:
            self._largeReceived(self._large, length)
        else:
            end = len(self.torn_bytes) + length
            self._chunkReceived(self.log.space(len(self.torn_bytes) + RECEIVE_SIZE), end)

    def _largeReceived(self, large: Gathering, length: int) -> None:
        try:
            large.took(length)
        except NoRoomError:
            self.ended = True
            self.roomEnded()
            return
        if large.whole:
            chunk = self.log.space(large.length)
            self._large = None
            chunk[:] = large.end()
            self._chunkReceived(chunk, len(chunk))

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from an ordinary transport."""
        view = memoryview(data)
        while view and not self.ended:
            space = self.getBuffer()
            length = min(len(space), len(view))
            space[:length] = view[:length]
            self.bufferUpdated(length)
            view = view[length:]

    def _chunkReceived(self, chunk: memoryview, end: int) -> None:
        received_at = perf_counter()
        run = check(chunk, end, self.rules)
        # Whatever is handed on may overwrite what lies behind the head.
        rest = bytearray(chunk[run.consumed : end] if run.aside else b"")
        self._checked(chunk[:end], run)
        if run.messages:
            self.runReceived(chunk[: run.accepted], run.messages, received_at)
        self._break_off(run)
        if rest and not self.ended:
            self._apartReceived(memoryview(rest), run.aside, received_at)
            self.controlEnded()

    def _apartReceived(self, rest: memoryview, aside: int, received_at: float) -> None:
        """Take a message that was set aside, and what follows it: memory that is not the log's."""
        while aside:
            self._asideReceived(bytes(rest[:aside]), received_at)
            rest = rest[aside:]
            if self.ended:
                return
            run = check(rest, len(rest), self.rules)
            self._checked(rest, run)
            self._append(rest[: run.accepted], run.messages, received_at)
            self._break_off(run)
            rest, aside = rest[run.consumed :], 0 if self.ended else run.aside

    def _asideReceived(self, message: bytes, received_at: float) -> None:
        offset = self.stream_offset
        self.stream_offset += len(message)
        if Header.unpack(message).domain == Domain.SYSTEM:
            self.controlReceived(message)
            return
        try:
            plain = memoryview(bytearray(expand(message, self.rules.max_message)))
        except WireError as error:
            self.messagesRejected(_rejected(error, len(message)), offset)
            return
        run = check(plain, len(plain), self.rules)
        if run.first is not None:
            # Its place in the plain message is none in the stream.
            fault = WireError(run.first.reason, 0, run.first.detail)
            self.messagesRejected(_rejected(fault, len(message)), offset)
        self._append(plain[: run.accepted], run.messages, received_at)

    def _append(self, run: memoryview, messages: int, received_at: float) -> None:
        """Hand on a run that does not lie behind the log's head yet."""
        if not messages:
            return
        space = self.log.space(len(run))
        if not self.ended:  # that may have given up the bytes it stood on
            space[:] = run
            self.runReceived(space, messages, received_at)

    def _checked(self, chunk: memoryview, run: Run) -> None:
        """Move on in the stream, keep what is torn, and tell what was dropped."""
        offset = self.stream_offset
        self.stream_offset += run.consumed
        self._keep(chunk[:0] if run.broken or run.aside else chunk[run.consumed :])
        if run.rejected:
            self.messagesRejected(run, offset)

    def _break_off(self, run: Run) -> None:
        """Say that the stream cannot be read on, if it is so: right where the run was consumed."""
        if run.broken is not None and not self.ended:
            self.ended = True
            offset = self.stream_offset - run.consumed
            self.streamBroken(run.broken.moved(offset))
        elif self._crowded and not self.ended:
            self.ended = True
            self.roomEnded()

    def _keep(self, torn: memoryview) -> None:
        """Put the torn beginning of a message aside: the space behind the head is everybody's."""
        size = message_size(torn)
        if len(torn) < HEADER_SIZE or size < GATHER_SIZE:
            self.torn_bytes = bytes(torn)
            return
        self.torn_bytes = b""
        try:
            self._large = Gathering(self.room, torn, size)
        except NoRoomError:
            self.torn_bytes = bytes(torn)  # of which the end of the connection is to tell
            self._crowded = True

    def forget_torn(self) -> None:
        """Give up the beginning of a message whose end will not come."""
        self.torn_bytes = b""
        if self._large is not None:
            self._large.end()
            self._large = None


def _rejected(error: WireError, size: int) -> Run:
    """Return what to tell of one message, of so many bytes, that was dropped."""
    return Run(0, size, 0, {error.reason: 1}, error, None)
