"""The hub's figures: each message once under each of its types, its publisher, and by its age."""

from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.hub.counters import AGE_BOUNDS, Counters, Histogram
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.support import MANIFEST, SAMPLES

NOW = 1_800_000_000_000_000_000
MS = 1_000_000


def counted(*run: bytes, now: int = NOW) -> Counters:
    counters = Counters()
    counters.count(memoryview(b"".join(run)), now)
    return counters


def types(counters: Counters) -> dict[int, int]:
    return {number: count for number, count in enumerate(counters.types) if count}


def signal(*tlvs: bytes, timestamp: int = NOW) -> bytes:
    return build_message(b"".join(tlvs), source=20, sequence=1, timestamp=timestamp)


def legacy(payload: bytes) -> bytes:
    return Header(2, 20, 0, 0, 1, NOW, len(payload), 0).pack() + payload


def extended(tlv_type: int, value: bytes) -> bytes:
    return bytes((255, 0, tlv_type)) + len(value).to_bytes(2, "little") + value


class TestHistogram:
    @pytest.mark.parametrize(
        ("value", "bucket"),
        [(0, 0), (0.9, 0), (1, 0), (1.01, 1), (2, 1), (2.01, 2), (5, 2), (5.01, 3), (1e9, 3)],
    )
    def test_bounds_are_inclusive(self, value: float, bucket: int) -> None:
        histogram = Histogram((1, 2, 5))
        histogram.observe(value)
        assert list(histogram.counts) == [int(number == bucket) for number in range(4)]

    def test_adds_up(self) -> None:
        histogram = Histogram((1, 2, 5))
        for value in (1, 2, 3, 4):
            histogram.observe(value)
        assert (histogram.total, sum(histogram.counts)) == (10, 4)


class TestTypes:
    def test_one_standard(self) -> None:
        assert types(counted(signal(build_tlv(21, b"abc")))) == {21: 1}

    def test_the_same_twice_counts_the_message_once(self) -> None:
        assert types(counted(signal(build_tlv(21, b"abc"), build_tlv(21, b"")))) == {21: 1}

    def test_several(self) -> None:
        run = [signal(build_tlv(21, b"a"), build_tlv(22, b"b")), signal(build_tlv(22, b"c"))]
        assert types(counted(*run)) == {21: 1, 22: 2}

    def test_extended(self) -> None:
        assert types(counted(signal(build_tlv(23, bytes(300))))) == {23: 1}

    def test_extended_that_looks_like_a_standard_one(self) -> None:
        """Type byte 255 and a second byte 0: the shape of a standard TLV of no bytes."""
        assert types(counted(signal(extended(24, b"")))) == {24: 1}

    def test_standard_of_no_bytes(self) -> None:
        assert types(counted(signal(build_tlv(0, b""), build_tlv(254, b"")))) == {0: 1, 254: 1}

    def test_none(self) -> None:
        counters = counted(signal(), signal())
        assert (types(counters), counters.malformed[0]) == ({}, 0)

    def test_legacy(self) -> None:
        counters = counted(legacy(b"\x15\x00\x02\x00ab" + b"\x16\x00\x00\x00"))
        assert (types(counters), counters.malformed[0]) == ({21: 1, 22: 1}, 0)

    def test_legacy_255_is_a_type_like_any_other(self) -> None:
        counters = counted(legacy(b"\xff\x00\x01\x00a"))
        assert (types(counters), counters.malformed[0]) == ({255: 1}, 0)


@pytest.mark.parametrize(
    "bad",
    [
        signal(b"\x15"),
        signal(b"\x15\x05ab"),
        signal(build_tlv(21, b"abc"), b"\x16\x09"),
        signal(b"\xff\x01\x15\x00\x00"),
        signal(b"\xff\x00"),
        legacy(b"\x15\x00\x09\x00ab"),
        legacy(b"\x00\x01\x00\x00"),
    ],
)
def test_malformed_counts_under_no_type(bad: bytes) -> None:
    counters = counted(bad, signal(build_tlv(30, b"")))
    assert (types(counters), counters.malformed[0]) == ({30: 1}, 1)


class TestAge:
    def bucket(self, timestamp: int) -> int | None:
        counters = counted(signal(timestamp=timestamp))
        assert sum(counters.age.counts) <= 1
        return counters.age.counts.index(1) if any(counters.age.counts) else None

    @pytest.mark.parametrize(
        ("age", "bound"),
        [(0, 1e-4), (100_000, 1e-4), (100_001, 2e-4), (MS, 1e-3), (60_000 * MS, 60)],
    )
    def test_is_in_the_bucket_of_its_seconds(self, age: int, bound: float) -> None:
        assert self.bucket(NOW - age) == AGE_BOUNDS.index(bound)

    def test_beyond_all(self) -> None:
        assert self.bucket(NOW - 60_000 * MS - 1) == len(AGE_BOUNDS)

    def test_a_timestamp_of_0_is_none(self) -> None:
        assert self.bucket(0) is None

    @pytest.mark.parametrize("timestamp", [NOW + 1, NOW + 10**9, (1 << 64) - 1])
    def test_the_future_is_an_age_of_nothing(self, timestamp: int) -> None:
        counters = counted(signal(timestamp=timestamp))
        assert (counters.age.counts[0], counters.age.total) == (1, 0)

    def test_adds_up_in_nanoseconds(self) -> None:
        counters = counted(signal(timestamp=NOW - 3 * MS), signal(timestamp=NOW - 4 * MS))
        assert counters.age.total == 7 * MS


