"""The window wraps many times with consumers at random places in it, under random partial sends."""

import random
from collections.abc import Callable

import pytest

from alphapulse_relay.hub.peer import Ending, State
from alphapulse_relay.protocol_v2.framing import MessageReader
from tests.hub.fakes import WINDOW, Client, Hub, message

ROUNDS = 600
SIZES = (32, 40, 216, 2000, 20_000, 70_000, 120_000)


@pytest.mark.parametrize("seed", range(4))
def test_consumers_at_random_places_of_a_window_that_wraps(
    make_hub: Callable[..., Hub], seed: int
) -> None:
    chance = random.Random(seed)
    hub = make_hub(hold=0.0)  # nobody is held: whoever reads too little is overtaken
    # One never reads, one always, and one begins to in the middle.
    publishers = [hub.connect(room=10_000), hub.connect(), hub.connect(room=100_000)]
    # The last two take everything; the others as much, on the average, as there is, or less.
    appetites = [chance.uniform(0.5, 2) for _ in range(8)] + [1e9, 1e9]
    consumers = [hub.connect(room=0) for _ in appetites]
    sent: list[tuple[Client, bytes]] = []
    for number in range(ROUNDS):
        publisher = chance.choice(publishers)
        burst = [message(chance.choice(SIZES), number * 8 + n) for n in range(chance.randint(1, 4))]
        sent += [(publisher, each) for each in burst]
        publisher.send(b"".join(burst))
        for consumer, appetite in zip(consumers, appetites, strict=True):
            if not consumer.closed and consumer.protocol.state is not State.LIVE:
                consumer.take(chance.uniform(0, 2) * appetite * 60_000)
        if number == ROUNDS // 2:
            assert publishers[2].protocol.state is State.MUTED
            publishers[2].take()
        hub.clock.advance(0.001)
        hub.finish_aborted()

    everything = b"".join(each for _, each in sent)
    assert len(everything) > 20 * WINDOW
    overtaken = [consumer for consumer in consumers if consumer.closed]
    assert overtaken
    assert hub.counters.ended[Ending.OVERTAKEN] == len(overtaken)
    for consumer in consumers:
        if consumer not in overtaken:
            consumer.take()
            assert consumer.received == everything
        else:
            assert everything.startswith(consumer.received)
    assert [publisher.protocol.state for publisher in publishers] == ["muted", "live", "live"]
    for publisher in publishers:
        check_publisher(publisher, sent)


def check_publisher(publisher: Client, sent: list[tuple[Client, bytes]]) -> None:
    """What a publisher got are whole messages of the others in order, none twice, none its own."""
    publisher.take()
    others = iter([each for sender, each in sent if sender is not publisher])
    for got in MessageReader().feed(publisher.received):
        assert any(got == each for each in others), "out of order, torn, repeated or its own"
    assert not publisher.closed
