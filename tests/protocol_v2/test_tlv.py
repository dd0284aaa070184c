"""TLVs in their three forms: literal bytes, boundaries, and anything at all."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.tlv import (
    TLV,
    Span,
    build_tlv,
    legacy_spans,
    parse_tlvs,
    spans,
)

tlvs = st.lists(
    st.builds(
        TLV,
        st.integers(0, 254),
        st.binary(max_size=40)
        | st.sampled_from([254, 255, 256, 257, 65_535]).map(lambda size: b"\xff" * size),
    ),
    max_size=6,
)


def message_of(payload: bytes) -> bytes:
    return build_message(payload, source=20, sequence=1, timestamp=2)


def legacy_message_of(payload: bytes) -> bytes:
    header = Header(2, 20, 0, 0, 1, 2, len(payload), 0)
    return header.pack() + payload


def walk_all(walk: Iterator[Span]) -> tuple[list[Span], WireError | None]:
    found: list[Span] = []
    try:
        found.extend(walk)
    except WireError as error:
        return found, error
    return found, None


class TestBuild:
    @pytest.mark.parametrize(
        ("tlv_type", "value", "expected"),
        [
            (21, b"", b"\x15\x00"),
            (0, b"\xaa", b"\x00\x01\xaa"),
            (254, b"\xaa\xbb", b"\xfe\x02\xaa\xbb"),
            (21, b"v" * 255, b"\x15\xff" + b"v" * 255),
            (21, b"v" * 256, b"\xff\x00\x15\x00\x01" + b"v" * 256),
            (21, b"v" * 65_535, b"\xff\x00\x15\xff\xff" + b"v" * 65_535),
        ],
    )
    def test_literal(self, tlv_type, value, expected):
        assert build_tlv(tlv_type, value) == expected

    @pytest.mark.parametrize("tlv_type", [-1, 255, 256])
    def test_type_out_of_range(self, tlv_type):
        with pytest.raises(ValueError, match="not in 0-254"):
            build_tlv(tlv_type, b"")

    def test_value_too_long(self):
        with pytest.raises(ValueError, match="a TLV value of 65536 bytes: the longest is 65535"):
            build_tlv(21, bytes(65_536))


class TestSpans:
    def test_no_tlv_at_all(self):
        assert list(spans(b"", 0, 0)) == []

    def test_both_forms_between_other_bytes(self):
        data = b"??" + b"\x15\x02ab" + b"\xff\x00\x16\x03\x00cde" + b"\x17\x00" + b"!!"
        assert list(spans(data, 2, len(data) - 2)) == [
            Span(21, 4, 6),
            Span(22, 11, 14),
            Span(23, 16, 16),
        ]

    def test_extended_form_of_a_short_value(self):
        assert list(spans(b"\xff\x00\x15\x00\x00", 0, 5)) == [Span(21, 5, 5)]

    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (b"\x15", "a TLV header is cut short"),
            (b"\x15\x01", "type 21 states 1 bytes, 0 are left"),
            (b"\x15\xff" + bytes(254), "type 21 states 255 bytes, 254 are left"),
            (b"\xff", "an extended TLV header is cut short"),
            (b"\xff\x00\x15\x00", "an extended TLV header is cut short"),
            (b"\xff\x00\x15\x00\x01" + bytes(255), "type 21 states 256 bytes, 255 are left"),
            (b"\xff\x01\x15\x00\x00", "not the form of an extended TLV"),
            (b"\xff\x00\xff\x00\x00", "not the form of an extended TLV"),
        ],
    )
    def test_malformed(self, data, detail):
        good = b"\x18\x01z"
        walk = spans(good + data + b"\x00" * 400, 0, len(good + data))
        assert next(walk) == Span(24, 2, 3)
        with pytest.raises(WireError, match=detail) as caught:
            next(walk)
        assert (caught.value.reason, caught.value.offset) == (Rejection.TLV, 3)

    @given(st.binary(max_size=80), st.data())
    def test_any_bytes_give_spans_within_or_a_wire_error(self, data, draw):
        stop = draw.draw(st.integers(0, len(data)))
        start = draw.draw(st.integers(0, stop))
        for walk in (spans, legacy_spans):
            found, error = walk_all(walk(memoryview(data), start, stop))
            edges = [start, *(edge for span in found for edge in span[1:])]
            assert edges == sorted(edges)
            if error is None:
                assert edges[-1] == stop
            else:
                assert (error.reason, error.offset) == (Rejection.TLV, edges[-1])


class TestLegacySpans:
    def test_literal(self):
        data = b"\x15\x00\x02\x00ab\x16\x00\x00\x00"
        assert list(legacy_spans(data, 0, len(data))) == [Span(21, 4, 6), Span(22, 10, 10)]

    def test_255_announces_nothing_here(self):
        assert list(legacy_spans(b"\xff\x00\x01\x00a", 0, 5)) == [Span(255, 4, 5)]

    def test_longest_value(self):
        data = b"\x15\x00\xff\xff" + bytes(65_535)
        assert list(legacy_spans(data, 0, len(data))) == [Span(21, 4, 65_539)]

    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (b"\x15\x00\x01", "a legacy TLV header is cut short"),
            (b"\x15\x00\x02\x00a", "legacy type 21 states 2 bytes, 1 are left"),
            (b"\x00\x01\x00\x00", "legacy type 256"),
        ],
    )
    def test_malformed(self, data, detail):
        with pytest.raises(WireError, match=detail):
            list(legacy_spans(data + bytes(9), 0, len(data)))


class TestParse:
    def test_standard_and_extended(self):
        payload = b"\x15\x02ab" + b"\xff\x00\x16\x01\x00c"
        assert parse_tlvs(message_of(payload)) == [TLV(21, b"ab"), TLV(22, b"c")]

    def test_legacy_writer(self):
        payload = b"\x15\x00\x02\x00ab\x16\x00\x00\x00"
        assert parse_tlvs(legacy_message_of(payload)) == [TLV(21, b"ab"), TLV(22, b"")]

    def test_empty_payload(self):
        assert parse_tlvs(message_of(b"")) == []

    def test_bytes_after_the_message_are_not_looked_at(self):
        assert parse_tlvs(message_of(b"\x15\x00") + b"\xff") == [TLV(21, b"")]

    def test_error_counts_from_the_start_of_the_message(self):
        with pytest.raises(WireError, match="tlv at byte 34"):
            parse_tlvs(message_of(b"\x15\x00\x15"))

    @pytest.mark.parametrize("kept", [32, 33, 34, 35])
    @pytest.mark.parametrize("make", [message_of, legacy_message_of])
    def test_message_shorter_than_its_header_says(self, make, kept):
        message = make(b"\x00\x00\x00\x00")[:kept]
        with pytest.raises(WireError) as caught:
            parse_tlvs(message)
        assert caught.value.reason is Rejection.TLV

    @given(tlvs)
    def test_round_trip(self, expected):
        payload = b"".join(build_tlv(*tlv) for tlv in expected)
        assert parse_tlvs(message_of(payload)) == expected
        assert parse_tlvs(memoryview(message_of(payload))) == expected

    @given(tlvs)
    def test_legacy_round_trip(self, expected):
        payload = b"".join(
            tlv.type.to_bytes(2, "little") + len(tlv.value).to_bytes(2, "little") + tlv.value
            for tlv in expected
        )
        assert parse_tlvs(legacy_message_of(payload)) == expected
