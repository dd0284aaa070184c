"""What is in a journal's files after whatever happened to them."""

import random
import shutil
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.journal.format import (
    MEMORY_FLAG,
    MEMORY_FLAG_OFFSET,
    MEMORY_FOLLOWS,
    PAGE,
    RECORD_SIZE,
    UNKNOWN_ORIGIN,
    Epoch,
    FormatError,
    Header,
    Record,
    data_path,
    index_path,
)
from alphapulse_relay.journal.headers import header_of
from alphapulse_relay.journal.recovery import (
    Damage,
    recover,
    recover_segment,
    verify_records,
)
from tests.journal.served import check, recovered, served
from tests.journal.writer import EPOCH, SIZE, Segment, flip, journal, message, messages, save


def segment(count: int = 40, per_record: int = 3, unchecked: float = 0.0) -> Segment:
    return Segment().fill(messages(count, unchecked=unchecked), per_record)


class TestSound:
    def test_all_is_there(self):
        made = segment()
        found = recovered(made)
        assert served(made, found) == made.written
        assert (found.header, found.stop, found.records) == (made.header, made.stop, 14)
        assert (found.messages, found.damage, found.holes) == (40, [], [])
        assert found.intact
        assert found.verified

    def test_nothing_is_changed(self):
        made = segment(unchecked=0.5)
        before = bytes(made.data), bytes(made.index)
        recovered(made)
        assert (made.data, made.index) == before

    def test_empty(self):
        found = recovered(Segment())
        assert (found.records, found.messages, found.stop) == (0, 0, 1000)
        assert found.intact

    @pytest.mark.parametrize("per_record", [1, 7])
    @pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 2049])
    def test_blocks_of_records(self, count, per_record):
        made = Segment(size=64 * PAGE).fill([message(n, 8) for n in range(count)], per_record)
        found = recovered(made, verify=False)
        assert (found.stop, found.messages, found.damage) == (made.stop, count, [])

    def test_index_that_is_full(self):
        made = Segment()
        capacity = (len(made.index) - PAGE) // RECORD_SIZE
        found = recovered(made.fill([message(n, 0) for n in range(capacity)], 1))
        assert (found.records, found.damage) == (capacity, [])

    def test_what_is_left_of_earlier_use_is_not_taken(self):
        made = segment()
        made.reuse(start=1_000_000).fill(messages(5, 9))
        found = recovered(made)
        assert served(made, found) == made.written
        assert not found.damage

    @pytest.mark.parametrize("unchecked", [0, 1])
    @pytest.mark.parametrize("per_record", [1, 3, 70])
    def test_a_page_that_did_not_reach_the_disk(self, per_record, unchecked):
        """What lies in it is lost; of appends without checksums all that they have."""
        made = Segment().fill([message(number) for number in range(200)])
        made.reuse(start=1_000_000)
        before = bytes(made.data)
        made.fill([message(1000 + n, checked=not unchecked) for n in range(150)], per_record)
        made.data[PAGE : 2 * PAGE] = before[PAGE : 2 * PAGE]
        lost = check(made, recovered(made), made.written)
        first, last = lost[0].position - made.header.start, lost[-1].position - made.header.start
        assert first <= PAGE < 2 * PAGE <= last + len(lost[-1].data)
        if not unchecked:
            assert first + len(lost[0].data) > PAGE
            assert last < 2 * PAGE

    def test_torn_tail(self):
        made = segment()
        offset = made.offset(13)
        made.index[offset + 20 : offset + RECORD_SIZE] = bytes(RECORD_SIZE - 20)
        found = recovered(made)
        assert (found.records, found.messages, found.damage) == (13, 39, [])
        assert found.intact

    def test_spare(self):
        made = segment()
        made.index[:8] = made.data[SIZE : SIZE + 8] = bytes(8)
        data, index = memoryview(made.data), memoryview(made.index)
        found = recover_segment(0, data, index, epoch=EPOCH, size=SIZE, verify=True, end=None)
        assert found is None

    def test_another_epoch(self):
        made = segment()
        data, index = memoryview(made.data), memoryview(made.index)
        with pytest.raises(FormatError, match=rf"0000\.v2: .* {EPOCH}, the journal is 5"):
            recover_segment(0, data, index, epoch=5, size=SIZE, verify=True, end=None)


