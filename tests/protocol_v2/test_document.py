"""Messages as documents: nothing of one is lost, and JSON takes all of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.document import Contents, describe, read_contents, time_text
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import TLV, build_tlv

TABLE = SignalTable.builtin()
IDENTITY = build_tlv(22, TABLE.encode(22, {"signal_id": "18446744073709551615", "chain_id": "137"}))
TIME = 1_756_166_400_001_002_003


def message(payload: bytes, **fields: int) -> bytes:
    return build_message(payload, **{"source": 20, "sequence": 7, "timestamp": TIME} | fields)


def described(text: bytes) -> dict[str, object]:
    """Return the document as who reads the JSON has it."""
    return json.loads(json.dumps(describe(text, TABLE)))


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


class TestContents:
    def test_tlvs(self):
        text = message(IDENTITY)
        assert read_contents(text, Header.unpack(text)) == Contents((TLV(22, IDENTITY[2:]),))

    def test_compressed(self):
        text = message(b"zstd!", flags=1)
        wanted = Contents((), "compressed with zstd: 5 B")
        assert read_contents(text, Header.unpack(text)) == wanted

    def test_the_bit_means_nothing_in_a_legacy_header(self):
        text = Header(2, 33, 0, 1, 1, 0, 5, 0).pack() + b"\x18\x00\x01\x00\x09"
        assert read_contents(text, Header.unpack(text)) == Contents((TLV(24, b"\x09"),))


class TestDocument:
    def test_document(self):
        text = message(IDENTITY, sequence=(1 << 64) - 1)
        assert described(text) == {
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
        document = described(message(b"\x15"))
        assert document["tlvs"] == []
        assert document["fault"] == "tlv at byte 32: a TLV header is cut short"

    def test_legacy_writer(self):
        document = described(Header(2, 33, 0, 0, 1, 0, 5, 0).pack() + b"\x18\x00\x01\x00\x09")
        assert (document["publisher"], document["source"], document["legacy"]) == (33, 0, True)
        assert document["tlvs"] == [{"type": 24, "name": "type 24", "fields": {}, "hex": "0x09"}]

    def test_what_is_no_message(self):
        with pytest.raises(WireError):
            describe(b"too short", TABLE)

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
        document = described(text)
        values = [(tlv["type"], bytes.fromhex(tlv["hex"][2:])) for tlv in document["tlvs"]]
        header = Header(*(document[name] for name in Header._fields))
        assert header.pack() + b"".join(build_tlv(*value) for value in values) == text
