"""Which files hold what."""

from alphapulse_relay.journal.format import MEMORY_FLAG, MEMORY_FLAG_OFFSET, MEMORY_FOLLOWS
from tests.cli.journal.looking import journal
from tests.journal.writer import EPOCH, Segment, message, save


class TestList:
    def test_what_is_told(self, tmp_path, written):
        shown = journal("list", directory=tmp_path)
        assert (shown.exit_code, shown.stderr) == (0, "")
        heading, first, second, totals = shown.stdout.splitlines()
        assert " ".join(heading.split()) == "segment from to messages bytes first last state"
        size = len(written[0].data)
        middle, stop = str(1000 + 12 * size), str(1000 + 20 * size)
        assert first.split()[:5] == ["0000.v2", "1000", middle, "12", str(12 * size)]
        assert second.split()[:4] == ["0001.v2", middle, stop, "8"]
        assert first.split()[5:] == ["1970-01-01T00:16:40.000Z"] * 2 + ["full"]
        assert second.split()[-1] == "current"
        assert totals == f"2 segments, 20 messages, {20 * size:,} bytes, epoch {EPOCH}"

    def test_positions_in_no_file(self, tmp_path):
        first = Segment().fill([message(1)])
        MEMORY_FLAG.pack_into(first.index, MEMORY_FLAG_OFFSET, MEMORY_FOLLOWS)
        later = Segment(1, number=1, start=first.stop + 500).fill([message(2)])
        shown = journal("list", directory=save(tmp_path, first, later))
        gap = shown.stdout.splitlines()[2]
        assert gap.split() == ["-", str(first.stop), str(first.stop + 500), "in", "no", "file"]
