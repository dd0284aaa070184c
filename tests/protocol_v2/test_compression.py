"""Compressed messages: there and back, and whatever a peer may claim in bounded memory."""

import random
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2 import compression
from alphapulse_relay.protocol_v2.compression import (
    RATIO_MAX,
    WINDOW_MAX,
    compress,
    expand,
    is_compressed,
)
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.header import Header, build_message, checksum

MAX = 1 << 20
PLAIN = bytes(range(20)) * 10


def message(payload: bytes = PLAIN, **fields: int) -> bytes:
    return build_message(payload, **{"source": 20, "sequence": 1, "timestamp": 2} | fields)


def framed(frame: bytes, flags: int = 1) -> bytes:
    """A message that says its payload is compressed."""
    return message(frame, flags=flags)


def unsized(content: bytes, window_log: int = 20) -> bytes:
    """A frame that does not say how much is in it."""
    parameters = zstandard.ZstdCompressionParameters(
        compression_level=3, window_log=window_log, write_content_size=False
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(content) + compressor.flush()


def sized(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def repeating(blocks: int, claimed: int | None) -> bytes:
    """A frame of so many blocks of 128 KiB each, of 4 bytes each (RFC 8878, 3.1.1)."""
    descriptor = b"\x00" if claimed is None else b"\x80"
    size = b"" if claimed is None else struct.pack("<I", claimed)
    window = bytes([(23 - 10) << 3])
    each = (128 << 10) << 3 | 1 << 1
    body = b"".join(
        (each | (number == blocks - 1)).to_bytes(3, "little") + b"x" for number in range(blocks)
    )
    return b"\x28\xb5\x2f\xfd" + descriptor + window + size + body


def refused(data: bytes, max_message: int = MAX) -> str:
    with pytest.raises(WireError) as raised:
        expand(data, max_message)
    assert (raised.value.reason, raised.value.offset) == (Rejection.COMPRESSION, 0)
    assert "\n" not in str(raised.value)
    return raised.value.detail


class TestCompress:
    def test_only_flags_size_and_checksum_differ(self):
        plain = message(flags=0xF0)
        small = compress(plain)
        assert small is not None
        assert len(small) < len(plain)
        assert is_compressed(small)
        before, after = Header.unpack(plain), Header.unpack(small)
        same = after._replace(
            flags=0xF0, payload_size=before.payload_size, checksum=before.checksum
        )
        assert same == before
        assert after.flags == 0xF1
        assert after.payload_size == len(small) - 32
        assert after.checksum == checksum(small)
        assert zstandard.decompress(small[32:]) == PLAIN

    @pytest.mark.parametrize("payload", [b"", b"a", random.Random(1).randbytes(500)])
    def test_where_it_is_no_smaller(self, payload):
        assert compress(message(payload)) is None

    def test_what_cannot_be_marked(self):
        legacy = Header(2, 20, 0, 0, 1, 2, len(PLAIN), 0).pack() + PLAIN
        for data in (legacy, framed(PLAIN), message(domain=4)):
            assert compress(data) is None

    @given(st.binary(min_size=1, max_size=40), st.integers(1, 200), st.integers(0, 127))
    def test_there_and_back(self, part, times, flags):
        plain = message(part * times, flags=2 * flags)
        small = compress(plain)
        assert small is None or expand(small, len(plain)) == plain

    def test_where_it_is_smaller_than_others_would_believe(self):
        compressed = []
        for size in range(7_500, 8_500):  # a frame of 31 bytes or so
            plain = message((b"00000007 alike" * 700)[:size])
            small = compress(plain)
            compressed.append(small is not None)
            assert small is None or expand(small, MAX) == plain
        assert compressed[0]
        assert not compressed[-1]

    def test_a_checksum_that_was_not_set_is_set(self):
        plain = message()
        small = compress(plain[:28] + bytes(4) + plain[32:])
        assert small is not None
        assert expand(small, MAX) == plain

    def test_by_several_threads_at_once(self):
        plain = [message(random.Random(number).randbytes(1000) * 100) for number in range(16)]

        def there_and_back(data: bytes) -> bytes:
            small = compress(data)
            assert small is not None
            return expand(small, MAX)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(there_and_back, plain)) == plain


class TestIsCompressed:
    @pytest.mark.parametrize("flags", range(4))
    def test_by_bit_0(self, flags):
        assert is_compressed(message(flags=flags)) is bool(flags & 1)

    def test_not_where_byte_7_is_no_flags(self):
        assert not is_compressed(Header(2, 20, 0, 1, 1, 2, 0, 0).pack())


class TestExpand:
    @pytest.mark.parametrize("frame", [sized(PLAIN), unsized(PLAIN)])
    def test_gives_the_plain_message(self, frame):
        assert expand(framed(frame, flags=0x83), MAX) == message(flags=0x82)

    @pytest.mark.parametrize("frame", [sized(b""), unsized(b"")])
    def test_an_empty_payload(self, frame):
        assert expand(framed(frame), 32) == message(b"")

    def test_without_a_checksum(self):
        data = framed(sized(PLAIN))
        plain = expand(data[:28] + bytes(4) + data[32:], MAX)
        assert plain[28:32] == bytes(4)
        assert plain[32:] == PLAIN

    @pytest.mark.parametrize("frame", [sized(PLAIN), unsized(PLAIN)])
    def test_to_the_limit_and_no_further(self, frame):
        size = 32 + len(PLAIN)
        assert len(expand(framed(frame), size)) == size
        assert "more than the 199 bytes" in refused(framed(frame), size - 1)

    @pytest.mark.parametrize("content", [PLAIN, b""], ids=["content", "empty"])
    @pytest.mark.parametrize("make", [sized, unsized])
    def test_a_frame_that_is_not_whole(self, make, content):
        frame = make(content)
        for length in range(len(frame)):
            refused(framed(frame[:length]))

    @pytest.mark.parametrize("content", [PLAIN, b""], ids=["content", "empty"])
    @pytest.mark.parametrize("make", [sized, unsized])
    @pytest.mark.parametrize("trailing", [b"\x00", b"abc", sized(PLAIN), sized(b"")])
    def test_more_than_a_frame(self, make, content, trailing):
        refused(framed(make(content) + trailing))

    @pytest.mark.parametrize("size", [0, 4, 1 << 30])
    def test_a_frame_to_be_skipped(self, size):
        assert "not a zstd frame" in refused(framed(struct.pack("<II", 0x184D2A50, size) + b"abcd"))

    @pytest.mark.parametrize("frame", [b"", b"\x28", b"\x28\xb5\x2f\xfd", b"junk" * 10])
    def test_no_frame(self, frame):
        refused(framed(frame))

    def test_a_frame_that_needs_a_dictionary(self):
        dictionary = zstandard.ZstdCompressionDict(PLAIN * 10)
        frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(PLAIN)
        refused(framed(frame))

    @pytest.mark.parametrize("claimed", [None, 0, 1, 200, MAX - 32, MAX, 0xFFFFFFFF])
    def test_a_bomb_takes_no_memory(self, claimed):
        bomb = framed(repeating(blocks=10_000, claimed=claimed))
        refused(bomb)
        tracemalloc.start()
        try:
            refused(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2 * MAX

    def test_such_a_frame_is_sound_but_for_its_size(self, monkeypatch):
        monkeypatch.setattr(compression, "RATIO_MAX", 1 << 20)
        for claimed in (None, 4 << 17):
            data = framed(repeating(blocks=4, claimed=claimed))
            assert expand(data, MAX)[32:] == b"x" * (4 << 17)

    def test_one_that_is_far_larger_than_its_frame(self):
        sound, bomb = bytes(range(50)) * 100, bytes(100_000)
        for payload, fits in ((sound, True), (bomb, False)):
            frame = zstandard.ZstdCompressor().compress(payload)
            assert (len(payload) <= RATIO_MAX * len(frame)) is fits
            if fits:
                assert expand(framed(frame), MAX)[32:] == payload
            else:
                refused(framed(frame))
        assert compress(message(bomb)) is None, "or nobody would take it"

    def test_a_window_that_is_too_large(self):
        largest = WINDOW_MAX.bit_length() - 1
        assert expand(framed(unsized(PLAIN, largest)), MAX) == message()
        assert "memory" in refused(framed(unsized(PLAIN, largest + 1)))

    @given(st.integers(0, 60), st.integers(1, 255), st.booleans())
    def test_a_damaged_frame_is_refused_or_gives_a_message(self, place, change, with_size):
        frame = bytearray((sized if with_size else unsized)(PLAIN))
        frame[place % len(frame)] ^= change
        try:
            plain = expand(framed(bytes(frame)), 400)
        except WireError as error:
            assert error.reason is Rejection.COMPRESSION  # noqa: PT017
        else:
            assert Header.unpack(plain).message_size == len(plain) <= 400
