"""What is to be sent: the bytes of files, or messages that are built.

Knows the wire and files; neither sockets nor time. ``turn`` is called before each piece of a paced
stream and returns when it is due; ``ready`` before each read of a file and returns when there is
something to read.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from alphapulse_relay.cli.words import say
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import Level, MessageReader, Rules, message_size
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, build_message

BLOCK_SIZE = 64 * 1024
"""Bytes read from a file at once: what a pipe holds (pipe(7))."""
MESSAGE_LIMIT = 64 * 1024 * 1024
"""What claims to be larger does not frame: no relay is set up to take such a message."""

Turn = Callable[[], None]


class Piece(NamedTuple):
    """Bytes to send, how many messages end in them, and whether they end where one does."""

    data: bytes
    messages: int
    whole: bool = True


def blocks(descriptor: int, ready: Callable[[int], None]) -> Iterator[bytes]:
    """Yield a file's bytes as they can be read."""
    while True:
        ready(descriptor)
        block = os.read(descriptor, BLOCK_SIZE)
        if not block:
            return
        yield block


class Frames:
    """Cuts the bytes of a file into messages, for as long as they frame."""

    def __init__(self) -> None:
        self.broken: str | None = None
        """Where the bytes stop to frame, and why, for a person."""
        self._reader = MessageReader(Rules(level=Level.FRAMING, max_message=MESSAGE_LIMIT))
        self._position = 0  # in the file, of the next block

    @property
    def torn(self) -> bytes:
        """The beginning of a message whose end has not come."""
        return bytes(self._reader.pending)

    def cut(self, block: bytes) -> tuple[list[bytes], bytes]:
        """Return the messages that the block completes, and what does not frame behind them."""
        before = len(self._reader.pending)
        start = bytes(self._reader.pending[:HEADER_SIZE])
        messages, unframed = [], b""
        try:
            for message in self._reader.feed(block):
                messages.append(message)  # noqa: PERF402 (what came before an error counts)
        except WireError as error:
            # A whole header in front of the block was found good when it came.
            unframed = start[error.offset :] + block[max(error.offset - before, 0) :]
            place = self._position - before + error.offset
            self.broken = f"from byte {place} on, {error.reason}: {error.detail}"
        self._position += len(block)
        return messages, unframed


def file_pieces(name: str, content: Iterable[bytes], turn: Turn | None) -> Iterator[Piece]:
    """Yield the bytes of a file, all of them as they are; with ``turn`` message by message.

    Says in one line if they do not frame, or end inside a message. What does not frame is not
    paced.
    """
    rest, frames = iter(content), Frames()
    for block in rest:
        messages, unframed = frames.cut(block)
        if turn is None:
            yield Piece(block, len(messages), not (frames.torn or frames.broken))
        else:
            yield from _paced(messages, turn)
            yield Piece(unframed, 0, not (frames.torn or frames.broken))
        if frames.broken:
            say(f"warning: {name} does not frame {frames.broken}")
            break
    for block in rest:
        yield Piece(block, 0, False)
    if torn := frames.torn:
        expected = message_size(torn)
        say(f"warning: {name} ends inside a message, after {len(torn)} of {expected} bytes")
        if turn is not None:
            yield Piece(torn, 0, False)


def _paced(messages: list[bytes], turn: Turn) -> Iterator[Piece]:
    for message in messages:
        turn()
        yield Piece(message, 1)


def built_pieces(
    payload: bytes, *, source: int, count: int | None, turn: Turn | None
) -> Iterator[Piece]:
    """Yield messages around the payload, made when they are due; without end if no ``count``.

    The sequence runs from 1, the timestamp is now.
    """
    sequence = 0
    while count is None or sequence < count:
        sequence += 1
        if turn is not None:
            turn()
        message = build_message(payload, source=source, sequence=sequence, timestamp=time.time_ns())
        yield Piece(message, 1)
