"""``/signals`` by RFC 6455 and RFC 7692: what the Autobahn TestSuite asks of an endpoint.

Its groups are named at the classes. As this is no echo server, what is published is looked for at
another peer, and text is answered with 1003 where the TestSuite wants it back.
"""

import codecs
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
        self.hub = Hub(make_clock(), rules=Rules(LIMIT, aside=True))
        self.browsers = Browsers(self.hub)
        self.browser = self.browsers.open(publish=True, **how)
        self.transport = self.browser.transport
        self.consumer = self.hub.connect()
        self._start = len(self.transport.value())

    def feed(self, data: bytes, step: int = WHOLE) -> None:
        for piece in cut(data, step):
            self.browser.protocol.dataReceived(piece)

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
        self.hub.clock.advance(CLOSE_SECONDS + 1)
        assert self.transport.disconnected
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


SIZES = {
    "nothing": [0],
    "125": [125],
    "126": [126],
    "127, of two messages": [60, 67],
    "128": [128],
    "65535": [65_535],
    "65536": [65_536],
    "65536, of many messages": [64] * 1024,
    "as large as may be": [LIMIT],
    "as large as may be, of many messages": [4096] * (LIMIT // 4096),
}


class TestLengths:
    """Groups 1 and 9."""

    @pytest.mark.parametrize("step", [WHOLE, 8191, 997, 1])
    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
    def test_are_published_to_the_octet(
        self, publisher: Publisher, sizes: list[int], step: int
    ) -> None:
        if sum(sizes) / step > 1000:
            pytest.skip("takes long")
        payload = b"".join(message(size, 1) for size in sizes if size)
        publisher.feed(frame(BINARY, payload), step)
        assert publisher.published == payload
        publisher.feed(frame(BINARY, SMALL))
        assert publisher.published == payload + SMALL
        assert publisher.said == []

    @pytest.mark.parametrize("pieces", [2, 16, 256])
    def test_as_large_as_may_be_in_fragments(self, publisher: Publisher, pieces: int) -> None:
        payload = message(LIMIT)
        publisher.feed(fragments(BINARY, *cut(payload, LIMIT // pieces)))
        assert publisher.published == payload

    @pytest.mark.parametrize("pieces", [1, 2, 16])
    def test_a_byte_too_many(self, publisher: Publisher, pieces: int) -> None:
        parts = cut(bytes(LIMIT), LIMIT // pieces)
        publisher.feed(fragments(BINARY, *parts[:-1], parts[-1] + b"x"))
        publisher.assert_closed(1009, Ending.OVERSIZED)


HALVES = cut(SMALL, 45)
OCTETS = cut(SMALL, 1)
ANY = b"\x00\xff\xfe\xfd\x00\xff"
TEN = [b"%d" % number for number in range(10)]
TAKEN: dict[str, tuple[bytes, int, list[bytes]]] = {
    # group 2
    "an empty ping": (frame(PING), 0, [b""]),
    "a ping": (frame(PING, b"Hello"), 0, [b"Hello"]),
    "a ping of any octets": (frame(PING, ANY), 0, [ANY]),
    "a ping of 125": (frame(PING, b"\xfe" * 125), 0, [b"\xfe" * 125]),
    "ten pings": (b"".join(frame(PING, each) for each in TEN), 0, TEN),
    "pongs that nobody asked for": (frame(PONG) + frame(PONG, ANY), 0, []),
    "a pong, a ping, a pong": (frame(PONG, ANY) + frame(PING, b"?") + frame(PONG), 0, [b"?"]),
    # group 5
    "two fragments": (fragments(BINARY, *HALVES), 1, []),
    "fragments of an octet": (fragments(BINARY, *OCTETS), 1, []),
    "an empty first fragment": (fragments(BINARY, b"", SMALL), 1, []),
    "empty fragments between": (fragments(BINARY, HALVES[0], b"", b"", HALVES[1]), 1, []),
    "an empty last fragment": (fragments(BINARY, SMALL, b""), 1, []),
    "only empty fragments": (fragments(BINARY, b"", b"", b""), 0, []),
    "a ping between": (fragments(BINARY, *HALVES, between=frame(PING, b"now")), 1, [b"now"]),
    "pings and pongs between octets": (
        fragments(BINARY, *OCTETS, between=frame(PING, b"a") + frame(PONG) + frame(PING)),
        1,
        [b"a", b""] * (len(OCTETS) - 1),
    ),
    "a message in two": (frame(BINARY, HALVES[0]) + frame(BINARY, HALVES[1]), 1, []),
    "one and a half, half": (
        frame(BINARY, SMALL + HALVES[0]) + fragments(BINARY, *cut(HALVES[1], 9)),
        2,
        [],
    ),
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
    **{
        f"opcode {opcode}{' with payload' * bool(data)}": (frame(opcode, data), 1002)
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        for data in (b"", SMALL)
    },
    # group 5
    "a ping in fragments": (fragments(PING, b"a", b"b"), 1002),
    "a pong in fragments": (fragments(PONG, b"a", b"b"), 1002),
    "a close in fragments": (fragments(CLOSE, b"\x03\xe8", b"b"), 1002),
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
    **{
        f"close code {code}": (close(code), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
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
TEXTS = """
00 7f c280 dfbf e0a080 efbfbf f0908080 f48fbfbf ed9fbf ee8080 efbfbd efbfbe f09fbfbe efbbbf
c080 c1bf e08080 e09fbf f0808080 f08fbfbf f8808080 fc80808080 fe ff f4908080 f5808080 f7bfbfbf
eda080 edafbf edb080 edbfbf eda080edb080 80 bf 8080 c220 e020 e0a020 f020 f09020 f0908020
c2 df e0 e0a0 ef efbf f0 f090 f09080 f48fbf cec2
""".split()
"""Valid: the first and last of each length, around the surrogates, no characters. Not valid: longer
than need be, too large, surrogates, octets that cannot be there. At last, what ends within."""


def fault_of(text: bytes) -> int | None:
    """Return which octet is the first that cannot be, or their number; None if all is well."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for place in range(len(text) + 1):
        try:
            decoder.decode(text[place : place + 1], final=place == len(text))
        except UnicodeDecodeError:
            return place
    return None


class TestUtf8:
    """Group 6: what is wrong is told at once, by the octet."""

    @pytest.mark.parametrize("before", [b"", GREEK], ids=["", "Greek"])
    @pytest.mark.parametrize("text", TEXTS)
    def test_in_a_frame(self, publisher: Publisher, text: str, before: bytes) -> None:
        self.check(publisher, [before + bytes.fromhex(text)])

    @pytest.mark.parametrize("text", TEXTS)
    def test_in_fragments(self, publisher: Publisher, text: str) -> None:
        self.check(publisher, cut(GREEK + bytes.fromhex(text), 1))

    def check(self, publisher: Publisher, pieces: list[bytes]) -> None:
        """Send octet by octet until it is closed, which must be for the first that is wrong."""
        whole = b"".join(pieces)
        fault = fault_of(whole)
        code = 1003 if fault is None else 1007
        sent = len(fragments(TEXT, *pieces))
        for place, octet in enumerate(cut(fragments(TEXT, *pieces), 1)):
            assert publisher.closed_with is None
            publisher.feed(octet)
            if publisher.closed_with is not None:
                sent = place + 1
                break
        publisher.assert_closed(code, Ending.VIOLATION)


VALID = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]


class TestClose:
    """Group 7."""

    @pytest.mark.parametrize("step", [WHOLE, 1])
    @pytest.mark.parametrize(
        "data",
        [
            frame(CLOSE),
            *(close(code) for code in VALID),
            close(1000, b"r" * 123),
            close(1000, GREEK),
            FIRST + close(1000),
        ],
        ids=["no code", *map(str, VALID), "long reason", "Greek reason", "in the middle"],
    )
    def test_is_answered(self, publisher: Publisher, data: bytes, step: int) -> None:
        publisher.feed(data, step)
        assert publisher.said == [(CLOSE, struct.pack("!H", 1000))]
        publisher.assert_closed(1000, Ending.CLOSED)

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
