"""The cursor for transports with frames: whole messages only, and which they are."""

import random

import pytest

from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.hub.framed import FramedCursor, Offer
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.subscription import Compressor, Filters, Subscription
from alphapulse_relay.protocol_v2.control import Subscribe
from alphapulse_relay.protocol_v2.framing import split
from tests.hub.fakes import memory_log, message
from tests.hub.test_history import publish

TWENTY = Subscribe(sources=frozenset({20}))


class Reader:
    """A cursor, and what is delivered by it."""

    def __init__(self, log: Log, asked: Subscribe) -> None:
        subscription = Subscription(asked, Filters().filter_for(asked))
        self.cursor = FramedCursor(
            log,
            frozenset({99}),
            subscription,
            Compressor(),
            Cursor(log, frozenset({99})),
            log.head,
            lambda reason, messages: None,
        )

    def take(self) -> list[tuple[Offer | None, bytes]]:
        taken = []
        while data := bytes(self.cursor.next()):
            taken.append((self.cursor.offer, data))
            self.cursor.advance(len(data))
            if self.cursor.at_head:
                break
        return taken


@pytest.mark.parametrize("asked", [Subscribe(), TWENTY])
@pytest.mark.parametrize("seed", range(5))
def test_equal_offers_are_equal_whole_messages(asked: Subscribe, seed: int) -> None:
    chance, log = random.Random(seed), memory_log(8 << 20)
    readers = [Reader(log, asked) for _ in range(2)]
    expected = b""
    for number in range(200):
        source = chance.choice([20, 21])
        run = [message(chance.randint(44, 5000), number, source) for _ in range(3)]
        publish(log, *run)
        if asked is not TWENTY or source == 20:
            expected += b"".join(run)
    taken = [reader.take() for reader in readers]
    for one in taken:
        assert b"".join(data for _, data in one) == expected
        for offer, data in one:
            assert offer is not None
            assert offer.size == len(data)
            assert b"".join(split(data)) == data
    sizes = [[(offer.position, offer.size) for offer, _ in one if offer] for one in taken]
    assert sizes[0] == sizes[1]


def test_what_is_said_is_offered_to_nobody_else() -> None:
    reader = Reader(memory_log(), Subscribe())
    reader.cursor.outgoing.answer(reader.cursor.sync)
    ((offer, data),) = reader.take()
    assert offer is None
    assert data


class TestNewest:
    @pytest.mark.parametrize("asked", [Subscribe(), TWENTY])
    @pytest.mark.parametrize("seed", range(5))
    def test_only_those_are_delivered(self, asked: Subscribe, seed: int) -> None:
        chance, log = random.Random(seed), memory_log()
        reader = Reader(log, asked)
        total = 0
        for _ in range(30):
            fresh = []
            for number in range(chance.choice([0, 1, 10, 50])):
                source = chance.choice([20, 21])
                publish(log, each := message(chance.randint(44, 300), number, source))
                if asked is not TWENTY or source == 20:
                    fresh.append(each)
            reader.cursor.keep_newest(7)
            got = b"".join(data for _, data in reader.take())
            assert got == b"".join(fresh[-7:])
            total += len(fresh[-7:])
            assert reader.cursor.messages_out == total

    def test_amid_what_was_begun(self) -> None:
        log = memory_log()
        reader = Reader(log, Subscribe())
        sent = [message(number=number) for number in range(10)]
        publish(log, *sent)
        assert reader.cursor.next()
        reader.cursor.advance(len(sent[0]))
        reader.cursor.keep_newest(2)
        assert b"".join(data for _, data in reader.take()) == b"".join(sent[-2:])
        assert reader.cursor.messages_out == 3
