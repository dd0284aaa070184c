"""Messages of one source that are sent again, among those that are new."""

import random
from collections.abc import Callable

import pytest

from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.hub.retransmission import Retransmission
from alphapulse_relay.protocol_v2.control import (
    RecoveryRequest,
    RecoveryResponse,
    Start,
    Subscribe,
)
from alphapulse_relay.protocol_v2.header import Header
from tests.hub.control import RULES, control, data, said
from tests.hub.fakes import Hub, memory_log, message, messages

MakeHub = Callable[..., Hub]


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    return make_hub(rules=RULES)


def responses(words: list[object]) -> list[object]:
    return [each for each in words if isinstance(each, RecoveryResponse)]


def test_what_lies_between_comes_again(hub: Hub) -> None:
    publisher, other, consumer = hub.connect(), hub.connect(), hub.connect()
    sent = messages(10)
    for each in sent:
        publisher.send(each)
        other.send(message(70, Header.unpack(each).sequence, source=21))
    before = len(data(consumer))
    consumer.send(control(RecoveryRequest(20, 7, 3, 7)))
    assert data(consumer)[before:] == sent[4:7]
    assert said(consumer) == [RecoveryResponse(7, 4, 6, 3)]


@pytest.mark.parametrize(("last", "current"), [(9, 100), (5, 6), (5, 5), (6, 5), (2**64 - 1, 0)])
def test_nothing_between(hub: Hub, last: int, current: int) -> None:
    publisher, consumer = hub.connect(), hub.connect()
    publisher.send(*messages(10))
    consumer.send(control(RecoveryRequest(20, 7, last, current)))
    assert len(data(consumer)) == 10
    assert said(consumer) == [RecoveryResponse(7, 0, 0, 0)]


def test_not_its_own(hub: Hub) -> None:
    publisher = hub.connect()
    publisher.send(*messages(10))
    publisher.send(control(RecoveryRequest(20, 7, 0, 100)))
    assert data(publisher) == []
    assert said(publisher) == [RecoveryResponse(7, 0, 0, 0)]


def test_what_is_damaged_is_stepped_over() -> None:
    log, sent = memory_log(), messages(6, 100, first=1)
    run = b"".join(sent)
    log.space(len(run))[:] = run
    log.append(len(run), 1, 6)
    log.segments[0].holes = [(100, 200), (300, 400)]
    again = Retransmission(log, frozenset(), RecoveryRequest(20, 1, 0, 100))
    got = b""
    while not again.over:
        assert again.wants() is None
        got += again.step()
    assert got == sent[0] + sent[2] + sent[4] + sent[5]
    assert again.response == RecoveryResponse(1, 1, 6, 4)


@pytest.mark.parametrize("seed", range(30))
def test_tears_nothing(hub: Hub, seed: int) -> None:
    chance = random.Random(seed)
    publisher, consumer = hub.connect(), hub.connect()
    asked = Subscribe() if seed % 2 else Subscribe(types=frozenset({21}))
    consumer.send(control(asked))
    log: list[bytes] = []
    expected: list[bytes] = []
    for _ in range(60):
        what = chance.random()
        if what < 0.4:
            sent = [message(chance.randint(60, 400), len(log) + n + 1) for n in range(5)]
            publisher.send(*sent)
            log += sent
        elif what < 0.5:
            last, current = chance.randint(0, len(log)), chance.randint(0, len(log) + 2)
            consumer.send(control(RecoveryRequest(20, 1, last, current)))
            expected += log[last : max(current - 1, 0)]
        else:
            consumer.take(chance.choice([0, 10, 300, 1000]))
    consumer.take()
    hub.clock.advance(0)
    assert sorted(data(consumer)) == sorted(log + expected)
    assert len(responses(list(said(consumer)))) <= 60


def test_who_asks_and_never_reads_is_closed(hub: Hub) -> None:
    consumer = hub.connect(room=0)
    consumer.send(control(Subscribe(start=Start.LIVE)))
    for _ in range(1001):
        consumer.send(control(RecoveryRequest(20, 1, 0, 1)))
    assert consumer.closed or consumer.transport.disconnected
    assert hub.counters.ended[Ending.UNREAD] == 1


def test_is_forgotten_with_the_connection(hub: Hub) -> None:
    publisher, consumer = hub.connect(), hub.connect(room=0)
    publisher.send(*messages(100))
    consumer.send(control(RecoveryRequest(20, 1, 0, 100)))
    consumer.lose()
    assert list(hub.factory.peers) == [publisher.protocol]