class TestDamagedData:
    def test_a_bit_of_a_message_costs_that_message(self):
        made = segment()
        made.data[made.written[10].position - 1000 + 33] ^= 1
        found = recovered(made)
        assert check(made, found, made.written) == [made.written[10]]
        (damage,) = found.damage
        assert (damage.file, damage.start) == ("0000.v2", made.written[10].position)
        assert found.intact

    def test_size_that_is_wrong(self):
        made = segment()
        made.data[made.written[9].position - 1000 + 24] ^= 8
        found = recovered(made)
        assert check(made, found, made.written) == [made.written[9]]

    def test_message_inside_of_a_lost_one_is_not_served(self):
        inner = message(77, 8)
        outer = message(1, 8)
        outer = outer[:24] + (len(inner)).to_bytes(4, "little") + bytes(4) + inner
        made = Segment().fill([message(0), outer, message(2)])
        made.data[made.written[1].position - 1000 + 1] ^= 1
        found = recovered(made)
        assert check(made, found, made.written) == [made.written[1]]

    @pytest.mark.parametrize("per_record", [1, 4])
    def test_other_messages_in_the_place_of_a_whole_append_are_not_served(self, per_record):
        """Such as old ones that a disk gives back: each has a checksum that fits."""
        made = Segment().fill([message(number) for number in range(40)], per_record)
        others = b"".join(message(100 + number) for number in range(per_record))
        start = 2 * len(others)
        made.data[start : start + len(others)] = others
        lost = made.written[2 * per_record : 3 * per_record]
        assert check(made, recovered(made), made.written) == lost

    def test_without_checksums_the_record_is_lost(self):
        made = segment(9, unchecked=1.0)
        made.data[made.written[4].position - 1000 + 20] ^= 1
        found = recovered(made)
        assert check(made, found, made.written) == made.written[3:6]
        assert len(found.holes) == 1

    def test_found_without_verifying_once_it_is_known(self):
        made = segment()
        made.data[made.written[10].position - 1000 + 33] ^= 1
        assert recovered(made, verify=False).holes == []
        holes = recovered(made).holes
        assert recovered(made, verify=False).holes == holes != []

    def test_lost_file(self):
        made = segment()
        made.data[:] = bytes(len(made.data))
        found = recovered(made, verify=False, short=True)
        assert found.holes == [(1000, made.stop)]
        assert [d.stop for d in found.damage] == [1000, made.stop]
        assert not found.intact

    @given(st.data())
    def test_any_bit(self, draw):
        made = segment(30, draw.draw(st.integers(1, 9)), draw.draw(st.sampled_from([0, 0.5, 1])))
        flip(made.data, draw.draw(st.integers(0, made.used * 8 - 1)))
        found = recovered(made)
        lost = check(made, found, made.written)
        assert lost
        records = {
            r.position for r in made.records for one in lost if r.position <= one.position < r.stop
        }
        assert len(records) == 1


