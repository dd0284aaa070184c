"""Runs by type: whatever is pulled of a run, it is there once and in its order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.bridge.split import UNTYPED, OrderError, Part, merge, parts_of, types_of
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.selection import Selector, select
from alphapulse_relay.protocol_v2.tlv import build_tlv


def message(*types: int, sequence: int = 1, tail: bytes = b"") -> bytes:
    payload = b"".join(build_tlv(each, b"ab") for each in types) + tail
    return build_message(payload, source=20, sequence=sequence, timestamp=1)


runs = st.lists(
    st.tuples(st.lists(st.integers(20, 24), max_size=3), st.sampled_from([b"", b"\x15\x09a"]))
).map(
    lambda content: b"".join(
        message(*types, sequence=number, tail=tail) for number, (types, tail) in enumerate(content)
    )
)


@given(runs, st.sets(st.integers(20, 24)))
def test_what_is_pulled_of_a_run_is_what_the_filter_would_select(run, wanted):
    pulled = merge(part for part in parts_of(run) if part.type in wanted)
    if wanted:
        found = select(run, Selector(types=frozenset(wanted)))
        assert pulled == b"".join(run[start:stop] for start, stop in found.ranges)


@given(runs)
def test_all_parts_together_are_the_run(run):
    parts = parts_of(run)
    assert merge(parts) == run
    assert merge(reversed(parts)) == run
    assert [part.type for part in parts] == types_of(run) == sorted({part.type for part in parts})


def test_messages_without_a_type_have_a_part_of_their_own():
    run = message(sequence=1) + message(21) + message(sequence=2) + message(sequence=3)
    untyped = parts_of(run)[-1]
    assert untyped.type == UNTYPED
    assert [m[8] for m in split(merge([untyped]))] == [1, 2, 3]
    assert untyped.order == 2


def test_a_message_of_many_types_is_in_each_part_and_comes_once():
    run = message(20, 21) + message(21, 22)
    parts = parts_of(run)
    assert [part.type for part in parts] == [20, 21, 22]
    assert merge(parts[:2]) == run
    assert merge(parts[2:]) == message(21, 22)


@pytest.mark.parametrize(
    ("payload", "order"),
    [
        (message(21), 1),
        (b"", 1),
        (message(21) + b"\0\0\0\0\2\0\0\0", 1),
        (message(21) * 2 + b"\0\0\0\0\1\0\0\0", 1),
        (message(21)[:-1] + b"\0\0\0\0\1\0\0\0", 1),
        (b"\0\0\0\0\xff\xff\xff\xff", 1),
    ],
)
def test_an_order_that_does_not_fit_is_an_error(payload, order):
    with pytest.raises(OrderError):
        merge([Part(21, payload, order)])
