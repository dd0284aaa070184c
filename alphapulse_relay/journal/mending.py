"""One segment is read and mended: its headers, its index, and which of its bytes are damaged.

Knows records and messages; neither directories nor files.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from alphapulse_relay.journal.format import (
    MARK_SIZE,
    MEMORY_FLAG,
    MEMORY_FLAG_OFFSET,
    MEMORY_FOLLOWS,
    PAGE,
    UNKNOWN_ORIGIN,
    Header,
    Record,
    run_check,
)
from alphapulse_relay.journal.headers import HEADER_BYTES, data_name, index_name
from alphapulse_relay.journal.records import Index
from alphapulse_relay.journal.salvage import Verdict, count_whole, judge, salvage
from alphapulse_relay.protocol_v2.header import HEADER_SIZE

RUN_MAX = 64 * 1024
"""Bytes of a record that is made anew, unless one message is larger: as the writer's are."""
_NEVER_FITS = 0xFFFFFFFF
"""Changes a record's check so that its bytes are known to be damaged at the next look, too."""


@dataclass(frozen=True)
class Damage:
    """Something wrong in ``file``, a name. No message between ``start`` and ``stop`` is served.

    Positions; they are equal where nothing is lost, such as a record that could be mended.
    """

    file: str
    start: int
    stop: int
    detail: str


@dataclass
class Recovered:
    """What a slot holds.

    Its ``records`` cover all bytes up to position ``stop``, ``messages`` of them. Positions in a
    hole are not to be served; holes are sorted and disjoint. Unless it is ``intact`` nothing more
    should be appended. ``verified`` tells whether its bytes were compared with their records.
    """

    slot: int
    header: Header
    records: int = 0
    messages: int = 0
    stop: int = 0
    damage: list[Damage] = field(default_factory=list)
    holes: list[tuple[int, int]] = field(default_factory=list)
    intact: bool = True
    verified: bool = False


