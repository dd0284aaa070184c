"""Messages as text."""

import json

import click
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.cli.render import dump, json_line, line
from alphapulse_relay.protocol_v2.document import describe
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import build_tlv

TABLE = SignalTable.builtin()
IDENTITY = build_tlv(22, TABLE.encode(22, {"signal_id": "18446744073709551615", "chain_id": "137"}))
TIME = 1_756_166_400_001_002_003


def message(payload: bytes, **fields: int) -> bytes:
    return build_message(payload, **{"source": 20, "sequence": 7, "timestamp": TIME} | fields)


def as_line(text: bytes, *, colour: bool = False) -> str:
    return line(text, TABLE, colour=colour)


class TestLine:
    def test_decoded(self):
        assert as_line(message(IDENTITY)) == (
            "2025-08-26T00:00:00.001002Z source=20 seq=7 SignalIdentity strategy_id=0 "
            "signal_id=18446744073709551615 signal_nonce=0 confidence=0 chain_id=137"
        )

    def test_two_tlvs(self):
        text = as_line(message(build_tlv(24, b"\x01") + build_tlv(23, bytes(48))))
        assert text.endswith(
            "type 24 0x01 SignalEconomics expected_profit=0 required_capital=0 gas_estimate=0"
        )

    def test_value_that_does_not_fit_is_hex_and_cut(self):
        text = as_line(message(build_tlv(22, bytes(33))))
        assert text.endswith(f"SignalIdentity 0x{'00' * 32}… (33 bytes)")

    def test_no_payload(self):
        assert as_line(message(b"", timestamp=0)) == "no time source=20 seq=7 no TLVs"

    def test_malformed(self):
        assert "tlv at byte 32: a TLV header is cut short" in as_line(message(b"\x15"))

    def test_compressed(self):
        assert as_line(message(b"zstd!", flags=1)).endswith("compressed with zstd: 5 B")

    def test_another_domain(self):
        assert "domain=1" in as_line(message(b"", domain=1))

    def test_legacy_writer(self):
        header = Header(2, 33, 0, 0, 1, 0, 5, 0)
        text = header.pack() + b"\x18\x00\x01\x00\x09"
        assert as_line(text) == "no time source=33 seq=1 legacy type 24 0x09"

    def test_colour_changes_only_colour(self):
        text = as_line(message(IDENTITY), colour=True)
        assert "\x1b[" in text
        assert click.unstyle(text) == as_line(message(IDENTITY))

    @given(st.binary(max_size=300), st.integers(0, 255), st.integers(0, 255))
    def test_any_payload_is_one_printable_line(self, payload, source, flags):
        assert as_line(message(payload, source=source, flags=flags)).isprintable()


def test_json_is_the_document_in_one_line():
    text = message(IDENTITY)
    shown = json_line(text, TABLE)
    assert json.loads(shown) == describe(text, TABLE)
    assert "\n" not in shown


def test_dump():
    assert dump(b"0123456789abcdef\xff\x00A").splitlines() == [
        "  00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  |0123456789abcdef|",
        "  00000010  ff 00 41                                         |..A|",
    ]
