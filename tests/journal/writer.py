"""Journals for tests, written as the relay's are."""

import mmap
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from alphapulse_relay.journal.format import (
    PAGE,
    RECORD_SIZE,
    Epoch,
    Header,
    Record,
    data_path,
    index_path,
    index_size,
    run_check,
)
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv

EPOCH = 0xFEED_F00D_1234
SIZE = 4 * PAGE
NEW_SEGMENT_NS = 1_000_000_000_000
TICK_NS = 1_000
"""Time between two appends, from :data:`NEW_SEGMENT_NS` on."""


class Message(NamedTuple):
    """What was written, and where."""

    position: int
    data: bytes


def message(
    sequence: int, size: int = 40, *, tlv_type: int = 21, source: int = 20, checked: bool = True
) -> bytes:
    """Return a message whose content tells which it is."""
    return build_message(
        build_tlv(tlv_type, sequence.to_bytes(4, "little") * (size // 4)),
        source=source,
        sequence=sequence,
        timestamp=NEW_SEGMENT_NS + sequence,
        with_checksum=checked,
    )


def messages(count: int, seed: int = 1, *, unchecked: float = 0.0) -> list[bytes]:
    """Return messages of many sizes."""
    draw = random.Random(seed)
    return [
        message(number, draw.choice([0, 8, 40, 170, 180]), checked=draw.random() >= unchecked)
        for number in range(count)
    ]


class Segment:
    """A segment in memory. ``reused``: the files hold what is left of earlier use."""

    def __init__(
        self,
        slot: int = 0,
        *,
        number: int = 0,
        start: int = 1000,
        ordinal: int = 7,
        size: int = SIZE,
    ) -> None:
        self.slot = slot
        self.header = Header(EPOCH, number, start, ordinal, size)
        self.data = bytearray(size + PAGE)
        self.index = bytearray(index_size(len(self.data)))
        self.written: list[Message] = []
        self.records: list[Record] = []
        self._begin()

    def _begin(self) -> None:
        self.used = 0
        packed = self.header.pack()
        self.index[: len(packed)] = packed
        self.data[self.header.size : self.header.size + len(packed)] = packed

    @property
    def stop(self) -> int:
        return self.header.start + self.used

    @property
    def ordinal(self) -> int:
        return self.header.ordinal + len(self.written)

    def append(self, run: Sequence[bytes], origin: int = 5) -> None:
        """Write some messages as one record."""
        joined, position = b"".join(run), self.stop
        self.data[self.used : self.used + len(joined)] = joined
        time = NEW_SEGMENT_NS + len(self.written) * TICK_NS
        self.put(
            Record(position, time, origin, self.ordinal, len(joined), len(run), run_check(joined))
        )
        for one in run:
            self.written.append(Message(position, one))
            position += len(one)
        self.used += len(joined)

    def put(self, record: Record) -> None:
        offset = self.offset(len(self.records))
        self.index[offset : offset + RECORD_SIZE] = record.pack(EPOCH)
        self.records.append(record)

    def offset(self, record: int) -> int:
        """Return where a record lies in the index file."""
        return PAGE + record * RECORD_SIZE

    def fill(self, run: Iterable[bytes], per_record: int = 3) -> "Segment":
        """Write messages, some to a record."""
        run = list(run)
        for start in range(0, len(run), per_record):
            self.append(run[start : start + per_record])
        return self

    def next(self, *, slot: int | None = None) -> "Segment":
        """Return a new segment behind this one."""
        return Segment(
            self.slot + 1 if slot is None else slot,
            number=self.header.number + 1,
            start=self.stop,
            ordinal=self.ordinal,
            size=self.header.size,
        )

    def reuse(self, *, start: int, ordinal: int = 99) -> "Segment":
        """Begin anew in the same files, made ready as the relay does."""
        self.data[:] = bytes(len(self.data))
        self.header = Header(EPOCH, self.header.number + 8, start, ordinal, self.header.size)
        self.written, self.records = [], []
        self._begin()
        return self

    def save(self, directory: Path) -> None:
        data_path(directory, self.slot).write_bytes(self.data)
        index_path(directory, self.slot).write_bytes(self.index)


def save(directory: Path, *segments: Segment, closed: bool = True) -> Path:
    """Write a journal; return its directory."""
    directory.mkdir(exist_ok=True)
    Epoch(EPOCH, 1, "boot", closed).write(directory)
    for segment in segments:
        segment.save(directory)
    return directory


def journal(directory: Path, segments: int = 3, count: int = 40, unchecked: float = 0.0) -> Path:
    """Write a journal of some segments."""
    made = [Segment()]
    for number in range(segments):
        made[-1].fill(messages(count, number, unchecked=unchecked))
        made.append(made[-1].next())
    return save(directory, *made[:-1])


def flip(file: bytearray | mmap.mmap, bit: int) -> None:
    """Change a bit."""
    file[bit // 8] ^= 1 << bit % 8
