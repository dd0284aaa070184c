"""What relays and journals give for a replay."""

import pytest

from alphapulse_relay.cli.filters import Filter
from alphapulse_relay.cli.replay.sources import Asked, JournalSource, Reached, RelaySource
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.journal.reader import Lost
from alphapulse_relay.protocol_v2.control import (
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    SequenceSync,
    SyncState,
)
from tests.cli.journal.looking import damage
from tests.client.journal import EPOCH, message, said
from tests.client.scripted import Connection, ScriptedRelay
from tests.journal.writer import EPOCH as JOURNAL_EPOCH
from tests.journal.writer import SIZE, Message, Segment, save
from tests.journal.writer import message as written_message

HOLE = 2 * SIZE
ALL = Filter(frozenset(), frozenset())


def sync(position: int, state: SyncState = SyncState.REPLAYING) -> bytes:
    return said(SequenceSync(EPOCH, position, state))


def answers(*data: bytes):
    def script(connection: Connection) -> None:
        connection.subscribe()
        connection.send(b"".join(data))

    return script


HEAD = answers(sync(500, SyncState.LIVE))


def wait(_descriptor: int) -> None:
    """Leave the waiting to the socket."""


class TestRelay:
    def items(self, path, *script: bytes, follow: bool = False) -> list[object]:
        found: list[object] = []
        with ScriptedRelay(path, HEAD, answers(*script)):
            source = RelaySource(str(path), Asked(ALL), follow=follow)
            assert (source.epoch, source.head) == (EPOCH, 500)
            try:
                found += source.items(wait)
            except Failure as failure:
                found.append(failure.message)
        return found

    def test_to_the_head(self, short_path):
        live = sync(500, SyncState.LIVE)
        found = self.items(short_path / "s", sync(0), message(1), sync(42), message(2), live)
        assert found == [Reached(0), message(1), Reached(42), message(2), Reached(500, live=True)]

    def test_gap(self, short_path):
        gap = said(Gap(EPOCH, 3, 9, GapReason.DAMAGE))
        found = self.items(short_path / "s", sync(0), gap, sync(9, SyncState.LIVE))
        assert found == [Reached(0), Lost(3, 9, "damaged"), Reached(9, live=True)]

    @pytest.mark.parametrize("cut", [1, 40])
    def test_relay_goes_away_in_the_middle(self, short_path, cut):
        found = self.items(short_path / "s", sync(0), message(1), message(2)[:cut])
        assert found[:2] == [Reached(0), message(1)]
        assert str(found[2]).startswith("the relay closed the connection")

    def test_relay_goes_away_live(self, short_path):
        found = self.items(short_path / "s", sync(500, SyncState.LIVE), follow=True)
        assert str(found[-1]).startswith("the relay closed the connection")

    def test_error(self, short_path):
        error = said(ErrorMessage(ErrorCode.NOT_KEPT, "beyond the head"))
        found = self.items(short_path / "s", error)
        assert found == [f"{short_path}/s: the relay says: beyond the head (error 5)"]

    def test_not_a_relay(self, short_path):
        found = self.items(short_path / "s", b"HTTP/1.1 400 Bad Request, and some more of it\r\n")
        assert "what comes is not from a relay" in str(found[0])

    def test_no_answer(self, short_path):
        path = str(short_path / "s")
        with ScriptedRelay(short_path / "s", answers()), pytest.raises(Failure) as caught:
            RelaySource(path, Asked(ALL), follow=False)
        assert caught.value.message == f"{path}: the relay closed the connection without an answer"


class TestJournal:
    @pytest.fixture
    def written(self, tmp_path) -> list[Message]:
        """Two segments; a third between them, was in memory only."""
        first = Segment().fill([written_message(n, tlv_type=21 + n % 2) for n in range(6)])
        second = Segment(1, number=2, start=first.stop + HOLE, ordinal=first.ordinal)
        second.fill([written_message(n, tlv_type=21 + n % 2) for n in range(6, 12)])
        save(tmp_path, first, second)
        return first.written + second.written

    def items(self, path, **asked: object) -> list[object]:
        source = JournalSource(path, Asked(**({"wanted": ALL} | asked)))
        assert source.epoch == JOURNAL_EPOCH
        found = list(source.items(wait))
        assert found[-1] == Reached(source.head)
        return found

    def test_all(self, tmp_path, written):
        found = self.items(tmp_path)
        edge = written[5].position + len(written[5].data)
        assert [each for each in found if isinstance(each, bytes)] == [w.data for w in written]
        assert [each for each in found if isinstance(each, Lost)] == [
            Lost(edge, edge + HOLE, "no longer kept")
        ]
        assert found[0] == Reached(written[0].position)

    def test_last_that_match(self, tmp_path, written):
        wanted = Filter(frozenset({22}), frozenset())
        found = self.items(tmp_path, wanted=wanted, last=2)
        assert [each for each in found if not isinstance(each, Reached)] == [
            written[9].data,
            written[11].data,
        ]
        assert found[0] == Reached(written[9].position)

    def test_none_match(self, tmp_path, written):
        wanted = Filter(frozenset({30}), frozenset())
        assert len(self.items(tmp_path, wanted=wanted, last=2)) == 1

    def test_position_before_what_is_kept(self, tmp_path, written):
        assert self.items(tmp_path, position=3)[0] == Lost(3, 1000, "no longer kept")

    def test_position_between_segments(self, tmp_path, written):
        start = written[6].position
        found = self.items(tmp_path, position=start - 10)
        assert found[0] == Lost(start - 10, start, "no longer kept")

    def test_position_beyond(self, tmp_path, written):
        with pytest.raises(Failure, match="position 99999 is beyond the journal's end, "):
            JournalSource(tmp_path, Asked(ALL, position=99999))

    def test_damage(self, tmp_path, written):
        damage(tmp_path, written[2])
        found = self.items(tmp_path)
        stop = written[2].position + len(written[2].data)
        assert Lost(written[2].position, stop, "damaged") in found
        assert written[2].data not in found
