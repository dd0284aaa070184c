"""The compiled part of the wire says what pure Python says."""

import mmap
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2 import framing
from alphapulse_relay.protocol_v2.framing import Level, Rules, check
from alphapulse_relay.protocol_v2.native import load
from tests.protocol_v2 import streams
from tests.support import MANIFEST, SAMPLES

_scan: Any = load("alphapulse_relay.protocol_v2._scan")
pytestmark = pytest.mark.skipif(_scan is None, reason="pure Python is asked for, or built")


def checked(data: bytes, rules: Rules, skim: Any) -> tuple[object, ...]:
    chunk = bytearray(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "_skim", skim)
        run = check(memoryview(chunk), len(chunk), rules)
    told = [repr(error) for error in (run.first, run.broken)]
    counts = run.accepted, run.consumed, run.aside, run.messages, run.rejected
    return *counts, told, bytes(chunk)


@given(
    stream=st.lists(streams.messages, max_size=8),
    rules=streams.rules,
    cut=st.integers(0, 4000),
    tail=st.binary(max_size=40),
)
def test_check_is_the_same_with_and_without(
    stream: list[bytes], rules: Rules, cut: int, tail: bytes
) -> None:
    data = b"".join(stream)
    data = data[: max(0, len(data) - cut)] if cut % 2 else data + tail
    assert checked(data, rules, _scan.skim) == checked(data, rules, framing._skim_nothing)


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_samples_are_the_same_with_and_without(name: str, level: Level) -> None:
    data, rules = (SAMPLES / name).read_bytes(), Rules(level)
    assert checked(data, rules, _scan.skim) == checked(data, rules, framing._skim_nothing)


@pytest.mark.parametrize("aside", [False, True])
@pytest.mark.parametrize("version", [0, 1, 2, 255])
@pytest.mark.parametrize("flags", [0, 1, 2, 254, 255])
def test_compressed_ones_are_left_where_they_are_set_aside(
    flags: int, version: int, aside: bool
) -> None:
    message = framing_message(0, bytes([2, version, 255, flags]))
    compressed = version == 1 and flags % 2 == 1
    skimmed = _scan.skim(message, 0, 32, Rules(aside=aside).compiled)
    assert skimmed == ((0, 0) if aside and compressed else (32, 1))


@pytest.mark.parametrize("payload", [2**n + d for n in (8, 15, 16, 20) for d in (-1, 0, 1)])
def test_sizes_around_those_of_integers(payload: int) -> None:
    """Where a length in the compiled code might be too narrow."""
    message = framing_message(payload)
    rules = Rules(Level.CHECKSUM, max_message=payload + 32)
    assert _scan.skim(message, 0, len(message), rules.compiled) == (len(message), 1)
    smaller = Rules(Level.CHECKSUM, max_message=payload + 31)
    assert _scan.skim(message, 0, len(message), smaller.compiled) == (0, 0)


@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32 - 33, 2**32 - 1])
def test_sizes_that_no_message_has(size: int) -> None:
    header = bytearray(framing_message(0)[:32])
    header[24:28] = size.to_bytes(4, "little")
    rules = Rules(Level.FRAMING, max_message=2**33)
    assert _scan.skim(bytes(header) + bytes(100), 0, 132, rules.compiled) == (0, 0)


def framing_message(payload: int, fields: bytes = bytes([2, 0, 0, 0])) -> bytes:
    header = bytearray(bytes.fromhex("efbeadde") + fields + bytes(24))
    header[24:28] = payload.to_bytes(4, "little")
    body = bytes(payload)
    crc = zlib.crc32(body, zlib.crc32(header[:28]))
    header[28:32] = crc.to_bytes(4, "little")
    return bytes(header) + body


def test_skim_looks_at_no_more_than_it_is_told() -> None:
    message = framing_message(100)
    rules = Rules(Level.CHECKSUM).compiled
    assert _scan.skim(message, 0, 131, rules) == (0, 0)
    assert _scan.skim(message * 2, 132, 264, rules) == (264, 1)
    assert _scan.skim(message, 132, 132, rules) == (132, 0)
    with pytest.raises(TypeError):
        _scan.skim(message, 0, 132, None)


@pytest.fixture(params=["vpclmul", "pclmul", "table"])
def method(request: pytest.FixtureRequest) -> Iterator[str]:
    if not _scan.use(request.param.encode()):
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    _scan.use(_scan.CRC32_BY.encode())


class TestChecksum:
    SIZES = (*range(32, 1200), *(2**n + d for n in (11, 15, 16) for d in (-1, 0, 1)), 1 << 17)

    def test_of_all_sizes_at_random_places(self, method: str) -> None:
        chance = random.Random(32)
        data = chance.randbytes(self.SIZES[-1] + 64)
        for size in self.SIZES:
            start = chance.randrange(64)
            message = memoryview(data)[start : start + size]
            expected = zlib.crc32(message[32:], zlib.crc32(message[:28]))
            assert _scan.checksum(message) == expected, size

    def test_looks_at_nothing_behind_the_message(self, method: str) -> None:
        with mmap.mmap(-1, 1 << 16) as pages:
            for size in range(32, 700):
                pages[-size:] = message = bytes([size & 255]) * size
                with memoryview(pages) as view:
                    at_the_end = _scan.checksum(view[-size:])
                assert at_the_end == zlib.crc32(message[32:], zlib.crc32(message[:28])), size

    def test_of_less_than_a_header(self) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            _scan.checksum(bytes(31))

    def test_by_an_unknown_method(self) -> None:
        assert not _scan.use(b"abacus")


class TestCheckRun:
    @pytest.mark.parametrize("size", [32, 33, 100, 1 << 20])
    def test_is_the_checksum_with_its_field_added_rotated(self, size: int) -> None:
        run = random.Random(size).randbytes(size)
        field = int.from_bytes(run[28:32], "little")
        expected = zlib.crc32(run[32:], zlib.crc32(run[:28])) ^ (field * 2 % 2**32 + field // 2**31)
        for data in (run, bytearray(run), memoryview(b"x" + run)[1:]):
            assert _scan.check_run(data) == expected

    def test_is_0_for_none(self) -> None:
        assert _scan.check_run(b"") == 0

    @pytest.mark.parametrize("size", [1, 31])
    def test_of_less_than_a_header(self, size: int) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            _scan.check_run(bytes(size))