class Mender:
    """Reads one segment; what it finds is put together in ``found``."""

    def __init__(
        self,
        slot: int,
        data: memoryview,
        index: memoryview,
        header: Header,
        end: int | None,
        short: bool,
    ) -> None:
        self.found = Recovered(slot, header, intact=not short)
        self._data, self._index, self._header, self._short = data, index, header, short
        room = header.start + header.size
        (flag,) = MEMORY_FLAG.unpack_from(index, MEMORY_FLAG_OFFSET)
        # Where positions were left out, or the log went on in memory, the segment ends as the last
        # one does.
        follows = end is not None and end <= room and flag != MEMORY_FOLLOWS
        self._end = end if follows else None
        self._records = Index(index, header, room)

    def run(self, verify: bool) -> Recovered:
        """Read it; see ``recovery.recover_segment``."""
        found = self.found
        lost = not any(self._index[:HEADER_BYTES])
        whole = self._restore_headers()
        slot, position = self._follow(0, self._header.start)
        if position != self._end and (self._end is not None or self._short or (lost and not slot)):
            slot, position = self._read_without_index(slot, position)
        found.records, found.stop = slot, position
        found.messages = self._ordinal(slot) - self._header.ordinal
        found.verified = verify or self._short or not whole
        if found.verified:
            self._verify(range(slot))
        else:
            self._verify(self._records.unknown_origins(slot))
        return found

    def _restore_headers(self) -> bool:
        """Make the header's two copies what they should be; tell whether they were."""
        packed, whole = self._header.pack(), True
        copies = ((data_name, self._data, self._header.size), (index_name, self._index, 0))
        for name, file, offset in copies:
            copy = file[offset : offset + len(packed)]
            if copy != packed:
                copy[:] = packed
                whole = False
                self._report(name, self._header.start, "the header is damaged, its copy is not")
        return whole

    def _follow(self, slot: int, position: int) -> tuple[int, int]:
        """Return the slot and the position where the index ends; damaged records are mended."""
        while True:
            slot, position = self._records.follow(slot, position)
            if slot == self._records.capacity or position == self._end:
                return slot, position
            mended = self._records.mended(slot, position)
            if mended is not None:
                self._records.write(slot, mended)
                self._report(
                    index_name, position, f"one bit of record {slot} is wrong, which one is known"
                )
            elif not self._rebuild_up_to_later(slot, position):
                return slot, position

    def _rebuild_up_to_later(self, slot: int, position: int) -> bool:
        """Make lost records anew, if there are later ones that tell where they end."""
        later = self._records.later(slot, position)
        if later is None:
            return False
        due = self._records.record(slot)
        if due is not None and due.position == position:
            return True  # the relay runs, and has just written it
        number, record = later
        self._rebuild(slot, position, record.position, record.ordinal)
        for empty in range(slot + 1, number):
            self._write(empty, record.position, 0, 0, 0)
        lost = f"record {slot} is" if number == slot + 1 else f"records {slot}-{number - 1} are"
        self._report(index_name, position, f"{lost} damaged, the messages tell what was there")
        return True

    def _rebuild(self, slot: int, start: int, stop: int, ordinal: int | None) -> None:
        """Make one record for all between two positions.

        ``ordinal`` is how many messages there are before ``stop``, if that is known. If that is not
        what the bytes are, the record is made so that it does not fit them.
        """
        run = self._bytes(start, stop)
        count = count_whole(run, 0, len(run))
        expected = None if ordinal is None else ordinal - self._ordinal(slot)
        if count is not None and expected in {None, count}:
            self._write(slot, start, stop - start, count, run_check(run))
            return
        known = salvage(bytes(run)).good if expected is None else max(expected, 0)
        check = run_check(run) if len(run) >= HEADER_SIZE else 0
        self._write(slot, start, stop - start, known, check ^ _NEVER_FITS)

    def _read_without_index(self, slot: int, position: int) -> tuple[int, int]:
        """Make records for the messages that the index does not know (any more)."""
        first, start = slot, position
        while slot < self._records.capacity:
            stop, count = self._next_run(position)
            if stop == position:
                break
            check = run_check(self._bytes(position, stop))
            self._write(slot, position, stop - position, count, check)
            slot, position = slot + 1, stop
        if self._end is not None and position < self._end and slot < self._records.capacity:
            self._rebuild(slot, position, self._end, None)
            slot, position = slot + 1, self._end
        if slot > first:
            self.found.intact = False
            detail = "from here on the index is lost, the messages tell what was there"
            self._report(index_name, start, detail)
        return slot, position

    def _next_run(self, position: int) -> tuple[int, int]:
        """Return where the next messages end that make one record, and how many they are."""
        offset = start = position - self._header.start
        limit = self._header.size if self._end is None else self._end - self._header.start
        count = 0
        while offset - start < RUN_MAX:
            verdict, stop = judge(self._data, offset, limit)
            if verdict in {Verdict.FALSE, Verdict.UNFRAMED}:
                break
            if verdict is Verdict.UNCHECKED and self._is_unwritten(offset, stop):
                break
            if count and stop - start > RUN_MAX:
                break
            offset, count = stop, count + 1
        return self._header.start + offset, count

    def _is_unwritten(self, start: int, stop: int) -> bool:
        """Whether bytes seem not to have reached the disk: a page in them begins with zeros."""
        if self._end is not None:
            return False
        first = -(-start // PAGE) * PAGE
        zeros = bytes(MARK_SIZE)
        return any(self._data[at : at + MARK_SIZE] == zeros for at in range(first, stop, PAGE))

    def _verify(self, numbers: Iterable[int]) -> None:
        """Compare the bytes of these records, and mark the ones that are damaged."""
        found = self.found
        for first, last in _stretches(numbers):
            damage = verify_records(
                self._data,
                self._index,
                self._header,
                first,
                last,
                file=data_name(found.slot),
                mark=True,
            )
            found.damage += damage
            found.holes += [(each.start, each.stop) for each in damage]

    def _ordinal(self, slot: int) -> int:
        """Return how many messages there are before those of a slot."""
        before = self._records.record(slot - 1) if slot else None
        return self._header.ordinal if before is None else before.ordinal + before.messages

    def _write(self, slot: int, position: int, length: int, messages: int, check: int) -> None:
        before = self._records.record(slot - 1) if slot else None
        time = before.time if before is not None else 0
        ordinal = self._ordinal(slot)
        self._records.write(
            slot, Record(position, time, UNKNOWN_ORIGIN, ordinal, length, messages, check)
        )

    def _bytes(self, start: int, stop: int) -> memoryview:
        return self._data[start - self._header.start : stop - self._header.start]

    def _report(self, name: Callable[[int], str], position: int, detail: str) -> None:
        self.found.damage.append(Damage(name(self.found.slot), position, position, detail))


def verify_records(
    data: memoryview,
    index: memoryview,
    header: Header,
    first: int,
    last: int,
    *,
    file: str = "",
    mark: bool = False,
) -> list[Damage]:
    """Compare the bytes of the records ``[first, last)`` with them.

    Returns the damage, in ``file``: what lies in it is lost, the rest is good. Needs whole records,
    and can be done in a thread. With ``mark`` a damaged record becomes nobody's, so
    that it is looked at again whenever the journal is read.
    """
    records = Index(index, header, header.start + header.size)
    holes: list[tuple[int, int]] = []
    for number, (position, length, crc) in enumerate(records.spans(first, last), first):
        start = position - header.start
        run = data[start : start + length]
        if _fits(run, crc):
            continue
        holes += [(position + begin, position + end) for begin, end in salvage(bytes(run)).holes]
        if mark:
            _make_nobodys(records, number)
    return [
        Damage(file, start, stop, "the checksum does not fit") for start, stop in _joined(holes)
    ]


def _fits(run: memoryview, crc: int) -> bool:
    return run_check(run) == crc if len(run) >= HEADER_SIZE else not run


def _make_nobodys(records: Index, number: int) -> None:
    record = records.record(number)
    if record is not None and record.origin != UNKNOWN_ORIGIN:
        records.write(number, record._replace(origin=UNKNOWN_ORIGIN))


def _joined(holes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Make one of holes that touch."""
    joined: list[tuple[int, int]] = []
    for start, stop in holes:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def _stretches(numbers: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Put ascending numbers together to ranges without gaps."""
    return _joined((number, number + 1) for number in numbers)
