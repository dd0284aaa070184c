"""The Error message, against literal bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.control import (
    ERROR_TEXT_MAX,
    ErrorCode,
    ErrorMessage,
    build_error,
    parse_error,
)
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import Level, Rules, check
from alphapulse_relay.protocol_v2.header import Domain, Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv

LITERAL = (
    bytes.fromhex(
        "efbeadde 04 01 50 00 0000000000000000 0500000000000000 06000000"
        "6630c971 66 04 0200"  # checksum; TLV 102 of 4 bytes, code 2
    )
    + b"hi"
)


def system_message(payload: bytes) -> bytes:
    return build_message(payload, source=80, sequence=0, timestamp=0, domain=Domain.SYSTEM)


class TestBuild:
    def test_literal(self):
        assert build_error(ErrorCode.TOO_MANY_PEERS, "hi", timestamp=5) == LITERAL

    def test_is_a_valid_message_of_the_system_domain(self):
        chunk = bytearray(build_error(ErrorCode.BROKEN_STREAM, "magic", timestamp=5))
        rules = Rules(Level.STRICT, frozenset({4}), frozenset({102}))
        assert check(memoryview(chunk), len(chunk), rules).messages == 1

    @pytest.mark.parametrize("text", ["x" * 1024, "x" * 1025, "x" * 100_000])
    def test_long_text_is_cut(self, text):
        message = build_error(ErrorCode.BROKEN_STREAM, text, timestamp=5)
        assert parse_error(message) == ErrorMessage(1, "x" * ERROR_TEXT_MAX)

    def test_cut_text_is_still_utf8(self):
        message = build_error(ErrorCode.BROKEN_STREAM, "€" * 1000, timestamp=5)
        assert parse_error(message) == ErrorMessage(1, "€" * 341)
        assert message.endswith("€".encode())

    @given(st.sampled_from(ErrorCode), st.text(max_size=200))
    def test_round_trip(self, code, text):
        message = build_error(code, text, timestamp=5)
        assert parse_error(message) == (code, text)


class TestParse:
    def test_literal(self):
        assert parse_error(LITERAL) == ErrorMessage(2, "hi")

    def test_code_that_is_not_known_here(self):
        assert parse_error(system_message(build_tlv(102, b"\xff\xff"))) == ErrorMessage(65_535, "")

    def test_text_that_is_not_utf8(self):
        message = system_message(build_tlv(102, b"\x01\x00a\xff"))
        assert parse_error(message) == ErrorMessage(1, "a\N{REPLACEMENT CHARACTER}")

    def test_other_tlvs_beside_it(self):
        payload = build_tlv(100, b"\x01\x00") + build_tlv(102, b"\x01\x00a")
        assert parse_error(system_message(payload)) == ErrorMessage(1, "a")

    @pytest.mark.parametrize(
        "message",
        [
            build_message(build_tlv(102, b"\x01\x00"), source=80, sequence=0, timestamp=0),
            system_message(b""),
            system_message(build_tlv(100, b"\x01\x00")),
            system_message(build_tlv(102, b"\x01")),
            system_message(b"\x66"),
            LITERAL[:-1],
        ],
        ids=["signal domain", "no TLV", "other TLV", "no code", "malformed", "cut short"],
    )
    def test_any_other_message(self, message):
        assert parse_error(message) is None

    @given(st.binary(max_size=40))
    def test_any_payload(self, payload):
        error = parse_error(system_message(payload))
        assert error is None or 0 <= error.code <= 65_535

    def test_not_a_message(self):
        with pytest.raises(WireError):
            parse_error(b"HTTP/1.1 400 Bad Request\r\n\r\n      ")

    def test_source_is_the_relays(self):
        assert Header.unpack(LITERAL).publisher == 80
