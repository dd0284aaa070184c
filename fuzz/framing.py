"""Framing: any bytes, however they are cut.

What must hold:

- The messages that are accepted come out byte for byte, in order; whatever is not has a named
  rejection, and the places in the stream add up. :func:`expected` says the same plainly.
- However the bytes are cut, and whoever receives them (by buffer or by data), the outcome is one.
- The compiled build and the pure one accept, consume, reject and break off alike.
- Nothing behind the end is read: it may be what completes a message, or no memory at all.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from alphapulse_relay.hub import receiver
from alphapulse_relay.hub.gathering import Room
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.receiver import MessageRunReceiver
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.protocol_v2 import framing, tlv
from alphapulse_relay.protocol_v2.compression import expand
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Level, Rules, Run, split
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, MAGIC_BYTES, Domain, Header, checksum
from fuzz import streams
from fuzz.choices import Choices
from fuzz.guarded import Guarded
from tests.support import SAMPLES

MODULES = (framing, tlv, receiver)
MAX_LEN = 400
COMPARISONS = False
WORDS: tuple[str, ...] = ()
STREAM_MAX = streams.PARTS_MAX * 1024
"""Bytes of a stream at most."""
RULES = [
    Rules(level, frozenset({1, 2}), frozenset(range(20, 40)), limit, aside, domains, sources)
    for domains, sources in ((None, None), (frozenset({2}), None), (None, frozenset({20, 21})))
    for aside in (True, False)
    for level in Level
    for limit in (700, 100)
]
RECEIVE_SIZE, GATHER_SIZE = 256, 96
"""Instead of the receiver's own, so that short streams come to them."""
_WINDOW = 8 * 2048

_scan: Any = framing._scan
SKIMS: list[Callable[..., tuple[int, int]]] = [framing._skim_nothing]
CHECKSUMS: list[bytes] = []
if _scan is not None:
    SKIMS.append(_scan.skim)
    CHECKSUMS += [method for method in (b"vpclmul", b"pclmul", b"table") if _scan.use(method)]
_guarded = Guarded(STREAM_MAX)


