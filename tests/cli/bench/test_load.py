"""What a benchmark publishes, and when it is due."""

import pytest

from alphapulse_relay.cli.bench.load import (
    BLOCK_SIZE,
    CYCLE_BLOCKS,
    LEAST_SIZE,
    MOST_SIZE,
    TEXT,
    Load,
    due,
    due_by,
    message,
)
from alphapulse_relay.protocol_v2.framing import Level, MessageReader, Rules, split
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import parse_tlvs

SIZES = [LEAST_SIZE, 61, 216, *range(287, 296), 1000, MOST_SIZE - 1, MOST_SIZE]


def load(**options: object) -> Load:
    defaults = {"path": "", "relayed": True, "consumers": 1, "size": 216, "seconds": 1.0}
    return Load(**{**defaults, "rate": None, "timestamp": 1, **options})


@pytest.mark.parametrize("size", SIZES)
def test_message_is_as_large_as_asked_for_and_accepted_by_strict_rules(size):
    made = message(load(size=size).payload(), 7, 8)
    assert len(made) == size
    assert list(MessageReader(Rules(Level.STRICT)).feed(made)) == [made]
    header = Header.unpack(made)
    assert (header.domain, header.source, header.sequence, header.timestamp) == (2, 255, 7, 8)


@pytest.mark.parametrize("size", SIZES)
def test_message_is_known_as_what_it_is(size):
    tlvs = parse_tlvs(message(load(size=size).payload(), 1, 1))
    assert {tlv.type for tlv in tlvs} == {39}
    assert tlvs[0].value.startswith(TEXT)
    assert SignalTable.builtin().decode(tlvs[0]).name == "type 39"


def test_parts_are_told_apart():
    assert load().payload() != load().payload()


@pytest.mark.parametrize("size", [LEAST_SIZE, 216, 33_000, MOST_SIZE])
def test_blocks_are_whole_messages_in_sequence(size):
    full = load(size=size)
    blocks = full.blocks()
    assert blocks == full.blocks()
    assert len(blocks) == CYCLE_BLOCKS
    assert {len(block) for block in blocks} == {max(BLOCK_SIZE // size, 1) * size}
    sequences = [Header.unpack(each).sequence for each in split(b"".join(blocks))]
    assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.parametrize("rate", [1, 3, 7, 1000, 99_999])
def test_a_message_is_due_by_when_it_is_due(rate):
    for sequence in (1, 2, 3, 1000, 12_345):
        moment = due(sequence, rate)
        assert due_by(moment, rate) == sequence
        if moment:
            assert due_by(moment - 1, rate) == sequence - 1


def test_warm_up_comes_before_the_seconds():
    steady = load(seconds=2.0, rate=100)
    assert (steady.warm_up, steady.duration) == (400_000_000, 2_400_000_000)
    assert due_by(steady.duration - 1, 100) == 240
