"""Filters and the compressor: shared, and looking at everything once."""

from collections.abc import Callable
from unittest import mock

import pytest

from alphapulse_relay.hub import subscription
from alphapulse_relay.hub.log import ANONYMOUS
from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.hub.subscription import (
    COMPRESSED_SIZE,
    Compressor,
    Filters,
    Subscription,
    make_batch,
    origin_of_name,
)
from alphapulse_relay.protocol_v2.compression import compress, expand, is_compressed
from alphapulse_relay.protocol_v2.control import Subscribe, Wish
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.selection import Selector, select
from tests.hub.control import RULES, control, data
from tests.hub.fakes import Hub, memory_log, message, messages
from tests.support import SAMPLES

MakeHub = Callable[..., Hub]
LARGE = message(COMPRESSED_SIZE)
ZSTD = control(Subscribe(Wish.ZSTD))


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    return make_hub(rules=RULES)


class TestFilters:
    def test_equal_ones_are_one(self) -> None:
        filters = Filters()
        one = filters.filter_for(Subscribe(types=frozenset({21, 22})))
        assert one is filters.filter_for(Subscribe(Wish.ZSTD, types=frozenset({22, 21})))
        assert one is not filters.filter_for(Subscribe(sources=frozenset({21, 22})))

    def test_of_everything_is_none(self) -> None:
        assert Filters().filter_for(Subscribe(Wish.POSITIONS)) is None

    def test_look_once_for_all(self, hub: Hub) -> None:
        publisher = hub.connect()
        consumers = [hub.connect() for _ in range(3)]
        for each in consumers:
            each.send(control(Subscribe(sources=frozenset({20}))))
        with mock.patch.object(subscription, "select", wraps=select) as look:
            publisher.send(message(64, 1, 20) + message(64, 2, 21))
        assert look.call_count == 1
        assert {len(data(each)) for each in consumers} == {1}

    def test_one_run_that_matches_is_not_copied(self) -> None:
        log = memory_log()
        run = b"".join([message(source=21), *messages(3), message(source=21)])
        log.space(len(run))[:] = run
        log.append(len(run), 1, 5)
        batch = make_batch(log, 0, len(run), Selector(sources=frozenset({20})))
        assert batch.data.obj is log.segments[0].data.obj

    def test_find_a_place_among_what_is_left_out(self) -> None:
        log = memory_log()
        run = b"".join(message(100, source=source) for source in (21, 20, 20, 21, 21, 20, 21))
        log.space(len(run))[:] = run
        log.append(len(run), 1, 7)
        batch = make_batch(log, 0, len(run), Selector(sources=frozenset({20})))
        assert len(batch.data) == 300
        assert batch.position_of(1) == (101, 100, 1)
        assert batch.position_of(200) == (300, 100, 1)
        assert batch.position_of(201) == (501, 300, 3)
        with pytest.raises(ValueError, match="not in the batch"):
            batch.position_of(301)

    def test_legacy_writers(self, hub: Hub) -> None:
        sent = (SAMPLES / "legacy.v2").read_bytes()
        publisher, matching, other = hub.connect(), hub.connect(), hub.connect()
        matching.send(control(Subscribe(sources=frozenset({sent[5]}))))
        other.send(control(Subscribe(sources=frozenset({255}))))
        before = len(matching.received)
        publisher.send(sent)
        got = data(matching)
        assert got
        assert all(each[5] == sent[5] for each in got)
        assert data(other) == []
        assert len(matching.received) - before == sum(map(len, got))


def test_who_rides() -> None:
    def rides(asked: Subscribe) -> bool:
        return Subscription(asked, Filters().filter_for(asked)).rides

    assert rides(Subscribe(Wish.HEARTBEATS | Wish.ACKNOWLEDGE | Wish.SKIP_WHEN_BEHIND, name="a"))
    for wish in (Wish.POSITIONS, Wish.ZSTD, Wish.STOP_AT_HEAD):
        assert not rides(Subscribe(wish))
    assert not rides(Subscribe(types=frozenset({1})))


def test_the_origin_of_a_name_is_no_connections() -> None:
    origins = {origin_of_name(str(number)) for number in range(1000)}
    assert len(origins) == 1000
    assert all(ANONYMOUS < origin < 1 << 64 for origin in origins)


class TestCompressed:
    def test_large_ones_for_those_who_asked(self, hub: Hub) -> None:
        publisher, plain, asking = hub.connect(), hub.connect(), hub.connect()
        asking.send(ZSTD)
        small = message(COMPRESSED_SIZE - 1)
        publisher.send(small + LARGE + small)
        assert data(plain) == [small, LARGE, small]
        first, large, last = data(asking)
        assert (first, last) == (small, small)
        assert is_compressed(large)
        assert len(large) < len(LARGE)
        assert expand(large, 1 << 20) == LARGE

    def test_once_for_many(self, hub: Hub) -> None:
        publisher = hub.connect()
        asking = [hub.connect() for _ in range(5)]
        for each in asking:
            each.send(ZSTD)
        with mock.patch.object(subscription, "compress", wraps=compress) as once:
            publisher.send(LARGE)
        assert once.call_count == 1
        assert {expand(data(each)[0], 1 << 20) for each in asking} == {LARGE}

    def test_with_a_filter(self, hub: Hub) -> None:
        publisher, asking = hub.connect(), hub.connect()
        asking.send(control(Subscribe(Wish.ZSTD, sources=frozenset({21}))))
        mine = message(COMPRESSED_SIZE, source=21)
        publisher.send(LARGE + mine + LARGE)
        assert [expand(each, 1 << 20) for each in data(asking)] == [mine]

    def test_a_publishers_comes_plain_to_who_did_not_ask(self, hub: Hub) -> None:
        publisher, plain, asking = hub.connect(), hub.connect(), hub.connect()
        asking.send(ZSTD)
        publisher.send(compress(LARGE) or b"")
        assert data(plain) == [LARGE]
        assert expand(data(asking)[0], 1 << 20) == LARGE

    def test_in_pieces(self, hub: Hub) -> None:
        publisher, asking = hub.connect(), hub.connect()
        asking.send(ZSTD)
        asking.take(0)
        sent = [message(5000, number) for number in range(5)]
        publisher.send(*sent)
        for _ in range(400):
            asking.take(7)
        asking.take()
        assert [expand(each, 1 << 20) for each in data(asking)] == sent

    def test_one_that_leaves_in_the_middle_of_it(self, hub: Hub) -> None:
        publisher, asking = hub.connect(), hub.connect()
        asking.send(ZSTD)
        asking.take(10)
        publisher.send(LARGE)
        assert 0 < len(asking.received) < len(LARGE)
        asking.lose()
        assert hub.counters.ended == {**dict.fromkeys(Ending, 0), Ending.CLOSED: 1}

    def test_what_grows_by_it_stays_plain(self) -> None:
        log = memory_log()
        legacy = next(split((SAMPLES / "legacy.v2").read_bytes()))
        log.space(len(legacy))[:] = legacy
        log.append(len(legacy), 1, 1)
        assert Compressor().compressed(log, 0) == legacy

    def test_keeps_a_bounded_part(self) -> None:
        log = memory_log()
        run = b"".join(messages(20, 5000))
        log.space(len(run))[:] = run
        log.append(len(run), 1, 20)
        compressor = Compressor()
        with mock.patch.object(subscription, "KEPT_COMPRESSED", 300):
            for number in range(20):
                assert compressor.compressed(log, number * 5000)
            assert compressor._size <= 300
            assert sum(map(len, compressor._kept.values())) == compressor._size
