"""The header against literal bytes, and its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.header import (
    SIZE_LIMIT,
    Domain,
    Flags,
    Header,
    build_message,
    checksum,
)

HEADER = bytes.fromhex(
    "efbeadde"  # magic
    "02 01 14 80"  # domain 2, version 1, source 20, flags 128
    "0807060504030201"  # sequence
    "1817161514131211"  # timestamp
    "04000000"  # payload_size
    "78563412"  # checksum
)
FIELDS = Header(2, 1, 20, 0x80, 0x0102030405060708, 0x1112131415161718, 4, 0x12345678)

# The worked example of the protocol document.
EXAMPLE = bytes.fromhex(
    "efbeadde 02 01 14 00 0700000000000000 00007a4609285f18 04000000 a798d938 1802cafe"
)


def crc32_by_hand(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def build_example(**changes: object) -> bytes:
    fields = {"source": 20, "sequence": 7, "timestamp": 1_756_166_400_000_000_000}
    return build_message(b"\x18\x02\xca\xfe", **fields | changes)


class TestHeader:
    def test_unpack_literal(self):
        assert Header.unpack(HEADER) == FIELDS

    def test_pack_literal(self):
        assert FIELDS.pack() == HEADER

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_unpack_at_an_offset_of_any_buffer(self, kind):
        assert Header.unpack(kind(b"abc" + HEADER + b"xyz"), 3) == FIELDS

    @pytest.mark.parametrize(("size", "offset"), [(0, 0), (31, 0), (40, 9)])
    def test_fewer_than_32_bytes(self, size, offset):
        with pytest.raises(WireError) as caught:
            Header.unpack((HEADER * 2)[:size], offset)
        assert (caught.value.reason, caught.value.offset) == (Rejection.MAGIC, offset)

    @pytest.mark.parametrize("index", range(4))
    def test_each_byte_of_the_magic_counts(self, index):
        wrong = bytearray(HEADER)
        wrong[index] ^= 1
        with pytest.raises(WireError, match="magic at byte 0: 0x"):
            Header.unpack(bytes(wrong))

    def test_message_size(self):
        assert FIELDS.message_size == 36

    @pytest.mark.parametrize(
        ("byte5", "byte6", "legacy", "publisher"),
        [
            (1, 20, False, 20),
            (1, 0, False, 0),
            (4, 0, True, 4),
            (20, 33, True, 20),
            (0, 9, True, 0),
        ],
    )
    def test_publisher(self, byte5, byte6, legacy, publisher):
        header = FIELDS._replace(version=byte5, source=byte6)
        assert (header.legacy, header.publisher) == (legacy, publisher)

    @given(
        st.tuples(*[st.integers(0, 255)] * 4),
        st.tuples(*[st.integers(0, 2**64 - 1)] * 2),
        st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    )
    def test_round_trip(self, octets, longs, words):
        header = Header(*octets, *longs, *words)
        packed = header.pack()
        assert len(packed) == 32
        assert Header.unpack(packed) == header


class TestChecksum:
    def test_of_the_documented_example(self):
        assert checksum(EXAMPLE) == 0x38D998A7 == crc32_by_hand(EXAMPLE[:28] + EXAMPLE[32:])

    def test_skips_only_its_own_bytes(self):
        for index in range(len(EXAMPLE)):
            changed = bytearray(EXAMPLE)
            changed[index] ^= 0x10
            assert (checksum(bytes(changed)) == 0x38D998A7) == (28 <= index < 32)

    def test_of_a_memoryview(self):
        assert checksum(memoryview(EXAMPLE)) == 0x38D998A7


class TestBuildMessage:
    def test_literal(self):
        assert build_example() == EXAMPLE

    def test_without_checksum(self):
        assert build_example(with_checksum=False) == EXAMPLE[:28] + bytes(4) + EXAMPLE[32:]

    def test_empty_payload(self):
        message = build_message(b"", source=20, sequence=0, timestamp=0)
        assert len(message) == 32
        assert Header.unpack(message).checksum == crc32_by_hand(message[:28])

    def test_domain_and_flags(self):
        header = Header.unpack(build_example(domain=Domain.SYSTEM, flags=Flags.ZSTD))
        assert (header.domain, header.flags) == (4, 1)

    @pytest.mark.parametrize(
        "changes",
        [{"source": 256}, {"source": -1}, {"sequence": 2**64}, {"timestamp": -1}, {"domain": 256}],
    )
    def test_out_of_range(self, changes):
        with pytest.raises(ValueError, match="a header field is out of range"):
            build_example(**changes)

    def test_largest_fields(self):
        header = Header.unpack(build_example(source=255, sequence=2**64 - 1, timestamp=2**64 - 1))
        assert (header.source, header.sequence) == (255, 2**64 - 1)
        assert FIELDS._replace(payload_size=SIZE_LIMIT).pack()[24:28] == b"\xff\xff\xff\xff"
