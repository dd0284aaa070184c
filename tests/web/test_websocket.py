"""The WebSocket itself: how it opens, what ends it, and by which name."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.web.signals import WORDS_MAX
from alphapulse_relay.web.websocket import FRAMES_PER_TURN, PIECES_MAX, accept_deflate
from tests.hub.fakes import Hub, make_clock, message, messages
from tests.web.browsers import Browser, Browsers


@pytest.fixture
def here() -> Iterator[Browsers]:
    hub = Hub(make_clock(), rules=Rules(aside=True))
    browsers = Browsers(hub)
    yield browsers
    browsers.finish()
    hub.finish()


def frame(opcode: int, payload: bytes, *, final: bool = True, length: int | None = None) -> bytes:
    """Return a client's frame, masked with zeros; ``length`` is what it claims to have."""
    size = len(payload) if length is None else length
    first = (0x80 if final else 0) | opcode
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([first, 0x80 | 126]) + struct.pack("!H", size)
    else:
        head = bytes([first, 0x80 | 127]) + struct.pack("!Q", size)
    return head + bytes(4) + payload


def ended(here: Browsers, browser: Browser) -> Ending:
    """Return what the relay calls the end of the only peer that has ended."""
    browser.finish()
    (reason,) = (reason for reason, number in here.hub.counters.ended.items() if number)
    return reason


def test_opens_with_the_subprotocol(here: Browsers) -> None:
    browser = here.open()
    assert browser.response is not None
    assert browser.response.status_code == 101
    assert browser.client.subprotocol == "signal-relay"
    assert "Server" not in browser.response.headers
    (peer,) = here.hub.factory.peers
    assert (peer.identity.transport, peer.identity.program) == ("websocket", "Chrome/156")


class TestDeflate:
    def test_for_those_that_ask(self, here: Browsers) -> None:
        one, other, plain = here.open(deflate=True), here.open(deflate=True), here.open()
        assert len(one.client.extensions) == 1
        assert plain.client.extensions == []
        publisher = here.hub.connect()
        for first in (0, 20):
            publisher.send(*messages(20, 1000, first))
            here.serve(2)
        assert one.signals == other.signals == plain.signals == messages_of(plain)
        assert len(plain.signals) == 40
        assert len(one.transport.value()) < len(plain.transport.value()) / 4

    def test_takes_what_comes_compressed(self, here: Browsers) -> None:
        browser, consumer = here.open(deflate=True, publish=True), here.hub.connect()
        sent = messages(3, 5000)
        browser.send(*sent)
        assert consumer.received == b"".join(sent)

    def test_a_bomb_is_not_blown_up(self, here: Browsers) -> None:
        browser = here.open(deflate=True)
        browser.send(bytes(50 << 20))
        assert browser.close is not None
        assert browser.close.code == 1009
        assert ended(here, browser) is Ending.OVERSIZED

    def test_a_smaller_window_is_not_for_us(self) -> None:
        assert accept_deflate([]) is None
        assert accept_deflate(["no deflate"]) is None


def messages_of(browser: Browser) -> list[bytes]:
    return browser.signals


