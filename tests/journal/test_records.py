"""The records of an index, one by one and many at once."""

import pytest

from alphapulse_relay.journal import records
from alphapulse_relay.journal.format import PAGE, RECORD_SIZE, Header, Record
from alphapulse_relay.journal.records import BLOCK, Index
from tests.journal.writer import EPOCH

LIMIT = 1 << 40
COUNT = 2 * BLOCK + 10


def record(number: int, length: int = 100) -> Record:
    return Record(1000 + 100 * number, number, 5, number, length, 1, 7)


@pytest.fixture(params=["little", "big"])
def index(request, monkeypatch) -> Index:
    """An index of 10 more than two blocks; read in both ways that there are."""
    if request.param == "big":
        monkeypatch.setattr(records.sys, "byteorder", "big")
    content = bytearray(PAGE + (COUNT + 5) * RECORD_SIZE)
    made = Index(memoryview(content), Header(EPOCH, 0, 1000, 0, LIMIT), LIMIT)
    for number in range(COUNT):
        made.write(number, record(number))
    return made


def test_to_the_end(index):
    assert index.capacity == COUNT + 5
    assert index.follow(0, 1000) == (COUNT, record(COUNT).position)
    assert index.follow(7, record(7).position) == (COUNT, record(COUNT).position)


@pytest.mark.parametrize("fault", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, COUNT - 1])
def test_to_a_record_of_another_position(index, fault):
    index.write(fault, record(fault)._replace(position=999))
    assert index.follow(0, 1000) == (fault, record(fault).position)


@pytest.mark.parametrize("fault", [0, BLOCK - 1, BLOCK, COUNT - 1])
def test_to_a_damaged_record(index, fault):
    damaged = bytearray(record(fault).pack(EPOCH))
    damaged[9] ^= 1
    index._slice(fault, 1)[:] = damaged
    assert index.follow(0, 1000) == (fault, record(fault).position)
    assert index.mended(fault, record(fault).position) == record(fault)
    assert index.mended(fault, 5) is None
    later = (fault + 1, record(fault + 1)) if fault + 1 < COUNT else None
    assert index.later(fault, record(fault).position) == later


def test_record_of_another_journal(index):
    index._slice(3, 1)[:] = record(3).pack(EPOCH + 1)
    assert index.follow(0, 1000) == (3, record(3).position)


def test_record_behind_the_limit(index):
    index._limit = record(BLOCK).position + 50
    assert index.follow(0, 1000) == (BLOCK, record(BLOCK).position)


def test_spans_and_origins(index):
    index.write(3, record(3)._replace(origin=0))
    index.write(BLOCK, record(BLOCK)._replace(origin=0))
    assert list(index.unknown_origins(COUNT)) == [3, BLOCK]
    assert list(index.unknown_origins(BLOCK)) == [3]
    assert list(index.spans(3, 5)) == [(1300, 100, 7), (1400, 100, 7)]
