"""A journal as who only looks sees it, also while a relay writes."""

from pathlib import Path

import pytest

from alphapulse_relay.journal.format import FormatError, data_path
from alphapulse_relay.journal.reader import Entry, Journal, Lost
from tests.journal.writer import NEW_SEGMENT_NS, PAGE, TICK_NS, Segment, messages, save


def two(directory: Path) -> tuple[Segment, Segment]:
    first = Segment().fill(messages(20))
    second = first.next().fill(messages(20, 2))
    save(directory, first, second)
    return first, second


def positions(entries) -> list[int]:
    return [entry.position for entry in entries]


class TestEntries:
    def test_all(self, tmp_path):
        first, second = two(tmp_path)
        found = Journal.open(tmp_path)
        entries = list(found.entries())
        written = first.written + second.written
        assert [(e.position, e.message) for e in entries] == written
        assert entries[0] == Entry(1000, NEW_SEGMENT_NS, 5, first.written[0].data)
        assert (found.messages, found.lost, found.damage) == (40, [], [])

    @pytest.mark.parametrize("last", [1, 2, 3, 19, 20, 21, 39, 40, 41, 1000])
    def test_last(self, tmp_path, last):
        first, second = two(tmp_path)
        written = positions(first.written + second.written)
        assert positions(Journal.open(tmp_path).entries(last=last)) == written[-last:]

    def test_from_a_position(self, tmp_path):
        first, second = two(tmp_path)
        written = positions(first.written + second.written)
        found = Journal.open(tmp_path)
        assert positions(found.entries(position=written[0])) == written
        assert positions(found.entries(position=written[7])) == written[7:]
        assert positions(found.entries(position=written[7] + 1)) == written[8:]
        assert positions(found.entries(position=second.header.start)) == written[20:]
        assert positions(found.entries(position=second.stop)) == []

    def test_since(self, tmp_path):
        first, second = two(tmp_path)
        found = Journal.open(tmp_path)
        since = positions(found.entries(since=NEW_SEGMENT_NS + 4 * TICK_NS))
        assert since == positions(first.written[6:] + second.written[6:])

    def test_damage_is_left_out_and_told(self, tmp_path):
        first, _ = two(tmp_path)
        lost = first.written[4]
        first.data[lost.position - 1000 + 33] ^= 1
        first.save(tmp_path)
        found = Journal.open(tmp_path)
        assert lost.position not in positions(found.entries())
        assert found.lost == [Lost(lost.position, lost.position + len(lost.data), "damaged")]

    def test_segments_tell_their_times(self, tmp_path):
        first = Segment().fill(messages(4))
        found = Journal.open(save(tmp_path, first, first.next()))
        times = [part.times() for part in found.parts]
        assert times == [(NEW_SEGMENT_NS, NEW_SEGMENT_NS + 3 * TICK_NS), (0, 0)]


class TestNoJournal:
    def test_empty_directory(self, tmp_path):
        with pytest.raises(FormatError, match="holds no journal"):
            Journal.open(tmp_path)

    def test_no_directory(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            Journal.open(tmp_path / "none")


class TestWhileARelayWrites:
    def overwrite(self, directory: Path, segment: Segment) -> None:
        """Change the file, as through a mapping: not replace it."""
        with data_path(directory, segment.slot).open("r+b") as file:
            file.write(segment.data)

    def test_what_comes_later_is_not_waited_for(self, tmp_path):
        first, second = two(tmp_path)
        found = Journal.open(tmp_path)
        before = len(second.written)
        self.overwrite(tmp_path, second.fill(messages(3)))
        assert positions(found.entries()) == positions(first.written + second.written[:before])

    def test_a_segment_that_is_used_again(self, tmp_path):
        first, second = two(tmp_path)
        found = Journal.open(tmp_path)
        entries = found.entries()
        read = [next(entries) for _ in range(4)]
        stop, written = first.stop, list(first.written)
        self.overwrite(tmp_path, first.reuse(start=second.stop).fill(messages(5, 3)))
        rest = list(entries)
        # what it had of a record by then is given
        read += rest[:2]
        assert [entry[::3] for entry in read] == written[:6]
        assert positions(rest[2:]) == positions(second.written)
        (lost,) = found.lost
        assert lost == Lost(lost.start, stop, "the relay has used the files again")
        assert lost.start == written[6].position

    def test_a_segment_that_is_given_up_before_it_is_read(self, tmp_path):
        first, second = two(tmp_path)
        found = Journal.open(tmp_path)
        size = first.header.size
        first.data[size : size + 8] = bytes(8)
        self.overwrite(tmp_path, first)
        assert positions(found.entries()) == positions(second.written)
        assert [lost.stop for lost in found.lost] == [first.stop]
        assert size % PAGE == 0
