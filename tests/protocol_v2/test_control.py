"""Control messages: literal bytes, there and back, and every form that cannot be read."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.control import (
    ERROR_TEXT_MAX,
    Ack,
    ControlError,
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    RecoveryRequest,
    RecoveryResponse,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    build_control,
    build_error,
    parse_control,
    parse_error,
)
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import Level, Rules, check
from alphapulse_relay.protocol_v2.header import Domain, Header, build_message, checksum
from alphapulse_relay.protocol_v2.tlv import build_tlv

LITERAL = (
    bytes.fromhex(
        "efbeadde 04 01 50 00 0000000000000000 0500000000000000 06000000"
        "6630c971 66 04 0200"  # checksum; TLV 102 of 4 bytes, code 2
    )
    + b"hi"
)
LITERAL_VALUES: list[tuple[ControlMessage, str]] = [
    (Heartbeat(1, 2), "64 10 0100000000000000 02 00000000000000"),
    (ErrorMessage(3, "no"), "66 04 0300 6e6f"),
    (
        RecoveryRequest(80, 7, 1, 5),
        "6e 16 07000000 0100000000000000 0500000000000000 01 00",
    ),
    (
        RecoveryResponse(7, 2, 4, 3),
        "6f 1c 07000000 0200000000000000 0400000000000000 0300000000000000",
    ),
    (
        SequenceSync(0x1122334455667788, 9, SyncState.LIVE),
        "70 11 8877665544332211 0900000000000000 01",
    ),
    (Subscribe(), "dc 15 00 00 0000000000000000 0000000000000000 00 00 00"),
    (
        Subscribe(
            Wish.POSITIONS | Wish.ACKNOWLEDGE,
            Start.POSITION,
            258,
            3,
            frozenset({22, 21}),
            frozenset({20}),
            "é",
        ),
        "dc 1a 21 01 0201000000000000 0300000000000000 02 15 16 01 14 02 c3 a9",
    ),
    (
        Gap(1, 2, 3, GapReason.DAMAGE),
        "dd 19 0100000000000000 0200000000000000 0300000000000000 03",
    ),
    (Ack(20, 5, 6), "de 11 14 0500000000000000 0600000000000000"),
]

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
lists = st.frozensets(u8, max_size=255)
names = st.text(st.characters(codec="utf-8"), max_size=63)
subscribes = st.builds(
    Subscribe, u8.map(lambda n: Wish(n % 64)), st.sampled_from(Start), u64, u64, lists, lists, names
)
contents: st.SearchStrategy[ControlMessage] = st.one_of(
    subscribes,
    st.builds(SequenceSync, u64, u64, st.sampled_from(SyncState)),
    st.builds(Gap, u64, u64, u64, st.sampled_from(GapReason)),
    st.builds(Ack, u8, u64, u64),
    st.builds(RecoveryRequest, u8, u32, u64, u64),
    st.builds(RecoveryResponse, u32, u64, u64, u64),
    st.builds(Heartbeat, u64, u8),
    st.builds(ErrorMessage, u16, st.text(st.characters(codec="utf-8"), max_size=200)),
)


def system_message(payload: bytes) -> bytes:
    return build_message(payload, source=80, sequence=0, timestamp=0, domain=Domain.SYSTEM)


def control(tlv_type: int, value: bytes) -> bytes:
    return system_message(build_tlv(tlv_type, value))


def subscribe_value(fixed: bytes = bytes(18), lists: bytes = bytes(3)) -> bytes:
    return fixed + lists


class TestBuild:
    @pytest.mark.parametrize(("content", "payload"), LITERAL_VALUES)
    def test_literal(self, content, payload):
        message = build_control(content, timestamp=5)
        assert message[32:] == bytes.fromhex(payload)
        header = Header.unpack(message)
        assert header[:6] == (4, 1, 80, 0, 0, 5)
        assert header.checksum == checksum(message) != 0

    def test_a_whole_message(self):
        assert build_control(ErrorMessage(2, "hi"), timestamp=5) == LITERAL
        assert build_error(ErrorCode.TOO_MANY_PEERS, "hi", timestamp=5) == LITERAL

    def test_the_example_of_the_protocol_document(self):
        expected = "efbeadde 04011400 0000000000000000 0000000000000000 17000000 f4189fd8 dc15"
        message = build_control(Subscribe(), timestamp=0, source=20)
        assert message == bytes.fromhex(expected) + bytes(21)

    def test_is_sound_by_the_strictest_rules(self):
        chunk = bytearray(build_error(ErrorCode.BROKEN_STREAM, "magic", timestamp=5))
        rules = Rules(Level.STRICT, frozenset({4}), frozenset({102}))
        assert check(memoryview(chunk), len(chunk), rules).messages == 1

    def test_a_peer_says_who_it_is(self):
        message = build_control(Subscribe(), timestamp=5, source=21)
        assert Header.unpack(message).publisher == 21

    def test_a_recovery_request_is_in_the_name_of_the_source_that_it_is_about(self):
        message = build_control(RecoveryRequest(33, 1, 2, 3), timestamp=5, source=21)
        assert Header.unpack(message).publisher == 33

    @pytest.mark.parametrize("text", ["x" * 1024, "x" * 1025, "x" * 100_000])
    def test_long_text_is_cut(self, text):
        message = build_error(ErrorCode.BROKEN_STREAM, text, timestamp=5)
        assert parse_error(message) == ErrorMessage(1, "x" * ERROR_TEXT_MAX)

    def test_cut_text_is_still_utf8(self):
        message = build_error(ErrorCode.BROKEN_STREAM, "€" * 1000, timestamp=5)
        assert parse_error(message) == ErrorMessage(1, "€" * 341)
        assert message.endswith("€".encode())

    @pytest.mark.parametrize(
        "content",
        [
            Subscribe(start_value=-1),
            Subscribe(start_value=1 << 64),
            Subscribe(epoch=1 << 64),
            Subscribe(types=frozenset({256})),
            Subscribe(types=frozenset({-1})),
            Subscribe(types=frozenset(range(256))),
            Subscribe(sources=frozenset(range(256))),
            Subscribe(name="x" * 256),
            Subscribe(name="é" * 128),
            Subscribe(name="\ud800"),
            SequenceSync(1 << 64, 0, SyncState.LIVE),
            Gap(0, 0, -1, GapReason.SKIPPED),
            Ack(256, 0, 0),
            RecoveryRequest(256, 0, 0, 0),
            RecoveryRequest(0, 1 << 32, 0, 0),
            RecoveryResponse(0, 0, 0, 1 << 64),
            Heartbeat(-1, 0),
            Heartbeat(0, 256),
            ErrorMessage(1 << 16, ""),
        ],
        ids=repr,
    )
    def test_what_does_not_fit(self, content):
        with pytest.raises(ValueError, match=r"."):
            build_control(content, timestamp=5)

    @pytest.mark.parametrize("field", [{"timestamp": -1}, {"timestamp": 1, "source": 256}])
    def test_a_header_that_does_not_fit(self, field):
        with pytest.raises(ValueError, match="header"):
            build_control(Heartbeat(0, 0), **field)


class TestParse:
    @given(contents, u64, u8)
    def test_round_trip(self, content, timestamp, source):
        assert parse_control(build_control(content, timestamp=timestamp, source=source)) == content

    @pytest.mark.parametrize(
        "content",
        [
            Subscribe(name="x" * 255),
            Subscribe(types=frozenset(range(255)), sources=frozenset(range(1, 256))),
            Subscribe(types=frozenset(range(255)), sources=frozenset(range(255)), name="x" * 255),
        ],
        ids=["name", "lists", "all"],
    )
    def test_the_longest(self, content):
        assert parse_control(build_control(content, timestamp=5)) == content

    def test_an_extended_tlv_where_a_standard_one_would_do(self):
        assert parse_control(system_message(b"\xff\x00\x66\x02\x00\x01\x00")) == ErrorMessage(1, "")

    def test_a_code_that_is_not_known_here(self):
        assert parse_control(control(102, b"\xff\xff")) == ErrorMessage(65_535, "")

    def test_text_that_is_not_utf8(self):
        replaced = ErrorMessage(1, "a\N{REPLACEMENT CHARACTER}")
        assert parse_control(control(102, b"\x01\x00a\xff")) == replaced

    def test_reserved_bytes_may_be_anything(self):
        assert parse_control(control(100, bytes(9) + b"\xff" * 7)) == Heartbeat(0, 0)
        request = struct.pack("<IQQBB", 1, 2, 3, 1, 255)
        assert parse_control(control(110, request)) == RecoveryRequest(80, 1, 2, 3)

    @pytest.mark.parametrize(
        ("message", "why"),
        [
            (build_message(LITERAL[32:], source=80, sequence=0, timestamp=0), "domain 2"),
            (system_message(b""), "0 TLVs"),
            (system_message(2 * build_tlv(102, b"\x01\x00")), "2 TLVs"),
            (system_message(b"\x66"), "cut short"),
            (control(21, b""), "type 21"),
            (control(101, bytes(8)), "type 101"),
            (LITERAL[:-1], "37 bytes, the header states 38"),
            (LITERAL + b"x", "39 bytes, the header states 38"),
            (LITERAL[:28] + bytes(4) + LITERAL[32:], "checksum"),
            (LITERAL[:-1] + b"j", "checksum"),
            (LITERAL[:5] + b"\x02" + LITERAL[6:], "version 1"),
            (LITERAL[:7] + b"\x01" + LITERAL[8:], "not compressed"),
            (control(102, b"\x01"), "without a code"),
            (control(112, bytes(16) + b"\x02"), "SyncState 2"),
            (control(221, bytes(24) + b"\x00"), "GapReason 0"),
            (control(221, bytes(24) + b"\x04"), "GapReason 4"),
            (control(110, bytes(22)), "request_type 0"),
            (control(110, bytes(20) + b"\x02\x00"), "request_type 2"),
            (control(220, b""), "0 bytes is cut short"),
            (control(220, subscribe_value(b"\x40" + bytes(17))), "Wish 64"),
            (control(220, subscribe_value(b"\x80" + bytes(17))), "Wish 128"),
            (control(220, subscribe_value(b"\x00\x04" + bytes(16))), "Start 4"),
            (control(220, subscribe_value(lists=b"\x01\x00\x00")), "cut short"),
            (control(220, subscribe_value(lists=b"\x00\xff\x00")), "cut short"),
            (control(220, subscribe_value(lists=b"\x00\x00\x01")), "cut short"),
            (control(220, subscribe_value(lists=b"\x00\x00\x00\x00")), "1 bytes follow"),
            (control(220, subscribe_value(lists=b"\x00\x00\x02\xc3\x28")), "not UTF-8"),
        ],
    )
    def test_malformed(self, message, why):
        with pytest.raises(ControlError, match=why) as raised:
            parse_control(message)
        assert raised.value.code is ErrorCode.MALFORMED
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(("content", "_payload"), LITERAL_VALUES)
    def test_every_wrong_length(self, content, _payload):
        value = build_control(content, timestamp=5)[34:]
        shorter = [value[:length] for length in range(len(value))]
        longer = [value + b"\x00"]
        if isinstance(content, ErrorMessage):  # its text may have any length
            shorter, longer = [b"", value[:1]], []
        tlv_type = build_control(content, timestamp=5)[32]
        for wrong in shorter + longer:
            with pytest.raises(ControlError):
                parse_control(control(tlv_type, wrong))

    @pytest.mark.parametrize("parse", [parse_control, parse_error])
    def test_not_a_message(self, parse: Callable[[bytes], object]):
        with pytest.raises(WireError):
            parse(b"HTTP/1.1 400 Bad Request\r\n\r\n      ")

    @given(st.binary(max_size=60) | st.builds(build_tlv, u8.map(lambda n: n % 255), st.binary()))
    def test_any_payload_is_read_or_refused(self, payload):
        message = system_message(payload)
        try:
            content = parse_control(message)
        except ControlError:
            return
        assert parse_control(build_control(content, timestamp=0)) == content


class TestParseError:
    def test_literal(self):
        assert parse_error(LITERAL) == ErrorMessage(2, "hi")

    @pytest.mark.parametrize(
        "message",
        [
            build_message(build_tlv(102, b"\x01\x00"), source=80, sequence=0, timestamp=0),
            build_control(Heartbeat(0, 0), timestamp=5),
            system_message(b""),
            control(102, b"\x01"),
            LITERAL[:-1],
        ],
        ids=["signal domain", "another", "no TLV", "no code", "cut short"],
    )
    def test_any_other_message(self, message):
        assert parse_error(message) is None
