"""Storage in memory: a bounded window, of which nothing outlives the process."""

import pytest

from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.hub.storage import SEGMENTS, MemoryStorage
from tests.hub.fakes import message, messages

SEGMENT = 4096


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage(SEGMENTS * SEGMENT)


def begin(storage: MemoryStorage, count: int) -> list[Segment]:
    return [storage.begin(number * SEGMENT, number) for number in range(count)]


def test_nothing_is_kept_from_before(storage: MemoryStorage) -> None:
    assert storage.open(Log(storage)) == ()
    assert (storage.head, storage.run_number) == (0, 0)


def test_no_two_are_the_same_log() -> None:
    epochs = {MemoryStorage(SEGMENTS * SEGMENT).epoch for _ in range(100)}
    assert len(epochs) == 100
    assert 0 not in epochs  # which stands for any


def test_segments_are_parts_of_the_window(storage: MemoryStorage) -> None:
    segments = begin(storage, 3)
    assert [(each.start, each.ordinal, each.size) for each in segments] == [
        (number * SEGMENT, number, SEGMENT) for number in range(3)
    ]
    assert len({each.number for each in segments}) == 3
    assert {each.epoch for each in segments} == {storage.epoch}


def test_there_is_a_record_for_each_message_that_fits(storage: MemoryStorage) -> None:
    segment = storage.begin(0, 0)
    for data in messages(SEGMENT // 32, 32):
        assert segment.has_room(32)
        segment.data[segment.used : segment.used + 32] = data
        segment.append(32, 1, segment.messages_at_end(), 1)
    assert segment.used == SEGMENT


@pytest.mark.parametrize("count", [1, SEGMENTS - 1])
def test_nothing_is_given_up_while_there_is_room(storage: MemoryStorage, count: int) -> None:
    assert not storage.expired(begin(storage, count))


def test_the_oldest_is_given_up_for_the_next(storage: MemoryStorage) -> None:
    segments = begin(storage, SEGMENTS + 1)
    assert storage.expired(segments) == segments[:2]
    assert storage.expired(segments[1:]) == segments[1:2]


def test_memory_is_used_again(storage: MemoryStorage) -> None:
    old = storage.begin(0, 0)
    storage.reuse(old)
    new = storage.begin(SEGMENT, 5)
    assert new.data is old.data
    assert new.index is old.index
    assert (new.used, new.records) == (0, 0)


def test_all_is_ready_readable_and_acknowledged(storage: MemoryStorage) -> None:
    segment = storage.begin(0, 0)
    storage.appended(1000)
    assert storage.ready
    assert storage.durable
    assert storage.acknowledged(1000) == 1000
    assert storage.readable(segment, 0, SEGMENT)
    with pytest.raises(NotImplementedError):
        storage.fetch(segment, 0, 1, lambda: None)


def test_a_log_in_it_is_never_short(storage: MemoryStorage) -> None:
    log = Log(storage)
    log.open()
    log.space(SEGMENT)[:] = message(SEGMENT)
    log.append(SEGMENT, 1, 1)
    assert not log.short