def numbered(publisher: int, number: int, *, old: bool = False) -> bytes:
    """Return a message of a publisher with that sequence number; of a legacy writer if ``old``."""
    if old:
        return Header(2, publisher, 0, 0, number, 0, 0, 0).pack()
    return build_message(b"", source=publisher, sequence=number, timestamp=0)


RUNS = st.lists(
    st.builds(
        numbered,
        st.sampled_from([0, 20, 255]),
        st.one_of(st.integers(0, 9), st.integers((1 << 64) - 5, (1 << 64) - 1)),
        old=st.booleans(),
    ),
    max_size=30,
)
"""Messages of three publishers whose numbers follow, repeat, and jump over each other."""


def sequences(counters: Counters, publisher: int = 20) -> tuple[int, int]:
    return counters.sequences_missing[publisher], counters.sequences_repeated[publisher]


def of_sequences(numbers: Sequence[int]) -> tuple[int, int]:
    """Return what one publisher's numbers leave out, and how many come again: the obvious way."""
    missing = repeated = 0
    seen: set[int] = set()  # since they began anew
    for number in numbers:
        if number <= 1:
            seen = {number} - {0}
        elif seen and number <= max(seen):
            repeated += 1
        else:
            missing += number - max(seen) - 1 if seen else 0
            seen.add(number)
    return missing % (1 << 64), repeated


class TestPublishers:
    def test_are_counted_by_their_number(self) -> None:
        counters = counted(numbered(0, 1), numbered(20, 1), numbered(255, 1), numbered(20, 2))
        found = {number: count for number, count in enumerate(counters.sources) if count}
        assert found == {0: 1, 20: 2, 255: 1}

    def test_of_legacy_writers_have_their_number_elsewhere(self) -> None:
        counters = counted(numbered(20, 7, old=True), numbered(20, 9))
        assert (counters.sources[20], sequences(counters)) == (2, (1, 0))

    @pytest.mark.parametrize(
        ("numbers", "missing", "repeated"),
        [
            ([1, 2, 3], 0, 0),
            ([7, 8], 0, 0),  # it was publishing before the relay began
            ([1, 3], 1, 0),
            ([1, 10, 13], 10, 0),
            ([5, 5], 0, 1),
            ([5, 6, 7, 5, 6, 7, 8], 0, 3),  # sent again after a break
            ([5, 7, 6, 8], 1, 1),  # out of order
            ([9, 1, 2], 0, 0),
            ([1, 1, 1], 0, 0),
            ([0, 0, 0], 0, 0),
            ([9, 0, 5, 6], 0, 0),
            ([(1 << 64) - 1, 0, 1], 0, 0),
            ([2, (1 << 64) - 1], (1 << 64) - 4, 0),
        ],
    )
    def test_numbers(self, numbers: list[int], missing: int, repeated: int) -> None:
        counters = counted(*(numbered(20, number) for number in numbers))
        assert sequences(counters) == (missing, repeated)

    def test_numbers_are_each_publishers_own(self) -> None:
        counters = counted(*(numbered(source, n) for n in (4, 6) for source in (20, 21)))
        assert [sequences(counters, source) for source in (20, 21)] == [(1, 0), (1, 0)]

    def test_more_missing_than_are_counted_to(self) -> None:
        counters = counted(*[numbered(20, n) for n in (2, (1 << 64) - 1, 1)] * 2)
        assert sequences(counters) == (2 * ((1 << 64) - 4) % (1 << 64), 0)

    @given(RUNS, st.integers(0, 30))
    def test_as_the_obvious_way_has_it(self, run: list[bytes], cut: int) -> None:
        counters = Counters()
        for part in (run[:cut], run[cut:]):
            counters.count(memoryview(b"".join(part)), NOW)
        numbers = defaultdict[int, list[int]](list)
        for each in run:
            header = Header.unpack(each)
            numbers[header.publisher].append(header.sequence)
        for publisher in range(256):
            assert counters.sources[publisher] == len(numbers[publisher])
            assert sequences(counters, publisher) == of_sequences(numbers[publisher])


@pytest.mark.parametrize("name", ["arbitrage.v2", "mixed.v2", "empty-payload.v2", "legacy.v2"])
def test_samples(name: str) -> None:
    data, entry = (SAMPLES / name).read_bytes(), MANIFEST[name]
    counters = counted(*split(data))
    assert counters.malformed[0] == 0
    if "messages_with_type" in entry:
        wanted = {int(number): count for number, count in entry["messages_with_type"].items()}
        assert types(counters) == wanted


def test_legacy_samples_have_the_types_of_their_writers() -> None:
    counters = counted(*split((SAMPLES / "legacy.v2").read_bytes()))
    assert types(counters) == {21: 1000, 255: 5}


def test_runs_add_up() -> None:
    counters = Counters()
    run = signal(build_tlv(21, b"abc"))
    for _ in range(3):
        counters.count(memoryview(run * 2), NOW)
    assert types(counters) == {21: 6}