class TestDamagedIndex:
    @given(st.data())
    def test_any_bit_is_mended(self, draw):
        made = segment(30, draw.draw(st.integers(1, 9)), 0.5)
        before = bytes(made.index)
        record, bit = (
            draw.draw(st.integers(0, len(made.records) - 1)),
            draw.draw(st.integers(0, 383)),
        )
        flip(made.index, made.offset(record) * 8 + bit)
        found = recovered(made)
        assert served(made, found) == made.written
        assert made.index == before
        (damage,) = found.damage
        assert damage.start == damage.stop == made.records[record].position
        assert damage.file == "0000.index"

    @pytest.mark.parametrize("unchecked", [0, 1])
    @pytest.mark.parametrize(("first", "last"), [(0, 1), (3, 4), (3, 7), (0, 13)])
    def test_lost_records_are_made_anew(self, first, last, unchecked):
        made = segment(unchecked=unchecked)
        made.index[made.offset(first) : made.offset(last)] = bytes((last - first) * RECORD_SIZE)
        found = recovered(made)
        assert served(made, found) == made.written
        assert (found.messages, found.records, found.holes) == (40, 14, [])
        assert found.intact
        record = Record.unpack(made.index, first, EPOCH)
        assert record is not None
        assert record.origin == UNKNOWN_ORIGIN
        assert record.stop == made.records[last - 1].stop
        assert [d.start == d.stop for d in found.damage] == [True]
        assert recovered(made).damage == []

    def test_lost_record_over_damaged_bytes(self):
        made = segment()
        made.index[made.offset(3) : made.offset(5)] = b"x" * (2 * RECORD_SIZE)
        made.data[made.written[10].position - 1000 + 33] ^= 1
        found = recovered(made, verify=False)
        assert check(made, found, made.written) == [made.written[10]]
        again = recovered(made, verify=False)
        assert (again.holes, again.messages) == (found.holes, found.messages) == (again.holes, 40)

    def test_last_record_is_known_by_the_next_segment(self):
        made = segment()
        made.index[made.offset(13) : made.offset(14)] = b"x" * RECORD_SIZE
        found = recovered(made, end=made.stop)
        assert served(made, found) == made.written

    def test_log_that_went_on_in_memory(self):
        made = segment()
        MEMORY_FLAG.pack_into(made.index, MEMORY_FLAG_OFFSET, MEMORY_FOLLOWS)
        found = recovered(made, end=made.stop + 100)
        assert (found.stop, found.damage) == (made.stop, [])

    def test_positions_that_were_left_out(self):
        made = segment()
        found = recovered(made, end=made.stop + (1 << 40))
        assert (found.stop, found.damage) == (made.stop, [])

    @pytest.mark.parametrize("unchecked", [0, 0.5, 1])
    @pytest.mark.parametrize("known", [True, False])
    def test_lost_file(self, known, unchecked):
        made = segment(unchecked=unchecked)
        made.index[:] = bytes(len(made.index))
        found = recovered(made, end=made.stop if known else None)
        assert served(made, found) == made.written
        assert (found.messages, found.stop) == (40, made.stop)
        assert not found.intact

    @pytest.mark.parametrize("unchecked", [0, 1])
    def test_lost_file_of_a_segment_used_again(self, unchecked):
        made = Segment().fill([message(n, 40, checked=not unchecked) for n in range(200)])
        made.reuse(start=1_000_000).fill(messages(20, 9, unchecked=unchecked))
        made.index[:] = bytes(len(made.index))
        found = recovered(made)
        assert served(made, found) == made.written
        assert found.stop == made.stop
        assert recovered(made, end=made.stop, verify=False).stop == made.stop

    def test_lost_file_and_a_damaged_message(self):
        made = segment()
        made.index[:] = bytes(len(made.index))
        made.data[made.written[10].position - 1000 + 33] ^= 1
        found = recovered(made, end=made.stop)
        assert made.written[10] in check(made, found, made.written)
        assert made.written[11] in served(made, found)


class TestHeader:
    @given(st.booleans(), st.integers(0, 511))
    def test_any_bit_of_a_copy(self, front, bit):
        made = segment()
        before = bytes(made.data), bytes(made.index)
        flip(made.index if front else made.data, (0 if front else SIZE * 8) + bit)
        found = recovered(made)
        assert served(made, found) == made.written
        assert (made.data, made.index) == before
        (damage,) = found.damage
        assert damage.file == ("0000.index" if front else "0000.v2")
        assert found.intact

    def test_a_bit_of_both(self):
        made = segment()
        flip(made.index, 77)
        flip(made.data, SIZE * 8 + 99)
        assert served(made, recovered(made)) == made.written

    def test_two_that_differ_are_of_no_segment(self):
        """As where the files of two were swapped: neither is taken for the other's."""
        made = segment()
        made.index[:64] = Header(EPOCH, 9, made.stop, made.ordinal, SIZE).pack()
        assert header_of(0, memoryview(made.data), memoryview(made.index)) is None

    def test_another_format(self):
        made = segment()
        made.index[8] = 9
        made.index[56:60] = zlib.crc32(made.index[:56]).to_bytes(4, "little")
        with pytest.raises(FormatError, match=r"0000\.index: format 9"):
            recovered(made)


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_nothing_wrong_is_served(seed):
    """Several faults at once: bits, zeroed and foreign stretches, in both files."""
    draw = random.Random(seed)
    made = segment(40, draw.randint(1, 9), draw.choice([0, 0.5, 1]))
    if draw.random() < 0.5:
        made.reuse(start=1_000_000).fill(messages(25, seed + 1, unchecked=0.3))
    for _ in range(draw.randint(1, 4)):
        file = draw.choice([made.data, made.index])
        used = made.used if file is made.data else made.offset(len(made.records))
        start = draw.randrange(64 if file is made.index else 0, used)
        stop = min(start + draw.choice([1, 7, 48, 300, 5000]), used)
        if draw.random() < 0.5:
            flip(file, start * 8)
        else:
            file[start:stop] = (
                bytes(stop - start) if draw.random() < 0.5 else draw.randbytes(stop - start)
            )
    found = recovered(made, end=made.stop if draw.random() < 0.5 else None)
    kept = served(made, found)
    assert [one for one in kept if one.data[28:32] != bytes(4) and one not in made.written] == []
    again = recovered(made, verify=False)
    assert served(made, again) == kept


