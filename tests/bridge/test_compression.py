"""Payloads come back as they were; what does not shrink goes plain; no frame fills the memory."""

import random
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.bridge import compression as module
from alphapulse_relay.bridge.compression import (
    LEAST_SAVED,
    PLAIN_MAX,
    REST,
    SMALLEST,
    Compressor,
    When,
    expand,
    plain_size,
)
from alphapulse_relay.protocol_v2.compression import RATIO_MAX
from alphapulse_relay.protocol_v2.errors import WireError

ALIKE = b"a signal like all the others; " * 100
"""Shrinks to a fraction."""
NOISE = random.Random(7).randbytes(len(ALIKE))
"""Does not shrink."""
MIXED = b"".join(NOISE[start : start + 180] + ALIKE[:30] for start in range(0, 2700, 180))
"""Shrinks by an eighth."""


def compressor(when: When = When.AUTO) -> Callable[[bytes], bytes | None]:
    return Compressor(when).compress


class TestWhen:
    def test_what_shrinks(self) -> None:
        frame = compressor()(ALIKE)
        assert frame is not None
        assert len(frame) < (1 - LEAST_SAVED) * len(ALIKE)
        assert expand(frame) == ALIKE

    def test_what_does_not(self) -> None:
        assert compressor()(NOISE) is None
        assert compressor(When.ALWAYS)(NOISE) is None

    def test_what_shrinks_a_little(self) -> None:
        assert compressor()(MIXED) is None
        frame = compressor(When.ALWAYS)(MIXED)
        assert frame is not None
        assert (1 - LEAST_SAVED) * len(MIXED) < len(frame) < len(MIXED)

    def test_never(self) -> None:
        assert compressor(When.NEVER)(ALIKE) is None

    def test_what_others_would_not_expand(self) -> None:
        compress = compressor(When.ALWAYS)
        assert compress(bytes(1 << 20)) is None  # a frame of 62 bytes could be anybody's
        assert compress(ALIKE * (PLAIN_MAX // len(ALIKE) + 1)) is None
        for size in range(7_500, 8_500):
            payload = (b"00000007 alike" * 700)[:size]
            frame = compress(payload)
            assert frame is None or expand(frame) == payload

    @pytest.mark.parametrize("when", [When.AUTO, When.ALWAYS])
    def test_what_is_small(self, when: When) -> None:
        assert compressor(when)(ALIKE[: SMALLEST - 1]) is None
        assert compressor(when)(ALIKE[:SMALLEST]) is not None


class TestRest:
    def test_it_is_tried_again_after_a_while(self) -> None:
        compress = compressor()
        compress(NOISE)
        tried = [compress(ALIKE) is not None for _ in range(REST + 3)]
        assert tried == [False] * REST + [True] * 3

    def test_a_little_in_vain_is_a_short_while(self) -> None:
        compress = compressor()
        compress(NOISE[:SMALLEST])
        tried = [compress(ALIKE) is not None for _ in range(REST)]
        assert tried.count(False) == -(-REST * SMALLEST // len(ALIKE))

    def test_each_type_has_its_own(self) -> None:
        compress = Compressor(When.AUTO).compress
        for _ in range(3):
            assert compress(NOISE, 20) is None
            assert compress(ALIKE, 21) is not None
            assert compress(ALIKE, 20) is None

    def test_there_is_none_if_it_is_to_be_always(self) -> None:
        compress = compressor(When.ALWAYS)
        compress(NOISE)
        assert compress(ALIKE) is not None


class TestExpand:
    @given(st.binary(min_size=SMALLEST, max_size=4 * SMALLEST))
    def test_there_and_back(self, payload: bytes) -> None:
        frame = compressor(When.ALWAYS)(payload * 2)
        assert frame is not None
        assert expand(frame) == payload * 2
        assert plain_size(frame) == 2 * len(payload)

    @given(st.data())
    def test_what_is_damaged_is_told_or_is_something_else(self, data: st.DataObject) -> None:
        frame = bytearray(zstandard.compress(ALIKE))
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
        with suppress(WireError):
            assert len(expand(bytes(frame))) == plain_size(bytes(frame))

    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"no frame",
            zstandard.compress(ALIKE)[:-1],
            zstandard.compress(ALIKE) + b"x",
            zstandard.compress(ALIKE) * 2,
        ],
        ids=["nothing", "no frame", "torn", "more behind it", "two"],
    )
    def test_what_is_none(self, frame: bytes) -> None:
        with pytest.raises(WireError):
            expand(frame)
        assert plain_size(frame) in {len(frame), len(ALIKE)}

    def test_one_that_is_too_large_is_not_begun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PLAIN_MAX", len(ALIKE) - 1)
        with pytest.raises(WireError, match=f"more than the {len(ALIKE) - 1} bytes"):
            expand(zstandard.compress(ALIKE))

    def test_nor_one_that_is_too_small_for_what_it_says(self) -> None:
        frame = zstandard.compress(bytes(1 << 20))
        with pytest.raises(WireError, match=f"more than the {RATIO_MAX * len(frame)} bytes"):
            expand(frame)

    def test_one_that_does_not_tell_its_size(self) -> None:
        frame = zstandard.ZstdCompressor(write_content_size=False).compress(ALIKE)
        assert plain_size(frame) == len(frame)
        assert expand(frame) == ALIKE

    def test_one_that_has_more_than_it_says(self) -> None:
        frame = bytearray(zstandard.compress(ALIKE))
        size = len(ALIKE) - 256  # a frame of that size has it in two bytes, less 256 (RFC 8878)
        at = bytes(frame).index(size.to_bytes(2, "little"))
        frame[at : at + 2] = (10).to_bytes(2, "little")
        assert plain_size(bytes(frame)) == 10 + 256
        with pytest.raises(WireError):
            expand(bytes(frame))
