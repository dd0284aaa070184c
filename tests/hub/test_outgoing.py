"""What waits to be said: newer words take the place of older ones that say less."""

from alphapulse_relay.hub.outgoing import Outgoing
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ControlMessage,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    SequenceSync,
    SyncState,
)
from tests.hub.control import read


def sync(position: int) -> SequenceSync:
    return SequenceSync(1, position, SyncState.LIVE)


def gap(start: int, stop: int, reason: GapReason = GapReason.RETENTION) -> Gap:
    return Gap(1, start, stop, reason)


def after(*added: ControlMessage) -> list[bytes | ControlMessage]:
    outgoing = Outgoing()
    for each in added:
        outgoing.add(each)
    return read(outgoing.take())


def test_is_said_in_order_and_once() -> None:
    outgoing = Outgoing()
    assert not outgoing
    outgoing.add(ErrorMessage(3, "a"))
    outgoing.add(ErrorMessage(3, "a"))
    assert len(outgoing) == 2
    assert read(outgoing.take()) == [ErrorMessage(3, "a"), ErrorMessage(3, "a")]
    assert (len(outgoing), outgoing.take()) == (0, b"")


def test_of_positions_and_heartbeats_the_last_counts() -> None:
    beats = Heartbeat(1, 0), Heartbeat(2, 0)
    assert after(sync(1), beats[0], sync(2), beats[1]) == [sync(2), beats[1]]


def test_answers_stay() -> None:
    outgoing = Outgoing()
    outgoing.answer(sync(1))
    outgoing.add(sync(2))
    outgoing.answer(sync(3))
    outgoing.add(sync(4))
    assert read(outgoing.take()) == [sync(1), sync(3), sync(4)]


def test_one_ack_for_each_source() -> None:
    acks = Ack(20, 1, 10), Ack(21, 1, 20), Ack(20, 2, 30)
    assert after(*acks) == [acks[1], acks[2]]


def test_gaps_that_go_on_are_one() -> None:
    assert after(gap(0, 10), gap(10, 20), gap(20, 25)) == [gap(0, 25)]


def test_other_gaps_are_not() -> None:
    damage = gap(10, 20, GapReason.DAMAGE)
    assert after(gap(0, 10), damage) == [gap(0, 10), damage]
    assert after(gap(0, 10), gap(11, 20)) == [gap(0, 10), gap(11, 20)]
    assert after(gap(0, 10), sync(10), gap(10, 20)) == [gap(0, 10), sync(10), gap(10, 20)]