def test_a_thousand_flipped_bits():
    """One at a time, anywhere: it is reported, and costs no more than the message that it is in."""
    draw = random.Random(1)
    for _ in range(1000):
        made = segment(20, draw.randint(1, 9))
        if draw.random() < 0.6:
            at = draw.randrange(made.used * 8)
            flip(made.data, at)
            position = made.header.start + at // 8
            lost = [m for m in made.written if m.position <= position < m.position + len(m.data)]
            assert len(lost) == 1
        else:
            records = (PAGE * 8, made.offset(len(made.records)) * 8)
            flip(made.index, draw.randrange(*draw.choice([records, (0, 60 * 8)])))
            lost = []
        found = recovered(made)
        assert found.damage
        assert served(made, found) == [each for each in made.written if each not in lost]


def test_verify_records_in_parts():
    made = segment()
    for number in (4, 5, 20):
        made.data[made.written[number].position - 1000 + 33] ^= 1
    data, index = memoryview(made.data), memoryview(made.index)
    start, stop = made.written[4].position, made.written[6].position
    assert verify_records(data, index, made.header, 0, 5, file="a") == [
        Damage("a", start, stop, "the checksum does not fit")
    ]
    (damage,) = verify_records(data, index, made.header, 5, 14)
    assert damage.start == made.written[20].position


class TestDirectory:
    def test_all_segments_in_order(self, tmp_path):
        first = segment(slot := 30)
        second = first.next(slot=5).fill(messages(slot))
        first.slot = 7
        save(tmp_path, first, second)
        found = recover(tmp_path, writable=False, verify="all")
        assert [s.slot for s in found.segments] == [7, 5]
        assert found.epoch == Epoch(EPOCH, 1, "boot", True)
        assert (found.damage, found.spare) == ([], [])
        assert set(found.maps) == {5, 7}

    def test_none(self, tmp_path):
        found = recover(tmp_path, writable=True, verify="all")
        assert (found.epoch, found.segments) == (None, [])

    def test_spare_slots(self, tmp_path):
        spare = Segment(4)
        spare.index[:8] = spare.data[SIZE : SIZE + 8] = bytes(8)
        save(tmp_path, segment(), spare)
        found = recover(tmp_path, writable=True, verify="last")
        assert ([s.slot for s in found.segments], found.spare) == ([0], [4])

    def test_which_are_verified(self, tmp_path):
        journal(tmp_path)
        for verify, expected in (("none", 0), ("last", 1), ("all", 3)):
            found = recover(tmp_path, writable=False, verify=verify)
            assert sum(s.verified for s in found.segments) == expected

    def test_progress(self, tmp_path):
        journal(tmp_path)
        told = []
        recover(tmp_path, writable=False, verify="all", progress=lambda *at: told.append(at))
        assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]

    def test_lost_epoch(self, tmp_path):
        (journal(tmp_path) / "epoch.json").unlink()
        found = recover(tmp_path, writable=False, verify="none")
        assert found.epoch == Epoch(EPOCH, 0, "", closed=False)
        assert [d.file for d in found.damage] == ["epoch.json"]

    def test_another_journals_segment(self, tmp_path):
        Epoch(5, 1, "", True).write(journal(tmp_path))
        with pytest.raises(FormatError, match=rf"0000\.v2: .* epoch {EPOCH}, the journal is 5"):
            recover(tmp_path, writable=False, verify="none")

    def test_a_copied_segment(self, tmp_path):
        journal(tmp_path)
        for path in (data_path, index_path):
            shutil.copy(path(tmp_path, 1), path(tmp_path, 8))
        with pytest.raises(FormatError, match=r"0001\.v2 and 0008\.v2 both hold position"):
            recover(tmp_path, writable=False, verify="none")

    def test_unreadable_headers(self, tmp_path):
        made = segment()
        made.index[4:60] = made.data[SIZE + 4 : SIZE + 60] = b"x" * 56
        found = recover(save(tmp_path, made), writable=False, verify="none")
        assert (found.segments, found.spare) == ([], [])
        assert found.damage[0].file == "0000.v2"

    @pytest.mark.parametrize("path", [data_path, index_path])
    def test_read_only_changes_nothing(self, tmp_path, path):
        journal(tmp_path)
        file = path(tmp_path, 1)
        damaged = bytearray(file.read_bytes())
        flip(damaged, (PAGE + 20) * 8)
        file.write_bytes(damaged)
        found = recover(tmp_path, writable=False, verify="all")
        assert found.damage
        assert file.read_bytes() == damaged

    @pytest.mark.parametrize("writable", [True, False])
    @pytest.mark.parametrize("path", [data_path, index_path])
    @pytest.mark.parametrize("last", [True, False])
    def test_lost_files(self, tmp_path, path, writable, last):
        journal(tmp_path)
        slot = 2 if last else 1
        file = path(tmp_path, slot)
        size = file.stat().st_size
        file.unlink()
        found = recover(tmp_path, writable=writable, verify="none")
        assert not found.segments[slot].intact
        assert found.damage
        assert file.exists() == writable
        if path is index_path:
            assert [s.messages for s in found.segments] == [40, 40, 40]
        else:
            assert len(found.segments[slot].holes) == 1
        if writable:
            assert file.stat().st_size == size


