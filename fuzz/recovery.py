"""Recovery: one segment of a journal, after whatever happened to its two files.

What must hold, whatever bits are changed, and pages lost or left as they were before:

- The segment is recovered, or told to be none, or refused with a FormatError of one line.
- What is served is what was written, byte for byte, each message at its own position, so in order;
  what is not is told as damage. Where the index is damaged too, this is so of messages with a
  checksum: nothing else can tell a message without one from damage.

A damage is a change to what was there, so that the fuzzer cannot write checksums of its own: nobody
claims that a journal holds against forgers.
"""

from collections.abc import Iterator
from itertools import product

from alphapulse_relay.journal import headers, mending, recovery, salvage
from alphapulse_relay.journal.format import PAGE, FormatError
from alphapulse_relay.journal.recovery import Recovered, recover_segment
from alphapulse_relay.protocol_v2.header import CHECKSUM_OFFSET, HEADER_SIZE
from fuzz.choices import Choices
from tests.journal.served import served
from tests.journal.writer import EPOCH, Segment, message, messages

MODULES = (headers, mending, recovery, salvage)
MAX_LEN = 80
COMPARISONS = False
WORDS: tuple[str, ...] = ()
DAMAGES_MAX = 6
ROOM = 2 * PAGE
"""Bytes of messages in a segment: some of them lie across two pages."""
PLACES = (0, 40, PAGE - 10, PAGE + 100, ROOM - 200, ROOM)


def run(data: bytes) -> None:
    """Damage a segment and recover it; see above."""
    choices = Choices(data)
    recover(_SEGMENTS[choices.byte() % len(_SEGMENTS)], choices)


def seeds() -> Iterator[bytes]:
    """Yield what to begin with: each kind of damage to each kind of segment."""
    for kind in range(len(_SEGMENTS)):
        yield bytes([kind, 0])
        for damage, file, place in product(range(len(DAMAGES)), range(2), PLACES):
            yield bytes([kind, 1, damage, file, *place.to_bytes(2, "little"), 3, 17])


# Segments in memory


class Written:
    """A segment as it was written, and what its files held before that: zeros, if not given."""

    def __init__(self, segment: Segment, *, followed: bool, before: Segment | None = None) -> None:
        self.segment = segment
        self.files = bytes(segment.data), bytes(segment.index)
        old = before or Segment(segment.slot, size=segment.header.size)
        self.before = bytes(old.data), bytes(old.index)
        self.end = segment.stop if followed else None

    def damaged(self, choices: Choices) -> Segment:
        """Return a copy with damage."""
        copy = Segment.__new__(Segment)
        copy.__dict__.update(self.segment.__dict__)
        copy.data, copy.index = bytearray(self.files[0]), bytearray(self.files[1])
        for _ in range(choices.byte() % DAMAGES_MAX):
            damage, which = DAMAGES[choices.byte() % len(DAMAGES)], choices.byte() % 2
            damage((copy.data, copy.index)[which], self.before[which], choices)
        return copy


def recover(written: Written, choices: Choices) -> None:
    """Damage a segment, recover it, and see what would be served."""
    segment = written.damaged(choices)
    try:
        found = recover_segment(
            segment.slot,
            memoryview(segment.data),
            memoryview(segment.index),
            epoch=EPOCH,
            size=segment.header.size,
            verify=True,
            end=written.end,
        )
    except FormatError as error:
        check_line(error)
        return
    if found is None:  # both copies of its header are lost
        return
    assert found.header == segment.header
    check_served(segment, found, index_is_whole=segment.index == written.files[1])


def check_served(segment: Segment, found: Recovered, *, index_is_whole: bool) -> None:
    """See that only what was written is served, and that all else is told."""
    kept = {one.position: one.data for one in served(segment, found)}
    written = dict(segment.written)
    for position, data in kept.items():
        if index_is_whole or has_checksum(data):
            assert written.get(position) == data
    for position in written:
        if position < found.stop and position not in kept and index_is_whole:
            assert any(start <= position < stop for start, stop in found.holes)
    for start, stop in found.holes:
        assert any(each.start <= start and stop <= each.stop for each in found.damage)


def has_checksum(data: bytes) -> bool:
    """Tell whether a message has one; what has none only the index can tell to be damaged."""
    return data[CHECKSUM_OFFSET:HEADER_SIZE] != bytes(4)


def check_line(error: Exception) -> None:
    """See that an error is one line."""
    assert len(str(error).splitlines()) == 1, str(error)


# Damage: of a file's bytes, beside which lie those that it had before it was used again


def _change(file: bytearray, _before: bytes, choices: Choices) -> None:
    """Change some bits of some bytes."""
    place, count, change = choices.number(2), choices.byte(), choices.byte()
    for at in range(place % len(file), min(place % len(file) + count % 8 + 1, len(file))):
        file[at] ^= change


def _lose(file: bytearray, _before: bytes, choices: Choices) -> None:
    """Have zeros in the place of what was there."""
    place, count = choices.number(2) % len(file), choices.byte() * 16
    stop = min(place + count, len(file))
    file[place:stop] = bytes(stop - place)


def _lose_page(file: bytearray, _before: bytes, choices: Choices) -> None:
    """Have zeros in the place of a page, as a file system has that crashed."""
    page = choices.number(2) % (len(file) // PAGE) * PAGE
    file[page : page + PAGE] = bytes(PAGE)


def _keep_page(file: bytearray, before: bytes, choices: Choices) -> None:
    """Have a page as it was before it was written: it did not get to the disk."""
    page = choices.number(2) % (len(file) // PAGE) * PAGE
    file[page : page + PAGE] = before[page : page + PAGE]


DAMAGES = (_change, _lose, _lose_page, _keep_page)


def _segments() -> list[Written]:
    def new() -> Segment:
        return Segment(size=ROOM)

    old, old_before = (new().fill(messages(35, 3), 2) for _ in range(2))
    alike, alike_before = (new().fill([message(number) for number in range(100)]) for _ in range(2))
    for each in (old, old_before, alike, alike_before):
        each.reuse(start=1_000_000)
    kinds = (
        (new().fill(messages(24)), None),
        (new().fill(messages(24, unchecked=0.5)), None),
        (new().fill([message(number) for number in range(30)], 1), None),
        (old.fill(messages(20, 9)), old_before),
        (alike.fill([message(1000 + number) for number in range(60)]), alike_before),
    )
    return [
        Written(segment, followed=followed, before=before)
        for followed in (False, True)
        for segment, before in kinds
    ]


_SEGMENTS = _segments()
