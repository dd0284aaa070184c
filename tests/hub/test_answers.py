"""The cursor of a peer that gets no messages."""

import pytest

from alphapulse_relay.hub.answers import AnswerCursor
from alphapulse_relay.protocol_v2.control import Heartbeat, parse_control
from tests.hub.fakes import memory_log, message


@pytest.fixture
def cursor() -> AnswerCursor:
    log = memory_log()
    cursor = AnswerCursor(log, frozenset({1}))
    sent = message()
    log.space(len(sent))[:] = sent
    log.append(len(sent), 2, 1)
    cursor.published(len(sent), 1)
    return cursor


def test_it_has_nothing_to_give(cursor: AnswerCursor) -> None:
    assert cursor.at_head
    assert bytes(cursor.next()) == b""
    assert (cursor.behind, cursor.missing, cursor.bytes_out, cursor.messages_out) == (0, 0, 0, 0)
    told = (cursor.finished, cursor.lost, cursor.replaying, cursor.mid_message)
    assert not any(told)


def test_it_stands_nowhere(cursor: AnswerCursor) -> None:
    assert cursor.away
    cursor.leave()
    cursor.rejoin()
    assert cursor.away


def test_answers_in_pieces(cursor: AnswerCursor) -> None:
    cursor.outgoing.add(Heartbeat(5, 0))
    assert not cursor.at_head
    assert cursor.unsaid == 1
    said = bytes(cursor.next())
    assert parse_control(said) == Heartbeat(5, 0)
    cursor.advance(10)
    assert (cursor.mid_message, cursor.at_head) == (True, False)
    assert bytes(cursor.next()) == said[10:]
    cursor.advance(len(said) - 10)
    assert cursor.at_head
    assert cursor.bytes_out == 0
