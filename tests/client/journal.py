"""A journal to replay from, as a relay with one would: what it sends for a Subscribe."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from alphapulse_relay.protocol_v2.compression import compress
from alphapulse_relay.protocol_v2.control import (
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    build_control,
)
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv

EPOCH = 0xE0C4


def message(sequence: int, *, source: int = 20, size: int = 8) -> bytes:
    payload = build_tlv(21, bytes(size))
    return build_message(payload, source=source, sequence=sequence, timestamp=1)


def messages(count: int) -> list[bytes]:
    return [message(number) for number in range(1, count + 1)]


def said(*contents: ControlMessage) -> bytes:
    return b"".join(build_control(content, timestamp=1) for content in contents)


@dataclass
class Journal:
    """Messages end to end. ``batch`` is how many are sent before each SequenceSync."""

    content: list[bytes] = field(default_factory=list)
    epoch: int = EPOCH
    batch: int = 3
    tail: int = 0

    @property
    def head(self) -> int:
        return sum(map(len, self.content))

    def answer(self, wanted: Subscribe) -> bytes:
        """All that a peer is sent that subscribes now, while nothing is published."""
        if wanted.start is not Start.POSITION:
            start = self.head
            if wanted.start is Start.LAST:
                start -= sum(map(len, self.content[-wanted.start_value :]))
            return self._sync(start) + self._from(start, wanted)
        if wanted.epoch not in {0, self.epoch}:
            return said(ErrorMessage(ErrorCode.WRONG_EPOCH, "another journal"))
        if wanted.start_value > self.head:
            return said(ErrorMessage(ErrorCode.NOT_KEPT, "beyond the head"))
        start = max(wanted.start_value, self.tail)
        gap = Gap(self.epoch, wanted.start_value, start, GapReason.RETENTION)
        skipped = said(gap) if start > wanted.start_value else b""
        return self._sync(wanted.start_value) + skipped + self._from(start, wanted)

    def _sync(self, position: int) -> bytes:
        state = SyncState.LIVE if position == self.head else SyncState.REPLAYING
        return said(SequenceSync(self.epoch, position, state))

    def _from(self, start: int, wanted: Subscribe) -> bytes:
        out, position, since = b"", 0, 0
        for each in self.content:
            if position >= start:
                out += (compress(each) or each) if Wish.ZSTD in wanted.wishes else each
                since += 1
            position += len(each)
            if since == self.batch:
                out += self._sync(position)
                since = 0
        return out + (self._sync(position) if since else b"")


def sequences(events: Iterable[bytes]) -> list[int]:
    """The sequence numbers of messages."""
    return [int.from_bytes(data[8:16], "little") for data in events]
