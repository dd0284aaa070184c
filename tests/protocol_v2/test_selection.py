"""Which messages match: the compiled answer and the pure one are the same, and right."""

from itertools import accumulate, groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2 import selection
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.selection import (
    Selection,
    Selector,
    count,
    last_sequences,
    select,
    walk,
)
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.protocol_v2 import streams

compiled: Any = selection._scan


@pytest.fixture(params=["pure", "compiled"])
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test on both; properties run on what is built."""
    if request.param == "pure":
        monkeypatch.setattr(selection, "_scan", None)
    elif compiled is None:
        pytest.skip("pure Python is asked for, or built")


def signal(*types: int, source: int = 20, sequence: int = 1, tail: bytes = b"") -> bytes:
    payload = b"".join(build_tlv(number, b"ab") for number in types) + tail
    return build_message(payload, source=source, sequence=sequence, timestamp=2)


def legacy(*types: int, source: int = 20, sequence: int = 1) -> bytes:
    payload = b"".join(number.to_bytes(2, "little") + b"\x02\x00ab" for number in types)
    return Header(2, source, 0, 0, sequence, 2, len(payload), 0).pack() + payload


def found(run: bytes, selector: Selector) -> list[bytes]:
    """Check that what is told of a run fits together, and return the messages that match."""
    told = select(run, selector)
    stops = [0] + [stop for _, stop in told.ranges]
    between = [
        len(list(split(run[stop:start])))
        for stop, (start, _) in zip(stops, told.ranges, strict=False)
    ]
    assert told.skipped == between
    assert all(told.skipped[1:]), "ranges that touch are one"
    matching = [message for start, stop in told.ranges for message in split(run[start:stop])]
    assert told.matched == len(matching) == count(run, selector)
    assert told.total == len(list(split(run)))
    return matching


EVERYTHING = Selector()


@pytest.mark.usefixtures("build")
class TestSelect:
    def test_literal(self):
        one, two = signal(21), signal(22)
        size = len(one)
        told = select(two + one + one + two + two + one + two, Selector(frozenset({21})))
        ranges = [(size, 3 * size), (5 * size, 6 * size)]
        assert told == Selection(ranges, [1, 2], matched=3, total=7)

    def test_nothing(self):
        assert select(b"", EVERYTHING) == Selection([], [], 0, 0)

    def test_everything_is_one_range(self):
        run = (signal(21) + legacy(22) + signal()) * 100
        assert select(run, EVERYTHING) == Selection([(0, len(run))], [0], 300, 300)

    def test_nothing_that_matches(self):
        assert select(signal(21) * 5, Selector(frozenset({22}))) == Selection([], [], 0, 5)

    @pytest.mark.parametrize("ranges", [255, 256, 257, 511, 512, 513, 1000])
    @pytest.mark.parametrize("behind", [0, 1])
    def test_many_ranges(self, ranges, behind):
        one, two = signal(21), signal(22, 22)
        told = select((two + one) * ranges + two * behind, Selector(frozenset({21})))
        each = len(one) + len(two)
        expected = [(number * each + len(two), (number + 1) * each) for number in range(ranges)]
        assert told.ranges == expected
        assert told.skipped == [1] * ranges
        assert (told.matched, told.total) == (ranges, 2 * ranges + behind)

    def test_any_buffer(self):
        run = signal(21)
        for kind in (bytes, bytearray, memoryview):
            assert select(kind(run), EVERYTHING).matched == 1
        assert select(memoryview(run + run)[len(run) :], EVERYTHING).ranges == [(0, len(run))]


@pytest.mark.usefixtures("build")
class TestTypes:
    def test_any_of_its_tlvs(self):
        run = [signal(21), signal(22, 21), signal(22), signal(22, 23, 21), signal()]
        assert found(b"".join(run), Selector(frozenset({21}))) == [run[0], run[1], run[3]]
        assert found(b"".join(run), Selector(frozenset({21, 22}))) == run[:4]

    def test_legacy_and_extended_ones(self):
        extended = signal(tail=build_tlv(24, bytes(300)))
        run = [legacy(21), legacy(22, 255), extended, signal(255 - 1)]
        for number, message in zip([21, 255, 24, 254], run, strict=True):
            assert found(b"".join(run), Selector(frozenset({number}))) == [message]

    @pytest.mark.parametrize("tail", [b"\x17", b"\x17\x09ab", b"\xff\x01\x17\x00\x00", b"\xff\x00"])
    def test_those_before_a_fault(self, tail):
        run = signal(21, tail=tail)
        assert found(run, Selector(frozenset({21}))) == [run]
        assert found(run, Selector(frozenset({23}))) == []

    def test_a_legacy_type_that_is_none(self):
        payload = b"\x15\x00\x00\x00" + b"\x16\x01\x00\x00"
        run = Header(2, 20, 0, 0, 1, 2, len(payload), 0).pack() + payload
        assert found(run, Selector(frozenset({21}))) == [run]
        assert found(run, Selector(frozenset({22}))) == []


@pytest.mark.usefixtures("build")
class TestSources:
    def test_by_the_rule_of_the_header(self):
        run = [signal(source=20), legacy(source=20), signal(source=1), signal(source=255)]
        assert found(b"".join(run), Selector(sources=frozenset({20}))) == run[:2]
        assert found(b"".join(run), Selector(sources=frozenset({1, 255}))) == run[2:]

    def test_together_with_types(self):
        run = [signal(21, source=20), signal(22, source=20), signal(21, source=30)]
        selector = Selector(frozenset({21}), frozenset({20}))
        assert found(b"".join(run), selector) == run[:1]


@pytest.mark.usefixtures("build")
class TestSequences:
    NUMBERS = (0, 1, 2, 3, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)

    @pytest.mark.parametrize(
        "sequences",
        [
            range(1, 3),
            range(1),
            range(2**64),
            range(-5, 2**70),
            range(2**64 - 1, 2**64),
            range(2**63, 2**64 - 1),
            range(0),
            range(3, 3),
            range(3, 1),
            range(2**64, 2**65),
            range(-5, 0),
        ],
        ids=str,
    )
    def test_are_a_half_open_range(self, sequences):
        run = [signal(sequence=number) for number in self.NUMBERS]
        expected = [signal(sequence=number) for number in self.NUMBERS if number in sequences]
        assert found(b"".join(run), Selector(sequences=sequences)) == expected

    @pytest.mark.parametrize("step", [2, -1])
    def test_other_steps(self, step):
        with pytest.raises(ValueError, match="step"):
            Selector(sequences=range(0, 10, step))


selectors = st.builds(
    Selector,
    st.frozensets(st.integers(0, 255), max_size=30),
    st.frozensets(st.integers(0, 255)) | st.just(frozenset()),
    st.none() | st.builds(range, st.integers(0, 2**64), st.integers(0, 2**64)),
)


class TestAnything:
    @given(st.lists(streams.messages, max_size=12), selectors)
    def test_what_is_told_fits_together(self, stream, selector):
        run = b"".join(stream)
        matching = found(run, selector)
        expected = [message for message in stream if count(message, selector)]
        assert matching == expected
        groups = [matches for matches, _ in groupby(stream, lambda m: bool(count(m, selector)))]
        assert len(select(run, selector).ranges) == sum(groups)

    @pytest.mark.skipif(compiled is None, reason="pure Python is asked for, or built")
    @given(st.lists(streams.messages, max_size=12), selectors, st.binary(max_size=40))
    def test_is_the_same_compiled_and_pure(self, stream, selector, tail):
        run = b"".join(stream) + tail
        answers = []
        for scan in (compiled, None):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(selection, "_scan", scan)
                fresh = Selector(selector.types, selector.sources, selector.sequences)
                answers.append((select(run, fresh), count(run, fresh), last_sequences(run)))
        assert answers[0] == answers[1]


@pytest.mark.usefixtures("build")
class TestEnds:
    @pytest.mark.parametrize("kept", [0, 1, 31, 32, 35])
    def test_a_torn_end_is_not_looked_at(self, kept):
        run = signal(21)
        assert select(run + run[:kept], EVERYTHING) == Selection([(0, len(run))], [0], 1, 1)
        assert last_sequences(run + run[:kept]) == {20: (1, len(run))}

    @pytest.mark.parametrize("size", [2**31, 2**32 - 32, 2**32 - 1])
    def test_nor_what_is_no_message(self, size):
        run = signal(21)
        header = run[:24] + size.to_bytes(4, "little") + bytes(100)
        for tail in (header, bytes(100)):
            assert select(run + tail, EVERYTHING).total == count(run + tail, EVERYTHING) == 1


@pytest.mark.usefixtures("build")
class TestLastSequences:
    def test_of_each_source(self):
        run = [signal(sequence=5), signal(source=30, sequence=2**64 - 1), legacy(sequence=4)]
        size, last = len(run[0]), sum(map(len, run))
        assert last_sequences(b"".join(run)) == {20: (4, last), 30: (2**64 - 1, 2 * size)}

    def test_of_nothing(self):
        assert last_sequences(b"") == {}

    def test_of_all_sources(self):
        run = b"".join(signal(source=number, sequence=number) for number in range(256))
        each = len(signal())
        expected = {number: (number, each * (number + 1)) for number in range(256)}
        assert last_sequences(run) == expected


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(0, 900))
def test_walk_finds_the_message_around_an_offset(payloads: list[int], target: int) -> None:
    sizes = [32 + payload for payload in payloads]
    run = b"".join(
        build_message(bytes(payload), source=20, sequence=1, timestamp=1) for payload in payloads
    )
    starts = [0, *accumulate(sizes)]
    before = [start for start in starts if start <= target]
    assert walk(run, target) == (before[-1], len(before) - 1)
