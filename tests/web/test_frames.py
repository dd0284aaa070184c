"""WebSocket frames: their bytes, and that each is made once."""

import json
import zlib
from itertools import count

import pytest

from alphapulse_relay.hub.framed import Offer
from alphapulse_relay.protocol_v2.control import (
    Ack,
    Gap,
    GapReason,
    Heartbeat,
    RecoveryResponse,
    SequenceSync,
    SyncState,
    build_control,
    build_error,
)
from alphapulse_relay.protocol_v2.document import describe
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import build_tlv
from alphapulse_relay.web.frames import (
    COSTLY_SIZE,
    DECODED_MAX,
    DEFLATED_MAX,
    FRAMES_KEPT,
    TLVS_MAX,
    Form,
    Frames,
    text_of,
)
from alphapulse_relay.web.query import Format
from tests.hub.fakes import message, messages

PLAIN = Form(Format.BINARY, deflated=False)
DEFLATED = Form(Format.BINARY, deflated=True)
JSON = Form(Format.JSON, deflated=False)
TABLE = SignalTable.builtin()


@pytest.fixture
def frames() -> Frames:
    return Frames(TABLE)


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (100, b"\x82\x64"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_plain(frames: Frames, size: int, header: bytes) -> None:
    data = message(size)
    assert frames.frame(memoryview(data), PLAIN, None) == (header + data, size)


def test_deflated(frames: Frames) -> None:
    data = message(2000)
    frame, size = frames.frame(memoryview(data), DEFLATED, None)
    assert size == 2000
    assert frame[0] == 0xC2  # final, compressed, binary
    assert len(frame) < 200
    inflate = zlib.decompressobj(-15)
    assert inflate.decompress(frame[4 if frame[1] == 126 else 2 :] + b"\x00\x00\xff\xff") == data


def test_text(frames: Frames) -> None:
    sent = messages(2)
    frame, _ = frames.frame(memoryview(b"".join(sent)), JSON, None)
    assert frame[:2] == b"\x81\x7e"
    assert json.loads(frame[4:]) == [describe(each, TABLE) for each in sent]


def test_a_costly_frame_has_no_more_than_a_part(frames: Frames) -> None:
    sent = messages(100, 1000)
    data = memoryview(b"".join(sent))
    frame, size = frames.frame(data, JSON, None)
    assert size == COSTLY_SIZE // 1000 * 1000
    assert len(json.loads(frame[4:] if frame[1] == 126 else frame[10:])) == size // 1000
    assert frames.frame(data, PLAIN, None)[1] == len(data)


def test_a_large_message_is_never_cut(frames: Frames) -> None:
    data = message(3 * COSTLY_SIZE) + message()
    assert frames.frame(memoryview(data), JSON, None)[1] == 3 * COSTLY_SIZE


class TestSharing:
    def test_equal_offers_in_equal_forms_share(self, frames: Frames) -> None:
        data, offer = memoryview(message()), Offer(None, 7, 64)
        for form in (PLAIN, DEFLATED, JSON):
            first, _ = frames.frame(data, form, offer)
            assert frames.frame(data, form, Offer(None, 7, 64))[0] is first
        assert len({frames.frame(data, form, offer)[0] for form in (PLAIN, DEFLATED, JSON)}) == 3

    def test_others_do_not(self, frames: Frames) -> None:
        one, other = memoryview(message()), memoryview(message(number=1))
        frames.frame(one, PLAIN, Offer(None, 7, 64))
        assert frames.frame(other, PLAIN, Offer(None, 71, 64))[0].endswith(other)
        assert frames.frame(other, PLAIN, None)[0].endswith(other)

    def test_no_more_is_kept_than_fits(self, frames: Frames) -> None:
        data = memoryview(message(60_000))
        first, _ = frames.frame(data, PLAIN, Offer(None, 0, 60_000))
        for number in range(1, FRAMES_KEPT // 60_000 + 2):
            frames.frame(data, PLAIN, Offer(None, number, 60_000))
        assert frames.frame(data, PLAIN, Offer(None, 0, 60_000))[0] is not first
        kept = sum(len(frame) for frame, _ in frames._kept.values())
        assert kept == frames._size <= FRAMES_KEPT


class TestBudget:
    def test_costly_frames_use_it_up_until_the_next_turn(self) -> None:
        seconds = (number * 0.0015 for number in count())
        frames = Frames(TABLE, lambda: next(seconds))
        data = memoryview(message())
        frames.frame(data, DEFLATED, None)
        assert not frames.exhausted
        frames.frame(data, DEFLATED, None)
        assert frames.exhausted
        frames.next_turn()
        assert not frames.exhausted

    def test_plain_and_kept_ones_are_free(self) -> None:
        seconds = count()
        frames = Frames(TABLE, lambda: float(next(seconds)))
        data, offer = memoryview(message()), Offer(None, 0, 64)
        frames.frame(data, PLAIN, offer)
        assert not frames.exhausted
        frames.frame(data, JSON, offer)
        frames.next_turn()
        frames.frame(data, JSON, offer)
        assert not frames.exhausted

    def test_text_ends_where_the_time_does(self) -> None:
        seconds = (number * 0.0005 for number in count())
        frames = Frames(TABLE, lambda: next(seconds))
        frame, size = frames.frame(memoryview(b"".join(messages(50))), JSON, Offer(None, 0, 3200))
        assert size == 4 * 64
        assert len(json.loads(frame[4:])) == 4
        # Who comes later gets the same.
        assert frames.frame(memoryview(b"".join(messages(60))), JSON, Offer(None, 0, 3840)) == (
            frame,
            size,
        )
        assert frames.frame(memoryview(b"".join(messages(2))), JSON, Offer(None, 0, 128))[1] == 128


class TestLarge:
    def test_what_takes_too_long_to_decode_is_told_without_its_tlvs(self) -> None:
        many = build_message(
            build_tlv(21, b"") * (TLVS_MAX + 1), source=20, sequence=1, timestamp=0
        )
        for large in (message(DECODED_MAX + 1), many):
            (document,) = json.loads(text_of(large, TABLE))
            assert document["tlvs"] == []
            assert document["fault"].startswith("not decoded here")
            assert document["message_size"] == len(large)

    def test_what_does_not_is_decoded(self) -> None:
        many = build_message(build_tlv(21, b"") * TLVS_MAX, source=20, sequence=1, timestamp=0)
        (document,) = json.loads(text_of(many, TABLE))
        assert len(document["tlvs"]) == TLVS_MAX
        assert document["fault"] is None

    def test_what_takes_too_long_to_compress_goes_plain(self, frames: Frames) -> None:
        large = memoryview(message(DEFLATED_MAX + 1))
        assert frames.frame(large, DEFLATED, None) == frames.frame(large, PLAIN, None)


@pytest.mark.parametrize(
    ("content", "document"),
    [
        (
            SequenceSync(2**64 - 1, 5, SyncState.REPLAYING),
            {
                "control": "sequence_sync",
                "epoch": str(2**64 - 1),
                "position": 5,
                "state": "replaying",
            },
        ),
        (
            Gap(7, 5, 9, GapReason.SKIPPED),
            {"control": "gap", "epoch": "7", "start": 5, "stop": 9, "reason": "skipped"},
        ),
        (Ack(20, 3, 9), {"control": "ack", "source": 20, "sequence": 3, "position": 9}),
        (Heartbeat(9, 0), {"control": "heartbeat", "timestamp": 9, "status": 0}),
        (
            RecoveryResponse(1, 2, 3, 4),
            {
                "control": "recovery_response",
                "consumer_id": 1,
                "first_sequence": 2,
                "last_sequence": 3,
                "count": 4,
            },
        ),
    ],
)
def test_control_as_text(content: object, document: dict[str, object]) -> None:
    word = build_control(content, timestamp=1)  # type: ignore[arg-type]
    assert json.loads(text_of(word, TABLE)) == [document]


def test_an_error_as_text() -> None:
    word = build_error(6, "peer 4 has the name “desk”", timestamp=1)  # type: ignore[arg-type]
    assert json.loads(text_of(word, TABLE)) == [
        {"control": "error", "code": 6, "text": "peer 4 has the name “desk”"}
    ]
