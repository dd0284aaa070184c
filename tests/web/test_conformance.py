"""``/signals`` by RFC 6455 and RFC 7692: what the Autobahn TestSuite asks of an endpoint.

Its groups are named at the classes. As this is no echo server, what is published is looked for at
another peer, and text is answered with 1003 where the TestSuite wants it back.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.web.signals import CLOSE_SECONDS
from tests.hub.fakes import BROKEN, Hub, make_clock, message, messages
from tests.web.browsers import Browsers

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = bytes.fromhex("37fa213d")
HEAD_SIZE = 6
"""Octets before the payload of a small frame."""
LIMIT = 128 * 1024
SMALL = message(90)
WHOLE = 1 << 30
"""Octets at once: all."""


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, rsv: int = 0, wide: int = 0
) -> bytes:
    """Return a client's frame; ``wide`` is in how many octets at least its length is told."""
    head = bytes([final << 7 | rsv << 4 | opcode])
    size = len(payload)
    if wide == 8 or size >= 1 << 16:
        head += b"\xff" + struct.pack("!Q", size)
    elif wide == 2 or size >= 126:
        head += b"\xfe" + struct.pack("!H", size)
    else:
        head += bytes([0x80 | size])
    key = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload) ^ int.from_bytes(key)
    return head + MASK + masked.to_bytes(size)


def fragments(opcode: int, *payloads: bytes, between: bytes = b"", rsv: int = 0) -> bytes:
    """Return a message in pieces, with ``between`` between them."""
    last = len(payloads) - 1
    return between.join(
        frame(CONTINUATION if place else opcode, each, final=place == last, rsv=rsv * (not place))
        for place, each in enumerate(payloads)
    )


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


class Publisher:
    """A WebSocket that may publish, octet by octet, and what comes of it at another peer."""

    def __init__(self, **how: Any) -> None:
        self.hub = Hub(make_clock(), rules=Rules(max_message=LIMIT, aside=True))
        self.browsers = Browsers(self.hub)
        self.browser = self.browsers.open(publish=True, **how)
        self.transport = self.browser.transport
        self.consumer = self.hub.connect()
        self._start = len(self.transport.value())

    def feed(self, data: bytes, step: int = WHOLE) -> None:
        for piece in cut(data, step):
            self.browser.protocol.dataReceived(piece)
            while self.browser.protocol.is_waiting:
                self.browsers.serve()

    @property
    def published(self) -> bytes:
        return self.consumer.received

    @property
    def said(self) -> list[tuple[int, bytes]]:
        """Opcode and payload of each control frame that was sent since it opened."""
        data, found = self.transport.value()[self._start :], []
        while data:
            size, start = data[1], 2
            if size == 126:
                size, start = struct.unpack_from("!H", data, 2)[0], 4
            if data[0] & 0x0F >= CLOSE:
                found.append((data[0] & 0x0F, data[start : start + size]))
            data = data[start + size :]
        return found

    @property
    def closed_with(self) -> int | None:
        codes = [payload for opcode, payload in self.said if opcode == CLOSE]
        return int(struct.unpack_from("!H", *codes)[0]) if codes else None

    def assert_closed(self, code: int, ending: Ending, published: bytes = b"") -> None:
        """See what it was closed with, by which name, and that nothing is heard or said after."""
        assert self.closed_with == code
        sent = self.transport.value()
        self.feed(frame(BINARY, SMALL) + frame(PING, b"late") + frame(TEXT, b"\xff") + close(1000))
        assert self.published == published
        self.hub.connect().send(SMALL)
        self.browsers.serve(3)
        assert self.transport.value() == sent
        assert not self.transport.disconnected, "what is not sent yet would be lost"
        self.browser.finish()
        assert {why: n for why, n in self.hub.counters.ended.items() if n} == {ending: 1}

    def finish(self) -> None:
        self.browsers.finish()
        self.hub.finish()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.finish()


@pytest.fixture
def deflating() -> Iterator[Publisher]:
    """One with which compression is agreed, with all contexts kept."""
    made = Publisher(deflate=True)
    yield made
    made.finish()