@pytest.mark.parametrize("each", [1, 4])
def test_messages_cut_off_at_every_byte_of_the_last_two(tmp_path: Path, each):
    """Appended one by one, or together: all that are whole before the cut are served."""
    made = segment(20, each)
    save(tmp_path, made)
    path = data_path(tmp_path, 0)
    whole = path.read_bytes()
    begin = made.written[-2].position - made.header.start
    for end in range(begin, made.used):
        path.write_bytes(whole[:end])
        found = recover(tmp_path, writable=False, verify="last")
        (first,) = found.segments
        made.data = bytearray(found.maps[0].data)
        cut = whole[:end].ljust(len(whole), b"\0")  # a byte that is 0 is none that was lost
        kept = [one for one in made.written if cut.startswith(one.data, one.position - 1000)]
        assert all(one in kept for one in made.written[:-2])
        assert served(made, first) == kept, end
        assert found.damage, end
        assert first.stop == made.stop, "no position is given twice"


@pytest.mark.parametrize("each", [1, 4])
def test_an_index_cut_off_at_every_byte_of_the_last_two_records(tmp_path: Path, each):
    made = segment(20, each)
    save(tmp_path, made)
    path = index_path(tmp_path, 0)
    whole = path.read_bytes()
    records = len(made.records)
    for end in range(made.offset(records - 2), made.offset(records)):
        path.write_bytes(whole[:end])
        found = recover(tmp_path, writable=False, verify="last")
        (first,) = found.segments
        made.data = bytearray(found.maps[0].data)
        assert served(made, first) == made.written, end
        assert found.damage, end


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("path", [data_path, index_path])
def test_a_file_cut_anywhere(tmp_path: Path, path, last):
    """At each end of a header, a record and a page, and in between."""
    made = segment(60)
    segments = [made] if last else [made, made.next().fill(messages(3))]
    save(tmp_path, *segments)
    whole = path(tmp_path, 0).read_bytes()
    ends = {0, 1, 63, 64, PAGE, SIZE, len(whole) - 1, made.offset(3), made.offset(4) + 47}
    for end in sorted({*ends, *range(0, len(whole), 611)} & set(range(len(whole)))):
        path(tmp_path, 0).write_bytes(whole[:end])
        found = recover(tmp_path, writable=False, verify="none")
        first = found.segments[0]
        made.data, made.index = (
            bytearray(file) for file in (found.maps[0].data, found.maps[0].index)
        )
        lost = check(made, first, made.written)
        assert found.damage
        assert not first.intact
        if path is index_path:
            assert (lost, first.messages) == ([], 60)
        else:
            assert all(one.position - 1000 + len(one.data) > end for one in lost)
