"""Messages as text."""

import json

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.cli.render import Contents, dump, json_line, line, read_contents, time_text
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import TLV, build_tlv

TABLE = SignalTable.builtin()
IDENTITY = build_tlv(22, TABLE.encode(22, {"signal_id": "18446744073709551615", "chain_id": "137"}))
TIME = 1_756_166_400_001_002_003


def message(payload: bytes, **fields: int) -> bytes:
    return build_message(payload, **{"source": 20, "sequence": 7, "timestamp": TIME} | fields)


def as_line(text: bytes, *, colour: bool = False) -> str:
    header = Header.unpack(text)
    return line(header, read_contents(text, header), TABLE, colour=colour)


def as_json(text: bytes) -> dict[str, object]:
    header = Header.unpack(text)
    return json.loads(json_line(text, header, read_contents(text, header), TABLE))


class TestTime:
    @pytest.mark.parametrize(
        ("timestamp", "digits", "text"),
        [
            (0, 9, "1970-01-01T00:00:00.000000000Z"),
            (TIME, 9, "2025-08-26T00:00:00.001002003Z"),
            (TIME, 6, "2025-08-26T00:00:00.001002Z"),
            ((1 << 64) - 1, 9, "2554-07-21T23:34:33.709551615Z"),
        ],
    )
    def test_text(self, timestamp, digits, text):
        assert time_text(timestamp, digits) == text


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
        assert as_line(message(b"zstd!", flags=1)).endswith("compressed with zstd, 5 bytes")

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


class TestJson:
    def test_document(self):
        text = message(IDENTITY, sequence=(1 << 64) - 1)
        assert as_json(text) == {
            "time": "2025-08-26T00:00:00.001002003Z",
            "publisher": 20,
            "domain": 2,
            "version": 1,
            "source": 20,
            "flags": 0,
            "sequence": 18446744073709551615,
            "timestamp": TIME,
            "payload_size": 22,
            "checksum": Header.unpack(text).checksum,
            "legacy": False,
            "message_size": 54,
            "tlvs": [
                {
                    "type": 22,
                    "name": "SignalIdentity",
                    "fields": {
                        "strategy_id": 0,
                        "signal_id": "18446744073709551615",
                        "signal_nonce": 0,
                        "confidence": 0,
                        "chain_id": 137,
                    },
                    "hex": f"0x{IDENTITY[2:].hex()}",
                }
            ],
            "fault": None,
        }

    def test_malformed(self):
        document = as_json(message(b"\x15"))
        assert document["tlvs"] == []
        assert document["fault"] == "tlv at byte 32: a TLV header is cut short"

    @given(
        st.lists(st.tuples(st.integers(0, 254), st.binary(max_size=300)), max_size=4),
        st.integers(0, 255),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, 127).map(lambda bits: bits << 1),
    )
    def test_holds_all_that_the_message_holds(self, tlvs, source, sequence, timestamp, flags):
        payload = b"".join(build_tlv(number, value) for number, value in tlvs)
        text = message(payload, source=source, sequence=sequence, timestamp=timestamp, flags=flags)
        document = as_json(text)
        values = [(tlv["type"], bytes.fromhex(tlv["hex"][2:])) for tlv in document["tlvs"]]
        header = Header(*(document[name] for name in Header._fields))
        assert header.pack() + b"".join(build_tlv(*value) for value in values) == text


def test_contents_without_tlvs():
    text = message(IDENTITY)
    assert read_contents(text, Header.unpack(text)) == Contents((TLV(22, IDENTITY[2:]),))


def test_dump():
    assert dump(b"0123456789abcdef\xff\x00A").splitlines() == [
        "  00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  |0123456789abcdef|",
        "  00000010  ff 00 41                                         |..A|",
    ]