SIZES = [[0], [125], [126], [60, 67], [128], [65_535], [65_536], [64] * 1024, [LIMIT]]


class TestLengths:
    """Groups 1 and 9: whole messages, or a stream of them."""

    @pytest.mark.parametrize("step", [WHOLE, 997, 1])
    @pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{sum(sizes)} of {len(sizes)}")
    def test_are_taken(self, publisher: Publisher, sizes: list[int], step: int) -> None:
        payload = b"".join(message(size, 1) for size in sizes if size)
        publisher.feed(frame(BINARY, payload), step if len(payload) < 1000 else max(step, 997))
        assert publisher.published == payload
        publisher.feed(frame(BINARY, SMALL))
        assert publisher.published == payload + SMALL
        assert publisher.said == []

    @pytest.mark.parametrize("pieces", [1, 2, 256])
    def test_a_byte_too_many(self, publisher: Publisher, pieces: int) -> None:
        largest = message(LIMIT)
        publisher.feed(fragments(BINARY, *cut(largest, LIMIT // pieces)))
        assert publisher.published == largest
        publisher.feed(fragments(BINARY, *cut(largest + b"x", LIMIT // pieces + 1)))
        publisher.assert_closed(1009, Ending.OVERSIZED, largest)


HALVES = cut(SMALL, 45)
OCTETS = cut(SMALL, 1)
ANY = b"\x00\xff\xfe\xfd\x00\xff"
TEN = [b"%d" % number for number in range(10)]
TWO = frame(PING, b"a") + frame(PONG) + frame(PING)
TAKEN: dict[str, tuple[bytes, int, list[bytes]]] = {
    # group 2
    "an empty ping": (frame(PING), 0, [b""]),
    "a ping": (frame(PING, b"Hello"), 0, [b"Hello"]),
    "a ping of any octets": (frame(PING, ANY), 0, [ANY]),
    "a ping of 125": (frame(PING, b"\xfe" * 125), 0, [b"\xfe" * 125]),
    "ten pings": (b"".join(frame(PING, each) for each in TEN), 0, TEN),
    "unsolicited pongs": (frame(PONG) + frame(PONG, ANY), 0, []),
    "a pong, a ping, a pong": (frame(PONG, ANY) + frame(PING, b"?") + frame(PONG), 0, [b"?"]),
    # group 5
    "two fragments": (fragments(BINARY, *HALVES), 1, []),
    "fragments of an octet": (fragments(BINARY, *OCTETS), 1, []),
    "an empty first fragment": (fragments(BINARY, b"", SMALL), 1, []),
    "empty fragments between": (fragments(BINARY, HALVES[0], b"", b"", HALVES[1]), 1, []),
    "an empty last fragment": (fragments(BINARY, SMALL, b""), 1, []),
    "only empty fragments": (fragments(BINARY, b"", b"", b""), 0, []),
    "a ping between": (fragments(BINARY, *HALVES, between=frame(PING, b"now")), 1, [b"now"]),
    "two pings between octets": (fragments(BINARY, *OCTETS, between=TWO), 1, [b"a", b""] * 89),
    "a message in two": (frame(BINARY, HALVES[0]) + frame(BINARY, HALVES[1]), 1, []),
    "one and a half, half": (frame(BINARY, SMALL + HALVES[0]) + frame(BINARY, HALVES[1]), 2, []),
}
"""What is sent, how often that publishes ``SMALL``, and what pongs it gets."""


@pytest.mark.parametrize("step", [WHOLE, 7, 1])
@pytest.mark.parametrize(("data", "count", "pongs"), TAKEN.values(), ids=TAKEN)
def test_is_taken(
    publisher: Publisher, data: bytes, count: int, pongs: list[bytes], step: int
) -> None:
    publisher.feed(data, step)
    assert publisher.said == [(PONG, payload) for payload in pongs]
    assert publisher.published == SMALL * count
    publisher.feed(frame(BINARY, SMALL))
    assert publisher.published == SMALL * (count + 1)


FIRST = fragments(BINARY, HALVES[0], b"")[: -len(frame(CONTINUATION))]
NO_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
NO_OPCODES = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
REFUSED: dict[str, tuple[bytes, int]] = {
    # group 1: lengths that need not be so long, or cannot be
    "125 in two octets": (frame(BINARY, bytes(125), wide=2), 1002),
    "0 in two octets": (frame(BINARY, wide=2), 1002),
    "125 in eight octets": (frame(BINARY, bytes(125), wide=8), 1002),
    "65535 in eight octets": (frame(BINARY, bytes(65_535), wide=8), 1002),
    "a length of 64 bits": (bytes.fromhex("82ff8000000000000000") + MASK, 1002),
    "no mask": (bytes([0x82, len(SMALL)]) + SMALL, 1002),
    # group 2
    "a ping of 126": (frame(PING, bytes(126)), 1002),
    "a pong of 65536": (frame(PONG, bytes(65_536)), 1002),
    # group 3
    **{f"rsv {rsv}": (frame(BINARY, SMALL, rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"rsv of {op}": (frame(op, rsv=2), 1002) for op in (CONTINUATION, TEXT, PING, PONG, CLOSE)},
    # group 4
    **{f"opcode {op}": (frame(op, SMALL), 1002) for op in NO_OPCODES},
    **{f"opcode {op}, empty": (frame(op), 1002) for op in NO_OPCODES},
    # group 5
    **{f"{op} in fragments": (fragments(op, b"", b""), 1002) for op in (PING, PONG, CLOSE)},
    "goes on with nothing": (frame(CONTINUATION, SMALL), 1002),
    "goes on with nothing, not final": (frame(CONTINUATION, SMALL, final=False), 1002),
    "another in the middle": (FIRST + frame(BINARY, SMALL), 1002),
    "text in the middle": (FIRST + frame(TEXT, b"a"), 1002),
    "an opcode in the middle": (FIRST + frame(5), 1002),
    "a long ping in the middle": (FIRST + frame(PING, bytes(126)), 1002),
    # group 6: text is for others
    "empty text": (frame(TEXT), 1003),
    "text": (frame(TEXT, b"Hello"), 1003),
    "empty text in fragments": (fragments(TEXT, b"", b"", b""), 1003),
    "text in fragments": (fragments(TEXT, b"He", b"", b"llo", between=frame(PONG)), 1003),
    # group 7
    "a close of one octet": (frame(CLOSE, b"\x03"), 1002),
    "a close of 126 octets": (close(1000, b"x" * 124), 1002),
    "a reason not in UTF-8": (close(1000, b"\xce\xba\xed\xa0\x80"), 1007),
    "a reason that ends within": (close(1000, b"\xce\xba\xe1"), 1007),
    **{f"close code {code}": (close(code), 1002) for code in NO_CODES},
}
"""What is sent, and the code that it is closed with."""


@pytest.mark.parametrize("step", [WHOLE, 1])
@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_is_refused(publisher: Publisher, data: bytes, code: int, step: int) -> None:
    step = step if len(data) < 1000 else WHOLE
    publisher.feed(frame(BINARY, SMALL) + frame(PING, b"?"))
    publisher.feed(data, step)
    assert publisher.said[:-1] == [(PONG, b"?")]
    publisher.assert_closed(code, Ending.VIOLATION, SMALL)


def test_is_refused_in_the_middle_of_what_came_at_once(publisher: Publisher) -> None:
    good = frame(BINARY, SMALL) + frame(PING, b"?")
    publisher.feed(good + frame(3) + good + close(1000))
    assert [opcode for opcode, _ in publisher.said] == [PONG, CLOSE]
    publisher.assert_closed(1002, Ending.VIOLATION, SMALL)


GREEK = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()
_TEXTS = """
00 7f c280 dfbf e0a080 efbfbf f0908080 f48fbfbf ed9fbf ee8080 efbfbd efbfbe f09fbfbe efbbbf
|c080 |c1bf e0|8080 e0|9fbf f0|808080 f0|8fbfbf |f8808080 |fc80808080 |fe |ff f4|908080 |f5808080
ed|a080 ed|afbf ed|b080 ed|bfbf ed|a080edb080 |80 |bf 41|bf c2|20 e0|20 e0a0|20 f0|20 f090|20
f09080|20 c2|c2 41c280|80 c2| df| e0| e0a0| ef| efbf| f0| f090| f09080| f48fbf| 41c2|
"""
"""Valid: the first and last of each length, around the surrogates, no characters. Then, with a bar
before the octet that is wrong: longer than need be, too large, surrogates, octets that cannot be
there. At last, what ends within."""


@pytest.mark.parametrize("text", _TEXTS.split())
@pytest.mark.parametrize("size", [WHOLE, 1], ids=["in a frame", "in fragments"])
def test_text_fails_fast(publisher: Publisher, text: str, size: int) -> None:
    """Group 6: closed at the first octet that is wrong, at the last one of a message if none is."""
    before, wrong, after = text.partition("|")
    pieces = cut(GREEK + bytes.fromhex(before + after), size)
    at = len(GREEK) + len(before) // 2
    wire = fragments(TEXT, *pieces)
    if after:
        wire = wire[: HEAD_SIZE * (at // size + 1) + at + 1]
    publisher.feed(wire[:-1], 1)
    assert publisher.closed_with is None
    publisher.feed(wire[-1:])
    publisher.assert_closed(1007 if wrong else 1003, Ending.VIOLATION)


CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
CLOSES = {
    "no code": frame(CLOSE),
    **{str(code): close(code) for code in CODES},
    "a long reason": close(1000, b"r" * 123),
    "a Greek reason": close(1000, GREEK),
    "in the middle of a message": FIRST + close(1000),
}


class TestClose:
    """Group 7."""

    @pytest.mark.parametrize("step", [WHOLE, 1])
    @pytest.mark.parametrize("data", CLOSES.values(), ids=CLOSES)
    def test_is_answered(self, publisher: Publisher, data: bytes, step: int) -> None:
        publisher.feed(data, step)
        assert publisher.said == [(CLOSE, struct.pack("!H", 1000))]
        publisher.assert_closed(1000, Ending.CLOSED)

    @pytest.mark.parametrize("data", [close(1000), close(999), frame(3) + close(1000)])
    def test_who_does_not_take_the_answer_is_cut(self, publisher: Publisher, data: bytes) -> None:
        publisher.feed(data)
        assert publisher.transport.disconnecting
        assert not publisher.transport.disconnected
        publisher.hub.clock.advance(CLOSE_SECONDS)
        assert publisher.transport.disconnected

    def test_of_the_relay_is_answered(self, publisher: Publisher) -> None:
        publisher.feed(frame(BINARY, BROKEN))
        assert publisher.said == [(CLOSE, struct.pack("!H", 1008) + b"magic")]
        publisher.assert_closed(1008, Ending.MAGIC)


def raw(data: bytes) -> bytes:
    """Compress a message by itself."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


DEFLATED = raw(SMALL)
BOMB = raw(bytes(LIMIT * 64))
REFUSED_DEFLATED: dict[str, tuple[bytes, int]] = {
    "rsv 2": (frame(BINARY, DEFLATED, rsv=2), 1002),
    "rsv 5": (frame(BINARY, DEFLATED, rsv=5), 1002),
    "a ping": (frame(PING, b"?", rsv=4), 1002),
    "a close": (frame(CLOSE, rsv=4), 1002),
    "goes on": (FIRST + frame(CONTINUATION, DEFLATED, rsv=4), 1002),
    "what is not compressed": (frame(BINARY, b"\7" + SMALL, rsv=4), 1007),
    "what is not, later": (fragments(BINARY, raw(b""), b"\7" * 9, b"x", rsv=4), 1007),
    "text": (frame(TEXT, raw(GREEK), rsv=4), 1003),
    "text not in UTF-8": (frame(TEXT, raw(b"\xed\xa0\x80"), rsv=4), 1007),
    "a bomb": (frame(BINARY, BOMB, rsv=4), 1009),
    "a bomb in fragments": (fragments(BINARY, *cut(BOMB, 99), rsv=4), 1009),
}


class Offer(ClientPerMessageDeflateFactory):
    """Offers just these parameters."""

    def __init__(self, *parameters: tuple[str, str | None]) -> None:
        super().__init__(client_max_window_bits=True)
        self._parameters = parameters

    def get_request_params(self) -> Any:
        return list(self._parameters)


PLAIN = ("client_max_window_bits", None)
SERVER_FORGETS, CLIENT_FORGETS = (f"{side}_no_context_takeover" for side in ("server", "client"))
OFFERS: dict[str, tuple[list[Offer], bool]] = {
    "nothing more": ([Offer()], True),
    "any window of the client": ([Offer(PLAIN)], True),
    "a smaller window of the client": ([Offer(("client_max_window_bits", "9"))], True),
    "no context of the server": ([Offer((SERVER_FORGETS, None))], True),
    "no context of the client": ([Offer((CLIENT_FORGETS, None))], True),
    "no contexts": ([Offer((SERVER_FORGETS, None), (CLIENT_FORGETS, None))], True),
    "a smaller window of the server": ([Offer(("server_max_window_bits", "9"))], False),
    "the smallest window": ([Offer(("server_max_window_bits", "8"))], False),
    "a window that cannot be": ([Offer(("server_max_window_bits", "16"))], False),
    "an unknown parameter": ([Offer(("window", None))], False),
    "a parameter twice": ([Offer(PLAIN, PLAIN)], False),
    "a value where none is": ([Offer((SERVER_FORGETS, "1"))], False),
    "at last one that can be": ([Offer(("server_max_window_bits", "9")), Offer()], True),
}


class TestDeflate:
    """Groups 12 and 13."""

    @pytest.mark.parametrize(("offers", "agreed"), OFFERS.values(), ids=OFFERS)
    def test_offers(self, offers: list[Offer], agreed: bool) -> None:
        publisher = Publisher(offers=offers)
        browser = publisher.browser
        assert browser.response is not None
        assert browser.response.status_code == 101
        assert ("Sec-WebSocket-Extensions" in browser.response.headers) is agreed
        sent = messages(5, 500)
        browser.send(*sent)
        assert publisher.published == b"".join(sent)
        publisher.consumer.send(*sent)
        publisher.browsers.serve()
        publisher.consumer.send(*sent)
        publisher.browsers.serve()
        assert browser.signals == sent * 2
        publisher.finish()

    @pytest.mark.parametrize("size", [64, 1024, 65_536, LIMIT])
    def test_contexts_are_kept(self, deflating: Publisher, size: int) -> None:
        sent = messages(3, size)
        deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
        for each in sent:
            data = deflate.compress(each) + deflate.flush(zlib.Z_SYNC_FLUSH)
            deflating.feed(frame(BINARY, data[:-4], rsv=4))
        assert deflating.published == b"".join(sent)

    def test_a_last_block_is_not_the_last_message(self, deflating: Publisher) -> None:
        sent = messages(3, 500)
        for each in sent:
            deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
            data = deflate.compress(each) + deflate.flush(zlib.Z_FINISH)
            deflating.feed(frame(BINARY, data + b"\0", rsv=4))
        assert deflating.published == b"".join(sent)

    @pytest.mark.parametrize("step", [WHOLE, 1])
    def test_is_taken(self, deflating: Publisher, step: int) -> None:
        ping = frame(PING, b"?")
        deflating.feed(frame(BINARY, raw(b""), rsv=4) + frame(BINARY), step)
        deflating.feed(fragments(BINARY, *cut(DEFLATED, 1), between=ping, rsv=4), step)
        deflating.feed(fragments(BINARY, b"", DEFLATED, b"", rsv=4), step)
        deflating.feed(frame(BINARY, SMALL) + frame(BINARY, DEFLATED, rsv=4), step)
        assert deflating.published == SMALL * 4
        assert deflating.said == [(PONG, b"?")] * (len(DEFLATED) - 1)

    @pytest.mark.parametrize("step", [WHOLE, 1])
    @pytest.mark.parametrize(("data", "code"), REFUSED_DEFLATED.values(), ids=REFUSED_DEFLATED)
    def test_is_refused(self, deflating: Publisher, data: bytes, code: int, step: int) -> None:
        deflating.feed(data, step)
        deflating.assert_closed(code, Ending.OVERSIZED if code == 1009 else Ending.VIOLATION)
