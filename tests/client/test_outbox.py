"""What is kept until it is acknowledged."""

import pytest

from alphapulse_relay.client.errors import UnacknowledgedError
from alphapulse_relay.client.outbox import UNACKNOWLEDGED_MAX, Outbox, check
from alphapulse_relay.protocol_v2.control import Ack
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, build_message
from tests.client.journal import message


def sized(sequence: int, size: int) -> bytes:
    payload = bytes(size - HEADER_SIZE)
    return build_message(payload, source=20, sequence=sequence, timestamp=1, with_checksum=False)


def keep(outbox: Outbox, data: bytes) -> None:
    outbox.keep(check(data), data)


def test_has_room_for_just_so_much():
    outbox = Outbox()
    keep(outbox, sized(1, UNACKNOWLEDGED_MAX - 100))
    assert outbox.fits(bytes(100))
    assert not outbox.fits(bytes(101))
    with pytest.raises(UnacknowledgedError):
        keep(outbox, sized(2, 101))
    keep(outbox, sized(2, 100))
    outbox.acknowledge(Ack(20, 2, 0))
    assert outbox.fits(bytes(UNACKNOWLEDGED_MAX))


def test_a_single_message_always_fits():
    assert Outbox().fits(bytes(UNACKNOWLEDGED_MAX + 1))


def test_one_without_room_may_be_kept_later():
    outbox = Outbox()
    keep(outbox, sized(1, UNACKNOWLEDGED_MAX))
    with pytest.raises(UnacknowledgedError):
        keep(outbox, sized(2, 100))
    outbox.acknowledge(Ack(20, 1, 0))
    keep(outbox, sized(2, 100))
    assert len(outbox) == 1


def test_keeps_each_sources_order():
    outbox = Outbox()
    kept = [message(n, source=source) for source in (20, 21) for n in (1, 5, 9)]
    for data in kept[::3] + kept[1::3] + kept[2::3]:
        keep(outbox, data)
    assert list(outbox) == kept
    outbox.acknowledge(Ack(21, 7, 0))
    assert list(outbox) == [*kept[:3], kept[5]]