@dataclass
class Reading:
    """What is made of a stream: messages and control in order, what was rejected, how it ended.

    ``offset`` is up to where it was dealt with.
    """

    taken: list[tuple[str, bytes]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    broken: str | None = None
    offset: int = 0


def run(data: bytes) -> None:
    """Read a stream in all ways; see above."""
    choices = Choices(data)
    rules = RULES[choices.byte() % len(RULES)]
    if CHECKSUMS:
        _scan.use(CHECKSUMS[choices.byte() % len(CHECKSUMS)])
    how = choices.byte()
    cuts = choices.take(choices.byte() % 16)
    stream = streams.stream(choices)
    compare_builds(stream, rules)
    reading = expected(stream, rules)
    with small_measures():
        skim = SKIMS[how % len(SKIMS)]
        assert received(stream, rules, cuts, skim, by_buffer=how > 127) == reading


def seeds() -> Iterator[bytes]:
    """Yield what to begin with: streams of each kind of message, and the samples' first bytes."""
    signal = bytes([Domain.SIGNAL, 1, 20, 0])
    parts = [
        streams.part(0, signal, b"\x15ab", 20),
        streams.part(0, signal, b"\x15ab", 255),
        streams.part(streams.RAW, signal, b"\x15\x02abc"),
        streams.part(streams.NO_CHECKSUM, signal, b"\x15ab", 3),
        streams.part(streams.COMPRESSED, signal[:3] + b"\1", b"\x15ab", 100),
        streams.part(0, bytes([Domain.SYSTEM, 1, 20, 0]), b"\x64ab", 8),
        streams.part(0, bytes([Domain.MARKET_DATA, 20, 0, 0]), b"\x15ab", 8),
        streams.part(streams.DAMAGED, signal, b"\x15ab\x28\x01", 8),
        streams.part(streams.ANY_SIZE, signal, b"\x15ab\xff\xff\0\0", 8),
        streams.anything(MAGIC_BYTES[:3]),
    ]
    for rules in range(len(RULES)):
        for made in parts:
            yield bytes([rules, rules % 3, 127 + rules, 3, 10, 33, 1]) + made + parts[0] + made
        yield bytes([rules, rules % 3, 126 + rules, 2, 1, 200]) + b"".join(parts[:7])
    for sample in sorted(SAMPLES.glob("*.v2")):
        yield bytes(4) + streams.anything(sample.read_bytes()[:255])


def expected(stream: bytes, rules: Rules) -> Reading:
    """Return what is to be made of a stream, looking at one message after the other."""
    reading, at = Reading(), 0
    while True:
        magic = stream[at : at + len(MAGIC_BYTES)]
        if magic != MAGIC_BYTES[: len(magic)]:
            reading.broken = Rejection.MAGIC
            break
        if len(stream) - at < HEADER_SIZE:
            break
        size = Header.unpack(stream, at).message_size
        if size > rules.max_message:
            reading.broken = Rejection.SIZE
            break
        if at + size > len(stream):
            break
        _judge(stream[at : at + size], rules, reading)
        at += size
    reading.offset = at
    return reading


def _judge(message: bytes, rules: Rules, reading: Reading) -> None:
    header = Header.unpack(message)
    compressed = header.flags & 1 and not header.legacy
    if not rules.aside or not (compressed or header.domain == Domain.SYSTEM):
        reason = _fault(message, header, rules)
        if reason is None:
            reading.taken.append(("message", message))
        else:
            reading.rejected[reason] += 1
    else:
        _judge_aside(message, header, rules, reading)


def _judge_aside(message: bytes, header: Header, rules: Rules, reading: Reading) -> None:
    control = header.domain == Domain.SYSTEM
    forbidden = None if control or not rules.restricted else _permission_fault(header, rules)
    if forbidden is not None:
        reading.rejected[forbidden] += 1
    elif header.checksum not in {0, checksum(message)}:
        reading.rejected[Rejection.CHECKSUM] += 1
    elif control:
        reading.taken.append(("control", message))
    else:
        try:
            plain = expand(message, rules.max_message)
        except WireError as error:
            reading.rejected[error.reason] += 1
        else:
            _judge(plain, rules, reading)


def _permission_fault(header: Header, rules: Rules) -> Rejection | None:
    if rules.level is not Level.FRAMING and header.domain not in rules.domains:
        return Rejection.DOMAIN
    if rules.may_domains is not None and header.domain not in rules.may_domains:
        return Rejection.FORBIDDEN
    if rules.may_sources is not None and header.publisher not in rules.may_sources:
        return Rejection.FORBIDDEN
    return None


def _fault(message: bytes, header: Header, rules: Rules) -> Rejection | None:
    forbidden = _permission_fault(header, rules)
    if forbidden is not None or rules.level is Level.FRAMING:
        return forbidden
    if header.checksum not in {0, checksum(message)}:
        return Rejection.CHECKSUM
    if rules.level is Level.CHECKSUM:
        return None
    try:
        types = {span.type for span in tlv.spans(message, HEADER_SIZE, len(message))}
    except WireError:
        return Rejection.TLV
    if not types <= rules.tlv_types:
        return Rejection.TLV
    return None if header.checksum else Rejection.CHECKSUM


# One check of a chunk


def compare_builds(stream: bytes, rules: Rules) -> None:
    """Check a chunk on both builds, with nothing behind it, and with more of the stream behind."""
    end = len(stream)
    more = memoryview(bytearray(stream + stream))
    told = checked(more, end, rules, SKIMS[0])
    assert more[end:] == stream, "written behind the end"
    for skim in SKIMS[1:]:
        assert checked(_guarded.put(stream), end, rules, skim) == told


def checked(chunk: memoryview, end: int, rules: Rules, skim: Any) -> tuple[object, ...]:
    """Return what a check tells, and what it leaves."""
    with using(skim):
        run = framing.check(chunk, end, rules)
    assert 0 <= run.accepted <= run.consumed <= end
    assert run.consumed + run.aside <= end
    left = bytes(chunk[: run.accepted]), bytes(chunk[run.consumed : end])
    counts = run.accepted, run.consumed, run.messages, run.aside, run.rejected
    return counts, _told(run.first), _told(run.broken), left


def _told(error: WireError | None) -> str:
    return "" if error is None else str(error)


@contextmanager
def using(skim: Any) -> Iterator[None]:
    """Use one of the builds."""
    before, framing._skim = framing._skim, skim
    try:
        yield
    finally:
        framing._skim = before


# A receiver of pieces


@contextmanager
def small_measures() -> Iterator[None]:
    """Have the receiver's limits so small that a short stream comes to them."""
    before = receiver.RECEIVE_SIZE, receiver.GATHER_SIZE
    receiver.RECEIVE_SIZE, receiver.GATHER_SIZE = RECEIVE_SIZE, GATHER_SIZE
    try:
        yield
    finally:
        receiver.RECEIVE_SIZE, receiver.GATHER_SIZE = before


class Receiver(MessageRunReceiver):
    """Appends what it receives to a log, and tells it as a reading."""

    room = Room()
    log = Log(MemoryStorage(_WINDOW))
    log.open()

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules
        self.reading = Reading()

    def runReceived(self, run: memoryview, messages: int, received_at: float) -> None:  # noqa: ARG002
        """Take messages."""
        taken = [("message", message) for message in split(bytes(run))]
        assert len(taken) == messages
        self.reading.taken += taken
        self.log.append(len(run), 1, messages)

    def controlReceived(self, message: bytes) -> None:
        """Take a control message, whose place in the log's memory somebody else may take."""
        self.reading.taken.append(("control", message))
        self.log.space(200)[:] = bytes(200)

    def messagesRejected(self, run: Run, offset: int) -> None:
        """Take note of them."""
        assert run.first is not None
        assert offset <= self.stream_offset
        self.reading.rejected.update(run.rejected)

    def streamBroken(self, error: WireError) -> None:
        """Take note of the end."""
        assert self.reading.broken is None
        assert error.offset == self.stream_offset
        self.reading.broken = error.reason


def received(stream: bytes, rules: Rules, cuts: bytes, skim: Any, *, by_buffer: bool) -> Reading:
    """Return what a receiver makes of a stream in pieces of so many bytes, and then the rest."""
    one, at = Receiver(rules), 0
    take = _into_buffer if by_buffer else Receiver.dataReceived
    with using(skim):
        for size in [*cuts, len(stream)]:
            if at < len(stream) and not one.ended:
                take(one, stream[at : at + size])
                at += size
                assert one.ended or one.stream_offset + one.torn == min(at, len(stream))
    one.reading.offset = one.stream_offset
    return one.reading


def _into_buffer(one: Receiver, data: bytes) -> None:
    while data and not one.ended:
        space = one.getBuffer()
        piece, data = data[: len(space)], data[len(space) :]
        space[: len(piece)] = piece
        one.bufferUpdated(len(piece))