class TestOversized:
    @pytest.mark.parametrize("publish", [False, True])
    def test_a_frame(self, here: Browsers, publish: bool) -> None:
        browser = here.open(publish=publish)
        limit = here.hub.factory.rules.max_message if publish else WORDS_MAX
        browser.protocol.dataReceived(frame(2, b"", length=limit + 1))
        assert browser.close is not None
        assert browser.close.code == 1009
        browser.protocol.dataReceived(bytes(100_000))
        assert ended(here, browser) is Ending.OVERSIZED

    def test_a_message_in_pieces(self, here: Browsers) -> None:
        browser = here.open()
        piece = bytes(WORDS_MAX // 2)
        browser.protocol.dataReceived(frame(2, piece, final=False))
        browser.protocol.dataReceived(frame(0, piece, final=False))
        assert browser.close is None
        browser.protocol.dataReceived(frame(0, b"x", final=False))
        assert ended(here, browser) is Ending.OVERSIZED


class TestManyFrames:
    def test_are_dealt_with_in_turns(self, here: Browsers) -> None:
        browser = here.open(publish=True)
        consumer = here.hub.connect()
        sent = messages(3 * FRAMES_PER_TURN)
        browser.protocol.dataReceived(b"".join(frame(2, each) for each in sent))
        assert consumer.received == b"".join(sent[:FRAMES_PER_TURN])
        assert browser.transport.producerState == "paused"
        here.serve()
        assert consumer.received == b"".join(sent[: 2 * FRAMES_PER_TURN])
        here.serve(2)
        assert consumer.received == b"".join(sent)
        assert browser.transport.producerState == "producing"

    def test_whose_answer_to_a_ping_waits_among_them_has_time(self, here: Browsers) -> None:
        browser = here.open(publish=True)
        browser.protocol._sendAutoPing()
        sent = messages(2 * FRAMES_PER_TURN)
        browser.protocol.dataReceived(b"".join(frame(2, each) for each in sent))
        browser.protocol.autoPingTimeoutCall.cancel()
        browser.protocol.onAutoPingTimeout()
        assert not browser.transport.disconnected

    def test_who_is_held_is_not_read_on(self, here: Browsers) -> None:
        browser = here.open(publish=True)
        sent = messages(2 * FRAMES_PER_TURN)
        browser.protocol.dataReceived(b"".join(frame(2, each) for each in sent))
        browser.peer.hold()
        here.serve(3)
        assert browser.transport.producerState == "paused"
        browser.peer.release()
        assert browser.transport.producerState == "producing"

    def test_a_message_in_endless_pieces_ends(self, here: Browsers) -> None:
        browser = here.open()
        browser.protocol.dataReceived(frame(2, b"", final=False))
        piece = frame(0, b"", final=False) * 1000
        for _ in range(PIECES_MAX // 1000 + 1):
            browser.protocol.dataReceived(piece)
            while browser.protocol.is_waiting:
                here.serve()
        assert browser.close is not None
        assert browser.close.code == 1009
        assert ended(here, browser) is Ending.OVERSIZED


class TestViolation:
    @pytest.mark.parametrize(
        "data",
        [
            bytes([0x82, 5]) + b"plain",  # not masked
            frame(3, b""),  # no such opcode
            frame(9, b"", final=False),  # a ping in pieces
            frame(0, b"x"),  # goes on with nothing
            frame(2, b"a", final=False) + frame(2, b"b"),
            bytes([0xC2, 0x80]) + bytes(4),  # compressed without being asked
            frame(8, b"\x03"),  # half a code
            frame(8, struct.pack("!H", 999)),
            frame(1, b"\xff"),  # not UTF-8
        ],
    )
    def test_is_told_and_named(self, here: Browsers, data: bytes) -> None:
        browser = here.open()
        browser.protocol.dataReceived(data)
        assert browser.close is not None
        assert browser.close.code in (1002, 1007)
        assert ended(here, browser) is Ending.VIOLATION

    def test_text_is_not_understood(self, here: Browsers) -> None:
        browser = here.open()
        browser.client.send_text(b"hello")
        browser.exchange()
        assert browser.close is not None
        assert browser.close.code == 1003
        assert browser.close.reason == "violation: text is not understood"
        assert ended(here, browser) is Ending.VIOLATION

    def test_nothing_is_sent_after_the_close(self, here: Browsers) -> None:
        browser, publisher = here.open(), here.hub.connect()
        browser.protocol.dataReceived(frame(3, b""))
        before = browser.transport.value()
        publisher.send(message())
        here.serve(3)
        assert browser.transport.value() == before


class TestPing:
    def test_is_answered(self, here: Browsers) -> None:
        browser = here.open()
        browser.client.send_ping(b"here?")
        browser.exchange()
        assert [each.data for each in browser.frames if each.opcode == 10] == [b"here?"]

    def test_who_does_not_answer_is_gone(self, here: Browsers) -> None:
        browser = here.open()
        browser.protocol._sendAutoPing()
        browser.protocol.autoPingTimeoutCall.cancel()
        browser.protocol.onAutoPingTimeout()
        assert browser.transport.disconnected
        assert ended(here, browser) is Ending.UNRESPONSIVE

    def test_who_is_not_read_has_time(self, here: Browsers) -> None:
        browser: Any = here.open(publish=True)
        browser.peer.hold()
        browser.protocol._sendAutoPing()
        browser.protocol.autoPingTimeoutCall.cancel()
        browser.protocol.onAutoPingTimeout()
        assert not browser.transport.disconnected
        browser.peer.release()
        browser.protocol.autoPingTimeoutCall.cancel()
        browser.protocol.onAutoPingTimeout()
        assert browser.transport.disconnected
