"""Subscriptions: which messages a peer wants, and in which form.

Peers with equal filters share one :class:`Filter`, which looks at each stretch of the log once for
all of them; all that want them compressed share one :class:`Compressor`.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from weakref import WeakValueDictionary

from alphapulse_relay.hub.log import ANONYMOUS, Log
from alphapulse_relay.protocol_v2.compression import compress
from alphapulse_relay.protocol_v2.control import Subscribe, Wish
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.selection import Selection, Selector, select

COMPRESSED_SIZE = 4096
"""Messages of so many bytes or more are compressed: smaller ones take longer to compress than to
send over the networks that compression is for."""
KEPT_COMPRESSED = 4 << 20
"""Bytes of compressed messages that are kept for who comes to them a little later."""


@dataclass(frozen=True)
class Batch:
    """The messages of a stretch of the log that match: positions ``start`` to ``stop``."""

    start: int
    stop: int
    selection: Selection
    data: memoryview

    def position_of(self, length: int) -> tuple[int, int, int]:
        """Return where in the log the first ``length`` bytes of the data end.

        And how many bytes, and messages, of the stretch before that are not in the data.
        """
        left_out = messages = 0
        end = 0
        for (start, stop), skipped in zip(
            self.selection.ranges, self.selection.skipped, strict=True
        ):
            left_out += start - end
            messages += skipped
            end = stop
            if length <= stop - start:
                return self.start + start + length, left_out, messages
            length -= stop - start
        raise ValueError("so much is not in the batch")


class Filter:
    """Finds the messages that match; what it found last is kept for the next peer."""

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self._last: Batch | None = None

    def batch(self, log: Log, start: int, stop: int) -> Batch:
        """Return what matches between two positions of one segment where messages begin."""
        last = self._last
        if last is not None and (last.start, last.stop) == (start, stop):
            return last
        self._last = make_batch(log, start, stop, self.selector)
        return self._last


def make_batch(log: Log, start: int, stop: int, selector: Selector) -> Batch:
    """Return what matches; runs of matching messages are copied whole, one run not at all."""
    chunk = log.read(start)[: stop - start]
    selection = select(chunk, selector)
    pieces = [chunk[begin:end] for begin, end in selection.ranges]
    data = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
    return Batch(start, stop, selection, data)


class Compressor:
    """Compresses each large message once, for all that come to it about the same time."""

    def __init__(self) -> None:
        self._kept: dict[int, bytes] = {}
        self._size = 0

    def compressed(self, log: Log, position: int) -> bytes:
        """Return the message at a position as it is sent: compressed if that makes it smaller."""
        found = self._kept.get(position)
        if found is None:
            plain = bytes(log.read(position)[: message_size(log.read(position))])
            found = compress(plain) or plain
            self._kept[position] = found
            self._size += len(found)
            while self._size > KEPT_COMPRESSED and len(self._kept) > 1:
                self._size -= len(self._kept.pop(next(iter(self._kept))))
        return found


class Filters:
    """What the subscriptions of all peers share."""

    def __init__(self) -> None:
        self.compressor = Compressor()
        self._filters: WeakValueDictionary[object, Filter] = WeakValueDictionary()

    def filter_for(self, subscribe: Subscribe) -> Filter | None:
        """Return the filter of a subscription; None if it wants everything."""
        if not subscribe.types and not subscribe.sources:
            return None
        key = subscribe.types, subscribe.sources
        found = self._filters.get(key)
        if found is None:
            found = self._filters[key] = Filter(Selector(subscribe.types, subscribe.sources))
        return found


@dataclass(frozen=True)
class Subscription:
    """What a peer has asked for; ``filter`` is None where it wants all messages."""

    asked: Subscribe
    filter: Filter | None

    @property
    def wishes(self) -> Wish:
        """What it wants beside the messages."""
        return self.asked.wishes

    @cached_property
    def rides(self) -> bool:
        """Whether the log's bytes are all that it is sent at the head."""
        apart = Wish.POSITIONS | Wish.ZSTD | Wish.STOP_AT_HEAD
        return self.filter is None and not self.wishes & apart


def origin_of_name(name: str) -> int:
    """Return the origin of what is published under a name, in whatever connection or run."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") | ANONYMOUS + 1
